//! The index of words, in tantivy: `words/`. It ranks a tenant's passages by words (BM25) and lists those that match a filter.
//!
//! Each word and each key of a passage begins with the tenant's number. So a query reads only what is of its tenant, and the frequency
//! of a word is that among the tenant's passages. The index stores no texts. Each commit names the last passage that the index has, and
//! after a killed process the index is as its last commit made it.

use std::fs;
use std::io::ErrorKind;
use std::path::Path;

use parking_lot::Mutex;
use serde::{Deserialize, Serialize};
use tantivy::directory::error::OpenReadError;
use tantivy::index::SegmentId;
use tantivy::indexer::{IndexWriterOptions, LogMergePolicy};
use tantivy::schema::{
    FAST, Field, INDEXED, IndexRecordOption, STRING, Schema, TextFieldIndexing, TextOptions,
};
use tantivy::tokenizer::{PreTokenizedString, Token};
use tantivy::{
    FutureResult, Index, IndexReader, IndexWriter, ReloadPolicy, SegmentMeta, TantivyDocument, TantivyError,
    Term,
};
use uuid::Uuid;
use weir_core::StorageError;

use super::index_errors::INDEX_NAME;
use super::passage_database::{PassageNumber, TenantNumber};
use super::passage_queries::NewPassage;
use crate::data_folder::{available_file_system_bytes, create_private_folder, sync_folder};
use crate::path_with_public_name::PathWithPublicName;
use crate::vectors::passage_filter::parse_tenant_key;

/// Bytes of passages that wait in memory for a commit.
const WRITER_MEMORY_BYTES: usize = 32 << 20;
/// Segments with more passages are not merged with others. At least eight are merged at once, so a segment has some 400,000 at most, which a
/// removal rewrites.
const MAX_MERGED_PASSAGES: usize = 50_000;
/// The field of the passages' numbers.
pub(super) const NUMBER_FIELD: &str = "number";

/// The index and its only writer.
pub(super) struct WordIndex {
    index: Index,
    pub(super) reader: IndexReader,
    /// Created with the first change, because it starts threads.
    writer: Mutex<Option<IndexWriter>>,
    pub(super) fields: Fields,
    database: Uuid,
    location: PathWithPublicName,
}

#[derive(Clone, Copy)]
pub(super) struct Fields {
    number: Field,
    pub(super) words: Field,
    pub(super) keys: Field,
}

/// The position of a commit among the changes of the passages.
#[derive(Serialize, Deserialize)]
struct CommitPosition {
    /// The id of the file with the passages.
    database: Uuid,
    last_number: PassageNumber,
    /// How often the file was synced before the commit.
    syncs: i64,
}

impl WordIndex {
    /// Opens the index of a file of passages that was synced `syncs` times, and creates it if it does not exist. An index of another
    /// file, or one that is ahead of the file or damaged, is replaced by an empty one. Returns whether the index was there.
    pub(super) fn open_or_create(
        folder: &Path,
        database: Uuid,
        syncs: i64,
    ) -> Result<(Self, bool), StorageError> {
        let location = PathWithPublicName::new(INDEX_NAME, folder);
        if location.path().join("meta.json").exists() {
            let reason = match Self::open(&location, database) {
                Ok(opened) => match opened.read_position() {
                    Ok(position) if position.syncs <= syncs => return Ok((opened, true)),
                    Ok(_) => "it is newer than the file with the passages".into(),
                    Err(error) => error.to_string(),
                },
                Err(error) if is_io_error(&error) => return Err(to_storage_error(&location, error)),
                Err(error) => error.to_string(),
            };
            tracing::warn!(path = %folder.display(), reason, "the index of words is computed again");
        }
        match fs::remove_dir_all(folder) {
            Err(e) if e.kind() != ErrorKind::NotFound => return Err(location.io_error(&e)),
            _ => create_private_folder(folder)?,
        }
        Index::create_in_dir(folder, schema().0)
            .and_then(|_| Self::open(&location, database))
            .map(|created| (created, false))
            .map_err(|e| to_storage_error(&location, e))
    }

