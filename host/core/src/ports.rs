//! The ports: traits that the engine depends on.
//!
//! No method has a default body, because a body that works for any store would read too much from a large one. Stores
//! and fakes pass one conformance suite (`tests/conformance`).
//!
//! An implementation runs blocking work on its own threads and is safe to cancel. Dropping a future that it returned
//! stops the work of that call and leaves nothing half-written that would make a later call fail.

mod policies;

use std::fmt::Debug;
use std::ops::Range;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;

use crate::component_log::NumberedComponentLogRecord;
use crate::decision::ComputeDevice;
use crate::error::{InferenceError, RasterError, StorageError};
use crate::event::Event;
use crate::fair_queue::Flow;
use crate::id::{DocumentId, JobId, PageNumber, RevisionId, TenantId};
use crate::ledger::{DocumentRecord, JobRecord, LedgerEntry, PageRecord};
use crate::page::{DocumentInfo, EncodedImage, PageFacts, PriorityLane, RawPageImage};
use crate::page_text::Line;
use crate::search::{IndexPoint, SearchHit, SearchQuery};

pub use policies::{
    ComponentStateStore, HostCapabilities, JobPolicy, OpenPolicyRequest, PolicyCallAndFailureCounts,
    PolicyFactory,
};

/// A PDF file to open.
#[derive(Clone)]
pub struct PdfFileToOpen {
    /// Path of the file.
    pub path: PathBuf,
    /// Its password, if it is encrypted.
    pub password: Option<String>,
    /// Opaque id of the owner for fair scheduling. Documents with different ids take turns.
    pub flow_id: u64,
}

impl Debug for PdfFileToOpen {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("PdfFileToOpen")
            .field("path", &self.path)
            .finish_non_exhaustive()
    }
}

/// Rasterizes PDFs.
#[async_trait]
pub trait Rasterizer: Send + Sync {
    /// Opens a file.
    async fn open_document(&self, source: &PdfFileToOpen) -> Result<Arc<dyn OpenedPdf>, RasterError>;

    /// Returns how many pages can be rasterized at once.
    fn worker_count(&self) -> u32;

    /// Returns the bytes that are free for page images. Rasterizing waits while they are not sufficient.
    fn available_image_bytes(&self) -> u64;
}

/// How a page is rasterized.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RasterizeOptions {
    /// Resolution in dpi, 36 to 600. A page that would exceed the maximum image size is rasterized at a lower
    /// resolution.
    pub dpi: u32,
    /// Whether the pixels are returned.
    pub want_pixels: bool,
    /// Whether the encoded image is returned.
    pub want_encoded: bool,
}

/// A rasterized page.
#[derive(Debug, Clone)]
pub struct RasterizeOutput {
    /// The resolution that was used.
    pub dpi: u32,
    /// The pixels, if requested.
    pub image: Option<RawPageImage>,
    /// The encoded image, if requested.
    pub encoded: Option<EncodedImage>,
}

/// An open PDF. Calls for different pages run concurrently.
#[async_trait]
pub trait OpenedPdf: Send + Sync {
    /// Returns the number of pages, the title and the outline.
    fn document_info(&self) -> &DocumentInfo;

    /// Returns facts of the pages `from..to` (from 1, end excluded). A page that cannot be opened has `readable:
    /// false`.
    async fn read_page_facts(&self, pages: Range<PageNumber>) -> Result<Vec<PageFacts>, RasterError>;

    /// Reserves the memory to rasterize a page. Waits until the host has enough free image memory and the owner is
    /// below its share of it.
    async fn reserve_page_memory(
        &self,
        page: PageNumber,
        options: RasterizeOptions,
    ) -> Result<Box<dyn PageWithReservedMemory>, RasterError>;

    /// Returns the lines of the text layer of a page, in the order of the file.
    async fn read_text_layer(&self, page: PageNumber) -> Result<Vec<Line>, RasterError>;
}

impl dyn OpenedPdf + '_ {
    /// Rasterizes a page when memory is available.
    pub async fn reserve_and_rasterize_page(
        &self,
        page: PageNumber,
        options: RasterizeOptions,
    ) -> Result<RasterizeOutput, RasterError> {
        self.reserve_page_memory(page, options)
            .await?
            .rasterize_page()
            .await
    }
}

/// A page with reserved memory to rasterize it. Dropping it releases the memory.
#[async_trait]
pub trait PageWithReservedMemory: Send {
    /// Rasterizes the page. The pixels keep the memory; without pixels it is released.
    async fn rasterize_page(self: Box<Self>) -> Result<RasterizeOutput, RasterError>;
}

