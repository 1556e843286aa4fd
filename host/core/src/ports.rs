//! The traits the engine stands on.
//!
//! No method has a body: what is right for any store reads too much for a large one. Stores and fakes pass one suite
//! (`tests/conformance`).
//!
//! An implementation does its blocking work on threads of its own and is safe to cancel: dropping a future it returned
//! leaves nothing running for it and nothing half-written that a later call would trip over.

mod policies;

use std::fmt::Debug;
use std::ops::Range;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;

use crate::decision::Device;
use crate::error::{InferenceError, RasterError, StorageError};
use crate::event::Event;
use crate::id::{DocumentId, JobId, PageNumber, RevisionId, TenantId};
use crate::ledger::{DocumentRecord, Entry, JobRecord, PageRecord};
use crate::page::{DocumentInfo, EncodedImage, Lane, PageFacts, PageImage};
use crate::said::LogEntry;
use crate::search::{Hit, Point, Query};
use crate::text::Line;

pub use policies::{Capabilities, JobPolicy, Policies, PolicyRequest, PolicyState, PolicyTally};

/// A file to be opened.
#[derive(Clone)]
pub struct Source {
    /// The file.
    pub path: PathBuf,
    /// Its password, if it is encrypted.
    pub password: Option<String>,
    /// Whose it is, in a number that says no more: documents of different parties take turns where they wait.
    pub party: u64,
}

impl Debug for Source {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Source")
            .field("path", &self.path)
            .finish_non_exhaustive()
    }
}

/// Draws PDFs.
#[async_trait]
pub trait Rasterizer: Send + Sync {
    /// Opens a file.
    async fn open(&self, source: &Source) -> Result<Arc<dyn OpenDocument>, RasterError>;

    /// Pages that can be drawn at once.
    fn workers(&self) -> u32;

    /// Bytes still free for page images. Drawing waits while they do not suffice.
    fn free_image_bytes(&self) -> u64;
}

/// How a page is drawn.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Drawing {
    /// Resolution, 36 to 600. A page too large for the byte limit of one image is drawn coarser.
    pub dpi: u32,
    /// Whether the pixels are wanted.
    pub pixels: bool,
    /// Whether the encoded image is wanted.
    pub encoded: bool,
}

/// A drawn page.
#[derive(Debug, Clone)]
pub struct DrawnPage {
    /// Resolution it was drawn at.
    pub dpi: u32,
    /// The pixels, if asked for.
    pub image: Option<PageImage>,
    /// The encoded image, if asked for.
    pub encoded: Option<EncodedImage>,
}

/// An open PDF. Calls for different pages run at the same time.
#[async_trait]
pub trait OpenDocument: Send + Sync {
    /// Pages, title, outline.
    fn info(&self) -> &DocumentInfo;

    /// Facts of the pages `from..to` (1-based, half open). A page that cannot be opened is `readable: false`.
    async fn facts(&self, pages: Range<PageNumber>) -> Result<Vec<PageFacts>, RasterError>;

    /// Reserves the memory that drawing a page takes. Waits while the host has too little left, or the party has its share.
    async fn reserve(
        &self,
        page: PageNumber,
        drawing: Drawing,
    ) -> Result<Box<dyn ReservedDrawing>, RasterError>;

    /// The text layer of a page: its lines, in the order of the file.
    async fn text(&self, page: PageNumber) -> Result<Vec<Line>, RasterError>;
}

impl dyn OpenDocument + '_ {
    /// Draws a page as soon as there is memory for it.
    pub async fn draw(&self, page: PageNumber, drawing: Drawing) -> Result<DrawnPage, RasterError> {
        self.reserve(page, drawing).await?.draw().await
    }
}

/// A page that has the memory to be drawn. Dropping it gives the memory back.
#[async_trait]
pub trait ReservedDrawing: Send {
    /// Draws the page. The memory is kept for its pixels, or given back if they were not asked for.
    async fn draw(self: Box<Self>) -> Result<DrawnPage, RasterError>;
}

/// On whose account work is done, so that what is busy is shared fairly.
#[derive(Debug, Clone, PartialEq)]
pub struct Account {
    /// The tenant.
    pub tenant: TenantId,
    /// How urgent the work is.
    pub lane: Lane,
    /// How long a partial batch may wait for more.
    pub linger: Duration,
    /// The tenant's share of what is busy, relative to other tenants' of the same lane. What is not above 0 counts as 1.
    pub weight: f64,
}

/// Recognizes text in images.
#[async_trait]
pub trait Reader: Send + Sync {
    /// Lines with boxes, in no particular order. `dpi` is what the image was drawn at; it sets each line's size.
    async fn read(&self, account: &Account, image: PageImage, dpi: u32) -> Result<Vec<Line>, InferenceError>;

    /// Images that can be read at once.
    fn workers(&self) -> u32;
}

/// Turns text into vectors.
#[async_trait]
pub trait Embedder: Send + Sync {
    /// A vector of unit length for each text, in their order.
    async fn embed(&self, account: &Account, texts: Vec<String>) -> Result<Vec<Vec<f32>>, InferenceError>;

    /// Tokens the model sees in `text`, before any cut.
    fn count_tokens(&self, text: &str) -> Result<u32, InferenceError>;

    /// Length of a vector.
    fn dimensions(&self) -> usize;

    /// Tokens the model takes.
    fn max_tokens(&self) -> u32;

    /// Calls that are worth having under way at once.
    fn workers(&self) -> u32;

    /// Where the model runs.
    fn device(&self) -> Device;
}

