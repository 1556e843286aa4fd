//! Settings of the host. Each is declared once with its name, default, accepted values and description.
//!
//! A setting is `section.name` in `weir.toml` (a table and a key), `WEIR_SECTION_NAME` in the environment, and `--set
//! section.name=value` on the command line. The command line overrides the environment, and the environment overrides
//! the file. Help, validation and the table of `weir settings` are generated from the declarations.

#[macro_use]
mod setting_type;
mod declarations;
mod provider_list;
mod providers;
mod renamed_settings;

pub use declarations::{DECLARATIONS, Settings};
pub use providers::{PROVIDER_DECLARATIONS, ProviderKind, ProviderSettings, TokenLimitParameter};
pub use setting_type::{
    AllProvidersFailedAction, DeviceChoice, LogFormat, MetricsAccess, SandboxMode, SettingDeclaration,
    SettingError,
};

use setting_type::toml_scalar_as_text;

impl Settings {
    /// Sets a setting by name. `llm.provider.NAME.KEY` sets a key of the provider with this name, and adds the
    /// provider if it does not exist.
    pub fn set(&mut self, name: &str, value: &str) -> Result<(), SettingError> {
        match name.strip_prefix(providers::PROVIDER_PREFIX) {
            Some(rest) => self.set_provider_value(rest, value),
            None => self.set_declared(name, value),
        }
    }

    /// Whether other processes can have the same ledger: it is on a server.
    pub const fn shares_ledger(&self) -> bool {
        !self.storage_ledger.is_empty()
    }

    /// Returns the value of a setting as text.
    pub fn get(&self, name: &str) -> Option<String> {
        match name.strip_prefix(providers::PROVIDER_PREFIX) {
            Some(rest) => self.get_provider_value(rest),
            None => self.get_declared(name),
        }
    }

    /// Applies every value of a TOML text. `place` is the file name in errors.
    pub fn merge_toml(&mut self, file_name: &str, text: &str) -> Result<(), SettingError> {
        let wrong = |reason: String| SettingError::InvalidFile {
            file: file_name.to_owned(),
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
                match (toml_scalar_as_text(value), value) {
                    (Some(text), _) => self.set(&name, &text)?,
                    (None, toml::Value::Array(entries)) if provider_list::is_provider_list_name(&name) => {
                        for entry in entries {
                            self.merge_provider_entry(entry)
                                .map_err(|e| e.into_setting_error(wrong))?;
                        }
                    }
                    _ => return Err(wrong(format!("{name} is not a scalar"))),
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
            } else if let Some(name) = provider_list::provider_setting_from_variable(&variable) {
                self.set(&name, &value)?;
            } else if let Some((_, present)) = renamed_settings::renamed_setting_of_variable(&variable) {
                return Err(SettingError::Renamed {
                    name: variable,
                    present,
                });
            }
        }
        Ok(())
    }
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
    fn password_in_the_ledger_url_is_refused_and_not_shown() {
        let mut settings = Settings::default();
        for url in [
            "postgres://weir@db/weir",
            "postgresql://db:5432/weir?sslmode=require",
        ] {
            settings.set("storage.ledger", url).unwrap();
        }
        for url in [
            "postgres://weir:secret@db/weir",
            "postgres://weir:se/cret@db/weir",
            "postgres://weir:se@cret@db/weir",
            "postgres://weir@db/weir?password=secret",
            "mysql://db/weir",
        ] {
            let refused = settings.set("storage.ledger", url).unwrap_err().to_string();
            assert!(refused.contains("storage.ledger"), "{refused}");
            assert!(!refused.contains("cret@"), "{refused}");
        }
    }

    /// No other test reads the names of settings in the files for containers.
    #[test]
    fn deploy_files_set_only_settings_that_exist() {
        let deploy = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../../deploy");
        let read = |file: &str| std::fs::read_to_string(deploy.join(file)).unwrap();
        let mut settings = Settings::default();
        settings
            .merge_toml("weir.toml", &read("kubernetes/weir.toml"))
            .unwrap();
        assert!(settings.storage_ledger.starts_with("postgres://"));

        // WEIR_DATA is an option of the command line, and the others are variables of compose.yaml itself.
        let others = ["WEIR_DATA", "WEIR_IMAGE", "WEIR_PORT"];
        let mut found = 0;
        for file in [
            "Containerfile",
            "compose.yaml",
            "kubernetes/api.yaml",
            "kubernetes/worker.yaml",
        ] {
            let text = read(file);
            let words = text.split(|c: char| !c.is_ascii_alphanumeric() && c != '_');
            for word in words.filter(|word| word.starts_with("WEIR_") && !others.contains(word)) {
                let is_setting = DECLARATIONS.iter().any(|d| d.environment_variable() == word);
                assert!(is_setting, "{word} in {file} is no setting");
                found += 1;
            }
        }
        assert!(found > 10, "{found}");
    }

    #[test]
    fn invalid_value_error_states_accepted_values() {
        let mut settings = Settings::default();
        let error = settings
            .set("raster.jpeg_quality", "101")
            .unwrap_err()
            .to_string();
        assert_eq!(
            error,
            "invalid value '101' for the setting raster.jpeg_quality: expected 1 to 100"
        );
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
            let error = Settings::default().set(name, "1").unwrap_err();
            let expected = SettingError::UnknownSetting {
                name: name.to_owned(),
                hint,
            };
            assert_eq!(error, expected);
        }
    }
}
