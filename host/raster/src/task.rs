//! The tasks that the host queues for its workers, and how they end.

use std::ops::Range;
use std::os::fd::OwnedFd;
use std::sync::Arc;

use tokio::sync::oneshot;
use weir_core::error::RasterError;
use weir_core::id::PageNumber;
use weir_core::page::{DocumentInfo, PageFacts};
use weir_core::page_text::Line;
use weir_core::ports::{RasterizeOptions, RasterizeOutput};

use crate::image_reservation::ImageReservation;
use crate::page_image_resolution::ImageDimensions;
use crate::protocol::{DocumentKey, SandboxProbe};

/// An open PDF file with its password, as passed to a worker.
pub(crate) struct DocumentFile {
    pub(crate) key: DocumentKey,
    /// The fair-queue flow of the document; documents of one tenant share it.
    pub(crate) flow_id: u64,
    /// Opened read-only; each worker that opens the document gets a copy of the descriptor.
    pub(crate) file: OwnedFd,
    pub(crate) length: u64,
    pub(crate) password: Option<String>,
}

impl std::fmt::Debug for DocumentFile {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "DocumentFile({}, {} bytes)", self.key, self.length)
    }
}

/// A task for a worker. Pages are 0-based.
#[derive(Debug, Clone)]
pub(crate) enum WorkerTask {
    /// Open the document and describe it.
    OpenDocument,
    ReadPageSizes(Range<u32>),
    ReadPageFacts(Range<u32>),
    DrawPage {
        page: u32,
        dimensions: ImageDimensions,
        drawing: RasterizeOptions,
        jpeg_quality: u32,
    },
    ReadPageText(u32),
    RunProbe(SandboxProbe),
}

impl WorkerTask {
    /// Returns the bytes of the image budget that the task needs.
    pub(crate) fn needed_image_bytes(&self) -> u64 {
        match self {
            Self::DrawPage { dimensions, .. } => dimensions.segment_bytes,
            _ => 0,
        }
    }

    /// Returns the page to name in an error; 0 if the task concerns the whole document.
    pub(crate) fn page_for_error(&self) -> PageNumber {
        match self {
            Self::OpenDocument | Self::RunProbe(_) => 0,
            Self::ReadPageSizes(pages) | Self::ReadPageFacts(pages) => pages.start.saturating_add(1),
            Self::DrawPage { page, .. } | Self::ReadPageText(page) => page.saturating_add(1),
        }
    }

    /// Returns the number of pages that a worker has processed after the task, for recycling.
    pub(crate) fn processed_page_count(&self) -> u32 {
        match self {
            Self::OpenDocument | Self::ReadPageSizes(_) | Self::RunProbe(_) => 0,
            Self::ReadPageFacts(pages) => pages.end.saturating_sub(pages.start),
            Self::DrawPage { .. } | Self::ReadPageText(_) => 1,
        }
    }

    /// Returns whether the task is retried in a new worker. A task on several pages is not: its caller retries page by page.
    pub(crate) fn is_retryable_in_new_worker(&self) -> bool {
        match self {
            Self::ReadPageSizes(pages) | Self::ReadPageFacts(pages) => {
                pages.end.saturating_sub(pages.start) <= 1
            }
            Self::RunProbe(_) => false,
            _ => true,
        }
    }
}

/// The output of a task.
#[derive(Debug)]
pub(crate) enum TaskOutput {
    DocumentOpened(DocumentInfo),
    PageSizes(Vec<Option<(f32, f32)>>),
    PageFacts(Vec<PageFacts>),
    PageDrawn(RasterizeOutput),
    PageText(Vec<Line>),
    /// Whether the forbidden operation succeeded.
    ProbeFinished(bool),
}

/// The result of a task.
pub(crate) type TaskResult = Result<TaskOutput, RasterError>;

/// Sends the result of a task to its caller.
pub(crate) type TaskResultSender = oneshot::Sender<TaskResult>;

/// A queued task with its document, its reserved image memory and the sender of its result.
#[derive(Debug)]
pub(crate) struct QueuedTask {
    pub(crate) document: Arc<DocumentFile>,
    pub(crate) task: WorkerTask,
    /// The reserved image memory; only for drawing.
    pub(crate) reservation: Option<ImageReservation>,
    pub(crate) result_sender: TaskResultSender,
}

/// The reason why a worker was lost.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum WorkerLossReason {
    /// The connection broke.
    Died,
    /// The worker exceeded a timeout of this many seconds.
    TimedOut { seconds: u32 },
    /// The worker sent an invalid response.
    InvalidResponse(String),
}

impl WorkerLossReason {
    /// Returns the error of the task that lost its worker.
    pub(crate) fn to_raster_error(&self, exit_description: &str, task: &WorkerTask) -> RasterError {
        let page = task.page_for_error();
        match self {
            Self::TimedOut { seconds } if page == 0 => RasterError::OpenTimeout { seconds: *seconds },
            Self::TimedOut { seconds } => RasterError::PageTimeout {
                page,
                seconds: *seconds,
            },
            Self::Died => RasterError::WorkerDied {
                page,
                reason: exit_description.into(),
            },
            Self::InvalidResponse(reason) => RasterError::WorkerDied {
                page,
                reason: format!("it was stopped for an invalid response: {reason}"),
            },
        }
    }
}

/// The error of a request to a closed pool.
pub(crate) fn pool_closed_error() -> RasterError {
    RasterError::Unavailable {
        what: "the PDF rasterizer".into(),
        remedy: "it has been shut down".into(),
    }
}
