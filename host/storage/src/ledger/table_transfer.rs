//! What a migration does with the tables of a ledger.

use weir_core::StorageError;

use super::ledger_tables::{DatabaseTables, LedgerTable, find_common_tables, read_database_tables};
use super::locked_tenants::LockedTenants;
use super::sql_connection::{SqlConnection, SqlResult};
use super::sql_ledger::SqlLedger;
use super::sql_values::params;
use super::table_copy::{
    FIRST_BATCH_ROWS, RowBatch, Values, add_rows_to_digest, count_rows, find_highest_generated,
    find_last_key, insert_rows, read_batch, set_highest_generated,
};
use crate::migration_progress::{
    ContentDigest, MigratedContent, MigrationStep, ProgressCounter, ReportProgress,
};

/// Rows of sizes that one transaction renames.
const MAX_RENAMED_ROWS: i64 = 5000;
/// The start of the rows that count objects on an S3 server, before the path that files have.
const S3_ROW_PREFIX: &str = "s3/";

/// The tables that a migration copies.
pub(crate) struct LedgerTables(Vec<LedgerTable>);

impl SqlLedger {
    /// Returns the tables that this ledger and `other` have alike. Fails if the schemas differ.
    pub(crate) async fn find_common_tables(&self, other: &Self) -> Result<LedgerTables, StorageError> {
        let (own, others) = (
            self.read_database_tables().await?,
            other.read_database_tables().await?,
        );
        find_common_tables(&own, &others)
            .map(LedgerTables)
            .map_err(|reason| StorageError::Failed {
                what: "copying the ledger".into(),
                reason: format!("{reason}: use the same version of weir for both"),
            })
    }

    async fn read_database_tables(&self) -> Result<DatabaseTables, StorageError> {
        self.database.run_query(read_database_tables).await
    }