    fn open(location: &PathWithPublicName, database: Uuid) -> tantivy::Result<Self> {
        let index = Index::open_in_dir(location.path())?;
        let reader = index.reader_builder().reload_policy(ReloadPolicy::Manual);
        let (schema, fields) = schema();
        if index.schema() != schema {
            return Err(TantivyError::SchemaError(
                "it has the fields of another version".into(),
            ));
        }
        Ok(Self {
            reader: reader.try_into()?,
            index,
            writer: Mutex::default(),
            fields,
            database,
            location: location.clone(),
        })
    }

    /// Returns the last passage that the index has; 0 if it is empty.
    pub(super) fn last_number(&self) -> Result<PassageNumber, StorageError> {
        self.read_position().map(|position| position.last_number)
    }

    /// Fails if the index belongs to another file.
    fn read_position(&self) -> Result<CommitPosition, StorageError> {
        let metadata = self.index.load_metas().map_err(|e| self.to_error(e))?;
        let Some(payload) = metadata.payload else {
            return Ok(CommitPosition {
                database: self.database,
                last_number: 0,
                syncs: 0,
            });
        };
        let position: CommitPosition =
            serde_json::from_str(&payload).map_err(|e| self.location.damaged_error(e))?;
        match position.database == self.database {
            true => Ok(position),
            false => Err(self
                .location
                .failed_error("it belongs to another file of passages")),
        }
    }

    /// Adds a passage with its words. It is found after the next commit.
    pub(super) fn add_passage(&self, passage: &NewPassage, words: Vec<String>) -> Result<(), StorageError> {
        let mut document = TantivyDocument::default();
        document.add_u64(self.fields.number, passage.number.cast_unsigned());
        let tokens = words.into_iter().enumerate().map(|(position, word)| Token {
            position,
            text: with_tenant_prefix(passage.tenant, &word),
            ..Token::default()
        });
        let words = PreTokenizedString {
            text: String::new(),
            tokens: tokens.collect(),
        };
        document.add_pre_tokenized_text(self.fields.words, words);
        // The tenant's own key would only list all of its passages.
        let keys = passage
            .payload
            .keys
            .iter()
            .filter(|key| parse_tenant_key(key).is_none());
        for key in keys {
            document.add_text(self.fields.keys, with_tenant_prefix(passage.tenant, key));
        }
        self.with_writer(|writer| writer.add_document(document).map(drop))
    }

    /// Removes a passage, if the index has it, with the next commit.
    pub(super) fn remove_passage(&self, number: PassageNumber) -> Result<(), StorageError> {
        let number = Term::from_field_u64(self.fields.number, number.cast_unsigned());
        self.with_writer(|writer| {
            writer.delete_term(number);
            Ok(())
        })
    }

    /// Makes the changes so far durable and visible to searches. `last_number` is the last passage that the index has.
    pub(super) fn commit(&self, last_number: PassageNumber, syncs: i64) -> Result<(), StorageError> {
        let position = CommitPosition {
            database: self.database,
            last_number,
            syncs,
        };
        let payload = serde_json::to_string(&position).map_err(|e| self.location.failed_error(e))?;
        self.with_writer(|writer| {
            let mut commit = writer.prepare_commit()?;
            commit.set_payload(&payload);
            commit.commit().map(drop)
        })?;
        // The commit is a renamed file, and its new name must be on the disk before the list of removed passages is deleted.
        sync_folder(self.location.path()).map_err(|e| self.location.io_error(&e))?;
        self.reload()
    }

    /// Discards the changes since the last commit.
    pub(super) fn roll_back(&self) {
        drop(self.writer.lock().take());
    }

    /// Waits until no thread writes to the folder.
    pub(super) fn close(&self) -> Result<(), StorageError> {
        match self.writer.lock().take() {
            Some(writer) => writer.wait_merging_threads().map_err(|e| self.to_error(e)),
            None => Ok(()),
        }
    }

