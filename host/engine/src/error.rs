//! The errors of stages, and the reasons why a page or a document stops.

use weir_core::event::ErrorInfo;
use weir_core::{InferenceError, LlmError, PageNumber, PolicyError, RasterError, Stage, StorageError};

/// The target of log records about failed pages and documents. Each of these failures is also an event of its job, so a
/// command that shows events filters out these records.
pub const FAILURE_LOG_TARGET: &str = "weir_engine::failures";

/// An error of a stage.
#[derive(Debug, Clone, thiserror::Error)]
pub(crate) enum StageError {
    #[error(transparent)]
    Raster(#[from] RasterError),
    #[error(transparent)]
    Inference(#[from] InferenceError),
    #[error(transparent)]
    Storage(#[from] StorageError),
    #[error(transparent)]
    Policy(#[from] PolicyError),
    /// The tenant's route needs a vision model and this host has none. The tenant's failure rule decides what follows.
    #[error(
        "page {page} cannot be read by a vision model: none is set up; set supports_images = true of an [[llm.provider]] whose model takes \
         images, or route the page to OCR"
    )]
    NoVisionModel { page: PageNumber },
    #[error(transparent)]
    Language(#[from] LlmError),
    /// The output of a vision model reached its token limit before the end of the page.
    #[error(
        "the transcription of page {page} exceeds the {tokens} tokens that {provider} may return: raise vision.max_page_tokens, or \
         route the page to OCR"
    )]
    PageTooLong {
        page: PageNumber,
        provider: String,
        tokens: u32,
    },
    /// A vision model declined to transcribe the page.
    #[error("{provider} declined to transcribe page {page}: set up another model, or route the page to OCR")]
    PageDeclined { page: PageNumber, provider: String },
    /// A task of the host ended without a result.
    #[error("a task of the {0} stage panicked: this is a fault of the host, see its log")]
    StageDied(Stage),
}

impl StageError {
    fn kind(&self) -> &'static str {
        match self {
            Self::Raster(e) => e.kind(),
            Self::Inference(e) => e.kind(),
            Self::Storage(e) => e.kind(),
            Self::Policy(e) => e.kind(),
            Self::NoVisionModel { .. } => "model-unavailable",
            Self::Language(e) => e.kind(),
            Self::PageTooLong { .. } => "page-too-long",
            Self::PageDeclined { .. } => "page-declined",
            Self::StageDied(_) => STAGE_DIED_KIND,
        }
    }

    /// Whether every other page would fail in the same way.
    pub(crate) fn affects_every_page(&self) -> bool {
        match self {
            Self::Raster(e) => matches!(e, RasterError::Unavailable { .. }),
            Self::Inference(e) => matches!(e, InferenceError::Unavailable { .. }),
            Self::Storage(e) => matches!(
                e,
                StorageError::NoSpace { .. }
                    | StorageError::PermissionDenied { .. }
                    | StorageError::InUse { .. }
                    | StorageError::Unavailable { .. }
            ),
            Self::Policy(_) | Self::StageDied(_) => true,
            // The next page may send another request, and the models may have recovered by then.
            Self::NoVisionModel { .. }
            | Self::Language(_)
            | Self::PageTooLong { .. }
            | Self::PageDeclined { .. } => false,
        }
    }

    /// Whether a further attempt is known to fail in the same way.
    pub(crate) fn is_permanent(&self) -> bool {
        matches!(self, Self::Language(error) if error.is_denied_by_all_providers() || matches!(error, LlmError::QuotaExhausted(_)))
    }

    /// Returns the error as events carry it, on one line.
    pub(crate) fn to_error_info(&self) -> ErrorInfo {
        build_error_info(self.kind(), self)
    }
}

/// The kind of errors that are faults of the host itself.
pub(crate) const STAGE_DIED_KIND: &str = "stage-died";

/// Builds an error as events carry it, on one line.
pub(crate) fn build_error_info(kind: &str, message: impl ToString) -> ErrorInfo {
    ErrorInfo {
        kind: kind.to_owned(),
        message: message.to_string().replace('\n', " "),
    }
}

/// The reason why a page stops before it is done.
#[derive(Debug)]
pub(crate) enum PageStopReason {
    /// The page failed for good. The other pages continue.
    PageFailed(Stage, ErrorInfo),
    /// The document fails with the page.
    DocumentFailed(ErrorInfo),
    /// The job was stopped before the page started.
    NotStarted,
}

impl From<PolicyError> for PageStopReason {
    fn from(error: PolicyError) -> Self {
        Self::DocumentFailed(StageError::from(error).to_error_info())
    }
}

/// The reason why a document stops before it is done.
#[derive(Debug)]
pub(crate) enum DocumentStopReason {
    Failed(ErrorInfo),
    Cancelled,
    Suspended,
}

impl<E> From<E> for DocumentStopReason
where
    StageError: From<E>,
{
    fn from(error: E) -> Self {
        Self::Failed(StageError::from(error).to_error_info())
    }
}
