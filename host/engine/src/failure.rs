//! What can go wrong with a page, and with its document.

use weir_core::event::ErrorNote;
use weir_core::{InferenceError, LanguageError, PageNumber, PolicyError, RasterError, Stage, StorageError};

/// Target of the log records about failed pages and documents. Each is an event of its job as well, so a command that shows events
/// leaves these records out.
pub const FAILURES: &str = "weir_engine::failures";

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
    /// The tenant's route asks for something this host does not have; the tenant's failure rule says what follows.
    #[error(
        "page {page} cannot be read by a vision model: none is set up; set vision = true of an [[llm.provider]] whose model takes \
         images, or route the page to OCR"
    )]
    NoVisionModel { page: PageNumber },
    #[error(transparent)]
    Language(#[from] LanguageError),
    /// A vision model did not come to the page's end.
    #[error(
        "page {page} did not fit into the {tokens} tokens that {provider} may answer with: raise vision.max_tokens, or route \
         the page to OCR"
    )]
    TooLong {
        page: PageNumber,
        provider: String,
        tokens: u32,
    },
    /// A vision model said that it will not.
    #[error("{provider} declined to write down page {page}: ask another model, or route the page to OCR")]
    Declined { page: PageNumber, provider: String },
    /// A task of the host ended without an answer.
    #[error("the {0} stage died: this is a fault of the host, see its log")]
    Died(Stage),
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
            Self::TooLong { .. } => "page-too-long",
            Self::Declined { .. } => "page-declined",
            Self::Died(_) => STAGE_DIED,
        }
    }

    /// Whether every other page would fail the same way.
    pub(crate) fn is_everyones(&self) -> bool {
        match self {
            Self::Raster(e) => matches!(e, RasterError::Unavailable { .. }),
            Self::Inference(e) => matches!(e, InferenceError::Unavailable { .. }),
            Self::Storage(e) => matches!(
                e,
                StorageError::Full { .. } | StorageError::Denied { .. } | StorageError::InUse { .. }
            ),
            Self::Policy(_) | Self::Died(_) => true,
            // What one page asks of a model need not be what the next asks, and the models may have recovered by then.
            Self::NoVisionModel { .. } | Self::Language(_) | Self::TooLong { .. } | Self::Declined { .. } => {
                false
            }
        }
    }

    /// Whether a further try is known to fail in the same way.
    pub(crate) fn is_final(&self) -> bool {
        matches!(self, Self::Language(error) if error.is_denied() || matches!(error, LanguageError::Quota(_)))
    }

    /// As events carry it, on one line.
    pub(crate) fn note(&self) -> ErrorNote {
        note(self.kind(), self)
    }
}

/// The kind of an error that is the host's own fault.
pub(crate) const STAGE_DIED: &str = "stage-died";

/// An error as events carry it, on one line.
pub(crate) fn note(kind: &str, message: impl ToString) -> ErrorNote {
    ErrorNote {
        kind: kind.to_owned(),
        message: message.to_string().replace('\n', " "),
    }
}

/// Why a page goes no further.
#[derive(Debug)]
pub(crate) enum Stop {
    /// It failed for good; the others go on.
    Page(Stage, ErrorNote),
    /// It takes the document with it.
    Document(ErrorNote),
    /// The job was stopped before the page was begun.
    NotBegun,
}

impl From<PolicyError> for Stop {
    fn from(error: PolicyError) -> Self {
        Self::Document(StageError::from(error).note())
    }
}

/// Why a document ends before it is done.
#[derive(Debug)]
pub(crate) enum Unfinished {
    Failed(ErrorNote),
    Cancelled,
    Suspended,
}

impl<E> From<E> for Unfinished
where
    StageError: From<E>,
{
    fn from(error: E) -> Self {
        Self::Failed(StageError::from(error).note())
    }
}
