//! Ports for tenants' components: their decisions, and the host functions that they can call.

use std::ops::Range;
use std::sync::Arc;

use async_trait::async_trait;

use crate::component_log::ComponentLogRecord;
use crate::component_state_limits::{StateChange, StateSizes};
use crate::decision::{
    BatchContext, DocumentFacts, DocumentRoute, FailureAction, NextBatchPlan, ObservedEvent, PageRoute,
    PageStageFailure, PageTextToSplit, ProgressUpdate, SectionToSummarize, SummaryPlan,
};
use crate::error::PolicyError;
use crate::event::ErrorInfo;
use crate::id::{DocumentId, JobId, PageNumber, TenantId};
use crate::manifest::ResolvedPipeline;
use crate::page::{PageFacts, Rect};

/// Host functions for the components of one job. A call to a capability that the manifest does not grant does not
/// reach this trait.
#[async_trait]
pub trait HostCapabilities: Send + Sync {
    /// Returns a gray preview of a page: width, height and pixels.
    async fn render_preview(
        &self,
        document: &DocumentId,
        page: PageNumber,
        longest_side: u32,
    ) -> Result<(u32, u32, Vec<u8>), ErrorInfo>;

    /// Returns the text layer of a page.
    async fn read_page_text_layer(
        &self,
        document: &DocumentId,
        page: PageNumber,
    ) -> Result<String, ErrorInfo>;

    /// Returns the number of tokens of a text for the embedding model.
    async fn count_embedding_tokens(&self, text: &str) -> Result<u32, ErrorInfo>;

    /// Returns the vectors of texts. The component does not get them; it only gets values derived from them.
    async fn embed_texts(&self, texts: Vec<String>) -> Result<Vec<Vec<f32>>, ErrorInfo>;

    /// Returns the text that OCR recognizes in a region of a page.
    async fn recognize_region(
        &self,
        document: &DocumentId,
        page: PageNumber,
        region: Rect,
    ) -> Result<String, ErrorInfo>;

    /// Returns the response of a language model.
    async fn generate_text(&self, prompt: &str, max_tokens: u32) -> Result<String, ErrorInfo>;

    /// Reports that a default component decided instead of one that failed.
    fn report_policy_fallback(&self, error: &PolicyError);

    /// Appends to the component log. Does not block.
    fn append_component_log(&self, record: ComponentLogRecord);
}

/// Stores the state of components between jobs, for each tenant and pipeline, within the limits of
/// [`crate::component_state_limits`].
#[async_trait]
pub trait ComponentStateStore: Send + Sync {
    /// Returns a value; `None` if the key does not exist.
    async fn get_component_state_value(
        &self,
        tenant: &TenantId,
        pipeline: &str,
        key: &str,
    ) -> Result<Option<Vec<u8>>, ErrorInfo>;

    /// Returns the keys with the sizes of their values in bytes.
    async fn list_component_state_value_sizes(
        &self,
        tenant: &TenantId,
        pipeline: &str,
    ) -> Result<StateSizes, ErrorInfo>;

    /// Applies all changes in order, or none. They are durable when this returns. Changes that exceed a limit
    /// together are refused with kind `exhausted`.
    async fn apply_component_state_changes(
        &self,
        tenant: &TenantId,
        pipeline: &str,
        changes: Vec<StateChange>,
    ) -> Result<(), ErrorInfo>;
}

/// Input of [`PolicyFactory::open_job_policy`].
pub struct OpenPolicyRequest<'a> {
    /// The tenant that owns the job.
    pub tenant: &'a TenantId,
    /// The job.
    pub job: JobId,
    /// The pipeline it runs.
    pub pipeline: &'a ResolvedPipeline,
    /// Host functions for the components.
    pub capabilities: Arc<dyn HostCapabilities>,
}

/// Opens the components of jobs.
#[async_trait]
pub trait PolicyFactory: Send + Sync {
    /// Opens the component instances of a job. Dropping them makes their capacity available to another job.
    async fn open_job_policy(
        &self,
        request: OpenPolicyRequest<'_>,
    ) -> Result<Arc<dyn JobPolicy>, PolicyError>;
}

/// Numbers of component calls of a job.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct PolicyCallAndFailureCounts {
    /// All calls.
    pub calls: u64,
    /// Calls that trapped, exceeded a limit other than the timeout, or returned an invalid decision.
    pub traps: u64,
    /// Calls that exceeded their timeout.
    pub timeouts: u64,
}

/// The component calls of one job. Decisions are within the ranges that [`crate::decision`] documents.
#[async_trait]
pub trait JobPolicy: Send + Sync {
    /// Returns the numbers of calls so far.
    fn call_and_failure_counts(&self) -> PolicyCallAndFailureCounts;

    /// Decides how to take the next batch.
    async fn plan_batch(&self, context: BatchContext) -> Result<NextBatchPlan, PolicyError>;

    /// Decides the route of a document.
    async fn route_document(&self, facts: DocumentFacts) -> Result<DocumentRoute, PolicyError>;

    /// Decides how a page is processed.
    async fn route_page(&self, document: &DocumentId, facts: PageFacts) -> Result<PageRoute, PolicyError>;

    /// Decides what happens after a failure.
    async fn choose_failure_action(&self, failure: PageStageFailure) -> Result<FailureAction, PolicyError>;

    /// Returns the byte ranges of the text to index as passages.
    async fn split_passages(&self, source: PageTextToSplit) -> Result<Vec<Range<u32>>, PolicyError>;

    /// Decides how a section is summarized.
    async fn plan_summary(&self, section: SectionToSummarize) -> Result<SummaryPlan, PolicyError>;

    /// Passes an event to the progress component and returns the progress to show.
    async fn decide_progress_updates(
        &self,
        at_millis: u64,
        event: ObservedEvent,
    ) -> Result<Vec<ProgressUpdate>, PolicyError>;
}
