//! Fake policies whose decisions a test scripts.

use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use weir_core::decision::{
    BatchContext, DocumentFacts, DocumentRoute, FailureAction, Label, ModelPreferences, NextBatchPlan,
    ObservedEvent, PageRoute, PageStageFailure, PageTextToSplit, ProgressUpdate, ReadingMethod,
    SectionToSummarize, SummaryPlan,
};
use weir_core::id::DocumentId;
use weir_core::ports::{
    HostCapabilities, JobPolicy, OpenPolicyRequest, PolicyCallAndFailureCounts, PolicyFactory,
};
use weir_core::{PageFacts, PolicyError, PriorityLane};

type DecisionFn<A, B> = Arc<dyn Fn(A) -> Result<B, PolicyError> + Send + Sync>;
type CapabilitiesFn = Arc<dyn Fn(&Arc<dyn HostCapabilities>) + Send + Sync>;

/// The decisions of the components.
#[derive(Clone)]
pub struct PolicyScript {
    pub open: DecisionFn<(), ()>,
    /// The time that opening takes.
    pub open_delay: Duration,
    /// Called with the job's capabilities when it opens.
    pub on_open: CapabilitiesFn,
    pub plan: DecisionFn<BatchContext, NextBatchPlan>,
    pub document: DecisionFn<DocumentFacts, ()>,
    /// The labels of every document.
    pub labels: Vec<Label>,
    pub route: DecisionFn<PageFacts, PageRoute>,
    pub on_failure: DecisionFn<PageStageFailure, FailureAction>,
    pub passages: DecisionFn<PageTextToSplit, Vec<Range<u32>>>,
    pub summarize: DecisionFn<SectionToSummarize, SummaryPlan>,
    pub observe: DecisionFn<ObservedEvent, Vec<ProgressUpdate>>,
    /// The time that an observation takes.
    pub observe_delay: Duration,
}

/// Returns the route of a page that is read by OCR, stored and indexed.
pub fn route_with_all_steps() -> PageRoute {
    PageRoute {
        reading_method: ReadingMethod::Ocr,
        embed: true,
        store: true,
        labels: vec![],
    }
}

/// A plan with batches of four pages, and queues for eight batches.
pub const DEFAULT_PLAN: NextBatchPlan = NextBatchPlan {
    pages: 4,
    dpi: 150,
    linger_millis: 0,
    queue_capacity: 8,
};

impl Default for PolicyScript {
    fn default() -> Self {
        Self {
            open: Arc::new(|()| Ok(())),
            open_delay: Duration::ZERO,
            on_open: Arc::new(|_| ()),
            plan: Arc::new(|_| Ok(DEFAULT_PLAN)),
            document: Arc::new(|_| Ok(())),
            labels: Vec::new(),
            route: Arc::new(|_| Ok(route_with_all_steps())),
            on_failure: Arc::new(|_| Ok(FailureAction::FailDocument)),
            passages: Arc::new(|source| Ok(split_lines_into_passages(&source.text))),
            summarize: Arc::new(|_| Ok(SummaryPlan::None)),
            observe: Arc::new(|_| Ok(vec![])),
            observe_delay: Duration::ZERO,
        }
    }
}

fn split_lines_into_passages(text: &str) -> Vec<Range<u32>> {
    let mut start = 0;
    text.split('\n')
        .map(|line| {
            let end = start + u32::try_from(line.len()).unwrap();
            let range = start..end;
            start = end + 1;
            range
        })
        .collect()
}

pub struct FakePolicies(pub PolicyScript);

struct FakePolicy {
    script: PolicyScript,
    /// Held until the policy is dropped, as a component instance holds them.
    _capabilities: Arc<dyn HostCapabilities>,
}

#[async_trait]
impl PolicyFactory for FakePolicies {
    async fn open_job_policy(
        &self,
        request: OpenPolicyRequest<'_>,
    ) -> Result<Arc<dyn JobPolicy>, PolicyError> {
        tokio::time::sleep(self.0.open_delay).await;
        (self.0.open)(())?;
        (self.0.on_open)(&request.capabilities);
        Ok(Arc::new(FakePolicy {
            script: self.0.clone(),
            _capabilities: request.capabilities,
        }))
    }
}

#[async_trait]
impl JobPolicy for FakePolicy {
    fn call_and_failure_counts(&self) -> PolicyCallAndFailureCounts {
        PolicyCallAndFailureCounts::default()
    }

    async fn plan_batch(&self, situation: BatchContext) -> Result<NextBatchPlan, PolicyError> {
        assert!((1..=64).contains(&situation.next_pages.len()));
        assert!(situation.next_pages.len() <= situation.remaining_pages as usize);
        (self.script.plan)(situation)
    }

    async fn route_document(&self, facts: DocumentFacts) -> Result<DocumentRoute, PolicyError> {
        assert!(!facts.first_pages.is_empty() && facts.first_pages.len() <= 8);
        (self.script.document)(facts)?;
        Ok(DocumentRoute {
            collection: "default".into(),
            lane: PriorityLane::Bulk,
            models: ModelPreferences::default(),
            labels: self.script.labels.clone(),
        })
    }

    async fn route_page(&self, _: &DocumentId, facts: PageFacts) -> Result<PageRoute, PolicyError> {
        (self.script.route)(facts)
    }

    async fn choose_failure_action(&self, failure: PageStageFailure) -> Result<FailureAction, PolicyError> {
        (self.script.on_failure)(failure)
    }

    async fn split_passages(&self, source: PageTextToSplit) -> Result<Vec<Range<u32>>, PolicyError> {
        (self.script.passages)(source)
    }

    async fn plan_summary(&self, section: SectionToSummarize) -> Result<SummaryPlan, PolicyError> {
        (self.script.summarize)(section)
    }

    async fn decide_progress_updates(
        &self,
        _: u64,
        what: ObservedEvent,
    ) -> Result<Vec<ProgressUpdate>, PolicyError> {
        tokio::time::sleep(self.script.observe_delay).await;
        (self.script.observe)(what)
    }
}