    /// Returns the number of rows of each table, without those of running nodes.
    pub(crate) async fn count_rows_of_tables(&self) -> Result<Vec<MigratedContent>, StorageError> {
        let count = |c: &SqlConnection<'_>| {
            let mut counts = Vec::new();
            for name in read_database_tables(c)?.names_to_copy() {
                let sql = format!("SELECT count(*) FROM {name}");
                let count = c.query_one(&sql, params![], |row| row.get(0))?;
                counts.push(MigratedContent {
                    store: "ledger".into(),
                    name,
                    count,
                    bytes: None,
                    digest: None,
                });
            }
            Ok(counts)
        };
        self.database.run_query(count).await
    }

    /// Returns the name of a table that has rows; `None` if all are empty.
    pub(crate) async fn find_table_with_rows(
        &self,
        tables: &LedgerTables,
    ) -> Result<Option<String>, StorageError> {
        let names: Vec<String> = tables.0.iter().map(|table| table.name.clone()).collect();
        let find = move |c: &SqlConnection<'_>| {
            for name in names {
                let sql = format!("SELECT 1 FROM {name} LIMIT 1");
                if c.query_optional(&sql, params![], |_| Ok(()))?.is_some() {
                    return Ok(Some(name));
                }
            }
            Ok(None)
        };
        self.database.run_query(find).await
    }

    /// Returns the name of a node that runs, or that was killed less than a lease ago.
    pub(crate) async fn find_running_node(&self) -> Result<Option<String>, StorageError> {
        let find = |c: &SqlConnection<'_>| {
            let now = c.now_millis();
            for (column, table) in [("id", "nodes"), ("owner", "jobs")] {
                let sql = format!(
                    "SELECT {column} FROM {table} WHERE {column} IS NOT NULL AND lease_until_millis >= {now} LIMIT 1"
                );
                if let Some(node) = c.query_optional(&sql, params![], |row| row.get::<String>(0))? {
                    return Ok(Some(node));
                }
            }
            Ok(None)
        };
        self.database.run_query(find).await
    }

    /// Copies all rows that `target` does not have.
    pub(crate) async fn copy_tables_to(
        &self,
        target: &Self,
        tables: &LedgerTables,
        report: &ReportProgress,
    ) -> Result<(), StorageError> {
        for table in &tables.0 {
            let rows = self.count_rows(table).await?;
            let stored = target.count_rows(table).await?;
            let subject = format!("table {}", table.name);
            let mut progress = ProgressCounter::start(report, MigrationStep::Copy, subject, Some(rows));
            progress.add(usize::try_from(stored.min(rows)).unwrap_or(0));
            let last = {
                let table = table.clone();
                target
                    .database
                    .run_query(move |c| find_last_key(c, &table))
                    .await?
            };
            let is_resumed = last.is_some();
            self.copy_rows_after(last, target, table, &mut progress).await?;
            // Rows are missing before the last key if triggers wrote it, or if the databases do not order a text alike.
            if is_resumed && target.count_rows(table).await? < rows {
                self.copy_rows_after(None, target, table, &mut progress).await?;
            }
            if let Some(column) = &table.generated_column {
                self.copy_highest_generated(target, &table.name, column).await?;
            }
        }
        Ok(())
    }

    async fn copy_rows_after(
        &self,
        after: Option<Values>,
        target: &Self,
        table: &LedgerTable,
        progress: &mut ProgressCounter<'_>,
    ) -> Result<(), StorageError> {
        let mut batch = self.read_batch(table, after, FIRST_BATCH_ROWS).await?;
        while let Some(last) = batch.last_key.take() {
            let max_rows = batch.next_batch_rows();
            let (count, rows, written) = (batch.rows.len(), batch.rows, table.clone());
            let write = target
                .database
                .run_write_transaction(LockedTenants::none(), move |t| insert_rows(t, &written, &rows));
            let (written, next) = tokio::join!(write, self.read_batch(table, Some(last), max_rows));
            written?;
            progress.add(count);
            batch = next?;
        }
        Ok(())
    }

    async fn read_batch(
        &self,
        table: &LedgerTable,
        after: Option<Values>,
        max_rows: usize,
    ) -> Result<RowBatch, StorageError> {
        let table = table.clone();
        self.database
            .run_query(move |c| read_batch(c, &table, after.as_ref(), max_rows))
            .await
    }

    async fn count_rows(&self, table: &LedgerTable) -> Result<u64, StorageError> {
        let table = table.clone();
        self.database.run_query(move |c| count_rows(c, &table)).await
    }

    async fn find_highest_generated(&self, table: &str, column: &str) -> Result<i64, StorageError> {
        let (table, column) = (table.to_owned(), column.to_owned());
        self.database
            .run_query(move |c| find_highest_generated(c, &table, &column))
            .await
    }

    async fn copy_highest_generated(
        &self,
        target: &Self,
        table: &str,
        column: &str,
    ) -> Result<(), StorageError> {
        let highest = self.find_highest_generated(table, column).await?;
        let (table, column) = (table.to_owned(), column.to_owned());
        target
            .database
            .run_write_transaction(LockedTenants::none(), move |t| {
                set_highest_generated(t, &table, &column, highest)
            })
            .await
    }

    /// Compares all rows with those of `target`.
    pub(crate) async fn verify_tables_of(
        &self,
        target: &Self,
        tables: &LedgerTables,
        report: &ReportProgress,
    ) -> Result<Vec<MigratedContent>, StorageError> {
        let mut verified = Vec::new();
        for table in &tables.0 {
            let subject = format!("table {}", table.name);
            let rows = self.count_rows(table).await?;
            let mut progress = ProgressCounter::start(report, MigrationStep::Verify, subject, Some(rows));
            let (source, copy) = tokio::join!(
                self.digest_table(table, Some(&mut progress)),
                target.digest_table(table, None)
            );
            let (source, copy) = (source?, copy?);
            if source != copy {
                return Err(StorageError::Failed {
                    what: "the comparison of the ledger with its copy".into(),
                    reason: format!(
                        "table {} has {} rows and the copy {}, with another digest: empty the target and start again",
                        table.name, source.count, copy.count
                    ),
                });
            }
            verified.push(MigratedContent {
                store: "ledger".into(),
                name: table.name.clone(),
                count: source.count,
                bytes: None,
                digest: Some(source.to_hex()),
            });
        }
        Ok(verified)
    }

    async fn digest_table(
        &self,
        table: &LedgerTable,
        mut progress: Option<&mut ProgressCounter<'_>>,
    ) -> Result<ContentDigest, StorageError> {
        let (mut digest, mut after, mut max_rows) = (ContentDigest::default(), None, FIRST_BATCH_ROWS);
        loop {
            let (table, last) = (table.clone(), after.take());
            let read = move |c: &SqlConnection<'_>| {
                let mut part = ContentDigest::default();
                let batch = read_batch(c, &table, last.as_ref(), max_rows)?;
                add_rows_to_digest(&mut part, &batch.rows);
                Ok((part, batch.next_batch_rows(), batch.last_key))
            };
            let (part, next_rows, last_key) = self.database.run_query(read).await?;
            if let Some(progress) = &mut progress {
                progress.add(usize::try_from(part.count).unwrap_or(usize::MAX));
            }
            digest.merge(&part);
            (after, max_rows) = (last_key, next_rows);
            if after.is_none() {
                return Ok(digest);
            }
        }
    }

    /// Renames the rows of stored bytes from those of files to those of objects on an S3 server, or back. Sizes of a path that has both
    /// are added.
    pub(crate) async fn rename_stored_paths(&self, to_s3: bool) -> Result<(), StorageError> {
        loop {
            let renamed = self
                .database
                .run_write_transaction(LockedTenants::none(), move |t| rename_stored_paths(t, to_s3));
            if renamed.await? == 0 {
                return Ok(());
            }
        }
    }
}

/// Renames some rows and returns how many.
fn rename_stored_paths(t: &SqlConnection<'_>, to_s3: bool) -> SqlResult<usize> {
    let condition = if to_s3 { "NOT LIKE" } else { "LIKE" };
    let sql = format!(
        "SELECT tenant, path, bytes FROM stored_path_sizes WHERE path {condition} '{S3_ROW_PREFIX}%' LIMIT {MAX_RENAMED_ROWS}"
    );
    let rows: Vec<(String, String, i64)> =
        t.query_rows(&sql, params![], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?)))?;
    for (tenant, path, bytes) in &rows {
        let renamed = match to_s3 {
            true => format!("{S3_ROW_PREFIX}{path}"),
            false => path.strip_prefix(S3_ROW_PREFIX).unwrap_or(path).to_owned(),
        };
        t.execute(
            "DELETE FROM stored_path_sizes WHERE tenant = ?1 AND path = ?2",
            params![tenant, path],
        )?;
        t.execute(
            "INSERT INTO stored_path_sizes (tenant, path, bytes, is_changing) VALUES (?1, ?2, ?3, FALSE)
             ON CONFLICT (tenant, path) DO UPDATE SET bytes = stored_path_sizes.bytes + ?3",
            params![tenant, renamed, *bytes],
        )?;
    }
    Ok(rows.len())
}
