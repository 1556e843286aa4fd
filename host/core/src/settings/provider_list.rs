//! Sets the keys of language model providers, from files, variables and the command line.

use super::declarations::Settings;
use super::providers::{PROVIDER_DECLARATIONS, PROVIDER_PREFIX, ProviderSettings};
use super::renamed_settings::all_former_setting_names;
use super::setting_type::{SettingError, toml_scalar_as_text};

/// Prefix of the environment variables of providers.
const PROVIDER_VARIABLE_PREFIX: &str = "WEIR_LLM_PROVIDER_";

/// Returns whether a name in a file is that of the provider list.
pub(super) fn is_provider_list_name(name: &str) -> bool {
    PROVIDER_PREFIX.strip_suffix('.') == Some(name)
}

/// Returns the setting that an environment variable names, if it names a key of a provider.
pub(super) fn provider_setting_from_variable(variable: &str) -> Option<String> {
    let rest = variable.strip_prefix(PROVIDER_VARIABLE_PREFIX)?;
    // Use the longest matching key, because one key can end like another.
    let key = PROVIDER_DECLARATIONS
        .iter()
        .map(|declaration| declaration.name)
        .chain(all_former_setting_names())
        .filter_map(|name| name.strip_prefix(PROVIDER_PREFIX))
        .filter(|key| {
            rest.strip_suffix(&key.to_ascii_uppercase())
                .is_some_and(|entry| entry.len() > 1 && entry.ends_with('_'))
        })
        .max_by_key(|key| key.len())?;
    let entry = rest.get(..rest.len() - key.len() - 1)?;
    Some(format!(
        "{PROVIDER_PREFIX}{}.{key}",
        entry.to_ascii_lowercase().replace('_', "-")
    ))
}

impl Settings {
    /// Sets one key of one provider. `rest` is `NAME.KEY`. Adds the provider if it does not exist.
    pub(super) fn set_provider_value(&mut self, rest: &str, value: &str) -> Result<(), SettingError> {
        let unknown = || SettingError::UnknownSetting {
            name: format!("{PROVIDER_PREFIX}{rest}"),
            hint: None,
        };
        let (entry, key) = rest.split_once('.').ok_or_else(unknown)?;
        if key == "name" {
            return Err(unknown());
        }
        let index = self.llm_providers.iter().position(|p| p.name == entry);
        let mut provider = match index.and_then(|index| self.llm_providers.get(index)) {
            Some(known) => known.clone(),
            None => {
                let mut new = ProviderSettings::default();
                new.set_declared("llm.provider.name", entry)?;
                new
            }
        };
        provider
            .set_declared(&format!("{PROVIDER_PREFIX}{key}"), value)
            .map_err(|error| SettingError::InvalidEntry {
                entry: format!("provider '{entry}'"),
                error: Box::new(error),
            })?;
        match index.and_then(|index| self.llm_providers.get_mut(index)) {
            Some(known) => *known = provider,
            None => self.llm_providers.push(provider),
        }
        Ok(())
    }

    /// Returns the value of one key of one provider as text. `rest` is `NAME.KEY`.
    pub(super) fn get_provider_value(&self, rest: &str) -> Option<String> {
        let (entry, key) = rest.split_once('.')?;
        let provider = self.llm_providers.iter().find(|p| p.name == entry)?;
        provider.get_declared(&format!("{PROVIDER_PREFIX}{key}"))
    }

    /// Applies an entry `[[llm.provider]]`. The error concerns the file or one setting.
    pub(super) fn merge_provider_entry(&mut self, entry: &toml::Value) -> Result<(), ProviderEntryError> {
        let wrong =
            |reason: &str| ProviderEntryError::InvalidEntry(format!("an entry of llm.provider {reason}"));
        let toml::Value::Table(values) = entry else {
            return Err(wrong("is not a table: write [[llm.provider]]"));
        };
        let Some(toml::Value::String(name)) = values.get("name") else {
            return Err(wrong("has no name: give it one"));
        };
        for (key, value) in values.iter().filter(|(key, _)| *key != "name") {
            let value = toml_scalar_as_text(value)
                .ok_or_else(|| wrong(&format!("has a {key} that is not a scalar")))?;
            self.set_provider_value(&format!("{name}.{key}"), &value)
                .map_err(ProviderEntryError::InvalidSetting)?;
        }
        Ok(())
    }
}

