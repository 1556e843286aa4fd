//! The cache of language model responses, in a SQLite file of its own.
//!
//! The cache is not part of the ledger, so it can be bounded, lost or deleted without harm to other data. A damaged file is replaced by
//! an empty one. A commit does not wait for the disk: a killed process loses nothing, and a power failure loses the latest responses,
//! which are requested again.
//!
//! The cache has a limit in bytes and evicts the least recently used responses.
//!
//! A response is stored with the document that it was made from, and is removed with that document. Removed rows are overwritten, in the
//! file and in its log.

use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::time::Duration;

use async_trait::async_trait;
use rusqlite::{Connection, OptionalExtension as _, params};
use weir_core::llm::{LlmResponse, ResponseCache, ResponseCacheKey};
use weir_core::{DocumentId, StorageError, TenantId};

use crate::ledger::sqlite::database::{create_or_make_file_private, to_storage_error, truncate_wal};
use crate::path_with_public_name::PathWithPublicName;
use crate::worker_thread::WorkerThread;

const FILE_NAME: &str = "responses.db";
/// The name of the cache in errors.
const CACHE_NAME: &str = "the response cache";
/// Files that SQLite creates beside the file.
const SIDE_FILES: [&str; 2] = ["responses.db-wal", "responses.db-shm"];
/// The `user_version` of a file that this version writes. A file with an unknown number is replaced by an empty one.
const VERSION: u32 = 3;
const SCHEMA: &str = "
    CREATE TABLE responses (
        key BLOB PRIMARY KEY, tenant TEXT NOT NULL, document TEXT, response TEXT NOT NULL, bytes INTEGER NOT NULL,
        last_use INTEGER NOT NULL
    ) WITHOUT ROWID;
    CREATE INDEX responses_by_last_use ON responses (last_use);
    CREATE INDEX responses_by_document ON responses (tenant, document);
    PRAGMA user_version = 3;";
/// The version before the table and its columns were renamed.
const VERSION_BEFORE_RENAME: u32 = 2;
/// Upgrades a file of [`VERSION_BEFORE_RENAME`].
const RENAME_SQL: &str = "
    BEGIN;
    ALTER TABLE answers RENAME TO responses;
    ALTER TABLE responses RENAME COLUMN answer TO response;
    ALTER TABLE responses RENAME COLUMN used TO last_use;
    DROP INDEX answers_by_use;
    DROP INDEX answers_by_document;
    CREATE INDEX responses_by_last_use ON responses (last_use);
    CREATE INDEX responses_by_document ON responses (tenant, document);
    PRAGMA user_version = 3;
    COMMIT;";
/// Time that a call waits for another process, such as a backup.
const BUSY_TIMEOUT: Duration = Duration::from_secs(10);
/// Bytes of a row beside the text of the response.
const ROW_OVERHEAD_BYTES: u64 = 128;

/// Implements [`ResponseCache`] with a file of a data folder, for the process that holds the folder.
pub struct SqliteResponseCache {
    worker: WorkerThread<CacheFile>,
}

struct CacheFile {
    connection: Connection,
    location: PathWithPublicName,
    max_bytes: u64,
    used_bytes: u64,
    /// Number of uses so far. The number at its last use orders the responses.
    use_counter: i64,
}

impl SqliteResponseCache {
    /// Opens the cache of a data folder with a limit of `bytes`. Creates the file if it does not exist.
    pub async fn open_or_create(data: &Path, bytes: u64) -> Result<Self, StorageError> {
        let folder = data.to_owned();
        let opened = tokio::task::spawn_blocking(move || CacheFile::open_or_recreate(&folder, bytes));
        let file = opened.await.map_err(|error| StorageError::Failed {
            what: CACHE_NAME.into(),
            reason: error.to_string(),
        })??;
        Ok(Self {
            worker: WorkerThread::start("weir-responses", CACHE_NAME.into(), file)?,
        })
    }

    /// Deletes the cache of a data folder. Only for a host that holds the folder and caches no responses.
    pub async fn delete_cache_of_data_folder(data: &Path) -> Result<(), StorageError> {
        let folder = data.to_owned();
        let deleted = tokio::task::spawn_blocking(move || delete_cache_files(&folder));
        deleted.await.map_err(|error| StorageError::Failed {
            what: CACHE_NAME.into(),
            reason: error.to_string(),
        })?
    }

    /// Waits until everything is written and the file is closed.
    pub async fn close(&self) {
        self.worker.close().await;
    }
}

#[async_trait]
impl ResponseCache for SqliteResponseCache {
    async fn get_cached_response(
        &self,
        tenant: &TenantId,
        key: &ResponseCacheKey,
    ) -> Result<Option<LlmResponse>, StorageError> {
        let (tenant, key) = (tenant.clone(), *key);
        self.worker
            .run(move |file| file.get_response_and_mark_used(&tenant, &key))
            .await
    }

