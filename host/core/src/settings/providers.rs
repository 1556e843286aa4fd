//! The providers of language models: a list, and so with a table of its own for the keys of an entry.
//!
//! An entry is a table `[[llm.provider]]` with a `name` in `weir.toml`; `--set llm.provider.NAME.KEY=value`; and
//! `WEIR_LLM_PROVIDER_NAME_KEY` in the environment, where a `-` of the name is written `_`. Each adds the provider if no other
//! has named it, behind those there are.
//!
//! Settings say where a key is, never the key: they are listed, logged and compared.

use std::path::PathBuf;

use super::{Declaration, SettingError, Settings, Value, nearest, plain};

/// What the names of a provider's keys begin with.
pub(super) const LIST: &str = "llm.provider.";
/// What the environment variables begin with.
const VARIABLE: &str = "WEIR_LLM_PROVIDER_";

choice! {
    /// How a provider answers.
    ProviderKind {
        /// An endpoint that speaks OpenAI's API.
        OpenAi = "openai",
        /// The sentences that say most, word for word; needs nothing but the embedding model.
        Extractive = "extractive",
        /// A GGUF model in this process, if weir was built with one.
        Local = "local",
    }
}

choice! {
    /// What an endpoint calls the limit of an answer.
    TokenLimit {
        /// As nearly all do.
        MaxTokens = "max_tokens",
        /// As OpenAI does for its newer models.
        MaxCompletionTokens = "max_completion_tokens",
    }
}

settings! {
    /// A provider of language models.
    struct ProviderSettings;
    /// Every key of a provider.
    const PROVIDER_DECLARATIONS;
    lists {}

    /// The provider's name, in errors and measurements.
    "llm.provider.name" => name: String = "provider", "1 to 32 of a-z, 0-9 and '-', beginning with a letter" if |v| is_name(&v);
    /// How it answers.
    "llm.provider.kind" => kind: ProviderKind = "openai", "openai, extractive or local" if |_v| true;
    /// Where the API is, up to and without `/chat/completions`, such as `http://127.0.0.1:8080/v1`.
    "llm.provider.url" => url: String = "", "an http or https address without a password"
        if |v| v.is_empty() || is_address(&v);
    /// The model's name there.
    "llm.provider.model" => model: String = "", "a name" if |_v| true;
    /// Environment variable that holds the key; empty: none is sent, or `key_file` has it.
    "llm.provider.key_env" => key_env: String = "", "a name" if |_v| true;
    /// File that holds the key; it is read again for each call, so that the key can be changed while weir runs.
    "llm.provider.key_file" => key_file: PathBuf = "", "a path" if |_v| true;
    /// The GGUF file of a local model.
    "llm.provider.file" => file: PathBuf = "", "a path" if |_v| true;
    /// Tokens a local model holds for one call, question and answer together; never more than it was trained for.
    "llm.provider.context" => context: u32 = "4096", "tokens, 512 to 1048576" if |v| (512..=1_048_576).contains(&v);
    /// Threads a local model computes with; 0: one for each core.
    "llm.provider.threads" => threads: u32 = "0", "threads, 0 to 512" if |v| v <= 512;
    /// Whether it takes images.
    "llm.provider.vision" => vision: bool = "false", "true or false" if |_v| true;
    /// Whether it is asked only while those that are not spare are left alone, and what none of them can answer.
    "llm.provider.spare" => spare: bool = "false", "true or false" if |_v| true;
    /// Calls that may be under way at once.
    "llm.provider.concurrency" => concurrency: u32 = "4", "calls, 1 to 1024" if |v| (1..=1024).contains(&v);
    /// Calls in any minute; 0: no limit.
    "llm.provider.requests_per_minute" => requests_per_minute: u32 = "0", "calls, 0 to 100000" if |v| v <= 100_000;
    /// Tokens in any minute, of questions and answers; 0: no limit.
    "llm.provider.tokens_per_minute" => tokens_per_minute: u64 = "0", "tokens" if |_v| true;
    /// How long one call may take.
    "llm.provider.timeout_seconds" => timeout_seconds: u32 = "120", "seconds, 1 to 3600"
        if |v| (1..=3600).contains(&v);
    /// How long it may write nothing in the middle of an answer.
    "llm.provider.stall_seconds" => stall_seconds: u32 = "30", "seconds, 1 to 3600"
        if |v| (1..=3600).contains(&v);
    /// Whether it is listened to as it writes; without, it can only be late, not silent.
    "llm.provider.stream" => stream: bool = "true", "true or false" if |_v| true;
    /// How freely it chooses its words; below 0: it is not told.
    "llm.provider.temperature" => temperature: f32 = "0", "-1 to 2" if |v| (-1.0..=2.0).contains(&v);
    /// What it calls the limit of an answer.
    "llm.provider.token_limit" => token_limit: TokenLimit = "max_tokens", "max_tokens or max_completion_tokens"
        if |_v| true;
    /// Price of a million tokens of questions, in any currency.
    "llm.provider.prompt_price" => prompt_price: f32 = "0", "0 or more" if |v| v.is_finite() && v >= 0.0;
    /// Price of a million tokens of answers.
    "llm.provider.answer_price" => answer_price: f32 = "0", "0 or more" if |v| v.is_finite() && v >= 0.0;
}

