//! The name of the index in errors.

use std::fmt::Display;

use weir_core::StorageError;

/// The name of the index in errors.
pub(super) const INDEX_NAME: &str = "the index";

pub(super) fn index_error(reason: impl Display) -> StorageError {
    StorageError::Failed {
        what: INDEX_NAME.into(),
        reason: reason.to_string(),
    }
}
