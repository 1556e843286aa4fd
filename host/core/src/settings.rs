//! Settings of the host. Each is declared once with its name, default, accepted values and description.
//!
//! A setting is `section.name` in `weir.toml` (a table and a key), `WEIR_SECTION_NAME` in the environment, and `--set
//! section.name=value` on the command line. The command line overrides the environment, and the environment overrides
//! the file. Help, validation and the table of `weir settings` are generated from the declarations.

use std::net::SocketAddr;
use std::path::PathBuf;

/// A setting is not valid.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SettingError {
    /// No setting has this name.
    #[error("there is no setting '{name}'{}", hint.as_ref().map(|h| format!(": did you mean '{h}'?")).unwrap_or_default())]
    UnknownSetting {
        /// The name as given.
        name: String,
        /// The name of a similar setting, if there is one.
        hint: Option<&'static str>,
    },
    /// The setting has another name now.
    #[error("the setting '{name}' was renamed to '{present}'")]
    Renamed {
        /// The name as given.
        name: String,
        /// The present name.
        present: &'static str,
    },
    /// The value has the wrong type or is out of range.
    #[error("invalid value {name} = '{value}': give {wanted}")]
    InvalidValue {
        /// Name of the setting.
        name: &'static str,
        /// The value as given.
        value: String,
        /// The accepted values.
        wanted: String,
    },
    /// A setting of one entry of a list is not valid.
    #[error("{entry}: {error}")]
    InvalidEntry {
        /// The entry.
        entry: String,
        /// The error of the setting.
        error: Box<SettingError>,
    },
    /// The file is not valid TOML, or a value is neither a plain value nor a list of tables.
    #[error("cannot read the settings in {place}: {reason}")]
    InvalidFile {
        /// The file.
        place: String,
        /// Why it is not valid.
        reason: String,
    },
}

/// SettingDeclaration of a setting.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SettingDeclaration {
    /// Name, as `section.name`.
    pub name: &'static str,
    /// Default value as text.
    pub default: &'static str,
    /// Accepted values, in words.
    pub accepted_values: &'static str,
    /// What the setting does.
    pub description: &'static str,
}

/// A type that the value of a setting can have.
trait SettingType: Sized {
    fn parse(text: &str) -> Option<Self>;
    fn format_value(&self) -> String;
}

macro_rules! impl_setting_type {
    ($($t:ty),*) => { $(impl SettingType for $t {
        fn parse(text: &str) -> Option<Self> {
            text.parse().ok()
        }
        fn format_value(&self) -> String {
            self.to_string()
        }
    })* };
}

impl_setting_type!(u32, u64, f32, bool, String, SocketAddr);

impl SettingType for PathBuf {
    fn parse(text: &str) -> Option<Self> {
        Some(Self::from(text))
    }
    fn format_value(&self) -> String {
        self.display().to_string()
    }
}

/// The device that models run on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DeviceChoice {
    /// The GPU if one works, else the CPU.
    Auto,
    /// The CPU.
    Cpu,
    /// The CUDA device with this number. The host does not start if it does not work.
    Cuda(u32),
}

impl SettingType for DeviceChoice {
    fn parse(text: &str) -> Option<Self> {
        match text {
            "auto" => Some(Self::Auto),
            "cpu" => Some(Self::Cpu),
            _ => text.strip_prefix("cuda:")?.parse().ok().map(Self::Cuda),
        }
    }
    fn format_value(&self) -> String {
        match self {
            Self::Auto => "auto".into(),
            Self::Cpu => "cpu".into(),
            Self::Cuda(n) => format!("cuda:{n}"),
        }
    }
}