fn is_name(name: &str) -> bool {
    name.len() <= 32
        && name.starts_with(|c: char| c.is_ascii_lowercase())
        && name
            .bytes()
            .all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-')
}

/// A password in an address would be shown wherever the address is.
fn is_address(address: &str) -> bool {
    let rest = address
        .strip_prefix("http://")
        .or_else(|| address.strip_prefix("https://"));
    rest.is_some_and(|rest| {
        let host = rest.split(['/', '?', '#']).next().unwrap_or_default();
        !host.is_empty() && !host.contains('@')
    })
}

/// Whether a name in a file is that of the list.
pub(super) fn is_list(name: &str) -> bool {
    LIST.strip_suffix('.') == Some(name)
}

/// The setting that an environment variable names, if it names a provider's key.
pub(super) fn variable(variable: &str) -> Option<String> {
    let rest = variable.strip_prefix(VARIABLE)?;
    // The longest key that fits, for some end like others: `KEY_FILE` is no `FILE` of a provider `…_KEY`.
    let key = PROVIDER_DECLARATIONS
        .iter()
        .filter_map(|d| d.name.strip_prefix(LIST))
        .filter(|key| {
            rest.strip_suffix(&key.to_ascii_uppercase())
                .is_some_and(|entry| entry.len() > 1 && entry.ends_with('_'))
        })
        .max_by_key(|key| key.len())?;
    let entry = rest.get(..rest.len() - key.len() - 1)?;
    Some(format!(
        "{LIST}{}.{key}",
        entry.to_ascii_lowercase().replace('_', "-")
    ))
}

impl ProviderSettings {
    /// The value of a key as text, by its declared name, such as `llm.provider.url`.
    pub fn get(&self, name: &str) -> Option<String> {
        self.get_plain(name)
    }
}

impl Settings {
    /// Sets `NAME.KEY`.
    pub(super) fn set_provider(&mut self, rest: &str, value: &str) -> Result<(), SettingError> {
        let unknown = || SettingError::Unknown {
            name: format!("{LIST}{rest}"),
            hint: None,
        };
        let (entry, key) = rest.split_once('.').ok_or_else(unknown)?;
        if key == "name" {
            return Err(unknown());
        }
        let place = self.llm_providers.iter().position(|p| p.name == entry);
        let mut provider = match place.and_then(|place| self.llm_providers.get(place)) {
            Some(known) => known.clone(),
            None => {
                let mut new = ProviderSettings::default();
                new.set_plain("llm.provider.name", entry)?;
                new
            }
        };
        provider
            .set_plain(&format!("{LIST}{key}"), value)
            .map_err(|error| SettingError::Entry {
                entry: format!("provider '{entry}'"),
                error: Box::new(error),
            })?;
        match place.and_then(|place| self.llm_providers.get_mut(place)) {
            Some(known) => *known = provider,
            None => self.llm_providers.push(provider),
        }
        Ok(())
    }

    /// The value of `NAME.KEY` as text.
    pub(super) fn get_provider(&self, rest: &str) -> Option<String> {
        let (entry, key) = rest.split_once('.')?;
        let provider = self.llm_providers.iter().find(|p| p.name == entry)?;
        provider.get_plain(&format!("{LIST}{key}"))
    }

