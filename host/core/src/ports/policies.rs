//! Tenants' components: what they decide, and what they may ask while they do.

use std::ops::Range;
use std::sync::Arc;

use async_trait::async_trait;

use crate::decision::{
    BatchPlan, DocumentFacts, DocumentRoute, Failure, Observation, PageRoute, PassageSource, ProgressUpdate,
    Section, Situation, SummaryPlan, Verdict,
};
use crate::error::PolicyError;
use crate::event::ErrorNote;
use crate::id::{DocumentId, JobId, PageNumber, TenantId};
use crate::manifest::Pipeline;
use crate::page::{PageFacts, Rect};
use crate::said::Remark;
use crate::state::{StateChange, StateSizes};

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

/// Keeps what components remember from job to job, for each tenant and pipeline, within the limits of [`crate::state`].
#[async_trait]
pub trait PolicyState: Send + Sync {
    /// A value; `None` if the key is not set.
    async fn get(&self, tenant: &TenantId, pipeline: &str, key: &str) -> Result<Option<Vec<u8>>, ErrorNote>;

    /// The keys that are set, with the bytes of their values.
    async fn sizes(&self, tenant: &TenantId, pipeline: &str) -> Result<StateSizes, ErrorNote>;

    /// Makes all of the changes or none, in their order; durable when it returns. If what comes of all of them is beyond a limit
    /// they are refused with kind `exhausted`.
    async fn apply(
        &self,
        tenant: &TenantId,
        pipeline: &str,
        changes: Vec<StateChange>,
    ) -> Result<(), ErrorNote>;
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
    fn tally(&self) -> PolicyTally;

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
