//! A fake rasterizer and fake components. A file with the text `3 pages …` is a document with three pages. A test can hold back pages
//! and release them one by one. The fakes record which jobs were opened.

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use parking_lot::Mutex;
use tokio::sync::Semaphore;
use weir_core::decision::{
    BatchContext, DocumentFacts, DocumentRoute, FailureAction, ModelPreferences, NextBatchPlan,
    ObservedEvent, PageRoute, PageStageFailure, PageTextToSplit, ProgressUpdate, ReadingMethod,
    SectionToSummarize, SummaryPlan,
};
use weir_core::manifest::{Manifest, ResolvedComponentFile, ResolvedPipeline, Role};
use weir_core::page::DocumentInfo;
use weir_core::page_text::Line;
use weir_core::ports::{
    JobPolicy, OpenPolicyRequest, OpenedPdf, PageWithReservedMemory, PdfFileToOpen,
    PolicyCallAndFailureCounts, PolicyFactory, RasterizeOptions, RasterizeOutput, Rasterizer,
};
use weir_core::{
    DocumentId, JobId, PageFacts, PageNumber, PolicyError, PriorityLane, RasterError, RevisionId, TenantId,
};

use crate::pipelines::PipelineBuilder;

/// A fake rasterizer, and fake decisions instead of those of components.
pub struct FakeProcessing {
    /// Each page that is read consumes one permit.
    page_permits: Arc<Semaphore>,
    /// How long it takes to read a page.
    page_time: Mutex<Duration>,
    opened_jobs: Mutex<Vec<OpenedJob>>,
    /// The memory limit in bytes of each replay.
    pub(crate) replay_memory_limits: Mutex<Vec<Option<u64>>>,
}

/// A job whose components were opened.
#[derive(Debug, Clone)]
pub struct OpenedJob {
    pub tenant: TenantId,
    pub job: JobId,
    pub revision: RevisionId,
    pub memory_bytes: Option<u64>,
}

impl Default for FakeProcessing {
    fn default() -> Self {
        Self {
            page_permits: Arc::new(Semaphore::new(Semaphore::MAX_PERMITS)),
            page_time: Mutex::default(),
            opened_jobs: Mutex::default(),
            replay_memory_limits: Mutex::default(),
        }
    }
}

impl FakeProcessing {
    /// Holds back all pages except those that [`FakeProcessing::release_pages`] releases.
    pub fn hold_pages(&self) {
        self.page_permits.forget_permits(Semaphore::MAX_PERMITS);
    }

    /// Releases this many more pages.
    pub fn release_pages(&self, pages: usize) {
        self.page_permits.add_permits(pages);
    }

    /// Sets how long it takes to read a page of a document that is opened from now on.
    pub fn set_page_time(&self, time: Duration) {
        *self.page_time.lock() = time;
    }

    /// Returns the jobs whose components were opened, in order.
    pub fn opened_jobs(&self) -> Vec<OpenedJob> {
        self.opened_jobs.lock().clone()
    }

    /// Removes the matching jobs from the list of opened jobs.
    pub(crate) fn remove_opened_jobs(&self, is_match: impl Fn(&OpenedJob) -> bool) {
        self.opened_jobs.lock().retain(|opened| !is_match(opened));
    }

    /// Returns the memory limit in bytes of each replay, in order.
    pub fn replay_memory_limits(&self) -> Vec<Option<u64>> {
        self.replay_memory_limits.lock().clone()
    }
}

struct FakeDocument {
    info: DocumentInfo,
    page_permits: Arc<Semaphore>,
    page_time: Duration,
}

#[async_trait]
impl Rasterizer for FakeProcessing {
    async fn open_document(&self, source: &PdfFileToOpen) -> Result<Arc<dyn OpenedPdf>, RasterError> {
        let text = std::fs::read_to_string(&source.path).map_err(|error| RasterError::FileUnreadable {
            reason: error.to_string(),
        })?;
        let pages = text
            .split_once(" pages")
            .and_then(|(number, _)| number.parse().ok());
        let info = DocumentInfo {
            pages: pages.ok_or_else(|| RasterError::NotPdf("it has no pages".into()))?,
            ..DocumentInfo::default()
        };
        Ok(Arc::new(FakeDocument {
            info,
            page_permits: Arc::clone(&self.page_permits),
            page_time: *self.page_time.lock(),
        }))
    }

    fn worker_count(&self) -> u32 {
        4
    }

    fn available_image_bytes(&self) -> u64 {
        1 << 30
    }
}

