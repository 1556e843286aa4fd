//! Limits, changes and sizes of the state that components store, for each tenant and pipeline.

use std::collections::BTreeMap;

use crate::error::ErrorInfo;

/// Maximum number of keys.
pub const MAX_KEYS: usize = 1000;
/// Maximum bytes of a key.
pub const MAX_KEY_BYTES: usize = 256;
/// Maximum bytes of a value.
pub const MAX_VALUE_BYTES: usize = 64 << 10;
/// Maximum bytes of all keys and values.
pub const MAX_TOTAL_BYTES: usize = 1 << 20;

/// A change of the components' state.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StateChange {
    /// The key.
    pub key: String,
    /// The new value; `None` deletes the key.
    pub value: Option<Vec<u8>>,
}

/// Sizes of the values of a pipeline's state.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct StateSizes {
    value_bytes: BTreeMap<String, usize>,
    total_bytes: usize,
}

impl FromIterator<(String, usize)> for StateSizes {
    fn from_iter<I: IntoIterator<Item = (String, usize)>>(sizes: I) -> Self {
        let values: BTreeMap<String, usize> = sizes.into_iter().collect();
        let bytes = values.iter().map(|(key, bytes)| key.len() + bytes).sum();
        Self {
            value_bytes: values,
            total_bytes: bytes,
        }
    }
}

impl StateSizes {
    /// Applies a change to the sizes. If it exceeds a limit, nothing changes, and the error of kind `exhausted` names
    /// the limit.
    pub fn check_and_apply_size_change(&mut self, change: &StateChange) -> Result<(), ErrorInfo> {
        validate_change(change)?;
        let before = self.value_bytes.get(&change.key).copied();
        self.set_value_size(&change.key, change.value.as_ref().map(Vec::len));
        self.check_key_count_and_total_bytes()
            .inspect_err(|_| self.set_value_size(&change.key, before))
    }

    /// Applies several changes together. The limits apply to the result of all of them.
    pub fn check_and_apply_all_size_changes(&mut self, changes: &[StateChange]) -> Result<(), ErrorInfo> {
        let mut changed = self.clone();
        for change in changes {
            validate_change(change)?;
            changed.set_value_size(&change.key, change.value.as_ref().map(Vec::len));
        }
        changed.check_key_count_and_total_bytes()?;
        *self = changed;
        Ok(())
    }

    fn set_value_size(&mut self, key: &str, bytes: Option<usize>) {
        let before = match bytes {
            Some(bytes) => {
                self.total_bytes += key.len() + bytes;
                self.value_bytes.insert(key.to_owned(), bytes)
            }
            None => self.value_bytes.remove(key),
        };
        self.total_bytes -= before.map_or(0, |before| key.len() + before);
    }

    fn check_key_count_and_total_bytes(&self) -> Result<(), ErrorInfo> {
        if self.value_bytes.len() > MAX_KEYS {
            return Err(limit_error(format!("more than {MAX_KEYS} keys")));
        }
        if self.total_bytes > MAX_TOTAL_BYTES {
            return Err(limit_error(format!(
                "keys and values together exceed {MAX_TOTAL_BYTES} bytes"
            )));
        }
        Ok(())
    }
}

fn validate_change(StateChange { key, value }: &StateChange) -> Result<(), ErrorInfo> {
    let bytes = value.as_ref().map_or(0, Vec::len);
    if key.len() > MAX_KEY_BYTES {
        return Err(limit_error(format!(
            "a key of {} bytes exceeds the limit of {MAX_KEY_BYTES}",
            key.len()
        )));
    }
    if bytes > MAX_VALUE_BYTES {
        return Err(limit_error(format!(
            "a value of {bytes} bytes exceeds the limit of {MAX_VALUE_BYTES}"
        )));
    }
    Ok(())
}

fn limit_error(message: String) -> ErrorInfo {
    ErrorInfo {
        kind: "exhausted".into(),
        message: format!("{message}: delete some keys"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn set_value(key: &str, bytes: usize) -> StateChange {
        StateChange {
            key: key.into(),
            value: Some(vec![0; bytes]),
        }
    }

    #[test]
    fn a_change_beyond_a_limit_changes_nothing() {
        let mut sizes: StateSizes = (0..15).map(|n| (format!("{n:02}"), MAX_VALUE_BYTES)).collect();
        sizes
            .check_and_apply_size_change(&set_value("15", MAX_VALUE_BYTES - 32))
            .unwrap();
        let full = sizes.clone();
        for refused in [
            set_value("more", 0),
            set_value("15", MAX_VALUE_BYTES - 31),
            set_value(&"k".repeat(257), 0),
            set_value("00", MAX_VALUE_BYTES + 1),
        ] {
            assert_eq!(
                sizes.check_and_apply_size_change(&refused).unwrap_err().kind,
                "exhausted"
            );
            assert_eq!(sizes, full);
        }
        // A value can be replaced, and deleting a key makes space.
        sizes.check_and_apply_size_change(&set_value("15", 0)).unwrap();
        let deletion = StateChange {
            key: "00".into(),
            value: None,
        };
        sizes.check_and_apply_size_change(&deletion).unwrap();
        sizes
            .check_and_apply_size_change(&set_value("more", MAX_VALUE_BYTES))
            .unwrap();
    }

    #[test]
    fn keys_have_a_limit_of_their_own() {
        let mut sizes: StateSizes = (0..MAX_KEYS).map(|n| (n.to_string(), 0)).collect();
        assert!(
            sizes
                .check_and_apply_size_change(&set_value("one more", 0))
                .is_err()
        );
        sizes.check_and_apply_size_change(&set_value("7", 1)).unwrap();
    }
}
