//! Answers of language models, kept in a SQLite file of their own.
//!
//! They are not in the ledger: each was paid for, but none is true of a document, and a file of its own can be bounded, lost or
//! deleted without anything else being wrong. So a file that is damaged is begun anew, and a commit does not wait for the disk:
//! a process that is killed loses nothing, a power cut the answers of the last moment, which are asked for again.
//!
//! There is room for so many bytes. Those that were used longest ago make room for new ones.
//!
//! An answer is kept with the document that it was made from, and goes with it: what is removed is overwritten, in the file and in
//! its log.

use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::time::Duration;

use async_trait::async_trait;
use rusqlite::{Connection, OptionalExtension as _, params};
use weir_core::language::{Answer, AnswerCache, AnswerKey};
use weir_core::{DocumentId, StorageError, TenantId};

use crate::ledger::database::{explained, make_private, truncate_log};
use crate::location::Location;
use crate::worker::Worker;

const FILE: &str = "answers.db";
/// What errors call it.
const ANSWERS: &str = "the cache of answers";
/// What SQLite keeps beside it.
const BESIDE: [&str; 2] = ["answers.db-wal", "answers.db-shm"];
/// A file with another number is of another version, and begun anew.
const VERSION: u32 = 2;
const SCHEMA: &str = "
    CREATE TABLE answers (
        key BLOB PRIMARY KEY, tenant TEXT NOT NULL, document TEXT, answer TEXT NOT NULL, bytes INTEGER NOT NULL,
        used INTEGER NOT NULL
    ) WITHOUT ROWID;
    CREATE INDEX answers_by_use ON answers (used);
    CREATE INDEX answers_by_document ON answers (tenant, document);
    PRAGMA user_version = 2;";
/// How long a call waits for another process, such as a backup.
const BUSY: Duration = Duration::from_secs(10);
/// What an answer takes beside its text.
const ROW: u64 = 128;

/// Keeps answers in a data folder. Only for the process that holds it.
pub struct SqliteAnswers {
    worker: Worker<File>,
}

struct File {
    connection: Connection,
    location: Location,
    most: u64,
    bytes: u64,
    /// Grows with each use, so that it orders them.
    uses: i64,
}

impl SqliteAnswers {
    /// Opens the answers of a data folder, with room for so many bytes; makes the file if need be.
    pub async fn open(data: &Path, bytes: u64) -> Result<Self, StorageError> {
        let folder = data.to_owned();
        let opened = tokio::task::spawn_blocking(move || File::open_or_begin(&folder, bytes));
        let file = opened.await.map_err(|error| StorageError::Failed {
            what: ANSWERS.into(),
            reason: error.to_string(),
        })??;
        Ok(Self {
            worker: Worker::start("answers", ANSWERS.into(), file)?,
        })
    }

    /// Removes the answers of a data folder that is held by a host which keeps none.
    pub async fn discard(data: &Path) -> Result<(), StorageError> {
        let folder = data.to_owned();
        let discarded = tokio::task::spawn_blocking(move || discard(&folder));
        discarded.await.map_err(|error| StorageError::Failed {
            what: ANSWERS.into(),
            reason: error.to_string(),
        })?
    }

    /// Returns when everything is written and the file is closed.
    pub async fn close(&self) {
        self.worker.close().await;
    }
}

#[async_trait]
impl AnswerCache for SqliteAnswers {
    async fn get(&self, tenant: &TenantId, key: &AnswerKey) -> Result<Option<Answer>, StorageError> {
        let (tenant, key) = (tenant.clone(), *key);
        self.worker.call(move |file| file.get(&tenant, &key)).await
    }

    async fn put(
        &self,
        tenant: &TenantId,
        key: &AnswerKey,
        document: Option<&DocumentId>,
        answer: &Answer,
    ) -> Result<(), StorageError> {
        let (tenant, key, document) = (tenant.clone(), *key, document.copied());
        let answer = serde_json::to_string(answer).map_err(|error| StorageError::Failed {
            what: "an answer".into(),
            reason: error.to_string(),
        })?;
        self.worker
            .call(move |file| file.put(&tenant, &key, document.as_ref(), &answer))
            .await
    }

    async fn remove(&self, tenant: &TenantId, document: &DocumentId) -> Result<(), StorageError> {
        let (tenant, document) = (tenant.clone(), *document);
        self.worker
            .call(move |file| file.remove_all(&tenant, Some(&document)))
            .await
    }

    async fn clear(&self, tenant: &TenantId) -> Result<(), StorageError> {
        let tenant = tenant.clone();
        self.worker.call(move |file| file.remove_all(&tenant, None)).await
    }
}

/// Forgets a tenant's answers in a data folder that nobody has open.
pub(crate) fn clear(data: &Path, tenant: &TenantId) -> Result<(), StorageError> {
    if !data.join(FILE).exists() {
        return Ok(());
    }
    File::open_or_begin(data, u64::MAX)?.remove_all(tenant, None)
}

