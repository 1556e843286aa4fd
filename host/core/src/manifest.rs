//! The manifest of a pipeline: its components, settings, capabilities and limits.
//!
//! ```toml
//! name = "reports"
//! on-component-failure = "default"   # or "fail"
//!
//! [components]                   # a role without an entry uses the default component
//! routing = "our-routing.wasm"   # relative to the manifest; or oci://registry.example/team/router@sha256:…
//!
//! [settings]                     # for the components; components/README.md lists those of the defaults
//! dpi = 200
//!
//! [capabilities]
//! grant = ["state", "inference"]
//!
//! [limits]
//! call-timeout-millis = 20
//! max-memory-bytes = 8388608
//!
//! [canary-analysis]              # when a canary of this revision is promoted or rolled back
//! min-jobs = 20
//! max-slowdown = 0.1
//! ```

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::canary_analysis::CanaryAnalysisConfig;
use crate::id::{RevisionId, is_valid_name};
use crate::local_file::LocalFile;

/// The kind of decisions that a component makes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Role {
    /// How many pages a batch takes.
    Batching,
    /// Where a document goes, how a page is read, and what happens after a failure.
    Routing,
    /// How text is split into passages, and how sections are summarized.
    Chunking,
    /// Which progress the user sees.
    Progress,
}

impl Role {
    /// All roles.
    pub const ALL: [Self; 4] = [Self::Batching, Self::Routing, Self::Chunking, Self::Progress];

    /// Returns the name in a manifest.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Batching => "batching",
            Self::Routing => "routing",
            Self::Chunking => "chunking",
            Self::Progress => "progress",
        }
    }
}

/// A host interface that a manifest can grant to its components.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Capability {
    /// A key-value store.
    State,
    /// Previews and text of pages.
    Rasterizer,
    /// Embedding, OCR and language models.
    Inference,
}

impl Capability {
    /// All capabilities.
    pub const ALL: [Self; 3] = [Self::State, Self::Rasterizer, Self::Inference];

    /// Returns the name in a manifest, which is also the name of the interface.
    pub const fn name(self) -> &'static str {
        match self {
            Self::State => "state",
            Self::Rasterizer => "rasterizer",
            Self::Inference => "inference",
        }
    }

    /// Returns the capability with this name.
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|capability| capability.name() == name)
    }
}

/// What happens after a component call has failed.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ComponentFailurePolicy {
    /// The default component decides instead.
    #[default]
    Default,
    /// The job fails.
    Fail,
}

/// Limits of component calls. `None` keeps the host's limit.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct ComponentLimits {
    /// Maximum time of a call in milliseconds, at most 20 times the setting `policy.call_timeout_millis`.
    #[serde(alias = "call-millis")]
    pub call_timeout_millis: Option<u32>,
    /// Maximum memory of an instance in bytes, at most 64 MiB.
    #[serde(alias = "memory-bytes")]
    pub max_memory_bytes: Option<u64>,
}

/// The table `[capabilities]` of a manifest.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct GrantedCapabilities {
    /// Capabilities that the components of the pipeline can import.
    #[serde(default)]
    pub grant: Vec<Capability>,
}

/// Value of a component setting: a text, a number, a boolean or a date.
pub type SettingValue = toml::Value;

/// Former and present names of the keys of a manifest. [`Manifest::parse`] refuses the former names. Stored revisions of earlier
/// versions have them, so deserialization accepts them as aliases.
const RENAMED_KEYS: [(&str, &str); 10] = [
    ("on-trap", "on-component-failure"),
    ("limits.call-millis", "limits.call-timeout-millis"),
    ("limits.memory-bytes", "limits.max-memory-bytes"),
    ("judge", "canary-analysis"),
    ("canary-analysis.jobs", "canary-analysis.min-jobs"),
    ("canary-analysis.slower", "canary-analysis.max-slowdown"),
    ("canary-analysis.failures", "canary-analysis.max-failure-increase"),
    ("canary-analysis.timeouts", "canary-analysis.max-timeout-increase"),
    ("canary-analysis.traps", "canary-analysis.max-trap-increase"),
    ("canary-analysis.skipped", "canary-analysis.max-skipped-increase"),
];

