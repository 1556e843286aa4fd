//! The mark of a PostgreSQL database that is the unfinished target of a migration. It keeps nodes out. In a data folder, a file is the mark.

use weir_core::StorageError;

use super::ledger_tables::UNFINISHED_MIGRATION_TABLE;
use super::locked_tenants::LockedTenants;
use super::sql_connection::{SqlConnection, SqlResult};
use super::sql_ledger::SqlLedger;
use super::sql_values::params;

impl SqlLedger {
    /// Returns the id of the migration of which this is the unfinished target.
    pub(crate) async fn find_unfinished_migration(&self) -> Result<Option<String>, StorageError> {
        self.database.run_query(find_mark).await
    }

    /// Marks the database as the unfinished target of a migration. Does nothing in a data folder.
    pub(crate) async fn mark_unfinished_migration(&self, id: &str) -> Result<(), StorageError> {
        let id = id.to_owned();
        self.database
            .run_write_transaction(LockedTenants::none(), move |t| {
                if matches!(t, SqlConnection::Sqlite(_)) {
                    return Ok(());
                }
                t.execute_batch("CREATE TABLE IF NOT EXISTS unfinished_migration (id TEXT PRIMARY KEY)")?;
                t.finish_queued()?;
                t.execute("INSERT INTO unfinished_migration (id) VALUES (?1)", params![id])
            })
            .await
    }

    /// Removes the mark, if there is one.
    pub(crate) async fn finish_migration(&self) -> Result<(), StorageError> {
        self.database
            .run_write_transaction(LockedTenants::none(), |t| match t {
                SqlConnection::Sqlite(_) => Ok(()),
                SqlConnection::Postgres(_) => t.execute_batch("DROP TABLE IF EXISTS unfinished_migration"),
            })
            .await
    }
}

fn find_mark(c: &SqlConnection<'_>) -> SqlResult<Option<String>> {
    if matches!(c, SqlConnection::Sqlite(_)) {
        return Ok(None);
    }
    let exists: bool = c.query_one(
        "SELECT to_regclass(?1) IS NOT NULL",
        params![UNFINISHED_MIGRATION_TABLE],
        |row| row.get(0),
    )?;
    match exists {
        true => c.query_optional("SELECT id FROM unfinished_migration", params![], |row| row.get(0)),
        false => Ok(None),
    }
}