/// Removes the answers of a data folder whose host keeps none.
fn discard(data: &Path) -> Result<(), StorageError> {
    BESIDE
        .into_iter()
        .chain([FILE])
        .try_for_each(|name| remove(&data.join(name)))
}

impl File {
    fn open_or_begin(data: &Path, most: u64) -> Result<Self, StorageError> {
        let path = data.join(FILE);
        match Self::open(&path, most) {
            Err(StorageError::Damaged { reason, .. }) => {
                tracing::warn!(
                    file = %path.display(),
                    reason,
                    "answers that were kept cannot be read: begun anew"
                );
                discard(data)?;
                Self::open(&path, most)
            }
            opened => opened,
        }
    }

    fn open(path: &PathBuf, most: u64) -> Result<Self, StorageError> {
        let location = Location::new(ANSWERS, path);
        make_private(path).map_err(|e| location.io(&e))?;
        let opened = Connection::open(path).and_then(|connection| {
            connection.busy_timeout(BUSY)?;
            connection.pragma_update(None, "journal_mode", "wal")?;
            connection.pragma_update(None, "synchronous", "normal")?;
            connection.pragma_update(None, "secure_delete", true)?;
            let version: u32 = connection.pragma_query_value(None, "user_version", |row| row.get(0))?;
            if version == 0 {
                connection.execute_batch(SCHEMA)?;
            }
            let known = version == 0 || version == VERSION;
            let totals = "SELECT coalesce(sum(bytes), 0), coalesce(max(used), 0) FROM answers";
            let (bytes, uses) = match known {
                true => connection.query_row(totals, [], |row| Ok((row.get::<_, i64>(0)?, row.get(1)?)))?,
                false => (0, 0),
            };
            Ok((connection, known, bytes, uses))
        });
        let (connection, known, bytes, uses) = opened.map_err(|e| explained(&location, &e))?;
        if !known {
            return Err(location.damaged("it is of another version"));
        }
        let mut file = Self {
            connection,
            location,
            most,
            bytes: u64::try_from(bytes).unwrap_or_default(),
            uses,
        };
        file.make_room(0)?;
        Ok(file)
    }

    fn get(&mut self, tenant: &TenantId, key: &AnswerKey) -> Result<Option<Answer>, StorageError> {
        self.uses += 1;
        let used = "UPDATE answers SET used = ?3 WHERE key = ?1 AND tenant = ?2 RETURNING answer";
        let found: rusqlite::Result<Option<String>> =
            self.connection.prepare_cached(used).and_then(|mut s| {
                s.query_row(params![key, tenant.as_str(), self.uses], |row| row.get(0))
                    .optional()
            });
        let found = found.map_err(|e| explained(&self.location, &e))?;
        // What an older version wrote and this one cannot read is not there.
        Ok(found.and_then(|answer| serde_json::from_str(&answer).ok()))
    }

    fn put(
        &mut self,
        tenant: &TenantId,
        key: &AnswerKey,
        document: Option<&DocumentId>,
        answer: &str,
    ) -> Result<(), StorageError> {
        let bytes = answer.len() as u64 + ROW;
        self.remove(key)?;
        if bytes > self.most {
            return Ok(());
        }
        self.make_room(bytes)?;
        self.uses += 1;
        let put = "INSERT INTO answers (key, tenant, document, answer, bytes, used) VALUES (?1, ?2, ?3, ?4, ?5, ?6)";
        let row = params![
            key,
            tenant.as_str(),
            document.map(ToString::to_string),
            answer,
            i64::try_from(bytes).unwrap_or(i64::MAX),
            self.uses
        ];
        let inserted = self
            .connection
            .prepare_cached(put)
            .and_then(|mut s| s.execute(row));
        inserted.map_err(|e| explained(&self.location, &e))?;
        self.bytes += bytes;
        Ok(())
    }

    /// Takes out those that were used longest ago until there is room for so many bytes.
    fn make_room(&mut self, bytes: u64) -> Result<(), StorageError> {
        while self.bytes > 0 && self.bytes.saturating_add(bytes) > self.most {
            let oldest = "SELECT key FROM answers ORDER BY used LIMIT 1";
            let oldest: rusqlite::Result<Option<AnswerKey>> = self
                .connection
                .prepare_cached(oldest)
                .and_then(|mut s| s.query_row([], |row| row.get(0)).optional());
            match oldest.map_err(|e| explained(&self.location, &e))? {
                Some(key) => self.remove(&key)?,
                None => self.bytes = 0,
            }
        }
        Ok(())
    }

    fn remove(&mut self, key: &AnswerKey) -> Result<(), StorageError> {
        let remove = "DELETE FROM answers WHERE key = ?1 RETURNING bytes";
        let removed: rusqlite::Result<Option<i64>> = self
            .connection
            .prepare_cached(remove)
            .and_then(|mut s| s.query_row([key], |row| row.get(0)).optional());
        let removed = removed.map_err(|e| explained(&self.location, &e))?;
        self.bytes = self
            .bytes
            .saturating_sub(u64::try_from(removed.unwrap_or_default()).unwrap_or_default());
        Ok(())
    }

