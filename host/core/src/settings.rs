//! Every setting of the host, declared once: name, default, range, unit and meaning.
//!
//! A setting is `section.name` in `weir.toml` (a table and a key), `WEIR_SECTION_NAME` in the environment, and
//! `--set section.name=value` on the command line; each stands over the one before. The declaration below is the only place
//! that knows them: help, validation and the table of `weir settings` come from it.

use std::net::SocketAddr;
use std::path::PathBuf;

/// A setting that cannot be taken.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SettingError {
    /// No such setting.
    #[error("there is no setting '{name}'{}", hint.as_ref().map(|h| format!(": did you mean '{h}'?")).unwrap_or_default())]
    Unknown {
        /// As it was given.
        name: String,
        /// The nearest that exists.
        hint: Option<&'static str>,
    },
    /// Not of its kind, or outside its range.
    #[error("{name} = '{value}' cannot be taken: give {wanted}")]
    Value {
        /// The setting.
        name: &'static str,
        /// As it was given.
        value: String,
        /// What would be taken.
        wanted: String,
    },
    /// A value of one entry of a list.
    #[error("{entry}: {error}")]
    Entry {
        /// The entry.
        entry: String,
        /// What is wrong with it.
        error: Box<SettingError>,
    },
    /// A file that is not TOML, or not tables of plain values.
    #[error("cannot read the settings in {place}: {reason}")]
    File {
        /// The file.
        place: String,
        /// What is wrong.
        reason: String,
    },
}

/// A setting's declaration.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Declaration {
    /// `section.name`.
    pub name: &'static str,
    /// Default, as text.
    pub default: &'static str,
    /// Values taken, in words.
    pub range: &'static str,
    /// What it does.
    pub doc: &'static str,
}

/// A kind of value a setting can have.
trait Value: Sized {
    fn parse(text: &str) -> Option<Self>;
    fn show(&self) -> String;
}

macro_rules! plain_value {
    ($($t:ty),*) => { $(impl Value for $t {
        fn parse(text: &str) -> Option<Self> {
            text.parse().ok()
        }
        fn show(&self) -> String {
            self.to_string()
        }
    })* };
}

plain_value!(u32, u64, f32, bool, String, SocketAddr);

impl Value for PathBuf {
    fn parse(text: &str) -> Option<Self> {
        Some(Self::from(text))
    }
    fn show(&self) -> String {
        self.display().to_string()
    }
}

/// Where models run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DeviceChoice {
    /// A GPU if there is one that works, else the CPU.
    Auto,
    /// The CPU.
    Cpu,
    /// The CUDA device of this number; an error if it does not work.
    Cuda(u32),
}

impl Value for DeviceChoice {
    fn parse(text: &str) -> Option<Self> {
        match text {
            "auto" => Some(Self::Auto),
            "cpu" => Some(Self::Cpu),
            _ => text.strip_prefix("cuda:")?.parse().ok().map(Self::Cuda),
        }
    }
    fn show(&self) -> String {
        match self {
            Self::Auto => "auto".into(),
            Self::Cpu => "cpu".into(),
            Self::Cuda(n) => format!("cuda:{n}"),
        }
    }
}

