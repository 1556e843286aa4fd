//! The API key of a provider. It implements neither `Display` nor `Serialize`, and `Debug` hides it.

use std::fmt;
use std::path::Path;
use std::sync::Arc;

/// Maximum number of bytes that are read from a key file.
const MAX_KEY_FILE_BYTES: u64 = 64 << 10;

/// The API key of a provider.
#[derive(Clone, PartialEq, Eq)]
pub struct ProviderApiKey(Arc<str>);

impl ProviderApiKey {
    /// Creates a key without surrounding white space; `None` if it is empty.
    pub fn new(key: &str) -> Option<Self> {
        let key = key.trim();
        (!key.is_empty()).then(|| Self(Arc::from(key)))
    }

    /// Reads the key from a file.
    pub fn read_key_file(path: &Path) -> Result<Self, String> {
        use std::io::Read as _;
        let mut text = String::new();
        std::fs::File::open(path)
            .and_then(|file| file.take(MAX_KEY_FILE_BYTES).read_to_string(&mut text))
            .map_err(|error| error.to_string())?;
        Self::new(&text).ok_or_else(|| "it is empty".into())
    }

    /// Returns the key itself, for the request header.
    pub(crate) fn expose_key(&self) -> &str {
        &self.0
    }

    /// Replaces the key in a text, because some endpoints repeat it in error messages.
    pub(crate) fn redact_in_text(&self, text: &str) -> String {
        text.replace(&*self.0, "***")
    }
}

impl fmt::Debug for ProviderApiKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ProviderApiKey(***)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn debug_hides_the_key_and_redact_replaces_it() {
        let secret = ProviderApiKey::new("  sk-12345\n").unwrap();
        assert_eq!(format!("{secret:?}"), "ProviderApiKey(***)");
        assert_eq!(secret.redact_in_text("bad key 'sk-12345'"), "bad key '***'");
        assert_eq!(secret.expose_key(), "sk-12345");
        assert!(ProviderApiKey::new(" \n").is_none());
    }
}
