//! Passages in the data folder: `<data>/vectors`.
//!
//! SQLite has the passages with their vectors and is the only durable copy. Two indexes are derived from it: one of words (tantivy) and one
//! of 4-bit codes of the vectors (turbovec). After a killed process they are brought up to date, and a lost or damaged one is computed
//! again. `docs/performance.md` compares this with other engines. A search joins a ranking by embedding and one by words (BM25), both of the
//! tenant's passages only: no passage of another tenant changes a rank.
//!
//! One thread applies all changes, and searches run concurrently. A change is visible to searches when its call returns: the indexes
//! are updated after some thousand written passages, and before a search of a tenant whose passages have changed. A change is durable
//! after the next flush.
//!
//! The texts of a removed document or tenant are gone from the files at most a minute later: SQLite overwrites them, and the segments of
//! words are rewritten without them ([`EmbeddedVectorStore::compact`]) after [`compaction::COMPACT_DELAY`]. Passages of replaced pages go with the next
//! compaction. The codes of tenants that were searched or written stay in memory: 200 bytes for each passage of 384 dimensions.

mod code_index;
mod compaction;
mod half_vector;
mod hybrid_search;
mod index_errors;
mod passage_changes;
mod passage_database;
mod passage_queries;
mod passage_writer;
mod shared_index;
mod stored_points;
mod word_index;
mod word_queries;

use std::fs;
use std::path::Path;
use std::sync::Arc;

use async_trait::async_trait;
use parking_lot::Mutex;
use tokio::sync::{Notify, Semaphore};
use tokio::task::JoinHandle;
use weir_core::ports::VectorStore;
use weir_core::search::{IndexPoint, SearchHit, SearchQuery};
use weir_core::{DocumentId, PageNumber, StorageError, TenantId};

use self::code_index::CodeIndexes;
use self::compaction::{compact, compact_after_removals};
use self::index_errors::{INDEX_NAME, index_error};
use self::passage_changes::PassageSelection;
use self::passage_database::PassageDatabase;
use self::passage_writer::PassageWriter;
use self::shared_index::{SharedIndex, TenantState};
use self::word_index::WordIndex;
use super::passage_payload::{SUMMARY_PAGE, check_query, to_passage_point};
use super::words::WordSplitter;
use crate::data_folder::{FolderLock, create_private_folder};
use crate::path_with_public_name::PathWithPublicName;
use crate::sqlite_file::IdleReaders;
use crate::worker_thread::WorkerThread;

/// The folder of the index in the data folder.
const FOLDER_NAME: &str = "vectors";
/// A file that only an index of earlier versions of weir has.
const FILE_OF_EARLIER_VERSIONS: &str = "weir.json";
/// Concurrent searches. Further searches wait.
const MAX_CONCURRENT_SEARCHES: usize = 8;
/// Passages that one call of the thread removes. Other changes go in between.
const MAX_REMOVED_AT_ONCE: usize = 10_000;
/// Implements [`VectorStore`] with files of the data folder.
pub struct EmbeddedVectorStore {
    index: Mutex<Option<Arc<SharedIndex>>>,
    writer: Arc<WorkerThread<PassageWriter>>,
    search_permits: Arc<Semaphore>,
    /// Notified when the index has removed passages to compact.
    removal_notify: Arc<Notify>,
    compaction_task: JoinHandle<()>,
}

