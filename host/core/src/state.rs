//! How much components may remember, for each tenant and pipeline.

use std::collections::BTreeMap;

use crate::event::ErrorNote;

/// Keys.
pub const MAX_KEYS: usize = 1000;
/// Bytes of a key.
pub const MAX_KEY_BYTES: usize = 256;
/// Bytes of a value.
pub const MAX_VALUE_BYTES: usize = 64 << 10;
/// Bytes of all keys and values together.
pub const MAX_BYTES: usize = 1 << 20;

/// A change of what components remember.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StateChange {
    /// The key.
    pub key: String,
    /// Its value from now on; `None`: it is forgotten.
    pub value: Option<Vec<u8>>,
}

/// The keys that a pipeline's components have set, with the bytes of their values.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct StateSizes {
    values: BTreeMap<String, usize>,
    bytes: usize,
}

impl FromIterator<(String, usize)> for StateSizes {
    fn from_iter<I: IntoIterator<Item = (String, usize)>>(sizes: I) -> Self {
        let values: BTreeMap<String, usize> = sizes.into_iter().collect();
        let bytes = values.iter().map(|(key, bytes)| key.len() + bytes).sum();
        Self { values, bytes }
    }
}

impl StateSizes {
    /// Counts a change. If it goes beyond a limit nothing changes, and the error, of kind `exhausted`, says which.
    pub fn change(&mut self, change: &StateChange) -> Result<(), ErrorNote> {
        check_change(change)?;
        let before = self.values.get(&change.key).copied();
        self.replace(&change.key, change.value.as_ref().map(Vec::len));
        self.check().inspect_err(|_| self.replace(&change.key, before))
    }

    /// Counts changes that are made together: the limits hold for what comes of all of them.
    pub fn change_all(&mut self, changes: &[StateChange]) -> Result<(), ErrorNote> {
        let mut changed = self.clone();
        for change in changes {
            check_change(change)?;
            changed.replace(&change.key, change.value.as_ref().map(Vec::len));
        }
        changed.check()?;
        *self = changed;
        Ok(())
    }

    fn replace(&mut self, key: &str, bytes: Option<usize>) {
        let before = match bytes {
            Some(bytes) => {
                self.bytes += key.len() + bytes;
                self.values.insert(key.to_owned(), bytes)
            }
            None => self.values.remove(key),
        };
        self.bytes -= before.map_or(0, |before| key.len() + before);
    }

    fn check(&self) -> Result<(), ErrorNote> {
        if self.values.len() > MAX_KEYS {
            return Err(exhausted(format!("there are {MAX_KEYS} keys already")));
        }
        if self.bytes > MAX_BYTES {
            return Err(exhausted(format!(
                "all values together would pass {MAX_BYTES} bytes"
            )));
        }
        Ok(())
    }
}

fn check_change(StateChange { key, value }: &StateChange) -> Result<(), ErrorNote> {
    let bytes = value.as_ref().map_or(0, Vec::len);
    if key.len() > MAX_KEY_BYTES {
        return Err(exhausted(format!(
            "a key has {} bytes, more than {MAX_KEY_BYTES}",
            key.len()
        )));
    }
    if bytes > MAX_VALUE_BYTES {
        return Err(exhausted(format!(
            "a value has {bytes} bytes, more than {MAX_VALUE_BYTES}"
        )));
    }
    Ok(())
}

fn exhausted(message: String) -> ErrorNote {
    ErrorNote {
        kind: "exhausted".into(),
        message: format!("{message}: delete some"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn set(key: &str, bytes: usize) -> StateChange {
        StateChange {
            key: key.into(),
            value: Some(vec![0; bytes]),
        }
    }

    #[test]
    fn a_change_beyond_a_limit_changes_nothing() {
        let mut sizes: StateSizes = (0..15).map(|n| (format!("{n:02}"), MAX_VALUE_BYTES)).collect();
        sizes.change(&set("15", MAX_VALUE_BYTES - 32)).unwrap();
        let full = sizes.clone();
        for refused in [
            set("more", 0),
            set("15", MAX_VALUE_BYTES - 31),
            set(&"k".repeat(257), 0),
            set("00", MAX_VALUE_BYTES + 1),
        ] {
            assert_eq!(sizes.change(&refused).unwrap_err().kind, "exhausted");
            assert_eq!(sizes, full);
        }
        // A value may be replaced, and what is forgotten makes room.
        sizes.change(&set("15", 0)).unwrap();
        let forget = StateChange {
            key: "00".into(),
            value: None,
        };
        sizes.change(&forget).unwrap();
        sizes.change(&set("more", MAX_VALUE_BYTES)).unwrap();
    }

    #[test]
    fn keys_have_a_limit_of_their_own() {
        let mut sizes: StateSizes = (0..MAX_KEYS).map(|n| (n.to_string(), 0)).collect();
        assert!(sizes.change(&set("one more", 0)).is_err());
        sizes.change(&set("7", 1)).unwrap();
    }
}
