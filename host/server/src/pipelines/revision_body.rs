//! The JSON body of a pushed revision, and its validation.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use weir_core::canary_analysis::CanaryAnalysisConfig;
use weir_core::manifest::{
    Capability, ComponentFailurePolicy, ComponentLimits, GrantedCapabilities, Manifest, Role, SettingValue,
};

use super::components::{CapabilityName, RoleName};
use crate::http_input::deserialize_optional_object;
use crate::problem::Problem;

/// The maximum number of settings of a pipeline, and the maximum number of bytes of a setting's name and of its value.
const MAX_SETTINGS: usize = 200;
const MAX_SETTING_BYTES: usize = 4096;
/// Below this number (2^53), every integer has an exact representation as `f64`.
const MAX_EXACT_INTEGER: f64 = 9_007_199_254_740_992.0;

/// What happens after a call of a component failed.
#[derive(Debug, Clone, Copy, Default, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum ComponentFailurePolicyName {
    /// The default component decides in its place.
    #[default]
    Default,
    /// The job fails.
    Fail,
}

/// The limits of component calls, where they differ from the host's limits.
#[derive(Debug, Clone, Copy, Default, Serialize, Deserialize, ToSchema)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct LimitsBody {
    /// The timeout of a call in milliseconds.
    #[schema(minimum = 1, maximum = 60000)]
    call_timeout_millis: Option<u32>,
    /// The maximum memory of an instance in bytes.
    #[schema(minimum = 1048576, maximum = 67108864)]
    max_memory_bytes: Option<u64>,
}

impl From<ComponentLimits> for LimitsBody {
    fn from(limits: ComponentLimits) -> Self {
        Self {
            call_timeout_millis: limits.call_timeout_millis,
            max_memory_bytes: limits.max_memory_bytes,
        }
    }
}

impl From<LimitsBody> for ComponentLimits {
    fn from(body: LimitsBody) -> Self {
        Self {
            call_timeout_millis: body.call_timeout_millis,
            max_memory_bytes: body.max_memory_bytes,
        }
    }
}

/// The rules by which the canary analysis promotes a canary or rolls it back. Each allowed increase is relative to the stable
/// revision: 0.1 means a tenth.
#[derive(Debug, Clone, Copy, Serialize, Deserialize, ToSchema)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct CanaryAnalysisBody {
    /// Whether the host promotes the canary or rolls it back automatically.
    automatic: bool,
    /// The number of the canary's jobs that must have ended before it can be promoted. While it is unclear whether the canary is
    /// worse, the analysis waits for up to sixteen times as many jobs.
    #[schema(minimum = 1, maximum = 1000)]
    min_jobs: u32,
    /// The allowed increase of the milliseconds per page.
    #[schema(minimum = 0, maximum = 10)]
    max_slowdown: f64,
    /// The allowed increase of the share of failed jobs.
    #[schema(minimum = 0, maximum = 10)]
    max_failure_increase: f64,
    /// The allowed increase of the share of component calls that time out.
    #[schema(minimum = 0, maximum = 10)]
    max_timeout_increase: f64,
    /// The allowed increase of traps per page.
    #[schema(minimum = 0, maximum = 10)]
    max_trap_increase: f64,
    /// The allowed increase of the share of skipped or failed pages.
    #[schema(minimum = 0, maximum = 10)]
    max_skipped_increase: f64,
}

impl Default for CanaryAnalysisBody {
    fn default() -> Self {
        CanaryAnalysisConfig::default().into()
    }
}

impl From<CanaryAnalysisConfig> for CanaryAnalysisBody {
    fn from(config: CanaryAnalysisConfig) -> Self {
        Self {
            automatic: config.automatic,
            min_jobs: config.min_jobs,
            max_slowdown: config.max_slowdown,
            max_failure_increase: config.max_failure_increase,
            max_timeout_increase: config.max_timeout_increase,
            max_trap_increase: config.max_trap_increase,
            max_skipped_increase: config.max_skipped_increase,
        }
    }
}

impl From<CanaryAnalysisBody> for CanaryAnalysisConfig {
    fn from(body: CanaryAnalysisBody) -> Self {
        Self {
            automatic: body.automatic,
            min_jobs: body.min_jobs,
            max_slowdown: body.max_slowdown,
            max_failure_increase: body.max_failure_increase,
            max_timeout_increase: body.max_timeout_increase,
            max_trap_increase: body.max_trap_increase,
            max_skipped_increase: body.max_skipped_increase,
        }
    }
}