    /// Removes a tenant's answers: those of one document and of no known one, or all.
    fn remove_all(&mut self, tenant: &TenantId, document: Option<&DocumentId>) -> Result<(), StorageError> {
        let removed = self.connection.execute(
            "DELETE FROM answers WHERE tenant = ?1 AND (?2 IS NULL OR document IS NULL OR document = ?2)",
            params![tenant.as_str(), document.map(ToString::to_string)],
        );
        removed
            .and_then(|_| truncate_log(&self.connection))
            .map_err(|e| explained(&self.location, &e))?;
        let left = self
            .connection
            .query_row("SELECT coalesce(sum(bytes), 0) FROM answers", [], |row| {
                row.get::<_, i64>(0)
            });
        self.bytes = u64::try_from(left.map_err(|e| explained(&self.location, &e))?).unwrap_or_default();
        Ok(())
    }
}

fn remove(path: &Path) -> Result<(), StorageError> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != ErrorKind::NotFound => Err(Location::new(ANSWERS, path).io(&error)),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answer(text: &str) -> Answer {
        Answer {
            text: text.into(),
            quotes: Vec::new(),
            prompt_tokens: Some(3),
            answer_tokens: None,
            provider: "near".into(),
            model: "m".into(),
            cached: false,
            waited: Duration::from_millis(1500),
            spent: Duration::ZERO,
        }
    }

    fn tenant(name: &str) -> TenantId {
        name.parse().unwrap()
    }

    #[tokio::test]
    async fn answers_outlive_the_process_and_belong_to_their_tenant() {
        let data = tempfile::tempdir().unwrap();
        let (one, other) = (tenant("one"), tenant("other"));
        let answers = SqliteAnswers::open(data.path(), 1 << 20).await.unwrap();
        answers.put(&one, &[1; 32], None, &answer("yes")).await.unwrap();
        // Neither flushed nor closed, as when the process is killed.
        drop(answers);
        let answers = SqliteAnswers::open(data.path(), 1 << 20).await.unwrap();
        assert_eq!(answers.get(&one, &[1; 32]).await.unwrap(), Some(answer("yes")));
        assert_eq!(answers.get(&other, &[1; 32]).await.unwrap(), None);
        answers.put(&other, &[2; 32], None, &answer("no")).await.unwrap();
        answers.clear(&one).await.unwrap();
        assert_eq!(answers.get(&one, &[1; 32]).await.unwrap(), None);
        answers.close().await;
        clear(data.path(), &other).unwrap();
        let answers = SqliteAnswers::open(data.path(), 1 << 20).await.unwrap();
        assert_eq!(answers.get(&other, &[2; 32]).await.unwrap(), None);
    }

    #[tokio::test]
    async fn what_was_used_longest_ago_makes_room() {
        let data = tempfile::tempdir().unwrap();
        let one = tenant("one");
        let size = serde_json::to_string(&answer(&"x".repeat(1000))).unwrap().len() as u64 + ROW;
        let answers = SqliteAnswers::open(data.path(), 3 * size).await.unwrap();
        let known = async |key: u8| answers.get(&one, &[key; 32]).await.unwrap().is_some();
        for key in 0..3 {
            answers
                .put(&one, &[key; 32], None, &answer(&"x".repeat(1000)))
                .await
                .unwrap();
        }
        assert!(known(0).await);
        for key in [3, 3, 3] {
            answers
                .put(&one, &[key; 32], None, &answer(&"x".repeat(1000)))
                .await
                .unwrap();
        }
        assert_eq!(
            [known(0).await, known(1).await, known(2).await, known(3).await],
            [true, false, true, true]
        );
        answers
            .put(&one, &[9; 32], None, &answer(&"x".repeat(10_000)))
            .await
            .unwrap();
        assert!(!known(9).await && known(3).await);
        answers.close().await;
        // With less room the next time, the latest stay.
        let answers = SqliteAnswers::open(data.path(), size).await.unwrap();
        let known = async |key: u8| answers.get(&one, &[key; 32]).await.unwrap().is_some();
        assert_eq!(
            [known(0).await, known(2).await, known(3).await],
            [false, false, true]
        );
    }

    #[tokio::test]
    async fn a_file_that_cannot_be_read_is_begun_anew() {
        let data = tempfile::tempdir().unwrap();
        let one = tenant("one");
        for damage in ["garbage, and a good deal of it".repeat(300), "version".into()] {
            if damage == "version" {
                let other = Connection::open(data.path().join(FILE)).unwrap();
                other.pragma_update(None, "user_version", 99).unwrap();
            } else {
                fs::write(data.path().join(FILE), &damage).unwrap();
            }
            let answers = SqliteAnswers::open(data.path(), 1 << 20).await.unwrap();
            assert_eq!(answers.get(&one, &[1; 32]).await.unwrap(), None);
            answers.put(&one, &[1; 32], None, &answer("yes")).await.unwrap();
            assert!(answers.get(&one, &[1; 32]).await.unwrap().is_some());
            answers.close().await;
        }
    }
}