    /// Takes a `[[llm.provider]]`. The error is a word on the file where it is not one on a setting.
    pub(super) fn merge_provider(&mut self, entry: &toml::Value) -> Result<(), ProviderError> {
        let wrong = |reason: &str| ProviderError::File(format!("an entry of llm.provider {reason}"));
        let toml::Value::Table(values) = entry else {
            return Err(wrong("is no table: write [[llm.provider]]"));
        };
        let Some(toml::Value::String(name)) = values.get("name") else {
            return Err(wrong("has no name: give it one"));
        };
        for (key, value) in values.iter().filter(|(key, _)| *key != "name") {
            let value = plain(value).ok_or_else(|| wrong(&format!("has a {key} that is no plain value")))?;
            self.set_provider(&format!("{name}.{key}"), &value)
                .map_err(ProviderError::Setting)?;
        }
        Ok(())
    }
}

/// Why an entry of a file was not taken.
pub(super) enum ProviderError {
    File(String),
    Setting(SettingError),
}

impl ProviderError {
    /// As an error of the settings, given how to blame the file.
    pub(super) fn blame(self, file: impl Fn(String) -> SettingError) -> SettingError {
        match self {
            Self::File(reason) => file(reason),
            Self::Setting(error) => error,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_default_is_within_its_own_range() {
        let mut provider = ProviderSettings::default();
        for d in PROVIDER_DECLARATIONS {
            provider.set_plain(d.name, d.default).unwrap();
            assert!(!d.doc.trim().is_empty() && !d.range.is_empty(), "{}", d.name);
        }
        assert_eq!(provider, ProviderSettings::default());
    }

    #[test]
    fn file_environment_and_command_line_speak_of_the_same_provider() {
        let mut settings = Settings::default();
        let file = "[llm]\ntries = 2\n\n[[llm.provider]]\nname = \"near-by\"\nurl = \"http://localhost:1/v1\"\n\
                    concurrency = 3\n\n[[llm.provider]]\nname = \"far\"\nkind = \"extractive\"\n";
        settings.merge_toml("weir.toml", file).unwrap();
        let variables = [
            ("WEIR_LLM_PROVIDER_NEAR_BY_KEY_FILE", "/run/key"),
            ("WEIR_LLM_PROVIDER_NEAR_BY_MODEL", "m"),
            ("WEIR_LLM_PROVIDER_THIRD_VISION", "true"),
            ("WEIR_LLM_PROVIDER_", "x"),
            ("WEIR_LLM_PROVIDER_URL", "x"),
        ];
        let variables = variables.map(|(k, v)| (k.to_owned(), v.to_owned()));
        settings.merge_env(variables).unwrap();
        settings.set("llm.provider.far.concurrency", "7").unwrap();

        let seen: Vec<_> = settings.llm_providers.iter().map(|p| p.name.as_str()).collect();
        assert_eq!(seen, ["near-by", "far", "third"]);
        let near = &settings.llm_providers[0];
        assert_eq!((near.concurrency, near.model.as_str()), (3, "m"));
        assert_eq!(near.key_file, PathBuf::from("/run/key"));
        assert_eq!(settings.llm_providers[1].kind, ProviderKind::Extractive);
        assert_eq!(settings.get("llm.provider.far.concurrency").as_deref(), Some("7"));
        assert!(settings.llm_providers[2].vision);
        assert_eq!(settings.llm_tries, 2);
    }

    #[test]
    fn a_wrong_provider_is_named_and_not_added() {
        let mut settings = Settings::default();
        let mut refused = |name: &str, value: &str| settings.set(name, value).unwrap_err().to_string();
        assert_eq!(
            refused("llm.provider.far.url", "ftp://x"),
            "provider 'far': llm.provider.url = 'ftp://x' cannot be taken: give an http or https address without a password"
        );
        assert!(refused("llm.provider.far.url", "https://me:secret@host/v1").contains("without a password"));
        assert_eq!(
            refused("llm.provider.far.modle", "m"),
            "provider 'far': there is no setting 'llm.provider.modle'"
        );
        assert!(refused("llm.provider.Far.model", "m").contains("'Far' cannot be taken"));
        assert!(refused("llm.provider.far.name", "m").starts_with("there is no setting"));
        assert!(settings.llm_providers.is_empty());
        assert!(
            settings
                .merge_toml("x", "[[llm.provider]]\nmodel = \"m\"")
                .is_err()
        );
        assert!(settings.merge_toml("x", "[llm]\nprovider = [1]").is_err());
        assert!(settings.merge_toml("x", "[llm]\ntries = [1]").is_err());
    }
}