    /// Lets searches see the segments as they are after a commit or a merge.
    pub(super) fn reload(&self) -> Result<(), StorageError> {
        self.reader.reload().map_err(|e| self.to_error(e))
    }

    fn with_writer<R>(
        &self,
        work: impl FnOnce(&mut IndexWriter) -> tantivy::Result<R>,
    ) -> Result<R, StorageError> {
        let mut writer = self.writer.lock();
        let run = || {
            let open = match writer.take() {
                Some(open) => open,
                None => self.create_writer()?,
            };
            work(writer.insert(open))
        };
        run().map_err(|e| self.to_error(e))
    }

    fn create_writer(&self) -> tantivy::Result<IndexWriter> {
        let options = IndexWriterOptions::builder()
            .memory_budget_per_thread(WRITER_MEMORY_BYTES)
            .num_worker_threads(1)
            .num_merge_threads(1)
            .build();
        let writer = self.index.writer_with_options(options)?;
        let mut merges = LogMergePolicy::default();
        merges.set_max_docs_before_merge(MAX_MERGED_PASSAGES);
        writer.set_merge_policy(Box::new(merges));
        Ok(writer)
    }

    /// Returns whether removed passages are still in a segment.
    pub(super) fn has_removed_passages(&self) -> Result<bool, StorageError> {
        Ok(!self.list_segments_with_removed_passages()?.is_empty())
    }

    /// Returns the segments that still have removed passages.
    pub(super) fn list_segments_with_removed_passages(&self) -> Result<Vec<SegmentId>, StorageError> {
        let segments = self
            .index
            .searchable_segment_metas()
            .map_err(|e| self.to_error(e))?;
        let with_removed = segments.iter().filter(|segment| segment.num_deleted_docs() > 0);
        Ok(with_removed.map(SegmentMeta::id).collect())
    }

    /// Starts to rewrite a segment without its removed passages. The result fails if the segment is being merged or was merged already.
    pub(super) fn rewrite_segment(
        &self,
        segment: SegmentId,
    ) -> Result<FutureResult<Option<SegmentMeta>>, StorageError> {
        self.with_writer(|writer| Ok(writer.merge(&[segment])))
    }

    /// Deletes the files of segments that were rewritten.
    pub(super) fn delete_unused_files(&self) -> Result<(), StorageError> {
        self.reload()?;
        self.with_writer(|writer| writer.garbage_collect_files().wait().map(drop))
    }

    pub(super) fn to_error(&self, error: TantivyError) -> StorageError {
        to_storage_error(&self.location, error)
    }
}

/// Returns a word or key as the index has it.
pub(super) fn with_tenant_prefix(tenant: TenantNumber, name: &str) -> String {
    format!("{tenant} {name}")
}

fn schema() -> (Schema, Fields) {
    let words = TextFieldIndexing::default()
        .set_index_option(IndexRecordOption::WithFreqs)
        .set_fieldnorms(true);
    let mut schema = Schema::builder();
    let fields = Fields {
        number: schema.add_u64_field(NUMBER_FIELD, INDEXED | FAST),
        words: schema.add_text_field("words", TextOptions::default().set_indexing_options(words)),
        keys: schema.add_text_field("keys", STRING),
    };
    (schema.build(), fields)
}

/// Returns whether an error does not mean that the index is damaged.
const fn is_io_error(error: &TantivyError) -> bool {
    matches!(
        error,
        TantivyError::IoError(_)
            | TantivyError::OpenDirectoryError(_)
            | TantivyError::OpenReadError(OpenReadError::IoError { .. })
    )
}

fn to_storage_error(location: &PathWithPublicName, error: TantivyError) -> StorageError {
    match error {
        TantivyError::IoError(error) => location.io_error(&error),
        TantivyError::DataCorruption(_) | TantivyError::IncompatibleIndex(_) => location.damaged_error(error),
        // An error of a thread does not say its cause.
        _ if available_file_system_bytes(location.path()).is_some_and(|free| free < 1 << 20) => {
            location.no_space_error()
        }
        error => location.failed_error(error),
    }
}
