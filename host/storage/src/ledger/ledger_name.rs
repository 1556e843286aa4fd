//! The name of the ledger in errors, without the place where it is.

/// The name of the ledger in errors.
pub(super) const LEDGER_NAME: &str = "the ledger";