/// The tenant, lane, weight and group of work, for fair scheduling.
#[derive(Debug, Clone, PartialEq)]
pub struct SchedulingContext {
    /// The tenant.
    pub tenant: TenantId,
    /// Urgency of the work.
    pub lane: PriorityLane,
    /// The work that this belongs to, such as one run of a document. The groups of a tenant share its part of a busy
    /// resource equally. Work of no group has 0.
    pub group: u64,
    /// How long a partial batch may wait for more work.
    pub batch_linger: Duration,
    /// The tenant's share of a busy resource, relative to other tenants in the same lane. A value that is not above 0
    /// counts as 1.
    pub tenant_weight: f64,
}

impl SchedulingContext {
    /// Returns the flow of the work in a fair queue.
    #[must_use]
    pub fn to_fair_queue_flow(&self) -> Flow {
        Flow {
            lane: self.lane,
            tenant: self.tenant.clone(),
            group: self.group,
            weight: self.tenant_weight,
        }
    }
}

/// Recognizes text in images.
#[async_trait]
pub trait OcrEngine: Send + Sync {
    /// Returns the recognized lines with bounding boxes, in no particular order. `dpi` is the resolution of the image
    /// and determines the size of each line.
    async fn recognize_text(
        &self,
        scheduling: &SchedulingContext,
        image: RawPageImage,
        dpi: u32,
    ) -> Result<Vec<Line>, InferenceError>;

    /// Returns how many images can be processed at once.
    fn worker_count(&self) -> u32;
}

/// Computes embedding vectors of texts.
#[async_trait]
pub trait Embedder: Send + Sync {
    /// Returns a vector of unit length for each text, in the order of the texts.
    async fn embed_texts(
        &self,
        scheduling: &SchedulingContext,
        texts: Vec<String>,
    ) -> Result<Vec<Vec<f32>>, InferenceError>;

    /// Returns the number of tokens of `text` for the model, before truncation.
    fn count_tokens(&self, text: &str) -> Result<u32, InferenceError>;

    /// Returns the length of a vector.
    fn vector_dimensions(&self) -> usize;

    /// Returns the maximum number of tokens of a text.
    fn max_input_tokens(&self) -> u32;

    /// Returns how many concurrent calls are useful.
    fn worker_count(&self) -> u32;

    /// Returns the device that the model runs on.
    fn compute_device(&self) -> ComputeDevice;
}

/// Stores blobs under keys such as `{document}/{page}/ocr.json`. Each tenant has its own keys.
///
/// A reader sees a complete blob or none, and while a blob is replaced, the earlier or the later one. A key or prefix
/// that [`check_blob_key`](crate::blob_key::check_blob_key) or
/// [`check_blob_key_prefix`](crate::blob_key::check_blob_key_prefix) rejects fails with [`StorageError::Failed`].
/// Callers do not use a key and the same key with a slash and more, such as `a` and `a/b`, because a store can use keys
/// as paths.
#[async_trait]
pub trait BlobStore: Send + Sync {
    /// Writes or replaces a blob, which can be empty.
    async fn put_blob(&self, tenant: &TenantId, key: &str, bytes: &[u8]) -> Result<(), StorageError>;

    /// Reads a blob; `None` if the key does not exist.
    async fn get_blob(&self, tenant: &TenantId, key: &str) -> Result<Option<Vec<u8>>, StorageError>;

    /// Returns the tenant's keys that start with `prefix`, sorted by their bytes. The prefix need not end at a slash,
    /// and the empty prefix selects all.
    async fn list_blob_keys(&self, tenant: &TenantId, prefix: &str) -> Result<Vec<String>, StorageError>;

    /// Deletes the tenant's keys that start with `prefix`, as [`BlobStore::list_blob_keys`] lists them. It is no error
    /// if there are none.
    async fn delete_blobs_with_prefix(&self, tenant: &TenantId, prefix: &str) -> Result<(), StorageError>;

    /// Waits until all earlier writes are durable.
    async fn flush_blobs(&self) -> Result<(), StorageError>;
}

/// Stores and searches passages with their vectors.
#[async_trait]
pub trait VectorStore: Send + Sync {
    /// Writes or replaces points. They are searchable when this returns.
    async fn upsert_points(
        &self,
        tenant: &TenantId,
        collection: &str,
        points: Vec<IndexPoint>,
    ) -> Result<(), StorageError>;

    /// Removes the passages of these pages, or all points of the document if `pages` is `None`. Summaries belong to
    /// no page.
    async fn remove_document_or_page_points(
        &self,
        tenant: &TenantId,
        document: &DocumentId,
        pages: Option<&[PageNumber]>,
    ) -> Result<(), StorageError>;

    /// Removes the summaries of a document's sections ([`IndexPoint::is_summary`]), but no passages.
    async fn remove_document_summaries(
        &self,
        tenant: &TenantId,
        document: &DocumentId,
    ) -> Result<(), StorageError>;

    /// Removes all points of a tenant, also those of documents that are in no ledger.
    async fn remove_tenant_points(&self, tenant: &TenantId) -> Result<(), StorageError>;