/// Returns an error with the present name if a manifest has the former name of a key.
fn reject_renamed_keys(manifest: &toml::Table) -> Result<(), String> {
    for (former, present) in RENAMED_KEYS {
        let is_present = match former.split_once('.') {
            Some((section, key)) => manifest
                .get(section)
                .and_then(toml::Value::as_table)
                .is_some_and(|section| section.contains_key(key)),
            None => manifest.contains_key(former),
        };
        if is_present {
            return Err(format!("the key '{former}' was renamed to '{present}'"));
        }
    }
    Ok(())
}

/// Contents of `pipeline.toml`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct Manifest {
    /// The pipeline's name.
    pub name: String,
    /// What happens after a component call has failed.
    #[serde(default, alias = "on-trap")]
    pub on_component_failure: ComponentFailurePolicy,
    /// Component of each role: a file, or a reference that [`is_oci_reference`] recognizes.
    #[serde(default)]
    pub components: BTreeMap<Role, PathBuf>,
    /// Settings for the components.
    #[serde(default)]
    pub settings: BTreeMap<String, SettingValue>,
    /// Granted capabilities.
    #[serde(default)]
    pub capabilities: GrantedCapabilities,
    /// Limits of component calls.
    #[serde(default)]
    pub limits: ComponentLimits,
    /// When a canary is promoted or rolled back. It does not affect jobs, so it is not a part of the revision's id.
    #[serde(default, alias = "judge")]
    pub canary_analysis: CanaryAnalysisConfig,
}

/// Returns whether the path is a reference to an OCI registry (`oci://…`). Such a component is pulled when the
/// manifest is pushed. Jobs only run files with a known digest.
pub fn is_oci_reference(component: &Path) -> bool {
    component.to_str().is_some_and(|text| text.starts_with("oci://"))
}

/// The manifest is not valid.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the manifest {file} cannot be used: {reason}")]
pub struct ManifestError {
    /// The manifest file.
    pub file: String,
    /// Why it is not valid.
    pub reason: String,
}

impl Manifest {
    /// Returns the manifest of a pipeline with only default components.
    pub fn default_pipeline_manifest() -> Self {
        Self {
            name: "default".into(),
            on_component_failure: ComponentFailurePolicy::Fail,
            components: BTreeMap::new(),
            settings: BTreeMap::new(),
            capabilities: GrantedCapabilities::default(),
            limits: ComponentLimits::default(),
            canary_analysis: CanaryAnalysisConfig::default(),
        }
    }

    /// Parses a manifest. Component paths are relative to its folder.
    pub fn parse(manifest_path: &Path, text: &str) -> Result<Self, ManifestError> {
        let wrong = |reason: String| ManifestError {
            file: manifest_path.display().to_string(),
            reason,
        };
        // A syntax error is reported below, with its line.
        if let Ok(table) = toml::from_str::<toml::Table>(text) {
            reject_renamed_keys(&table).map_err(wrong)?;
        }
        let mut manifest: Self =
            toml::from_str(text).map_err(|e| wrong(e.to_string().trim().replace('\n', " ")))?;
        manifest.validate().map_err(wrong)?;
        let folder = manifest_path.parent().unwrap_or(Path::new(""));
        for path in manifest
            .components
            .values_mut()
            .filter(|path| !is_oci_reference(path))
        {
            *path = folder.join(&*path);
        }
        Ok(manifest)
    }

