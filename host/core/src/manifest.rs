//! A pipeline's manifest: which components decide, with which settings, rights and limits.
//!
//! ```toml
//! name = "reports"
//! on-trap = "default"            # or "fail"
//!
//! [components]                   # a role not named here is the default component's
//! routing = "our-routing.wasm"   # relative to the manifest; or oci://registry.example/team/router@sha256:…
//!
//! [settings]                     # read by components; see components/README.md for those the defaults know
//! dpi = 200
//!
//! [capabilities]
//! grant = ["state", "inference"]
//!
//! [limits]
//! call-millis = 20
//! memory-bytes = 8388608
//!
//! [judge]                        # when a canary of this revision is promoted or rolled back
//! jobs = 20
//! slower = 0.1
//! ```

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::id::{RevisionId, is_name};
use crate::judge::Judge;

/// What a component decides.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Role {
    /// How many pages at once.
    Batching,
    /// Where to, and what after a failure.
    Routing,
    /// Where text is cut.
    Chunking,
    /// What the user is told.
    Progress,
}

impl Role {
    /// Every role.
    pub const ALL: [Self; 4] = [Self::Batching, Self::Routing, Self::Chunking, Self::Progress];

    /// Its name in a manifest.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Batching => "batching",
            Self::Routing => "routing",
            Self::Chunking => "chunking",
            Self::Progress => "progress",
        }
    }
}

/// A right a manifest can grant to its components.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Capability {
    /// Key-value store.
    State,
    /// A closer look at pages.
    Rasterizer,
    /// Models.
    Inference,
}

impl Capability {
    /// Every right.
    pub const ALL: [Self; 3] = [Self::State, Self::Rasterizer, Self::Inference];

    /// Its name in a manifest, which is that of its interface.
    pub const fn name(self) -> &'static str {
        match self {
            Self::State => "state",
            Self::Rasterizer => "rasterizer",
            Self::Inference => "inference",
        }
    }

    /// The right of that name.
    pub fn named(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|capability| capability.name() == name)
    }
}

/// What happens after a component failed to decide.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum OnTrap {
    /// The default component answers this call.
    #[default]
    Default,
    /// The job fails.
    Fail,
}

/// Limits of a call, where they differ from the host's.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct Limits {
    /// Deadline in milliseconds; at most the host's `policy.call_millis` × 20.
    pub call_millis: Option<u32>,
    /// Memory of an instance in bytes; at most 64 MiB.
    pub memory_bytes: Option<u64>,
}

/// Rights, by name.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct Grants {
    /// The rights granted.
    #[serde(default)]
    pub grant: Vec<Capability>,
}

/// A setting's value: a text, a number, true or false, or a date.
pub type SettingValue = toml::Value;

/// `pipeline.toml`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct Manifest {
    /// The pipeline's name.
    pub name: String,
    /// After a component failed to decide.
    #[serde(default)]
    pub on_trap: OnTrap,
    /// Components by role: files, or references that [`in_registry`] tells from them.
    #[serde(default)]
    pub components: BTreeMap<Role, PathBuf>,
    /// Settings for components.
    #[serde(default)]
    pub settings: BTreeMap<String, SettingValue>,
    /// Rights.
    #[serde(default)]
    pub capabilities: Grants,
    /// Limits.
    #[serde(default)]
    pub limits: Limits,
    /// When a canary is promoted or rolled back. No part of what a job does, and so none of its revision.
    #[serde(default)]
    pub judge: Judge,
}

/// Whether a manifest names a component by its place in an OCI registry (`oci://…`), where it is to be pulled from when the manifest
/// is pushed. No job ever runs what is not a file with a digest.
pub fn in_registry(component: &Path) -> bool {
    component.to_str().is_some_and(|text| text.starts_with("oci://"))
}

/// A manifest that cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the manifest {place} cannot be used: {reason}")]
pub struct ManifestError {
    /// The file.
    pub place: String,
    /// What is wrong.
    pub reason: String,
}

impl Manifest {
    /// The manifest of a pipeline that leaves everything to the defaults.
    pub fn embedded() -> Self {
        Self {
            name: "default".into(),
            on_trap: OnTrap::Fail,
            components: BTreeMap::new(),
            settings: BTreeMap::new(),
            capabilities: Grants::default(),
            limits: Limits::default(),
            judge: Judge::default(),
        }
    }

    /// Reads a manifest. Component paths are taken relative to its folder.
    pub fn parse(place: &Path, text: &str) -> Result<Self, ManifestError> {
        let wrong = |reason: String| ManifestError {
            place: place.display().to_string(),
            reason,
        };
        let mut manifest: Self =
            toml::from_str(text).map_err(|e| wrong(e.to_string().trim().replace('\n', " ")))?;
        manifest.check().map_err(wrong)?;
        let folder = place.parent().unwrap_or(Path::new(""));
        for path in manifest.components.values_mut().filter(|path| !in_registry(path)) {
            *path = folder.join(&*path);
        }
        Ok(manifest)
    }