    /// Returns the hits, best first.
    async fn search_by_vector_and_words(
        &self,
        tenant: &TenantId,
        query: &SearchQuery,
    ) -> Result<Vec<SearchHit>, StorageError>;

    /// Returns the number of passages of each page of a document as `(page, passages)`, in page order. Summaries do
    /// not count.
    async fn count_passages_by_page(
        &self,
        tenant: &TenantId,
        document: &DocumentId,
    ) -> Result<Vec<(PageNumber, u32)>, StorageError>;

    /// Waits until all earlier writes are durable.
    async fn flush_points(&self) -> Result<(), StorageError>;
}

/// Records jobs, documents, pages, events and component logs.
#[async_trait]
pub trait Ledger: Send + Sync {
    /// Writes all entries or none. They are durable when this returns.
    async fn commit_entries(&self, entries: Vec<LedgerEntry>) -> Result<(), StorageError>;

    /// Returns a document.
    async fn find_document(
        &self,
        tenant: &TenantId,
        document: &DocumentId,
    ) -> Result<Option<DocumentRecord>, StorageError>;

    /// Returns the tenant's documents, newest first.
    async fn list_tenant_documents(&self, tenant: &TenantId) -> Result<Vec<DocumentRecord>, StorageError>;

    /// Returns the ended pages of a document under `revision`, in page order. With `None`, returns the latest record
    /// of each page under any revision.
    async fn list_pages(
        &self,
        tenant: &TenantId,
        document: &DocumentId,
        revision: Option<&RevisionId>,
    ) -> Result<Vec<PageRecord>, StorageError>;

    /// Returns an ended page of a document: its record under `revision`, or with `None` its latest record under any
    /// revision.
    async fn find_page(
        &self,
        tenant: &TenantId,
        document: &DocumentId,
        page: PageNumber,
        revision: Option<&RevisionId>,
    ) -> Result<Option<PageRecord>, StorageError>;

    /// Returns a job.
    async fn find_job(&self, tenant: &TenantId, job: &JobId) -> Result<Option<JobRecord>, StorageError>;

    /// Returns the jobs that were queued or running when they were last written, oldest first.
    async fn list_unfinished_jobs(&self) -> Result<Vec<JobRecord>, StorageError>;

    /// Returns at most `limit` events of a job after `seq`, in order.
    async fn list_job_events(
        &self,
        tenant: &TenantId,
        job: &JobId,
        after: u64,
        limit: usize,
    ) -> Result<Vec<Event>, StorageError>;

    /// Returns the last event of a job; `None` if it has none.
    async fn last_job_event(&self, tenant: &TenantId, job: &JobId) -> Result<Option<Event>, StorageError>;

    /// Returns at most `limit` events of all jobs of a tenant after the position `after`, in the order of writing,
    /// each with its position. Positions increase and are never reused.
    async fn list_tenant_events(
        &self,
        tenant: &TenantId,
        after: u64,
        limit: usize,
    ) -> Result<Vec<(u64, Event)>, StorageError>;

    /// Returns at most `limit` component log entries of a job after `seq`, in order. The logs of a tenant's oldest
    /// jobs are removed over time, each as a whole.
    async fn list_component_log(
        &self,
        tenant: &TenantId,
        job: &JobId,
        after: u64,
        limit: usize,
    ) -> Result<Vec<NumberedComponentLogRecord>, StorageError>;

    /// Returns the position of a job's last component log entry; 0 if there is none.
    async fn last_component_log_seq(&self, tenant: &TenantId, job: &JobId) -> Result<u64, StorageError>;

    /// Returns the position of the tenant's latest event; 0 if there is none.
    async fn last_tenant_event_position(&self, tenant: &TenantId) -> Result<u64, StorageError>;

    /// Returns at most `limit` documents of the tenant, newest first and, of the same age, by descending id. `after`
    /// is the age and id of the last document of the previous page of results. That document need not exist any more.
    async fn list_tenant_documents_after(
        &self,
        tenant: &TenantId,
        after: Option<(u64, DocumentId)>,
        limit: usize,
    ) -> Result<Vec<DocumentRecord>, StorageError>;

    /// Returns at most `limit` pages of a document after page `after`, in page order: the latest record of each under
    /// any revision.
    async fn list_pages_after(
        &self,
        tenant: &TenantId,
        document: &DocumentId,
        after: PageNumber,
        limit: usize,
    ) -> Result<Vec<PageRecord>, StorageError>;

    /// Removes a document and its pages. Returns whether it was known. Its jobs and their events stay without text of
    /// the document, and the component logs of these jobs are removed. Nothing of the document is left on the disk
    /// when this returns, or shortly after if a reader delays it.
    async fn erase_document(&self, tenant: &TenantId, document: &DocumentId) -> Result<bool, StorageError>;
}