    /// Checks the ranges of the values. The error names the wrong value.
    pub fn validate(&self) -> Result<(), String> {
        if !is_valid_name(&self.name) {
            return Err(format!(
                "name '{}' is not 1 to 64 characters of a-z, 0-9, '-' and '_'",
                self.name
            ));
        }
        if self.settings.values().any(|v| v.is_table() || v.is_array()) {
            return Err("[settings] accepts only plain values".into());
        }
        let memory = self.limits.max_memory_bytes;
        if memory.is_some_and(|b| !((1 << 20)..=(64 << 20)).contains(&b)) {
            return Err("limits.max-memory-bytes is not within 1048576 to 67108864".into());
        }
        if self
            .limits
            .call_timeout_millis
            .is_some_and(|m| !(1..=60_000).contains(&m))
        {
            return Err("limits.call-timeout-millis is not within 1 to 60000".into());
        }
        self.canary_analysis.validate()
    }

    /// Overrides settings with the options of a job. They are a part of the revision's id. So a job that uses OCR for
    /// all pages processes pages again that were done without OCR.
    pub fn apply_job_options(&mut self, dpi: Option<u32>, ocr: Option<&str>, vision: Option<&str>) {
        if let Some(dpi) = dpi {
            self.settings.insert("dpi".into(), i64::from(dpi).into());
        }
        if let Some(ocr) = ocr {
            self.settings.insert("ocr".into(), ocr.into());
        }
        if let Some(vision) = vision {
            self.settings.insert("vision".into(), vision.into());
        }
    }

    /// Returns the value of a setting as text.
    pub fn setting_text(&self, name: &str) -> Option<String> {
        Some(match self.settings.get(name)? {
            toml::Value::String(s) => s.clone(),
            other => other.to_string(),
        })
    }
}

/// A component file that can be compiled.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ResolvedComponentFile {
    /// Name in errors: the file name without its extension.
    pub name: String,
    /// The file.
    pub file: LocalFile,
    /// SHA-256 of its bytes.
    pub digest: [u8; 32],
}

/// A pipeline at one revision: everything that a job runs from start to end.
#[derive(Debug, Clone, PartialEq)]
pub struct ResolvedPipeline {
    /// The manifest.
    pub manifest: Manifest,
    /// Component of each role; the default component if the manifest names none.
    pub components: BTreeMap<Role, ResolvedComponentFile>,
    /// Default component of each role. It decides if another component fails.
    pub default_components: BTreeMap<Role, ResolvedComponentFile>,
    /// The processing fingerprint: a hash of the manifest, with the options of the job, and of the components.
    pub revision: RevisionId,
}