    async fn put_cached_response(
        &self,
        tenant: &TenantId,
        key: &ResponseCacheKey,
        document: Option<&DocumentId>,
        response: &LlmResponse,
    ) -> Result<(), StorageError> {
        let (tenant, key, document) = (tenant.clone(), *key, document.copied());
        let response = serde_json::to_string(response).map_err(|error| StorageError::Failed {
            what: "a cached response".into(),
            reason: error.to_string(),
        })?;
        self.worker
            .run(move |file| file.put_response_evicting_older(&tenant, &key, document.as_ref(), &response))
            .await
    }

    async fn remove_cached_document_responses(
        &self,
        tenant: &TenantId,
        document: &DocumentId,
    ) -> Result<(), StorageError> {
        let (tenant, document) = (tenant.clone(), *document);
        self.worker
            .run(move |file| file.remove_tenant_or_document_responses(&tenant, Some(&document)))
            .await
    }

    async fn remove_cached_tenant_responses(&self, tenant: &TenantId) -> Result<(), StorageError> {
        let tenant = tenant.clone();
        self.worker
            .run(move |file| file.remove_tenant_or_document_responses(&tenant, None))
            .await
    }
}

/// Removes a tenant's responses from a data folder whose cache no process has open.
pub(crate) fn remove_tenant_from_closed_cache(data: &Path, tenant: &TenantId) -> Result<(), StorageError> {
    if !data.join(FILE_NAME).exists() {
        return Ok(());
    }
    CacheFile::open_or_recreate(data, u64::MAX)?.remove_tenant_or_document_responses(tenant, None)
}

fn delete_cache_files(data: &Path) -> Result<(), StorageError> {
    SIDE_FILES
        .into_iter()
        .chain([FILE_NAME])
        .try_for_each(|name| remove_file_if_exists(&data.join(name)))
}

impl CacheFile {
    fn open_or_recreate(data: &Path, max_bytes: u64) -> Result<Self, StorageError> {
        let path = data.join(FILE_NAME);
        match Self::open_or_upgrade(&path, max_bytes) {
            Err(StorageError::Damaged { reason, .. }) => {
                tracing::warn!(
                    file = %path.display(),
                    reason,
                    "cached responses cannot be read: the file is replaced by an empty one"
                );
                delete_cache_files(data)?;
                Self::open_or_upgrade(&path, max_bytes)
            }
            opened => opened,
        }
    }

    fn open_or_upgrade(path: &PathBuf, max_bytes: u64) -> Result<Self, StorageError> {
        let location = PathWithPublicName::new(CACHE_NAME, path);
        create_or_make_file_private(path).map_err(|e| location.io_error(&e))?;
        let opened = Connection::open(path).and_then(|connection| {
            connection.busy_timeout(BUSY_TIMEOUT)?;
            connection.pragma_update(None, "journal_mode", "wal")?;
            connection.pragma_update(None, "synchronous", "normal")?;
            connection.pragma_update(None, "secure_delete", true)?;
            let version: u32 = connection.pragma_query_value(None, "user_version", |row| row.get(0))?;
            match version {
                0 => connection.execute_batch(SCHEMA)?,
                VERSION_BEFORE_RENAME => connection.execute_batch(RENAME_SQL)?,
                _ => {}
            }
            let known = matches!(version, 0 | VERSION_BEFORE_RENAME | VERSION);
            let totals = "SELECT coalesce(sum(bytes), 0), coalesce(max(last_use), 0) FROM responses";
            let (bytes, use_counter) = match known {
                true => connection.query_row(totals, [], |row| Ok((row.get::<_, i64>(0)?, row.get(1)?)))?,
                false => (0, 0),
            };
            Ok((connection, known, bytes, use_counter))
        });
        let (connection, known, bytes, use_counter) = opened.map_err(|e| to_storage_error(&location, &e))?;
        if !known {
            return Err(location.damaged_error("it is of another version"));
        }
        let mut file = Self {
            connection,
            location,
            max_bytes,
            used_bytes: u64::try_from(bytes).unwrap_or_default(),
            use_counter,
        };
        file.evict_until_fits(0)?;
        Ok(file)
    }

    fn get_response_and_mark_used(
        &mut self,
        tenant: &TenantId,
        key: &ResponseCacheKey,
    ) -> Result<Option<LlmResponse>, StorageError> {
        self.use_counter += 1;
        let sql = "UPDATE responses SET last_use = ?3 WHERE key = ?1 AND tenant = ?2 RETURNING response";
        let found: rusqlite::Result<Option<String>> =
            self.connection.prepare_cached(sql).and_then(|mut s| {
                s.query_row(params![key, tenant.as_str(), self.use_counter], |row| row.get(0))
                    .optional()
            });
        let found = found.map_err(|e| to_storage_error(&self.location, &e))?;
        // A response that this version cannot parse counts as missing.
        Ok(found.and_then(|response| serde_json::from_str(&response).ok()))
    }

