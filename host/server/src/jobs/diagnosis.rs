//! The diagnosis of a job as the API returns it.

use serde::Serialize;
use utoipa::ToSchema;
use weir_control::jobs::{BottleneckDiagnosis, StageEvidence};
use weir_core::Stage;

use super::view::FailingProviderView;

/// What limits the speed of a job.
#[derive(Debug, PartialEq, Serialize, ToSchema)]
#[schema(as = Diagnosis)]
pub(crate) struct DiagnosisView {
    /// The stage that limits the job; null if there is none.
    #[schema(value_type = Option<String>, example = "read")]
    bottleneck: Option<Stage>,
    /// The diagnosis as a sentence.
    sentence: String,
    /// The evidence for each stage.
    stages: Vec<StageEvidenceView>,
    /// The failing providers of language models that the job waits for. While there are any, no stage is the bottleneck.
    waits_for: Vec<FailingProviderView>,
}

/// The measurements of a stage.
#[derive(Debug, Clone, PartialEq, Serialize, ToSchema)]
#[schema(as = StageEvidence)]
pub(crate) struct StageEvidenceView {
    /// The stage.
    #[schema(value_type = String, example = "read")]
    stage: Stage,
    /// The number of samples of the length of its queue.
    queue_samples: u32,
    /// The number of samples in which the queue was empty.
    empty: u32,
    /// The number of samples in which the queue was full.
    full: u32,
    /// The number of pages that it can process at the same time; 0 before its first page.
    workers: u32,
    /// The number of pages that it has finished since the job was last started or resumed.
    pages: u32,
    /// The busy time of its workers in milliseconds, summed over all workers.
    busy_millis: u64,
}

impl From<BottleneckDiagnosis> for DiagnosisView {
    fn from(diagnosis: BottleneckDiagnosis) -> Self {
        let waits_for = diagnosis.failing_providers.into_iter();
        Self {
            bottleneck: diagnosis.bottleneck,
            sentence: diagnosis.sentence,
            stages: diagnosis
                .stages
                .into_iter()
                .map(StageEvidenceView::from)
                .collect(),
            waits_for: waits_for.map(FailingProviderView::from).collect(),
        }
    }
}

impl From<StageEvidence> for StageEvidenceView {
    fn from(evidence: StageEvidence) -> Self {
        Self {
            stage: evidence.stage,
            queue_samples: evidence.queue_samples,
            empty: evidence.empty,
            full: evidence.full,
            workers: evidence.workers,
            pages: evidence.pages,
            busy_millis: evidence.busy_millis,
        }
    }
}