impl ResolvedPipeline {
    /// Combines a manifest with its components and computes the processing fingerprint.
    pub fn new(
        manifest: Manifest,
        components: BTreeMap<Role, ResolvedComponentFile>,
        defaults: BTreeMap<Role, ResolvedComponentFile>,
    ) -> Self {
        let mut hash = Sha256::new();
        hash.update(manifest.name.as_bytes());
        hash.update([
            0,
            u8::from(manifest.on_component_failure == ComponentFailurePolicy::Fail),
        ]);
        for (name, value) in &manifest.settings {
            hash.update(name.as_bytes());
            hash.update([0]);
            hash.update(value.to_string().as_bytes());
            hash.update([0]);
        }
        for capability in &manifest.capabilities.grant {
            hash.update([*capability as u8 + 1]);
        }
        hash.update(manifest.limits.call_timeout_millis.unwrap_or(0).to_be_bytes());
        hash.update(manifest.limits.max_memory_bytes.unwrap_or(0).to_be_bytes());
        for (role, file) in &components {
            hash.update([*role as u8]);
            hash.update(file.digest);
        }
        Self {
            manifest,
            components,
            default_components: defaults,
            revision: RevisionId::from_digest(hash.finalize().into()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse_manifest(text: &str) -> Result<Manifest, ManifestError> {
        Manifest::parse(Path::new("/p/pipeline.toml"), text)
    }

    #[test]
    fn component_paths_are_relative_to_the_manifest() {
        let reference = "oci://r.example/a/b:1";
        let m = parse_manifest(&format!("name = 'a'\n[components]\nchunking = '{reference}'")).unwrap();
        assert_eq!(m.components[&Role::Chunking].to_str(), Some(reference));
        let m = parse_manifest(
            "name = 'a'\n[components]\nrouting = 'r.wasm'\n[settings]\ndpi = 200\nocr = 'auto'",
        )
        .unwrap();
        assert_eq!(m.components[&Role::Routing], Path::new("/p/r.wasm"));
        assert_eq!(
            (m.setting_text("dpi").unwrap(), m.setting_text("ocr").unwrap()),
            ("200".into(), "auto".into())
        );
        assert_eq!(m.on_component_failure, ComponentFailurePolicy::Default);
    }

    #[test]
    fn manifest_error_names_the_wrong_value() {
        for (text, part) in [
            ("name = 'A B'", "name 'A B'"),
            ("name = 'a'\ncolour = 1", "colour"),
            ("name = 'a'\n[capabilities]\ngrant = ['network']", "network"),
            (
                "name = 'a'\n[limits]\nmax-memory-bytes = 5",
                "limits.max-memory-bytes",
            ),
            ("name = 'a'\n[settings]\nx = [1]", "plain values"),
            (
                "name = 'a'\n[canary-analysis]\nmin-jobs = 0",
                "canary-analysis.min-jobs",
            ),
            ("name = 'a'\n[canary-analysis]\nslow = 0.1", "slow"),
        ] {
            let error = parse_manifest(text).unwrap_err().to_string();
            assert!(
                error.contains(part) && error.contains("/p/pipeline.toml"),
                "{error}"
            );
            assert!(!error.contains('\n'), "{error}");
        }
    }

    #[test]
    fn former_key_is_refused_with_its_new_name() {
        for (former, present) in RENAMED_KEYS {
            let (section, key) = former.rsplit_once('.').unwrap_or(("", former));
            let line = match (section, key) {
                ("", "judge") => "[judge]".to_owned(),
                ("", key) => format!("{key} = 'fail'"),
                (section, key) => format!("[{section}]\n{key} = 5"),
            };
            let error = parse_manifest(&format!("name = 'a'\n{line}")).unwrap_err();
            assert_eq!(
                error.reason,
                format!("the key '{former}' was renamed to '{present}'")
            );
        }
    }

    #[test]
    fn stored_manifest_with_former_keys_is_read() {
        let former = r#"{
            "name": "a", "on-trap": "fail",
            "limits": { "call-millis": 20, "memory-bytes": 8388608 },
            "judge": {
                "automatic": false, "jobs": 5, "slower": 0.2, "failures": 0.3, "timeouts": 0.4, "traps": 0.5, "skipped": 0.6
            }
        }"#;
        let present = "name = 'a'\non-component-failure = 'fail'
            [limits]\ncall-timeout-millis = 20\nmax-memory-bytes = 8388608
            [canary-analysis]\nautomatic = false\nmin-jobs = 5\nmax-slowdown = 0.2\nmax-failure-increase = 0.3
            max-timeout-increase = 0.4\nmax-trap-increase = 0.5\nmax-skipped-increase = 0.6";
        let manifest: Manifest = serde_json::from_str(former).unwrap();
        assert_eq!(manifest, parse_manifest(present).unwrap());
    }

    #[test]
    fn a_revision_changes_with_settings_and_components() {
        let file = |d: u8| ResolvedComponentFile {
            name: "c".into(),
            file: LocalFile::from(PathBuf::from("c")),
            digest: [d; 32],
        };
        let make = |text: &str, d: u8| {
            ResolvedPipeline::new(
                parse_manifest(text).unwrap(),
                [(Role::Routing, file(d))].into(),
                [].into(),
            )
        };
        let a = make("name = 'a'", 1);
        assert_eq!(a.revision, make("name = 'a'", 1).revision);
        assert_ne!(a.revision, make("name = 'a'", 2).revision);
        assert_ne!(a.revision, make("name = 'a'\n[settings]\ndpi = 1", 1).revision);
        assert_eq!(
            a.revision,
            make("name = 'a'\n[canary-analysis]\nmin-jobs = 5", 1).revision
        );
    }
}
