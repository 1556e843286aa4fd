//! Types of settings and their values, and the macros that declare them.

use std::net::SocketAddr;
use std::path::PathBuf;

use crate::node::NodeRole;

/// Replaces user and password of a URL, because errors are logged.
fn mask_password(value: &str) -> String {
    match (value.split_once("://"), value.rsplit_once('@')) {
        (Some((scheme, _)), Some((user, rest))) if user.len() > scheme.len() => {
            format!("{scheme}://***@{rest}")
        }
        _ => value.to_owned(),
    }
}

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
    #[error(
        "invalid value '{}' for the setting {name}: expected {accepted_values}",
        mask_password(value)
    )]
    InvalidValue {
        /// Name of the setting.
        name: &'static str,
        /// The value as given.
        value: String,
        /// The accepted values.
        accepted_values: String,
    },
    /// A setting of a language model provider is not valid.
    #[error("{entry}: {error}")]
    InvalidEntry {
        /// The provider, as "provider 'NAME'".
        entry: String,
        /// The error of the setting.
        error: Box<SettingError>,
    },
    /// The file is not valid TOML, or a value is neither a scalar nor an array of tables.
    #[error("cannot read the settings in {file}: {reason}")]
    InvalidFile {
        /// The file.
        file: String,
        /// Why it is not valid.
        reason: String,
    },
}

/// The declaration of a setting.
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
pub(super) trait SettingType: Sized {
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

impl SettingType for NodeRole {
    fn parse(text: &str) -> Option<Self> {
        text.parse().ok()
    }
    fn format_value(&self) -> String {
        self.name().to_owned()
    }
}

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
    /// The CUDA device with this number. If this device does not work, the host does not start.
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
                            name: $name, value: value.to_owned(), accepted_values: $range.to_owned(),
                        };
                        let $v = <$type as SettingType>::parse(value.trim()).ok_or_else(wrong)?;
                        if !$valid {
                            return Err(wrong());
                        }
                        self.$field = $v;
                        Ok(())
                    })*
                    _ => Err(unknown_setting_error($table, name)),
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

impl SettingDeclaration {
    /// Returns the environment variable that sets it.
    pub fn environment_variable(&self) -> String {
        environment_variable_of_setting(self.name)
    }
}

/// Returns a TOML value as text; `None` for a table, an array or a date.
pub(super) fn toml_scalar_as_text(value: &toml::Value) -> Option<String> {
    match value {
        toml::Value::String(s) => Some(s.clone()),
        toml::Value::Integer(_) | toml::Value::Float(_) | toml::Value::Boolean(_) => Some(value.to_string()),
        _ => None,
    }
}

/// Returns the environment variable of a setting.
pub(super) fn environment_variable_of_setting(setting: &str) -> String {
    format!("WEIR_{}", setting.replace('.', "_").to_ascii_uppercase())
}
