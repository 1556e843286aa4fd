//! The traits the engine stands on.
//!
//! An implementation does its blocking work on threads of its own and is safe to cancel: dropping a future it returned
//! leaves nothing running for it and nothing half-written that a later call would trip over.

use std::fmt::Debug;
use std::ops::Range;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;

use crate::decision::{
    BatchPlan, Device, DocumentFacts, DocumentRoute, Failure, Observation, PageRoute, PassageSource,
    ProgressUpdate, Section, Situation, SummaryPlan, Verdict,
};
use crate::error::{InferenceError, PolicyError, RasterError, StorageError};
use crate::event::{ErrorNote, Event};
use crate::id::{DocumentId, JobId, PageNumber, RevisionId, TenantId};
use crate::ledger::{DocumentRecord, Entry, JobRecord, PageRecord};
use crate::manifest::Pipeline;
use crate::page::{DocumentInfo, EncodedImage, Lane, PageFacts, PageImage, Rect};
use crate::said::{LogEntry, Remark};
use crate::search::{Hit, Point, Query};
use crate::text::Line;

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

    /// Draws a page.
    async fn draw(&self, page: PageNumber, drawing: Drawing) -> Result<DrawnPage, RasterError>;

    /// The text layer of a page: its lines, in the order of the file.
    async fn text(&self, page: PageNumber) -> Result<Vec<Line>, RasterError>;
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

    /// Removes the points of these pages, or of the whole document if `pages` is `None`.
    async fn remove(
        &self,
        tenant: &TenantId,
        document: &DocumentId,
        pages: Option<&[PageNumber]>,
    ) -> Result<(), StorageError>;

    /// Removes every point of a tenant, also those of documents that no ledger knows.
    async fn clear(&self, tenant: &TenantId) -> Result<(), StorageError>;

    /// The best hits first.
    async fn search(&self, tenant: &TenantId, query: &Query) -> Result<Vec<Hit>, StorageError>;

    /// Passages of each page of a document, as `(page, passages)` in order of pages.
    async fn pages(
        &self,
        tenant: &TenantId,
        document: &DocumentId,
    ) -> Result<Vec<(PageNumber, u32)>, StorageError>;

    /// Returns when everything upserted before survives a power cut.
    async fn flush(&self) -> Result<(), StorageError>;
}

/// Rows that a default method of [`Ledger`] reads at a time.
const LISTED: usize = 1000;

/// Writes down what has been done. The methods with a body are right for any ledger and read more than they answer; a ledger
/// that may grow large has its own.
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
    async fn tenant_place(&self, tenant: &TenantId) -> Result<u64, StorageError> {
        let mut place = 0;
        loop {
            let events = self.tenant_events(tenant, place, LISTED).await?;
            match events.last() {
                Some((last, _)) => place = *last,
                None => return Ok(place),
            }
        }
    }

    /// The tenant's documents, newest first and of one age by descending id, at most `limit`; only those after `after` in
    /// this order, given as its age and id, whether or not it is still there.
    async fn documents_after(
        &self,
        tenant: &TenantId,
        after: Option<(u64, DocumentId)>,
        limit: usize,
    ) -> Result<Vec<DocumentRecord>, StorageError> {
        let mut documents = self.documents(tenant).await?;
        documents.retain(|d| after.is_none_or(|after| (d.created_millis, d.id) < after));
        documents.sort_unstable_by_key(|d| std::cmp::Reverse((d.created_millis, d.id)));
        documents.truncate(limit);
        Ok(documents)
    }

    /// Pages of a document after page `after` that ended under any revision, the latest of each, in order, at most `limit`.
    async fn pages_after(
        &self,
        tenant: &TenantId,
        document: &DocumentId,
        after: PageNumber,
        limit: usize,
    ) -> Result<Vec<PageRecord>, StorageError> {
        let mut pages = self.pages(tenant, document, None).await?;
        pages.retain(|p| p.page > after);
        pages.truncate(limit);
        Ok(pages)
    }

    /// Forgets a document and its pages; whether it was known. Its jobs and events stay.
    async fn forget(&self, tenant: &TenantId, document: &DocumentId) -> Result<bool, StorageError>;
}