impl EmbeddedVectorStore {
    /// Opens `<data>/vectors` for vectors of length `dimensions` by the embedding model `model`. Creates it if it does not exist. Blocks
    /// on the disk.
    pub(crate) fn open_or_create(
        data: &Path,
        model: &str,
        dimensions: usize,
        lock: Arc<FolderLock>,
    ) -> Result<Self, StorageError> {
        let folder = data.join(FOLDER_NAME);
        create_private_folder(&folder)?;
        check_files(&folder)?;
        let was_killed = PassageDatabase::has_log(&folder);
        let database = PassageDatabase::open_or_create(&folder, model, dimensions)?;
        let format = database.check_format(model, dimensions)?;
        let last_number = database.last_number()?;
        let (words, has_words) =
            WordIndex::open_or_create(&folder.join("words"), format.id, database.file.count_syncs()?)?;
        let codes = CodeIndexes::open_or_create(folder.join("codes"), dimensions)?;
        if !has_words {
            // If the file of the passages is an earlier copy, the codes may have numbers that are used again.
            codes.remove_all()?;
        }
        let has_unindexed_changes = words.last_number()?.min(database.last_coded_number()?) < last_number
            || !database.list_removals()?.is_empty();
        let tenants = database.list_tenants()?.into_iter();
        let tenants = tenants.map(|(tenant, number, passages)| {
            let state = TenantState {
                number,
                passages,
                has_unindexed_changes,
            };
            (tenant, state)
        });
        let index = Arc::new(SharedIndex {
            words,
            codes,
            splitter: WordSplitter::new(),
            tenants: Mutex::new(tenants.collect()),
            idle_readers: IdleReaders::default(),
            folder,
            format,
            _lock: lock,
        });
        let unindexed = u64::from(has_unindexed_changes);
        let writer = PassageWriter::new(Arc::clone(&index), database, unindexed, was_killed);
        let removal_notify = Arc::new(Notify::new());
        if writer.needs_compaction()? {
            removal_notify.notify_one();
        }
        let writer = Arc::new(WorkerThread::start("weir-vectors", INDEX_NAME.into(), writer)?);
        Ok(Self {
            compaction_task: tokio::spawn(compact_after_removals(
                Arc::clone(&removal_notify),
                Arc::downgrade(&writer),
            )),
            writer,
            index: Mutex::new(Some(index)),
            search_permits: Arc::new(Semaphore::new(MAX_CONCURRENT_SEARCHES)),
            removal_notify,
        })
    }

    /// Returns whether a data folder has an index.
    pub(crate) fn exists_in(data: &Path) -> bool {
        data.join(FOLDER_NAME).exists()
    }

    /// Opens an existing `<data>/vectors` for the embedding model that it was made for. Returns `None` if it does not exist. Blocks on
    /// the disk.
    pub(crate) fn open_existing(data: &Path, lock: Arc<FolderLock>) -> Result<Option<Self>, StorageError> {
        let folder = data.join(FOLDER_NAME);
        if !PassageDatabase::exists_in(&folder) {
            return check_files(&folder).map(|()| None);
        }
        match PassageDatabase::open_for_reading(&folder)?.find_format()? {
            Some(format) => Self::open_or_create(data, &format.model, format.dimensions, lock).map(Some),
            None => Ok(None),
        }
    }

    /// Returns the embedding model and the length of its vectors.
    pub(crate) fn model_and_dimensions(&self) -> Result<(String, usize), StorageError> {
        let index = self.get_open_index()?;
        Ok((index.format.model.clone(), index.format.dimensions))
    }

    /// Rewrites the files without removed passages, if there are any. Changes and searches go on meanwhile.
    pub async fn compact(&self) -> Result<(), StorageError> {
        compact(&self.writer).await
    }

    /// Flushes and closes the index. Returns when another process can open it. Every later call fails.
    pub async fn close(&self) -> Result<(), StorageError> {
        self.compaction_task.abort();
        let flushed = self
            .writer
            .run(|writer| {
                writer.sync()?;
                writer.index_changes()
            })
            .await;
        // When all permits are acquired, no search uses the index.
        let searches = u32::try_from(MAX_CONCURRENT_SEARCHES).unwrap_or(u32::MAX);
        let _permits = self.search_permits.acquire_many(searches).await;
        if let Some(index) = self.index.lock().take() {
            index.idle_readers.close();
        }
        let merged = self.writer.run(|writer| writer.words().close()).await;
        self.writer.close().await;
        flushed.and(merged)
    }

    async fn remove_passages(
        &self,
        tenant: &TenantId,
        selection: PassageSelection,
        compact_soon: bool,
    ) -> Result<(), StorageError> {
        loop {
            let (tenant, selection) = (tenant.clone(), selection.clone());
            let removed = self
                .writer
                .run(move |writer| writer.remove_passages(&tenant, &selection, MAX_REMOVED_AT_ONCE))
                .await?;
            if removed > 0 && compact_soon {
                self.removal_notify.notify_one();
            }
            if removed < MAX_REMOVED_AT_ONCE as u64 {
                return Ok(());
            }
        }
    }

    fn get_open_index(&self) -> Result<Arc<SharedIndex>, StorageError> {
        let index = self.index.lock().clone();
        index.ok_or_else(|| index_error("it is already closed"))
    }