    fn put_response_evicting_older(
        &mut self,
        tenant: &TenantId,
        key: &ResponseCacheKey,
        document: Option<&DocumentId>,
        response: &str,
    ) -> Result<(), StorageError> {
        let bytes = response.len() as u64 + ROW_OVERHEAD_BYTES;
        self.remove_response(key)?;
        if bytes > self.max_bytes {
            return Ok(());
        }
        self.evict_until_fits(bytes)?;
        self.use_counter += 1;
        let put = "INSERT INTO responses (key, tenant, document, response, bytes, last_use) VALUES (?1, ?2, ?3, ?4, ?5, ?6)";
        let row = params![
            key,
            tenant.as_str(),
            document.map(ToString::to_string),
            response,
            i64::try_from(bytes).unwrap_or(i64::MAX),
            self.use_counter
        ];
        let inserted = self
            .connection
            .prepare_cached(put)
            .and_then(|mut s| s.execute(row));
        inserted.map_err(|e| to_storage_error(&self.location, &e))?;
        self.used_bytes += bytes;
        Ok(())
    }

    /// Evicts the least recently used responses until there is space for `bytes` more.
    fn evict_until_fits(&mut self, bytes: u64) -> Result<(), StorageError> {
        while self.used_bytes > 0 && self.used_bytes.saturating_add(bytes) > self.max_bytes {
            let oldest = "SELECT key FROM responses ORDER BY last_use LIMIT 1";
            let oldest: rusqlite::Result<Option<ResponseCacheKey>> = self
                .connection
                .prepare_cached(oldest)
                .and_then(|mut s| s.query_row([], |row| row.get(0)).optional());
            match oldest.map_err(|e| to_storage_error(&self.location, &e))? {
                Some(key) => self.remove_response(&key)?,
                None => self.used_bytes = 0,
            }
        }
        Ok(())
    }

    fn remove_response(&mut self, key: &ResponseCacheKey) -> Result<(), StorageError> {
        let remove = "DELETE FROM responses WHERE key = ?1 RETURNING bytes";
        let removed: rusqlite::Result<Option<i64>> = self
            .connection
            .prepare_cached(remove)
            .and_then(|mut s| s.query_row([key], |row| row.get(0)).optional());
        let removed = removed.map_err(|e| to_storage_error(&self.location, &e))?;
        self.used_bytes = self
            .used_bytes
            .saturating_sub(u64::try_from(removed.unwrap_or_default()).unwrap_or_default());
        Ok(())
    }

    /// Removes a tenant's responses: all, or those of `document` and those of no known document.
    fn remove_tenant_or_document_responses(
        &mut self,
        tenant: &TenantId,
        document: Option<&DocumentId>,
    ) -> Result<(), StorageError> {
        let removed = self.connection.execute(
            "DELETE FROM responses WHERE tenant = ?1 AND (?2 IS NULL OR document IS NULL OR document = ?2)",
            params![tenant.as_str(), document.map(ToString::to_string)],
        );
        removed
            .and_then(|_| truncate_wal(&self.connection))
            .map_err(|e| to_storage_error(&self.location, &e))?;
        let left = self
            .connection
            .query_row("SELECT coalesce(sum(bytes), 0) FROM responses", [], |row| {
                row.get::<_, i64>(0)
            });
        self.used_bytes =
            u64::try_from(left.map_err(|e| to_storage_error(&self.location, &e))?).unwrap_or_default();
        Ok(())
    }
}

