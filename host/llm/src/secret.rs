//! A key that nobody gets to read by accident: it has no `Display`, no `Serialize`, and its `Debug` says nothing.

use std::fmt;
use std::path::Path;
use std::sync::Arc;

/// Bytes of a key file that are read.
const MOST: u64 = 64 << 10;

/// A provider's key.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(Arc<str>);

impl Secret {
    /// A key, without white space around it; `None` if nothing is left.
    pub fn new(key: &str) -> Option<Self> {
        let key = key.trim();
        (!key.is_empty()).then(|| Self(Arc::from(key)))
    }

    /// What a file holds.
    pub fn read(path: &Path) -> Result<Self, String> {
        use std::io::Read as _;
        let mut text = String::new();
        std::fs::File::open(path)
            .and_then(|file| file.take(MOST).read_to_string(&mut text))
            .map_err(|error| error.to_string())?;
        Self::new(&text).ok_or_else(|| "it is empty".into())
    }

    /// The key itself, to be sent.
    pub(crate) fn expose(&self) -> &str {
        &self.0
    }

    /// A text without the key: some endpoints repeat what they were sent.
    pub(crate) fn blacken(&self, text: &str) -> String {
        text.replace(&*self.0, "***")
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_not_shown_and_blackened_where_it_is_repeated() {
        let secret = Secret::new("  sk-12345\n").unwrap();
        assert_eq!(format!("{secret:?}"), "Secret");
        assert_eq!(secret.blacken("bad key 'sk-12345'"), "bad key '***'");
        assert_eq!(secret.expose(), "sk-12345");
        assert!(Secret::new(" \n").is_none());
    }
}
