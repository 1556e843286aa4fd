//! Every setting of the host, declared once: name, default, range, unit and meaning.
//!
//! A setting is `section.name` in `weir.toml` (a table and a key), `WEIR_SECTION_NAME` in the environment, and
//! `--set section.name=value` on the command line; each stands over the one before. The declaration below is the only place
//! that knows them: help, validation and the table of `weir settings` come from it.

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

plain_value!(u32, u64, f32, bool, String);

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

macro_rules! settings {
    ($($(#[doc = $doc:literal])+ $name:literal => $field:ident: $type:ty = $default:literal,
        $range:literal if |$v:ident| $valid:expr;)*) => {
        /// The host's settings.
        #[derive(Debug, Clone, PartialEq)]
        pub struct Settings {
            $($(#[doc = $doc])+ pub $field: $type,)*
        }

        /// Every setting there is.
        pub const DECLARATIONS: &[Declaration] = &[
            $(Declaration { name: $name, default: $default, range: $range, doc: concat!($($doc),+) },)*
        ];

        impl Default for Settings {
            fn default() -> Self {
                // The test below parses every default, so none can be left out here.
                Self { $($field: <$type as Value>::parse($default).unwrap_or_else(|| unreachable!()),)* }
            }
        }

        impl Settings {
            /// Sets one by name.
            pub fn set(&mut self, name: &str, value: &str) -> Result<(), SettingError> {
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
                    _ => Err(SettingError::Unknown { name: name.to_owned(), hint: nearest(name) }),
                }
            }

            /// The value of one as text.
            pub fn get(&self, name: &str) -> Option<String> {
                match name {
                    $($name => Some(self.$field.show()),)*
                    _ => None,
                }
            }
        }
    };
}

settings! {
    /// Folder with the native libraries and models; empty: the folder that `make setup` fills.
    "paths.assets" => assets: PathBuf = "", "a path" if |_v| true;
    /// Folder with the default components; empty: `components` beside the weir binary.
    "paths.components" => components: PathBuf = "", "a path" if |_v| true;

    /// PDF worker processes; 0: one for each core.
    "raster.workers" => raster_workers: u32 = "0", "processes, 0 to 256" if |v| v <= 256;
    /// Bytes of page images that may exist at one time, on the whole host.
    "raster.image_bytes" => raster_image_bytes: u64 = "134217728", "bytes, 16777216 to 1099511627776"
        if |v| (16 << 20..=1 << 40).contains(&v);
    /// Bytes one page image may take; a larger page is drawn coarser.
    "raster.page_bytes" => raster_page_bytes: u64 = "67108864", "bytes, 1048576 to 1073741824"
        if |v| (1 << 20..=1 << 30).contains(&v);
    /// Deadline of a page, from its start in a worker.
    "raster.page_seconds" => raster_page_seconds: u32 = "120", "seconds, 1 to 3600" if |v| (1..=3600).contains(&v);
    /// Deadline without any sign of progress from a worker.
    "raster.stall_seconds" => raster_stall_seconds: u32 = "20", "seconds, 1 to 3600" if |v| (1..=3600).contains(&v);
    /// Pages after which a worker process is replaced by a fresh one.
    "raster.recycle_pages" => raster_recycle_pages: u32 = "2000", "pages, 1 to 1000000"
        if |v| (1..=1_000_000).contains(&v);
    /// Address space a worker process may use beyond the page images.
    "raster.worker_bytes" => raster_worker_bytes: u64 = "1073741824", "bytes, 268435456 to 68719476736"
        if |v| (256 << 20..=64 << 30).contains(&v);
    /// Pages a document may have.
    "raster.max_pages" => raster_max_pages: u32 = "20000", "pages, 1 to 1000000" if |v| (1..=1_000_000).contains(&v);
    /// Quality of the page images that are kept.
    "raster.jpeg_quality" => raster_jpeg_quality: u32 = "85", "1 to 100" if |v| (1..=100).contains(&v);

    /// Where models run.
    "inference.device" => inference_device: DeviceChoice = "auto", "auto, cpu or cuda:N" if |_v| true;
    /// Pages recognized at once; 0: one for each core (CPU) or 2 (GPU).
    "inference.ocr_workers" => inference_ocr_workers: u32 = "0", "workers, 0 to 256" if |v| v <= 256;
    /// Text embedding sessions; 0: one for each core (CPU) or 1 (GPU).
    "inference.embed_workers" => inference_embed_workers: u32 = "0", "workers, 0 to 256" if |v| v <= 256;
    /// Texts in an embedding batch.
    "inference.batch" => inference_batch: u32 = "8", "texts, 1 to 1024" if |v| (1..=1024).contains(&v);
    /// How long a partial embedding batch waits for more, where the batching component does not say.
    "inference.linger_millis" => inference_linger_millis: u32 = "500", "milliseconds, 0 to 10000" if |v| v <= 10_000;
    /// Requests that may wait for a model.
    "inference.queue" => inference_queue: u32 = "1024", "requests, 1 to 1000000" if |v| (1..=1_000_000).contains(&v);
    /// Whether the quantized text model is used on a CPU: about twice the speed, see the README for what it costs.
    "inference.quantized" => inference_quantized: bool = "true", "true or false" if |_v| true;

    /// Documents of one job in work at the same time.
    "engine.documents" => engine_documents: u32 = "2", "documents, 1 to 64" if |v| (1..=64).contains(&v);
    /// Page images written at once.
    "engine.store_workers" => engine_store_workers: u32 = "8", "workers, 1 to 256" if |v| (1..=256).contains(&v);
    /// Groups of pages written to the index at once; a document never has more than one under way.
    "engine.upsert_workers" => engine_upsert_workers: u32 = "2", "workers, 1 to 64" if |v| (1..=64).contains(&v);
    /// Milliseconds after which ledger entries are written as a group.
    "engine.commit_millis" => engine_commit_millis: u32 = "250", "milliseconds, 1 to 10000"
        if |v| (1..=10_000).contains(&v);
    /// Ledger entries that are written at once without waiting further.
    "engine.commit_entries" => engine_commit_entries: u32 = "100", "entries, 1 to 10000"
        if |v| (1..=10_000).contains(&v);
    /// How long pages in flight may take to end when a job is cancelled.
    "engine.cancel_millis" => engine_cancel_millis: u32 = "1000", "milliseconds, 0 to 60000" if |v| v <= 60_000;

    /// Component instances alive at once.
    "policy.instances" => policy_instances: u32 = "1000", "instances, 1 to 10000" if |v| (1..=10_000).contains(&v);
    /// Deadline of a component's call, where the manifest does not say.
    "policy.call_millis" => policy_call_millis: u32 = "50", "milliseconds, 1 to 60000" if |v| (1..=60_000).contains(&v);
    /// Memory of a component's instance, where the manifest does not say.
    "policy.memory_bytes" => policy_memory_bytes: u64 = "33554432", "bytes, 1048576 to 67108864"
        if |v| (1 << 20..=64 << 20).contains(&v);
    /// Bytes a component may answer in one call.
    "policy.output_bytes" => policy_output_bytes: u64 = "1048576", "bytes, 1024 to 67108864"
        if |v| (1 << 10..=64 << 20).contains(&v);
    /// Seconds of CPU that compiling a component may take.
    "policy.compile_seconds" => policy_compile_seconds: u32 = "60", "seconds, 1 to 3600"
        if |v| (1..=3600).contains(&v);
    /// Memory that compiling a component may take.
    "policy.compile_bytes" => policy_compile_bytes: u64 = "2147483648", "bytes, 268435456 to 68719476736"
        if |v| (256 << 20..=64 << 30).contains(&v);
    /// Whether the calls of a job are recorded, so that it can be replayed.
    "policy.record" => policy_record: bool = "true", "true or false" if |_v| true;
}

impl Settings {
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
                let text = match value {
                    toml::Value::String(s) => s.clone(),
                    toml::Value::Integer(_) | toml::Value::Float(_) | toml::Value::Boolean(_) => {
                        value.to_string()
                    }
                    _ => return Err(wrong(format!("{section}.{key} is not a plain value"))),
                };
                self.set(&format!("{section}.{key}"), &text)?;
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

/// The setting whose name is most like `name`, if one is near.
fn nearest(name: &str) -> Option<&'static str> {
    let last = name.rsplit('.').next().unwrap_or(name);
    DECLARATIONS.iter().map(|d| d.name).find(|d| {
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
    }
}