macro_rules! choice {
    ($(#[doc = $doc:literal])+ $name:ident { $($(#[doc = $of:literal])+ $choice:ident = $text:literal,)+ }) => {
        $(#[doc = $doc])+
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        pub enum $name {
            $($(#[doc = $of])+ $choice,)+
        }

        impl Value for $name {
            fn parse(text: &str) -> Option<Self> {
                match text {
                    $($text => Some(Self::$choice),)+
                    _ => None,
                }
            }
            fn show(&self) -> String {
                match self { $(Self::$choice => $text.into(),)+ }
            }
        }
    };
}

choice! {
    /// Who may read the host's measurements.
    MetricsAccess {
        /// Anyone who can connect.
        Open = "open",
        /// Whoever has a key with the scope `admin`.
        Key = "key",
        /// Nobody.
        Off = "off",
    }
}

choice! {
    /// How the log is written.
    LogFormat {
        /// Lines for people.
        Text = "text",
        /// An object a line.
        Json = "json",
    }
}

choice! {
    /// Whether PDF workers may run without a part of their sandbox.
    SandboxMode {
        /// A worker that the kernel does not lock in is not given a PDF.
        Required = "required",
        /// It is, and the log says once what is missing.
        BestEffort = "best-effort",
    }
}

choice! {
    /// What becomes of a question when every language model has failed at it.
    WhenDown {
        /// It waits for one to recover, as long as it may take.
        Wait = "wait",
        /// It fails.
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
        pub const $table: &[Declaration] = &[
            $(Declaration { name: $name, default: $default, range: $range, doc: concat!($($doc),+) },)*
        ];

        impl Default for $settings {
            fn default() -> Self {
                Self {
                    // The test below parses every default, so none can be left out here.
                    $($field: <$type as Value>::parse($default).unwrap_or_else(|| unreachable!()),)*
                    $($list: Vec::new(),)*
                }
            }
        }

        impl $settings {
            /// Sets one of the plain ones by name.
            pub(super) fn set_plain(&mut self, name: &str, value: &str) -> Result<(), SettingError> {
                match name {
                    $($name => {
                        let wrong = || SettingError::Value {
                            name: $name, value: value.to_owned(), wanted: $range.to_owned(),
                        };
                        let $v = <$type as Value>::parse(value.trim()).ok_or_else(wrong)?;
                        if !$valid {
                            return Err(wrong());
                        }
                        self.$field = $v;
                        Ok(())
                    })*
                    _ => Err(SettingError::Unknown { name: name.to_owned(), hint: nearest($table, name) }),
                }
            }

            /// The value of one of the plain ones as text.
            pub(super) fn get_plain(&self, name: &str) -> Option<String> {
                match name {
                    $($name => Some(self.$field.show()),)*
                    _ => None,
                }
            }
        }
    };
}

mod declared;
mod providers;

pub use declared::{DECLARATIONS, Settings};
pub use providers::{PROVIDER_DECLARATIONS, ProviderKind, ProviderSettings, TokenLimit};

impl Settings {
    /// Sets one by name. `llm.provider.NAME.KEY` sets a key of the provider of that name, which is added if it is new.
    pub fn set(&mut self, name: &str, value: &str) -> Result<(), SettingError> {
        match name.strip_prefix(providers::LIST) {
            Some(rest) => self.set_provider(rest, value),
            None => self.set_plain(name, value),
        }
    }

    /// The value of one as text.
    pub fn get(&self, name: &str) -> Option<String> {
        match name.strip_prefix(providers::LIST) {
            Some(rest) => self.get_provider(rest),
            None => self.get_plain(name),
        }
    }

    /// Takes every value of a TOML text; `place` names it in errors.
    pub fn merge_toml(&mut self, place: &str, text: &str) -> Result<(), SettingError> {
        let wrong = |reason: String| SettingError::File {
            place: place.to_owned(),
            reason,
        };
        let table: toml::Table = text
            .parse()
            .map_err(|e: toml::de::Error| wrong(e.message().to_owned()))?;
        for (section, values) in &table {
            let toml::Value::Table(values) = values else {
                return Err(wrong(format!(
                    "'{section}' stands outside a table such as [raster]"
                )));
            };
            for (key, value) in values {
                let name = format!("{section}.{key}");
                match (plain(value), value) {
                    (Some(text), _) => self.set(&name, &text)?,
                    (None, toml::Value::Array(entries)) if providers::is_list(&name) => {
                        for entry in entries {
                            self.merge_provider(entry).map_err(|e| e.blame(wrong))?;
                        }
                    }
                    _ => return Err(wrong(format!("{name} is not a plain value"))),
                }
            }
        }
        Ok(())
    }

    /// Takes every `WEIR_…` variable that names a setting; others are left alone.
    pub fn merge_env(
        &mut self,
        variables: impl IntoIterator<Item = (String, String)>,
    ) -> Result<(), SettingError> {
        for (variable, value) in variables {
            if let Some(declaration) = DECLARATIONS.iter().find(|d| d.variable() == variable) {
                self.set(declaration.name, &value)?;
            } else if let Some(name) = providers::variable(&variable) {
                self.set(&name, &value)?;
            }
        }
        Ok(())
    }
}

impl Declaration {
    /// The environment variable that sets it.
    pub fn variable(&self) -> String {
        format!("WEIR_{}", self.name.replace('.', "_").to_ascii_uppercase())
    }
}

/// A TOML value that is none of several, as text.
fn plain(value: &toml::Value) -> Option<String> {
    match value {
        toml::Value::String(s) => Some(s.clone()),
        toml::Value::Integer(_) | toml::Value::Float(_) | toml::Value::Boolean(_) => Some(value.to_string()),
        _ => None,
    }
}

/// The setting whose name is most like `name`, if one is near.
fn nearest(declarations: &'static [Declaration], name: &str) -> Option<&'static str> {
    let last = name.rsplit('.').next().unwrap_or(name);
    declarations.iter().map(|d| d.name).find(|d| {
        let key = d.rsplit('.').next().unwrap_or(d);
        key == last || (last.len() >= 4 && (key.contains(last) || last.contains(key)))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_default_is_within_its_own_range() {
        let mut settings = Settings::default();
        for d in DECLARATIONS {
            settings.set(d.name, d.default).unwrap();
            assert!(!d.doc.trim().is_empty() && !d.range.is_empty(), "{}", d.name);
        }
        assert_eq!(settings, Settings::default());
    }

    #[test]
    fn the_environment_stands_over_the_file() {
        let mut settings = Settings::default();
        settings
            .merge_toml("weir.toml", "[raster]\nworkers = 3\njpeg_quality = 70\n")
            .unwrap();
        settings
            .merge_env([
                ("WEIR_RASTER_WORKERS".into(), "5".into()),
                ("WEIR_OTHER".into(), "x".into()),
            ])
            .unwrap();
        assert_eq!((settings.raster_workers, settings.raster_jpeg_quality), (5, 70));
    }

    #[test]
    fn a_wrong_value_says_what_would_be_taken() {
        let mut settings = Settings::default();
        let error = settings
            .set("raster.jpeg_quality", "101")
            .unwrap_err()
            .to_string();
        assert_eq!(
            error,
            "raster.jpeg_quality = '101' cannot be taken: give 1 to 100"
        );
        let error = settings.set("raster.worker", "1").unwrap_err().to_string();
        assert_eq!(
            error,
            "there is no setting 'raster.worker': did you mean 'raster.workers'?"
        );
        assert!(settings.merge_toml("x", "workers = 1").is_err());
        assert!(settings.merge_toml("x", "[raster]\nworkers = [1]").is_err());
        assert!(settings.set("inference.device", "cuda:1").is_ok());
        assert!(settings.set("inference.device", "cuda").is_err());
        assert!(settings.set("server.metrics", "everyone").is_err());
        settings.set("server.metrics", "open").unwrap();
        assert_eq!(settings.get("server.metrics").as_deref(), Some("open"));
    }
}