macro_rules! setting_choices {
    ($(#[doc = $doc:literal])+ $name:ident { $($(#[doc = $of:literal])+ $choice:ident = $text:literal,)+ }) => {
        $(#[doc = $doc])+
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        pub enum $name {
            $($(#[doc = $of])+ $choice,)+
        }

        impl SettingType for $name {
            fn parse(text: &str) -> Option<Self> {
                match text {
                    $($text => Some(Self::$choice),)+
                    _ => None,
                }
            }
            fn format_value(&self) -> String {
                match self { $(Self::$choice => $text.into(),)+ }
            }
        }
    };
}

setting_choices! {
    /// Access to the metrics endpoint.
    MetricsAccess {
        /// Every client can read the metrics.
        Open = "open",
        /// Only API keys with the scope `admin` can read the metrics.
        Key = "key",
        /// The endpoint is disabled.
        Off = "off",
    }
}

setting_choices! {
    /// Format of the log.
    LogFormat {
        /// Lines of text for people.
        Text = "text",
        /// One JSON object a line.
        Json = "json",
    }
}

setting_choices! {
    /// Whether PDF workers can run without a part of their sandbox.
    SandboxMode {
        /// A worker without the full sandbox gets no PDF.
        Required = "required",
        /// A worker without the full sandbox gets PDFs. The log reports the missing parts once.
        BestEffort = "best-effort",
    }
}

setting_choices! {
    /// What happens to a request when every language model has failed.
    AllProvidersFailedAction {
        /// The request waits until a provider recovers or its timeout ends.
        Wait = "wait",
        /// The request fails.
        Fail = "fail",
    }
}

macro_rules! settings {
    (
        $(#[doc = $of_struct:literal])+ struct $settings:ident;
        $(#[doc = $of_table:literal])+ const $table:ident;
        lists { $($(#[doc = $of_list:literal])+ $list:ident: $entry:ty,)* }
        $($(#[doc = $doc:literal])+ $name:literal => $field:ident: $type:ty = $default:literal,
            $range:literal if |$v:ident| $valid:expr;)*
    ) => {
        $(#[doc = $of_struct])+
        #[derive(Debug, Clone, PartialEq)]
        pub struct $settings {
            $($(#[doc = $doc])+ pub $field: $type,)*
            $($(#[doc = $of_list])+ pub $list: Vec<$entry>,)*
        }

        $(#[doc = $of_table])+
        pub const $table: &[SettingDeclaration] = &[
            $(SettingDeclaration { name: $name, default: $default, accepted_values: $range, description: concat!($($doc),+) },)*
        ];

        impl Default for $settings {
            fn default() -> Self {
                Self {
                    // A test parses every default, so this is not reached.
                    $($field: <$type as SettingType>::parse($default).unwrap_or_else(|| unreachable!()),)*
                    $($list: Vec::new(),)*
                }
            }
        }

        impl $settings {
            /// Sets one of the declared settings by name.
            pub(super) fn set_declared(&mut self, name: &str, value: &str) -> Result<(), SettingError> {
                match name {
                    $($name => {
                        let wrong = || SettingError::InvalidValue {
                            name: $name, value: value.to_owned(), wanted: $range.to_owned(),
                        };
                        let $v = <$type as SettingType>::parse(value.trim()).ok_or_else(wrong)?;
                        if !$valid {
                            return Err(wrong());
                        }
                        self.$field = $v;
                        Ok(())
                    })*
                    _ => Err(unknown_setting($table, name)),
                }
            }

            /// Returns the value of one of the declared settings as text.
            pub(super) fn get_declared(&self, name: &str) -> Option<String> {
                match name {
                    $($name => Some(self.$field.format_value()),)*
                    _ => None,
                }
            }
        }
    };
}

mod declarations;
mod providers;
mod renamed;

pub use declarations::{DECLARATIONS, Settings};
pub use providers::{PROVIDER_DECLARATIONS, ProviderKind, ProviderSettings, TokenLimitParameter};

impl Settings {
    /// Sets a setting by name. `llm.provider.NAME.KEY` sets a key of the provider with this name, and adds the
    /// provider if it does not exist.
    pub fn set(&mut self, name: &str, value: &str) -> Result<(), SettingError> {
        match name.strip_prefix(providers::PROVIDER_PREFIX) {
            Some(rest) => self.set_provider(rest, value),
            None => self.set_declared(name, value),
        }
    }

    /// Returns the value of a setting as text.
    pub fn get(&self, name: &str) -> Option<String> {
        match name.strip_prefix(providers::PROVIDER_PREFIX) {
            Some(rest) => self.get_provider(rest),
            None => self.get_declared(name),
        }
    }

    /// Applies every value of a TOML text. `place` is the file name in errors.
    pub fn merge_toml(&mut self, place: &str, text: &str) -> Result<(), SettingError> {
        let wrong = |reason: String| SettingError::InvalidFile {
            place: place.to_owned(),
            reason,
        };
        let table: toml::Table = text
            .parse()
            .map_err(|e: toml::de::Error| wrong(e.message().to_owned()))?;
        for (section, values) in &table {
            let toml::Value::Table(values) = values else {
                return Err(wrong(format!("'{section}' is outside a table such as [raster]")));
            };
            for (key, value) in values {
                let name = format!("{section}.{key}");
                match (plain_toml_text(value), value) {
                    (Some(text), _) => self.set(&name, &text)?,
                    (None, toml::Value::Array(entries)) if providers::is_provider_list(&name) => {
                        for entry in entries {
                            self.merge_provider(entry)
                                .map_err(|e| e.into_setting_error(wrong))?;
                        }
                    }
                    _ => return Err(wrong(format!("{name} is not a plain value"))),
                }
            }
        }
        Ok(())
    }

    /// Applies every `WEIR_…` variable that names a setting and ignores other variables.
    pub fn merge_environment(
        &mut self,
        variables: impl IntoIterator<Item = (String, String)>,
    ) -> Result<(), SettingError> {
        for (variable, value) in variables {
            if let Some(declaration) = DECLARATIONS.iter().find(|d| d.environment_variable() == variable) {
                self.set(declaration.name, &value)?;
            } else if let Some(name) = providers::setting_from_variable(&variable) {
                self.set(&name, &value)?;
            } else if let Some((_, present)) = renamed::renamed_from_variable(&variable) {
                return Err(SettingError::Renamed {
                    name: variable,
                    present,
                });
            }
        }
        Ok(())
    }
}

impl SettingDeclaration {
    /// Returns the environment variable that sets it.
    pub fn environment_variable(&self) -> String {
        variable_name(self.name)
    }
}

/// Returns a TOML value as text; `None` for a table, an array or a date.
fn plain_toml_text(value: &toml::Value) -> Option<String> {
    match value {
        toml::Value::String(s) => Some(s.clone()),
        toml::Value::Integer(_) | toml::Value::Float(_) | toml::Value::Boolean(_) => Some(value.to_string()),
        _ => None,
    }
}

/// Returns the error for a name that is not declared.
fn unknown_setting(declarations: &'static [SettingDeclaration], name: &str) -> SettingError {
    match renamed::present_name(name) {
        Some(present) => SettingError::Renamed {
            name: name.to_owned(),
            present,
        },
        None => SettingError::UnknownSetting {
            name: name.to_owned(),
            hint: suggest_setting(declarations, name),
        },
    }
}

/// Returns the environment variable of a setting.
fn variable_name(setting: &str) -> String {
    format!("WEIR_{}", setting.replace('.', "_").to_ascii_uppercase())
}

/// Returns the setting with the most similar name.
fn suggest_setting(declarations: &'static [SettingDeclaration], name: &str) -> Option<&'static str> {
    /// Names that differ in a few letters, and a part of a name, are more similar than this.
    const MIN_SIMILARITY: f64 = 0.85;
    let scored = declarations
        .iter()
        .map(|d| (strsim::jaro_winkler(d.name, name), d.name));
    let best = scored.max_by(|a, b| a.0.total_cmp(&b.0));
    best.filter(|(similarity, _)| *similarity > MIN_SIMILARITY)
        .map(|(_, name)| name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_default_is_within_its_own_range() {
        let mut settings = Settings::default();
        for d in DECLARATIONS {
            settings.set(d.name, d.default).unwrap();
            assert!(
                !d.description.trim().is_empty() && !d.accepted_values.is_empty(),
                "{}",
                d.name
            );
        }
        assert_eq!(settings, Settings::default());
    }

    #[test]
    fn environment_overrides_the_file() {
        let mut settings = Settings::default();
        settings
            .merge_toml("weir.toml", "[raster]\nworker_processes = 3\njpeg_quality = 70\n")
            .unwrap();
        settings
            .merge_environment([
                ("WEIR_RASTER_WORKER_PROCESSES".into(), "5".into()),
                ("WEIR_OTHER".into(), "x".into()),
            ])
            .unwrap();
        assert_eq!(
            (settings.raster_worker_processes, settings.raster_jpeg_quality),
            (5, 70)
        );
    }

    #[test]
    fn invalid_value_error_states_accepted_values() {
        let mut settings = Settings::default();
        let error = settings
            .set("raster.jpeg_quality", "101")
            .unwrap_err()
            .to_string();
        assert_eq!(error, "invalid value raster.jpeg_quality = '101': give 1 to 100");
        let error = settings.set("raster.worker", "1").unwrap_err().to_string();
        assert_eq!(
            error,
            "there is no setting 'raster.worker': did you mean 'raster.worker_processes'?"
        );
        assert!(settings.merge_toml("x", "workers = 1").is_err());
        assert!(
            settings
                .merge_toml("x", "[raster]\nworker_processes = [1]")
                .is_err()
        );
        assert!(settings.set("inference.device", "cuda:1").is_ok());
        assert!(settings.set("inference.device", "cuda").is_err());
        assert!(settings.set("server.metrics_access", "everyone").is_err());
        settings.set("server.metrics_access", "open").unwrap();
        assert_eq!(settings.get("server.metrics_access").as_deref(), Some("open"));
    }
    #[test]
    fn unknown_setting_error_suggests_a_similar_name() {
        for (name, hint) in [
            ("raster.worker_proceses", Some("raster.worker_processes")),
            ("worker_processes", Some("raster.worker_processes")),
            ("server.worker_processes", Some("raster.worker_processes")),
            ("raster.quality", Some("raster.jpeg_quality")),
            ("paint.color", None),
            ("", None),
        ] {
            assert_eq!(suggest_setting(DECLARATIONS, name), hint, "{name}");
        }
    }
}