    /// Whether its values are within their ranges; the error says which is not.
    pub fn check(&self) -> Result<(), String> {
        if !is_name(&self.name) {
            return Err(format!(
                "name '{}' is not 1 to 64 characters of a-z, 0-9, '-' and '_'",
                self.name
            ));
        }
        if self.settings.values().any(|v| v.is_table() || v.is_array()) {
            return Err("[settings] takes plain values only".into());
        }
        let memory = self.limits.memory_bytes;
        if memory.is_some_and(|b| !((1 << 20)..=(64 << 20)).contains(&b)) {
            return Err("limits.memory-bytes is not within 1048576 to 67108864".into());
        }
        if self
            .limits
            .call_millis
            .is_some_and(|m| !(1..=60_000).contains(&m))
        {
            return Err("limits.call-millis is not within 1 to 60000".into());
        }
        self.judge.check()
    }

    /// Puts a job's options over the settings. They are part of the revision, so that a job that recognizes all text does pages
    /// again that were done without.
    pub fn with_options(&mut self, dpi: Option<u32>, ocr: Option<&str>, vision: Option<&str>) {
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

    /// A setting's value as text.
    pub fn setting(&self, name: &str) -> Option<String> {
        Some(match self.settings.get(name)? {
            toml::Value::String(s) => s.clone(),
            other => other.to_string(),
        })
    }
}

/// A component's bytes, ready to be compiled.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ComponentFile {
    /// Name in errors: the file's name without its ending.
    pub name: String,
    /// The file.
    pub path: PathBuf,
    /// SHA-256 of its bytes.
    pub digest: [u8; 32],
}

/// A pipeline at one revision: what a job runs, from its beginning to its end.
#[derive(Debug, Clone, PartialEq)]
pub struct Pipeline {
    /// The manifest.
    pub manifest: Manifest,
    /// The component of each role; the default's where the manifest names none.
    pub components: BTreeMap<Role, ComponentFile>,
    /// The default component of each role, which answers where another failed.
    pub defaults: BTreeMap<Role, ComponentFile>,
    /// Identity of all of it.
    pub revision: RevisionId,
}

impl Pipeline {
    /// Joins a manifest with its components; the revision follows from them.
    pub fn new(
        manifest: Manifest,
        components: BTreeMap<Role, ComponentFile>,
        defaults: BTreeMap<Role, ComponentFile>,
    ) -> Self {
        let mut hash = Sha256::new();
        hash.update(manifest.name.as_bytes());
        hash.update([0, u8::from(manifest.on_trap == OnTrap::Fail)]);
        for (name, value) in &manifest.settings {
            hash.update(name.as_bytes());
            hash.update([0]);
            hash.update(value.to_string().as_bytes());
            hash.update([0]);
        }
        for capability in &manifest.capabilities.grant {
            hash.update([*capability as u8 + 1]);
        }
        hash.update(manifest.limits.call_millis.unwrap_or(0).to_be_bytes());
        hash.update(manifest.limits.memory_bytes.unwrap_or(0).to_be_bytes());
        for (role, file) in &components {
            hash.update([*role as u8]);
            hash.update(file.digest);
        }
        Self {
            manifest,
            components,
            defaults,
            revision: RevisionId::from_digest(hash.finalize().into()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<Manifest, ManifestError> {
        Manifest::parse(Path::new("/p/pipeline.toml"), text)
    }

    #[test]
    fn component_paths_are_relative_to_the_manifest() {
        let reference = "oci://r.example/a/b:1";
        let m = parse(&format!("name = 'a'\n[components]\nchunking = '{reference}'")).unwrap();
        assert_eq!(m.components[&Role::Chunking].to_str(), Some(reference));
        let m = parse("name = 'a'\n[components]\nrouting = 'r.wasm'\n[settings]\ndpi = 200\nocr = 'auto'")
            .unwrap();
        assert_eq!(m.components[&Role::Routing], Path::new("/p/r.wasm"));
        assert_eq!(
            (m.setting("dpi").unwrap(), m.setting("ocr").unwrap()),
            ("200".into(), "auto".into())
        );
        assert_eq!(m.on_trap, OnTrap::Default);
    }

    #[test]
    fn what_is_wrong_is_named() {
        for (text, part) in [
            ("name = 'A B'", "name 'A B'"),
            ("name = 'a'\ncolour = 1", "colour"),
            ("name = 'a'\n[capabilities]\ngrant = ['network']", "network"),
            ("name = 'a'\n[limits]\nmemory-bytes = 5", "memory-bytes"),
            ("name = 'a'\n[settings]\nx = [1]", "plain values"),
            ("name = 'a'\n[judge]\njobs = 0", "judge.jobs"),
            ("name = 'a'\n[judge]\nslow = 0.1", "slow"),
        ] {
            let error = parse(text).unwrap_err().to_string();
            assert!(
                error.contains(part) && error.contains("/p/pipeline.toml"),
                "{error}"
            );
            assert!(!error.contains('\n'), "{error}");
        }
    }

    #[test]
    fn a_revision_changes_with_settings_and_components() {
        let file = |d: u8| ComponentFile {
            name: "c".into(),
            path: "c".into(),
            digest: [d; 32],
        };
        let make = |text: &str, d: u8| {
            Pipeline::new(parse(text).unwrap(), [(Role::Routing, file(d))].into(), [].into())
        };
        let a = make("name = 'a'", 1);
        assert_eq!(a.revision, make("name = 'a'", 1).revision);
        assert_ne!(a.revision, make("name = 'a'", 2).revision);
        assert_ne!(a.revision, make("name = 'a'\n[settings]\ndpi = 1", 1).revision);
        assert_eq!(a.revision, make("name = 'a'\n[judge]\njobs = 5", 1).revision);
    }
}
