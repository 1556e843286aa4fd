//! The schema on PostgreSQL and its upgrades.
//!
//! The table `schema_steps` has a row for each step that the database has taken. Nodes of two versions work side by side during an
//! upgrade. So each step must leave the statements of the version before it valid, and a node accepts one step that it does not know.

use weir_core::StorageError;

use crate::ledger::ledger_name::LEDGER_NAME;
use crate::ledger::sql_connection::{SqlConnection, SqlResult};
use crate::ledger::sql_values::params;

/// The name of the lock under which one node upgrades the schema.
pub(super) const MIGRATION_LOCK: &str = "schema";
/// The steps of the schema. The first has what SQLite's first 15 steps lead to.
const SCHEMA_STEPS: [&str; 3] = [
    include_str!("schema/1.sql"),
    include_str!("schema/2.sql"),
    include_str!("schema/3.sql"),
];
/// Steps of later versions that a database may have taken.
const MAX_UNKNOWN_STEPS: usize = 1;

/// Takes the steps that the database has not taken.
pub(super) fn upgrade_schema(t: &SqlConnection<'_>) -> SqlResult<Result<(), StorageError>> {
    t.execute_batch("CREATE TABLE IF NOT EXISTS schema_steps (step BIGINT PRIMARY KEY)")?;
    // The next statements cannot be prepared before the table exists.
    t.finish_queued()?;
    let applied: u64 = t.query_one("SELECT count(*) FROM schema_steps", params![], |row| row.get(0))?;
    let applied = usize::try_from(applied).unwrap_or(usize::MAX);
    if applied > SCHEMA_STEPS.len() + MAX_UNKNOWN_STEPS {
        return Ok(Err(StorageError::Failed {
            what: LEDGER_NAME.into(),
            reason: format!(
                "its schema is version {applied}, but this weir works with versions up to {}: use a later version of weir",
                SCHEMA_STEPS.len() + MAX_UNKNOWN_STEPS
            ),
        }));
    }
    for (number, step) in (1_i64..).zip(SCHEMA_STEPS).skip(applied) {
        t.execute_batch(step)?;
        t.execute("INSERT INTO schema_steps (step) VALUES (?1)", params![number])?;
    }
    Ok(Ok(()))
}
