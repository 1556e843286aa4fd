//! The form of the keys of blobs, which every [`BlobStore`](crate::ports::BlobStore) checks.
//!
//! A key has one or more segments joined by `/`. A segment has letters, digits, `-`, `_` and `.`, and does not begin
//! with a dot. So a key that is used as a path cannot leave its tenant's folder.

use crate::error::StorageError;

/// Maximum length of a key in bytes.
pub const MAX_BLOB_KEY_BYTES: usize = 1024;
/// Maximum length of a key's segment in bytes, which is the limit of file systems.
pub const MAX_BLOB_KEY_SEGMENT_BYTES: usize = 255;

/// Checks a key. Returns [`StorageError::Failed`] if it is invalid.
pub fn check_blob_key(key: &str) -> Result<(), StorageError> {
    let is_valid = key.len() <= MAX_BLOB_KEY_BYTES
        && key
            .split('/')
            .all(|part| !part.is_empty() && is_valid_segment(part));
    if is_valid {
        Ok(())
    } else {
        Err(invalid_key_error(key))
    }
}

/// Checks a prefix of keys, which is like a key, but its last segment may be empty. Returns [`StorageError::Failed`] if
/// it is invalid.
pub fn check_blob_key_prefix(prefix: &str) -> Result<(), StorageError> {
    match prefix.rsplit_once('/') {
        _ if prefix.len() > MAX_BLOB_KEY_BYTES => Err(invalid_key_error(prefix)),
        Some((folder, last)) if is_valid_segment(last) => check_blob_key(folder),
        None if is_valid_segment(prefix) => Ok(()),
        _ => Err(invalid_key_error(prefix)),
    }
}

fn is_valid_segment(part: &str) -> bool {
    part.len() <= MAX_BLOB_KEY_SEGMENT_BYTES
        && !part.starts_with('.')
        && part
            .bytes()
            .all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.'))
}

fn invalid_key_error(key: &str) -> StorageError {
    StorageError::Failed {
        what: format!("blob key {:?}", key.chars().take(80).collect::<String>()),
        reason: "use segments of letters, digits, '-', '_' and '.', joined by '/', none empty or beginning with a dot"
            .into(),
    }
}