/// What a component may ask of the host while it decides, for one job. A name that the manifest does not grant never gets
/// here.
#[async_trait]
pub trait Capabilities: Send + Sync {
    /// Gray preview of a page: width, height, pixels.
    async fn preview(
        &self,
        document: &DocumentId,
        page: PageNumber,
        longest_side: u32,
    ) -> Result<(u32, u32, Vec<u8>), ErrorNote>;

    /// Text layer of a page.
    async fn page_text(&self, document: &DocumentId, page: PageNumber) -> Result<String, ErrorNote>;

    /// Tokens the embedding model sees.
    async fn count_tokens(&self, text: &str) -> Result<u32, ErrorNote>;

    /// Vectors of texts; they stay with the host.
    async fn embed(&self, texts: Vec<String>) -> Result<Vec<Vec<f32>>, ErrorNote>;

    /// Text recognized in a part of a page.
    async fn recognize(
        &self,
        document: &DocumentId,
        page: PageNumber,
        region: Rect,
    ) -> Result<String, ErrorNote>;

    /// A language model's answer.
    async fn generate(&self, prompt: &str, max_tokens: u32) -> Result<String, ErrorNote>;

    /// A default component answered in place of one that failed.
    fn policy_failed(&self, error: &PolicyError);

    /// A component said something, or failed. Never waits.
    fn said(&self, remark: Remark);
}

/// Keeps what components remember from job to job, for each tenant and pipeline. At most 1,000 keys of 256 bytes with
/// values of 64 KiB, 1 MiB in all; what would go beyond is refused with kind `exhausted`.
#[async_trait]
pub trait PolicyState: Send + Sync {
    /// A value; `None` if the key is not set.
    async fn get(&self, tenant: &TenantId, pipeline: &str, key: &str) -> Result<Option<Vec<u8>>, ErrorNote>;

    /// Sets a value.
    async fn set(
        &self,
        tenant: &TenantId,
        pipeline: &str,
        key: &str,
        value: Vec<u8>,
    ) -> Result<(), ErrorNote>;

    /// Forgets a key.
    async fn delete(&self, tenant: &TenantId, pipeline: &str, key: &str) -> Result<(), ErrorNote>;
}

/// What is needed to open a job's components.
pub struct PolicyRequest<'a> {
    /// Whose job it is.
    pub tenant: &'a TenantId,
    /// The job.
    pub job: JobId,
    /// The pipeline it runs.
    pub pipeline: &'a Pipeline,
    /// What its components may ask.
    pub capabilities: Arc<dyn Capabilities>,
}

/// Opens tenants' components.
#[async_trait]
pub trait Policies: Send + Sync {
    /// Instances for one job. Dropping them gives their place to another job.
    async fn open(&self, request: PolicyRequest<'_>) -> Result<Arc<dyn JobPolicy>, PolicyError>;
}

/// How often the components of a job were asked, and how often that went wrong.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct PolicyTally {
    /// Calls made.
    pub calls: u64,
    /// Calls that trapped, passed a limit other than the deadline, or were answered with nonsense.
    pub traps: u64,
    /// Calls that passed their deadline.
    pub timeouts: u64,
}

/// The decisions of one job. Answers are within the ranges that [`crate::decision`] gives.
#[async_trait]
pub trait JobPolicy: Send + Sync {
    /// What was asked so far.
    fn tally(&self) -> PolicyTally {
        PolicyTally::default()
    }

    /// How to take the next batch.
    async fn plan(&self, situation: Situation) -> Result<BatchPlan, PolicyError>;

    /// Where a document goes.
    async fn route_document(&self, facts: DocumentFacts) -> Result<DocumentRoute, PolicyError>;

    /// What is done with a page.
    async fn route_page(&self, document: &DocumentId, facts: PageFacts) -> Result<PageRoute, PolicyError>;

    /// What follows a failure.
    async fn judge(&self, failure: Failure) -> Result<Verdict, PolicyError>;

    /// Ranges of bytes of the text to index.
    async fn passages(&self, source: PassageSource) -> Result<Vec<Range<u32>>, PolicyError>;

    /// How to summarize a section.
    async fn summarize(&self, section: Section) -> Result<SummaryPlan, PolicyError>;

    /// What the user should see now.
    async fn observe(&self, at_millis: u64, what: Observation) -> Result<Vec<ProgressUpdate>, PolicyError>;
}