/// The value of a setting.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
#[serde(untagged)]
pub(crate) enum SettingBody {
    /// A boolean.
    Boolean(bool),
    /// A number.
    Number(f64),
    /// A string.
    Text(String),
}

impl From<SettingValue> for SettingBody {
    fn from(value: SettingValue) -> Self {
        match value {
            SettingValue::Boolean(truth) => Self::Boolean(truth),
            SettingValue::Integer(whole) => Self::Number(whole as f64),
            SettingValue::Float(number) => Self::Number(number),
            SettingValue::String(text) => Self::Text(text),
            other => Self::Text(other.to_string()),
        }
    }
}

impl From<SettingBody> for SettingValue {
    fn from(body: SettingBody) -> Self {
        match body {
            SettingBody::Boolean(truth) => Self::Boolean(truth),
            // JSON has one kind of number, but a component distinguishes 150 from 150.0.
            SettingBody::Number(number) if number.fract() == 0.0 && number.abs() < MAX_EXACT_INTEGER => {
                Self::Integer(number as i64)
            }
            SettingBody::Number(number) => Self::Float(number),
            SettingBody::Text(text) => Self::String(text),
        }
    }
}

/// A new revision of a pipeline.
#[derive(Debug, Default, Deserialize, ToSchema)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct NewRevision {
    /// The components by role. Each is a digest or a name; a name means the newest pushed component of that name. The default
    /// components of the host take the remaining roles.
    #[schema(value_type = BTreeMap<String, String>)]
    components: BTreeMap<RoleName, String>,
    /// The settings that components can read.
    settings: BTreeMap<String, SettingBody>,
    /// The capabilities that the pipeline grants to its components.
    #[schema(max_items = 3)]
    capabilities: Vec<CapabilityName>,
    /// What happens after a call of a component failed.
    on_component_failure: ComponentFailurePolicyName,
    /// The limits of component calls.
    #[serde(deserialize_with = "deserialize_optional_object")]
    limits: Option<LimitsBody>,
    /// The rules of the canary analysis for this revision.
    #[serde(deserialize_with = "deserialize_optional_object")]
    canary_analysis: Option<CanaryAnalysisBody>,
}

impl NewRevision {
    /// Returns the manifest of the pipeline `name`, and the digest or name of the component of each role. Returns a problem if there are
    /// too many settings or capabilities.
    pub(super) fn into_manifest_and_component_refs(
        self,
        name: &str,
    ) -> Result<(Manifest, BTreeMap<Role, String>), Problem> {
        let long = |(name, value): (&String, &SettingBody)| {
            let text = matches!(value, SettingBody::Text(text) if text.len() > MAX_SETTING_BYTES);
            name.len() > MAX_SETTING_BYTES || text
        };
        if self.settings.len() > MAX_SETTINGS || self.settings.iter().any(long) {
            return Err(Problem::unprocessable(format!(
                "a pipeline may have at most {MAX_SETTINGS} settings, with names and values of at most {MAX_SETTING_BYTES} bytes"
            )));
        }
        if self.capabilities.len() > Capability::ALL.len() {
            return Err(Problem::unprocessable(
                "capabilities may contain each capability at most once",
            ));
        }
        let mut grant: Vec<Capability> = self.capabilities.into_iter().map(Capability::from).collect();
        grant.sort_unstable();
        grant.dedup();
        let manifest = Manifest {
            name: name.to_owned(),
            on_component_failure: match self.on_component_failure {
                ComponentFailurePolicyName::Default => ComponentFailurePolicy::Default,
                ComponentFailurePolicyName::Fail => ComponentFailurePolicy::Fail,
            },
            components: BTreeMap::new(),
            settings: self.settings.into_iter().map(|(k, v)| (k, v.into())).collect(),
            capabilities: GrantedCapabilities { grant },
            limits: self.limits.unwrap_or_default().into(),
            canary_analysis: self.canary_analysis.unwrap_or_default().into(),
        };
        let components = self
            .components
            .into_iter()
            .map(|(role, named)| (role.into(), named));
        Ok((manifest, components.collect()))
    }
}
