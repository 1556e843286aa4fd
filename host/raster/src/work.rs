//! What is asked of a worker, from the host's side of the wire.

use std::ops::Range;
use std::os::fd::OwnedFd;
use std::sync::Arc;

use tokio::sync::oneshot;
use weir_core::error::RasterError;
use weir_core::id::PageNumber;
use weir_core::page::{DocumentInfo, PageFacts};
use weir_core::ports::{Drawing, DrawnPage};
use weir_core::text::Line;

use crate::desk::Hold;
use crate::protocol::{DocumentKey, Probe};
use crate::sizing::Raster;

/// A document that workers may be asked about.
pub(crate) struct Opened {
    pub(crate) key: DocumentKey,
    /// Whose turns it uses.
    pub(crate) party: u64,
    /// Read-only; each worker that opens the document gets a copy of the descriptor.
    pub(crate) file: OwnedFd,
    pub(crate) length: u64,
    pub(crate) password: Option<String>,
}

impl std::fmt::Debug for Opened {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Opened({}, {} bytes)", self.key, self.length)
    }
}

/// A request. Pages are 0-based.
#[derive(Debug, Clone)]
pub(crate) enum Work {
    /// Open the document and describe it.
    Open,
    Sizes(Range<u32>),
    Facts(Range<u32>),
    Draw {
        page: u32,
        raster: Raster,
        drawing: Drawing,
        quality: u32,
    },
    Text(u32),
    Probe(Probe),
}

impl Work {
    /// Bytes of the image budget it needs.
    pub(crate) fn image_bytes(&self) -> u64 {
        match self {
            Self::Draw { raster, .. } => raster.segment_bytes,
            _ => 0,
        }
    }

    /// The page to name in an error; 0 where it is about the document.
    pub(crate) fn page(&self) -> PageNumber {
        match self {
            Self::Open | Self::Probe(_) => 0,
            Self::Sizes(pages) | Self::Facts(pages) => pages.start.saturating_add(1),
            Self::Draw { page, .. } | Self::Text(page) => page.saturating_add(1),
        }
    }

    /// Pages a worker has done with it, for recycling.
    pub(crate) fn pages(&self) -> u32 {
        match self {
            Self::Open | Self::Sizes(_) | Self::Probe(_) => 0,
            Self::Facts(pages) => pages.end.saturating_sub(pages.start),
            Self::Draw { .. } | Self::Text(_) => 1,
        }
    }

    /// Whether it is worth a second try in a fresh worker. Work on several pages is not: its caller asks page by page.
    pub(crate) fn is_single(&self) -> bool {
        match self {
            Self::Sizes(pages) | Self::Facts(pages) => pages.end.saturating_sub(pages.start) <= 1,
            Self::Probe(_) => false,
            _ => true,
        }
    }
}

/// What came of a request.
#[derive(Debug)]
pub(crate) enum Outcome {
    Open(DocumentInfo),
    Sizes(Vec<Option<(f32, f32)>>),
    Facts(Vec<PageFacts>),
    Drawn(DrawnPage),
    Text(Vec<Line>),
    /// Whether the probe got through.
    Probed(bool),
}

/// A request's outcome, or why there is none.
pub(crate) type Served = Result<Outcome, RasterError>;

/// Where the outcome goes.
pub(crate) type Reply = oneshot::Sender<Served>;

/// A request on its way.
#[derive(Debug)]
pub(crate) struct Ticket {
    pub(crate) document: Arc<Opened>,
    pub(crate) work: Work,
    /// The bytes of its image, if it draws.
    pub(crate) hold: Option<Hold>,
    pub(crate) reply: Reply,
}