/// Keeps bytes under keys such as `{document}/{page}/ocr.json`. A key is readable whole or not at all.
#[async_trait]
pub trait BlobStore: Send + Sync {
    /// Writes or replaces.
    async fn put(&self, tenant: &TenantId, key: &str, bytes: &[u8]) -> Result<(), StorageError>;

    /// Reads; `None` if there is no such key.
    async fn get(&self, tenant: &TenantId, key: &str) -> Result<Option<Vec<u8>>, StorageError>;

    /// Keys that begin with `prefix`, sorted.
    async fn list(&self, tenant: &TenantId, prefix: &str) -> Result<Vec<String>, StorageError>;

    /// Deletes every key that begins with `prefix`.
    async fn delete(&self, tenant: &TenantId, prefix: &str) -> Result<(), StorageError>;

    /// Returns when everything put before survives a power cut.
    async fn flush(&self) -> Result<(), StorageError>;
}

/// Finds passages.
#[async_trait]
pub trait VectorStore: Send + Sync {
    /// Writes or replaces points; they can be found when it returns.
    async fn upsert(
        &self,
        tenant: &TenantId,
        collection: &str,
        points: Vec<Point>,
    ) -> Result<(), StorageError>;

    /// Removes the passages of these pages, or all points of the document if `pages` is `None`. Summaries are passages of no
    /// page.
    async fn remove(
        &self,
        tenant: &TenantId,
        document: &DocumentId,
        pages: Option<&[PageNumber]>,
    ) -> Result<(), StorageError>;

    /// Removes the summaries of a document's sections ([`Point::is_summary`]), and no passage.
    async fn remove_summaries(&self, tenant: &TenantId, document: &DocumentId) -> Result<(), StorageError>;

    /// Removes every point of a tenant, also those of documents that no ledger knows.
    async fn clear(&self, tenant: &TenantId) -> Result<(), StorageError>;

    /// The best hits first.
    async fn search(&self, tenant: &TenantId, query: &Query) -> Result<Vec<Hit>, StorageError>;

    /// Passages of each page of a document, summaries not counted, as `(page, passages)` in order of pages.
    async fn pages(
        &self,
        tenant: &TenantId,
        document: &DocumentId,
    ) -> Result<Vec<(PageNumber, u32)>, StorageError>;

    /// Returns when everything upserted before survives a power cut.
    async fn flush(&self) -> Result<(), StorageError>;
}

/// Writes down what has been done.
#[async_trait]
pub trait Ledger: Send + Sync {
    /// Writes all entries or none; durable when it returns.
    async fn commit(&self, entries: Vec<Entry>) -> Result<(), StorageError>;

    /// A document.
    async fn document(
        &self,
        tenant: &TenantId,
        document: &DocumentId,
    ) -> Result<Option<DocumentRecord>, StorageError>;

    /// The tenant's documents, newest first.
    async fn documents(&self, tenant: &TenantId) -> Result<Vec<DocumentRecord>, StorageError>;

    /// Pages of a document that ended under `revision`, in order; under any revision (the latest of each page) if `None`.
    async fn pages(
        &self,
        tenant: &TenantId,
        document: &DocumentId,
        revision: Option<&RevisionId>,
    ) -> Result<Vec<PageRecord>, StorageError>;

    /// A job.
    async fn job(&self, tenant: &TenantId, job: &JobId) -> Result<Option<JobRecord>, StorageError>;

    /// Jobs that were queued or running when they were last written, oldest first.
    async fn unfinished(&self) -> Result<Vec<JobRecord>, StorageError>;

    /// Events of a job after `seq`, in order, at most `limit`.
    async fn events(
        &self,
        tenant: &TenantId,
        job: &JobId,
        after: u64,
        limit: usize,
    ) -> Result<Vec<Event>, StorageError>;

    /// Events of all of a tenant's jobs after `place`, in the order they were written, at most `limit`, each with its place.
    /// Places grow and are never used twice.
    async fn tenant_events(
        &self,
        tenant: &TenantId,
        after: u64,
        limit: usize,
    ) -> Result<Vec<(u64, Event)>, StorageError>;

    /// What a job's components said after `seq`, in order, at most `limit`. The oldest of a tenant's jobs are forgotten in time,
    /// each with all it said.
    async fn said(
        &self,
        tenant: &TenantId,
        job: &JobId,
        after: u64,
        limit: usize,
    ) -> Result<Vec<LogEntry>, StorageError>;

    /// Place of the last thing a job's components said; 0 if there is none.
    async fn last_said(&self, tenant: &TenantId, job: &JobId) -> Result<u64, StorageError>;

    /// Place of the tenant's latest event; 0 if there is none.
    async fn tenant_place(&self, tenant: &TenantId) -> Result<u64, StorageError>;

    /// The tenant's documents, newest first and of one age by descending id, at most `limit`; only those after `after` in
    /// this order, given as its age and id, whether or not it is still there.
    async fn documents_after(
        &self,
        tenant: &TenantId,
        after: Option<(u64, DocumentId)>,
        limit: usize,
    ) -> Result<Vec<DocumentRecord>, StorageError>;

    /// Pages of a document after page `after` that ended under any revision, the latest of each, in order, at most `limit`.
    async fn pages_after(
        &self,
        tenant: &TenantId,
        document: &DocumentId,
        after: PageNumber,
        limit: usize,
    ) -> Result<Vec<PageRecord>, StorageError>;

    /// Forgets a document and its pages; whether it was known. Its jobs and their events stay without text of it, and the logs of
    /// the jobs' components go. Nothing of it is left on the disk when this returns, or soon after if a reader is in the way.
    async fn forget(&self, tenant: &TenantId, document: &DocumentId) -> Result<bool, StorageError>;
}
