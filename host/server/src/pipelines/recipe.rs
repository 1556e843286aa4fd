//! What a revision is made of, as it is pushed.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use weir_core::component::ComponentDigest;
use weir_core::judge::Judge;
use weir_core::manifest::{Capability, Grants, Limits, Manifest, OnTrap, SettingValue};
use weir_core::revision::Recipe;

use super::components::{CapabilityName, RoleName};
use crate::app::App;
use crate::auth::Caller;
use crate::problem::Problem;
use crate::wire::maybe_object;

/// Most settings of a pipeline, and bytes of a name and a value.
const SETTINGS: usize = 200;
const SETTING_BYTES: usize = 4096;
/// From here on not every whole number is one of its own.
const EXACT: f64 = 9_007_199_254_740_992.0;

/// What happens after a component failed to decide.
#[derive(Debug, Clone, Copy, Default, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum OnTrapName {
    /// The default component answers this call.
    #[default]
    Default,
    /// The job fails.
    Fail,
}

/// Limits of a call, where they differ from the host's.
#[derive(Debug, Clone, Copy, Default, Serialize, Deserialize, ToSchema)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct LimitsBody {
    /// Deadline in milliseconds.
    #[schema(minimum = 1, maximum = 60000)]
    call_millis: Option<u32>,
    /// Memory of an instance in bytes.
    #[schema(minimum = 1048576, maximum = 67108864)]
    memory_bytes: Option<u64>,
}

impl From<Limits> for LimitsBody {
    fn from(limits: Limits) -> Self {
        Self {
            call_millis: limits.call_millis,
            memory_bytes: limits.memory_bytes,
        }
    }
}

impl From<LimitsBody> for Limits {
    fn from(body: LimitsBody) -> Self {
        Self {
            call_millis: body.call_millis,
            memory_bytes: body.memory_bytes,
        }
    }
}

/// When a canary is promoted or rolled back. Shares are of 1: 0.1 is a tenth more than the stable revision has.
#[derive(Debug, Clone, Copy, Serialize, Deserialize, ToSchema)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct JudgeBody {
    /// Whether that happens by itself.
    automatic: bool,
    /// Jobs of the canary that must have ended before it can be promoted; up to sixteen times as many where they leave open whether
    /// it is worse.
    #[schema(minimum = 1, maximum = 1000)]
    jobs: u32,
    /// Milliseconds per page.
    #[schema(minimum = 0, maximum = 10)]
    slower: f64,
    /// Jobs that fail.
    #[schema(minimum = 0, maximum = 10)]
    failures: f64,
    /// Calls that pass their deadline.
    #[schema(minimum = 0, maximum = 10)]
    timeouts: f64,
    /// Traps for a page.
    #[schema(minimum = 0, maximum = 10)]
    traps: f64,
    /// Pages skipped or failed.
    #[schema(minimum = 0, maximum = 10)]
    skipped: f64,
}

impl Default for JudgeBody {
    fn default() -> Self {
        Judge::default().into()
    }
}

impl From<Judge> for JudgeBody {
    fn from(judge: Judge) -> Self {
        Self {
            automatic: judge.automatic,
            jobs: judge.jobs,
            slower: judge.slower,
            failures: judge.failures,
            timeouts: judge.timeouts,
            traps: judge.traps,
            skipped: judge.skipped,
        }
    }
}

impl From<JudgeBody> for Judge {
    fn from(body: JudgeBody) -> Self {
        Self {
            automatic: body.automatic,
            jobs: body.jobs,
            slower: body.slower,
            failures: body.failures,
            timeouts: body.timeouts,
            traps: body.traps,
            skipped: body.skipped,
        }
    }
}

/// The value of a setting.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
#[serde(untagged)]
pub(crate) enum SettingBody {
    /// True or false.
    Truth(bool),
    /// A number.
    Number(f64),
    /// A text.
    Text(String),
}

impl From<SettingValue> for SettingBody {
    fn from(value: SettingValue) -> Self {
        match value {
            SettingValue::Boolean(truth) => Self::Truth(truth),
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
            SettingBody::Truth(truth) => Self::Boolean(truth),
            // JSON has one kind of number; to a component 150 is not 150.0.
            SettingBody::Number(number) if number.fract() == 0.0 && number.abs() < EXACT => {
                Self::Integer(number as i64)
            }
            SettingBody::Number(number) => Self::Float(number),
            SettingBody::Text(text) => Self::String(text),
        }
    }
}

/// A revision to be pushed.
#[derive(Debug, Default, Deserialize, ToSchema)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct NewRevision {
    /// Components by role: a digest, or the name of a component that was pushed, which means the newest of that name. Roles
    /// that are left out are the host's own.
    #[schema(value_type = BTreeMap<String, String>)]
    components: BTreeMap<RoleName, String>,
    /// Settings that components read.
    settings: BTreeMap<String, SettingBody>,
    /// Rights.
    #[schema(max_items = 3)]
    capabilities: Vec<CapabilityName>,
    /// After a component failed to decide.
    on_trap: OnTrapName,
    /// Limits of calls.
    #[serde(deserialize_with = "maybe_object")]
    limits: Option<LimitsBody>,
    /// When a canary of this revision is promoted or rolled back.
    #[serde(deserialize_with = "maybe_object")]
    judge: Option<JudgeBody>,
}

/// What is to be kept; a problem if it is out of bounds or a component is not here.
pub(super) async fn recipe(
    app: &App,
    caller: &Caller,
    name: &str,
    new: NewRevision,
) -> Result<Recipe, Problem> {
    let long = |(name, value): (&String, &SettingBody)| {
        let text = matches!(value, SettingBody::Text(text) if text.len() > SETTING_BYTES);
        name.len() > SETTING_BYTES || text
    };
    if new.settings.len() > SETTINGS || new.settings.iter().any(long) {
        return Err(Problem::unprocessable(format!(
            "a pipeline has at most {SETTINGS} settings, with names and values of at most {SETTING_BYTES} bytes"
        )));
    }
    if new.capabilities.len() > Capability::ALL.len() {
        return Err(Problem::unprocessable("capabilities names each at most once"));
    }
    let mut grant: Vec<Capability> = new.capabilities.into_iter().map(Capability::from).collect();
    grant.sort_unstable();
    grant.dedup();
    let manifest = Manifest {
        name: name.to_owned(),
        on_trap: match new.on_trap {
            OnTrapName::Default => OnTrap::Default,
            OnTrapName::Fail => OnTrap::Fail,
        },
        components: BTreeMap::new(),
        settings: new.settings.into_iter().map(|(k, v)| (k, v.into())).collect(),
        capabilities: Grants { grant },
        limits: new.limits.unwrap_or_default().into(),
        judge: new.judge.unwrap_or_default().into(),
    };
    manifest.check().map_err(Problem::unprocessable)?;
    let mut components = BTreeMap::new();
    let mut all = None;
    for (role, named) in new.components {
        let digest = match named.parse::<ComponentDigest>() {
            Ok(digest) => app
                .shelf
                .book
                .component(caller.id(), &digest)
                .await?
                .map(|record| record.digest),
            Err(_) => {
                if all.is_none() {
                    all = Some(app.shelf.book.components(caller.id()).await?);
                }
                let newest = all.iter().flatten().find(|record| record.name == named);
                newest.map(|record| record.digest)
            }
        };
        let named: String = named.chars().take(80).collect();
        let missing = || Problem::not_found(format!("component '{named}' is not here: push it"));
        components.insert(role.into(), digest.ok_or_else(missing)?);
    }
    Ok(Recipe { manifest, components })
}