#[async_trait]
impl OpenedPdf for FakeDocument {
    fn document_info(&self) -> &DocumentInfo {
        &self.info
    }

    async fn read_page_facts(&self, pages: Range<PageNumber>) -> Result<Vec<PageFacts>, RasterError> {
        let facts = pages.map(|number| PageFacts {
            number,
            width: 600.0,
            height: 800.0,
            text_chars: 100,
            image_coverage: 0.0,
            readable: true,
        });
        Ok(facts.collect())
    }

    async fn reserve_page_memory(
        &self,
        _: PageNumber,
        drawing: RasterizeOptions,
    ) -> Result<Box<dyn PageWithReservedMemory>, RasterError> {
        Ok(Box::new(BlankDrawing { dpi: drawing.dpi }))
    }

    async fn read_text_layer(&self, _: PageNumber) -> Result<Vec<Line>, RasterError> {
        self.page_permits.acquire().await.unwrap().forget();
        if !self.page_time.is_zero() {
            tokio::time::sleep(self.page_time).await;
        }
        Ok(Vec::new())
    }
}

/// A page that is rasterized without an image.
struct BlankDrawing {
    dpi: u32,
}

#[async_trait]
impl PageWithReservedMemory for BlankDrawing {
    async fn rasterize_page(self: Box<Self>) -> Result<RasterizeOutput, RasterError> {
        Ok(RasterizeOutput {
            dpi: self.dpi,
            image: None,
            encoded: None,
        })
    }
}

struct FakeJobPolicy {
    /// The value of the setting `traps`.
    traps: u64,
}

#[async_trait]
impl PolicyFactory for FakeProcessing {
    async fn open_job_policy(
        &self,
        request: OpenPolicyRequest<'_>,
    ) -> Result<Arc<dyn JobPolicy>, PolicyError> {
        self.opened_jobs.lock().push(OpenedJob {
            tenant: request.tenant.clone(),
            job: request.job,
            revision: request.pipeline.revision,
            memory_bytes: request.pipeline.manifest.limits.max_memory_bytes,
        });
        let traps = request.pipeline.manifest.setting_text("traps");
        Ok(Arc::new(FakeJobPolicy {
            traps: traps.map_or(0, |traps| traps.parse().unwrap()),
        }))
    }
}

#[async_trait]
impl JobPolicy for FakeJobPolicy {
    fn call_and_failure_counts(&self) -> PolicyCallAndFailureCounts {
        PolicyCallAndFailureCounts {
            calls: 10,
            traps: self.traps,
            timeouts: 0,
        }
    }

    async fn plan_batch(&self, _: BatchContext) -> Result<NextBatchPlan, PolicyError> {
        Ok(NextBatchPlan {
            pages: 1,
            dpi: 150,
            linger_millis: 0,
            queue_capacity: 8,
        })
    }

    async fn route_document(&self, _: DocumentFacts) -> Result<DocumentRoute, PolicyError> {
        Ok(DocumentRoute {
            collection: "default".into(),
            lane: PriorityLane::Bulk,
            models: ModelPreferences::default(),
            labels: Vec::new(),
        })
    }

    async fn route_page(&self, _: &DocumentId, _: PageFacts) -> Result<PageRoute, PolicyError> {
        Ok(PageRoute {
            reading_method: ReadingMethod::TextLayer,
            embed: false,
            store: false,
            labels: Vec::new(),
        })
    }

    async fn choose_failure_action(&self, _: PageStageFailure) -> Result<FailureAction, PolicyError> {
        Ok(FailureAction::FailDocument)
    }

    async fn split_passages(&self, _: PageTextToSplit) -> Result<Vec<Range<u32>>, PolicyError> {
        Ok(Vec::new())
    }

    async fn plan_summary(&self, _: SectionToSummarize) -> Result<SummaryPlan, PolicyError> {
        Ok(SummaryPlan::None)
    }

    async fn decide_progress_updates(
        &self,
        _: u64,
        _: ObservedEvent,
    ) -> Result<Vec<ProgressUpdate>, PolicyError> {
        Ok(Vec::new())
    }
}

#[async_trait]
impl PipelineBuilder for FakeProcessing {
    async fn build_pipeline(
        &self,
        manifest: Manifest,
        components: BTreeMap<Role, ResolvedComponentFile>,
    ) -> Result<Arc<ResolvedPipeline>, String> {
        Ok(Arc::new(ResolvedPipeline::new(
            manifest,
            components,
            BTreeMap::new(),
        )))
    }
}
