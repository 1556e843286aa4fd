//! Decisions as a test wants them.

use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use weir_core::decision::{
    BatchPlan, DocumentFacts, DocumentRoute, Failure, Label, Observation, PageRoute, PassageSource,
    ProgressUpdate, Reading, Section, Situation, SummaryPlan, Verdict,
};
use weir_core::id::DocumentId;
use weir_core::ports::{Capabilities, JobPolicy, Policies, PolicyRequest, PolicyTally};
use weir_core::{Lane, PageFacts, PolicyError};

type Decide<A, B> = Arc<dyn Fn(A) -> Result<B, PolicyError> + Send + Sync>;
type Ask = Arc<dyn Fn(&Arc<dyn Capabilities>) + Send + Sync>;

/// What the components answer.
#[derive(Clone)]
pub struct Script {
    pub open: Decide<(), ()>,
    /// Time that opening takes.
    pub opening: Duration,
    /// Called with the job's capabilities when it opens.
    pub opened: Ask,
    pub plan: Decide<Situation, BatchPlan>,
    pub document: Decide<DocumentFacts, ()>,
    /// Labels of every document.
    pub labels: Vec<Label>,
    pub route: Decide<PageFacts, PageRoute>,
    pub judge: Decide<Failure, Verdict>,
    pub passages: Decide<PassageSource, Vec<Range<u32>>>,
    pub summarize: Decide<Section, SummaryPlan>,
    pub observe: Decide<Observation, Vec<ProgressUpdate>>,
    /// Time an observation takes.
    pub observing: Duration,
}

/// A page read by OCR, kept and made searchable.
pub fn everything() -> PageRoute {
    PageRoute {
        reading: Reading::Ocr,
        embed: true,
        store: true,
        labels: vec![],
    }
}

/// Batches of four, eight of them in a queue.
pub const PLAN: BatchPlan = BatchPlan {
    pages: 4,
    dpi: 150,
    linger_millis: 0,
    queue_capacity: 8,
};

impl Default for Script {
    fn default() -> Self {
        Self {
            open: Arc::new(|()| Ok(())),
            opening: Duration::ZERO,
            opened: Arc::new(|_| ()),
            plan: Arc::new(|_| Ok(PLAN)),
            document: Arc::new(|_| Ok(())),
            labels: Vec::new(),
            route: Arc::new(|_| Ok(everything())),
            judge: Arc::new(|_| Ok(Verdict::FailDocument)),
            passages: Arc::new(|source| Ok(a_passage_each_line(&source.text))),
            summarize: Arc::new(|_| Ok(SummaryPlan::None)),
            observe: Arc::new(|_| Ok(vec![])),
            observing: Duration::ZERO,
        }
    }
}

fn a_passage_each_line(text: &str) -> Vec<Range<u32>> {
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

pub struct FakePolicies(pub Script);

struct FakePolicy(Script, #[allow(dead_code)] Arc<dyn Capabilities>);

#[async_trait]
impl Policies for FakePolicies {
    async fn open(&self, request: PolicyRequest<'_>) -> Result<Arc<dyn JobPolicy>, PolicyError> {
        tokio::time::sleep(self.0.opening).await;
        (self.0.open)(())?;
        (self.0.opened)(&request.capabilities);
        Ok(Arc::new(FakePolicy(self.0.clone(), request.capabilities)))
    }
}

#[async_trait]
impl JobPolicy for FakePolicy {
    fn tally(&self) -> PolicyTally {
        PolicyTally::default()
    }

    async fn plan(&self, situation: Situation) -> Result<BatchPlan, PolicyError> {
        assert!((1..=64).contains(&situation.next.len()));
        assert!(situation.next.len() <= situation.remaining_pages as usize);
        (self.0.plan)(situation)
    }

    async fn route_document(&self, facts: DocumentFacts) -> Result<DocumentRoute, PolicyError> {
        assert!(!facts.first_pages.is_empty() && facts.first_pages.len() <= 8);
        (self.0.document)(facts)?;
        Ok(DocumentRoute {
            collection: "default".into(),
            lane: Lane::Bulk,
            ocr_model: None,
            embedding_model: None,
            labels: self.0.labels.clone(),
        })
    }

    async fn route_page(&self, _: &DocumentId, facts: PageFacts) -> Result<PageRoute, PolicyError> {
        (self.0.route)(facts)
    }

    async fn judge(&self, failure: Failure) -> Result<Verdict, PolicyError> {
        (self.0.judge)(failure)
    }

    async fn passages(&self, source: PassageSource) -> Result<Vec<Range<u32>>, PolicyError> {
        (self.0.passages)(source)
    }

    async fn summarize(&self, section: Section) -> Result<SummaryPlan, PolicyError> {
        (self.0.summarize)(section)
    }

    async fn observe(&self, _: u64, what: Observation) -> Result<Vec<ProgressUpdate>, PolicyError> {
        tokio::time::sleep(self.0.observing).await;
        (self.0.observe)(what)
    }
}