fn remove_file_if_exists(path: &Path) -> Result<(), StorageError> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != ErrorKind::NotFound => {
            Err(PathWithPublicName::new(CACHE_NAME, path).io_error(&error))
        }
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::data_folder::rename_entries_of_earlier_versions;

    fn make_response(text: &str) -> LlmResponse {
        LlmResponse {
            text: text.into(),
            quotes: Vec::new(),
            prompt_tokens: Some(3),
            completion_tokens: None,
            provider: "near".into(),
            model: "m".into(),
            cached: false,
            waiting_time: Duration::from_millis(1500),
            provider_time: Duration::ZERO,
        }
    }

    fn tenant(name: &str) -> TenantId {
        name.parse().unwrap()
    }

    #[tokio::test]
    async fn responses_survive_a_kill_and_belong_to_their_tenant() {
        let data = tempfile::tempdir().unwrap();
        let (one, other) = (tenant("one"), tenant("other"));
        let cache = SqliteResponseCache::open_or_create(data.path(), 1 << 20)
            .await
            .unwrap();
        cache
            .put_cached_response(&one, &[1; 32], None, &make_response("yes"))
            .await
            .unwrap();
        // Neither flushed nor closed, like a killed process.
        drop(cache);
        let cache = SqliteResponseCache::open_or_create(data.path(), 1 << 20)
            .await
            .unwrap();
        assert_eq!(
            cache.get_cached_response(&one, &[1; 32]).await.unwrap(),
            Some(make_response("yes"))
        );
        assert_eq!(cache.get_cached_response(&other, &[1; 32]).await.unwrap(), None);
        cache
            .put_cached_response(&other, &[2; 32], None, &make_response("no"))
            .await
            .unwrap();
        cache.remove_cached_tenant_responses(&one).await.unwrap();
        assert_eq!(cache.get_cached_response(&one, &[1; 32]).await.unwrap(), None);
        cache.close().await;
        remove_tenant_from_closed_cache(data.path(), &other).unwrap();
        let cache = SqliteResponseCache::open_or_create(data.path(), 1 << 20)
            .await
            .unwrap();
        assert_eq!(cache.get_cached_response(&other, &[2; 32]).await.unwrap(), None);
    }

    #[tokio::test]
    async fn sqlite_response_cache_passes_the_conformance_suite() {
        let data = tempfile::tempdir().unwrap();
        let cache = SqliteResponseCache::open_or_create(data.path(), 1 << 20)
            .await
            .unwrap();
        weir_conformance::check_response_cache(&cache, 1 << 20).await;
        cache.close().await;
    }

    #[tokio::test]
    async fn open_with_a_lower_limit_keeps_the_latest_responses() {
        let data = tempfile::tempdir().unwrap();
        let one = tenant("one");
        let response = make_response(&"x".repeat(1000));
        let size = serde_json::to_string(&response).unwrap().len() as u64 + ROW_OVERHEAD_BYTES;
        let cache = SqliteResponseCache::open_or_create(data.path(), 3 * size)
            .await
            .unwrap();
        for key in 0..3 {
            cache
                .put_cached_response(&one, &[key; 32], None, &response)
                .await
                .unwrap();
        }
        cache.close().await;
        let cache = SqliteResponseCache::open_or_create(data.path(), size)
            .await
            .unwrap();
        for key in 0..3 {
            let found = cache.get_cached_response(&one, &[key; 32]).await.unwrap();
            assert_eq!(found.is_some(), key == 2, "response {key}");
        }
    }

    #[tokio::test]
    async fn cache_of_version_2_keeps_its_responses() {
        let data = tempfile::tempdir().unwrap();
        let one = tenant("one");
        let c = Connection::open(data.path().join("answers.db")).unwrap();
        c.execute_batch(
            "CREATE TABLE answers (
                 key BLOB PRIMARY KEY, tenant TEXT NOT NULL, document TEXT, answer TEXT NOT NULL, bytes INTEGER NOT NULL,
                 used INTEGER NOT NULL
             ) WITHOUT ROWID;
             CREATE INDEX answers_by_use ON answers (used);
             CREATE INDEX answers_by_document ON answers (tenant, document);
             PRAGMA user_version = 2;",
        )
        .unwrap();
        let row = params![
            [1_u8; 32],
            "one",
            serde_json::to_string(&make_response("yes")).unwrap()
        ];
        c.execute("INSERT INTO answers VALUES (?1, ?2, NULL, ?3, 300, 7)", row)
            .unwrap();
        drop(c);
        rename_entries_of_earlier_versions(data.path()).unwrap();
        for _ in 0..2 {
            let cache = SqliteResponseCache::open_or_create(data.path(), 1 << 20)
                .await
                .unwrap();
            assert_eq!(
                cache.get_cached_response(&one, &[1; 32]).await.unwrap(),
                Some(make_response("yes"))
            );
            cache
                .put_cached_response(&one, &[2; 32], None, &make_response("no"))
                .await
                .unwrap();
            cache.close().await;
        }
    }

    #[tokio::test]
    async fn unreadable_cache_file_is_replaced() {
        let data = tempfile::tempdir().unwrap();
        let one = tenant("one");
        for damage in ["garbage, and a good deal of it".repeat(300), "version".into()] {
            if damage == "version" {
                let other = Connection::open(data.path().join(FILE_NAME)).unwrap();
                other.pragma_update(None, "user_version", 99).unwrap();
            } else {
                fs::write(data.path().join(FILE_NAME), &damage).unwrap();
            }
            let cache = SqliteResponseCache::open_or_create(data.path(), 1 << 20)
                .await
                .unwrap();
            assert_eq!(cache.get_cached_response(&one, &[1; 32]).await.unwrap(), None);
            cache
                .put_cached_response(&one, &[1; 32], None, &make_response("yes"))
                .await
                .unwrap();
            assert!(cache.get_cached_response(&one, &[1; 32]).await.unwrap().is_some());
            cache.close().await;
        }
    }
}