    /// Runs `work` on a thread that may block, concurrently with changes.
    async fn run_read_on_index<R: Send + 'static>(
        &self,
        work: impl FnOnce(&SharedIndex) -> Result<R, StorageError> + Send + 'static,
    ) -> Result<R, StorageError> {
        let permit = Arc::clone(&self.search_permits).acquire_owned().await;
        let permit = permit.map_err(index_error)?;
        let index = self.get_open_index()?;
        tokio::task::spawn_blocking(move || {
            let result = work(&index);
            // In this order, also if the caller no longer waits: `close` acquires all permits and must find the index unused.
            drop(index);
            drop(permit);
            result
        })
        .await
        .map_err(index_error)?
    }
}

/// Returns an error if the folder has files of an index that this version cannot open.
fn check_files(folder: &Path) -> Result<(), StorageError> {
    let location = PathWithPublicName::new(INDEX_NAME, folder);
    if folder.join(FILE_OF_EARLIER_VERSIONS).exists() {
        return Err(location.failed_error(
            "it was made by an earlier version of weir: docs/operations.md says how to take it over (\"Upgrade\")",
        ));
    }
    let has_files = match fs::read_dir(folder) {
        Ok(mut entries) => entries.next().is_some(),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => false,
        Err(error) => return Err(location.io_error(&error)),
    };
    match has_files && !PassageDatabase::exists_in(folder) {
        true => Err(location.damaged_error(
            "its file with the passages is missing: remove the folder `vectors` of the data folder and ingest the documents again \
             with --force",
        )),
        false => Ok(()),
    }
}

impl Drop for EmbeddedVectorStore {
    fn drop(&mut self) {
        self.compaction_task.abort();
    }
}

#[async_trait]
impl VectorStore for EmbeddedVectorStore {
    async fn upsert_points(
        &self,
        tenant: &TenantId,
        collection: &str,
        points: Vec<IndexPoint>,
    ) -> Result<(), StorageError> {
        let dimensions = self.get_open_index()?.format.dimensions;
        // Check all points before the first is written.
        let points = points
            .into_iter()
            .map(|point| to_passage_point(tenant, collection, point, dimensions))
            .collect::<Result<Vec<_>, _>>()?;
        let tenant = tenant.clone();
        self.writer
            .run(move |writer| writer.upsert_passages(&tenant, &points))
            .await
    }

    async fn remove_document_or_page_points(
        &self,
        tenant: &TenantId,
        document: &DocumentId,
        pages: Option<&[PageNumber]>,
    ) -> Result<(), StorageError> {
        let selection = match pages {
            Some(pages) => PassageSelection::Pages(*document, pages.to_vec()),
            None => PassageSelection::Document(*document),
        };
        // Replaced pages are compacted with the next removed document, or when the index is closed.
        self.remove_passages(tenant, selection, pages.is_none()).await
    }

    async fn remove_document_summaries(
        &self,
        tenant: &TenantId,
        document: &DocumentId,
    ) -> Result<(), StorageError> {
        let selection = PassageSelection::Pages(*document, vec![SUMMARY_PAGE]);
        self.remove_passages(tenant, selection, false).await
    }

    async fn remove_tenant_points(&self, tenant: &TenantId) -> Result<(), StorageError> {
        self.remove_passages(tenant, PassageSelection::All, true).await
    }

    async fn search_by_vector_and_words(
        &self,
        tenant: &TenantId,
        query: &SearchQuery,
    ) -> Result<Vec<SearchHit>, StorageError> {
        let index = self.get_open_index()?;
        check_query(query, index.format.dimensions)?;
        let is_ready = index.is_ready_for_search(tenant);
        // Nobody holds the index while it waits, because `close` waits only for searches that run.
        drop(index);
        if !is_ready {
            let tenant = tenant.clone();
            self.writer
                .run(move |writer| writer.prepare_search(&tenant))
                .await?;
        }
        let (tenant, query) = (tenant.clone(), query.clone());
        self.run_read_on_index(move |index| index.search(&tenant, &query))
            .await
    }

    async fn count_passages_by_page(
        &self,
        tenant: &TenantId,
        document: &DocumentId,
    ) -> Result<Vec<(PageNumber, u32)>, StorageError> {
        let (tenant, document) = (tenant.clone(), *document);
        self.run_read_on_index(move |index| match index.find_tenant(&tenant) {
            Some(state) => index.read(|database| database.count_passages_by_page(state.number, &document)),
            None => Ok(Vec::new()),
        })
        .await
    }

    async fn flush_points(&self) -> Result<(), StorageError> {
        self.writer.run(PassageWriter::sync).await
    }
}