/// Why an entry of a file is not valid.
pub(super) enum ProviderEntryError {
    InvalidEntry(String),
    InvalidSetting(SettingError),
}

impl ProviderEntryError {
    /// Converts to a settings error. `file` creates the error for the file.
    pub(super) fn into_setting_error(self, file: impl Fn(String) -> SettingError) -> SettingError {
        match self {
            Self::InvalidEntry(reason) => file(reason),
            Self::InvalidSetting(error) => error,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use super::*;
    use crate::settings::ProviderKind;

    #[test]
    fn file_environment_and_command_line_set_one_provider() {
        let mut settings = Settings::default();
        let file = "[llm]\nmax_attempts = 2\n\n[[llm.provider]]\nname = \"near-by\"\nurl = \"http://localhost:1/v1\"\n\
                    max_concurrent_requests = 3\n\n[[llm.provider]]\nname = \"far\"\nkind = \"extractive\"\n";
        settings.merge_toml("weir.toml", file).unwrap();
        let variables = [
            ("WEIR_LLM_PROVIDER_NEAR_BY_KEY_FILE", "/run/key"),
            ("WEIR_LLM_PROVIDER_NEAR_BY_MODEL", "m"),
            ("WEIR_LLM_PROVIDER_THIRD_SUPPORTS_IMAGES", "true"),
            ("WEIR_LLM_PROVIDER_", "x"),
            ("WEIR_LLM_PROVIDER_URL", "x"),
        ];
        let variables = variables.map(|(k, v)| (k.to_owned(), v.to_owned()));
        settings.merge_environment(variables).unwrap();
        settings
            .set("llm.provider.far.max_concurrent_requests", "7")
            .unwrap();

        let seen: Vec<_> = settings.llm_providers.iter().map(|p| p.name.as_str()).collect();
        assert_eq!(seen, ["near-by", "far", "third"]);
        let near = &settings.llm_providers[0];
        assert_eq!((near.max_concurrent_requests, near.model.as_str()), (3, "m"));
        assert_eq!(near.key_file, PathBuf::from("/run/key"));
        assert_eq!(settings.llm_providers[1].kind, ProviderKind::Extractive);
        assert_eq!(
            settings
                .get("llm.provider.far.max_concurrent_requests")
                .as_deref(),
            Some("7")
        );
        assert!(settings.llm_providers[2].supports_images);
        assert_eq!(settings.llm_max_attempts, 2);
    }

    #[test]
    fn invalid_provider_is_named_in_the_error_and_not_added() {
        let mut settings = Settings::default();
        let mut refused = |name: &str, value: &str| settings.set(name, value).unwrap_err().to_string();
        assert_eq!(
            refused("llm.provider.far.url", "ftp://x"),
            "provider 'far': invalid value 'ftp://x' for the setting llm.provider.url: expected \
             an http or https address without a password"
        );
        assert!(refused("llm.provider.far.url", "https://me:secret@host/v1").contains("without a password"));
        assert_eq!(
            refused("llm.provider.far.modle", "m"),
            "provider 'far': there is no setting 'llm.provider.modle': did you mean 'llm.provider.model'?"
        );
        assert!(refused("llm.provider.Far.model", "m").contains("invalid value 'Far'"));
        assert!(refused("llm.provider.far.name", "m").starts_with("there is no setting"));
        assert!(settings.llm_providers.is_empty());
        assert!(
            settings
                .merge_toml("x", "[[llm.provider]]\nmodel = \"m\"")
                .is_err()
        );
        assert!(settings.merge_toml("x", "[llm]\nprovider = [1]").is_err());
        assert!(settings.merge_toml("x", "[llm]\nmax_attempts = [1]").is_err());
    }
}
