//! The messages between host and worker.
//!
//! There is one type for each direction, so a message is decoded once and is either valid or rejected. The worker is the untrusted
//! side: the host limits the length of every response before it reads it, and checks every number in it
//! ([`crate::response_validation`]).

use std::ops::Range;

use serde::{Deserialize, Serialize};
use weir_core::page::{DocumentInfo, PageFacts};
use weir_core::page_text::Line;

/// Identifies an open document between a host and its workers.
pub(crate) type DocumentKey = u64;

/// Identifies a segment of shared memory between a host and one worker.
pub(crate) type SegmentKey = u64;

/// A request from host to worker. `CloseDocument`, `MapSegment` and `UnmapSegment` get no response.
#[derive(Serialize, Deserialize)]
pub(crate) enum WorkerRequest {
    /// The first message; carries the descriptor of the heartbeat memory.
    Initialize(WorkerConfig),
    /// Opens a document; carries the descriptor of its file.
    OpenDocument {
        document: DocumentKey,
        length: u64,
        password: Option<String>,
        /// Whether the response includes title and outline.
        include_metadata: bool,
    },
    /// Closes a document.
    CloseDocument { document: DocumentKey },
    /// Maps a segment; carries its descriptor.
    MapSegment { segment: SegmentKey, length: u64 },
    /// Unmaps a segment.
    UnmapSegment { segment: SegmentKey },
    /// Reads the sizes of pages (0-based, half-open range).
    ReadPageSizes {
        document: DocumentKey,
        pages: Range<u32>,
    },
    /// Reads the facts of pages (0-based, half-open range).
    ReadPageFacts {
        document: DocumentKey,
        pages: Range<u32>,
    },
    /// Draws a page.
    DrawPage(DrawParams),
    /// Reads the text of a page (0-based).
    ReadPageText { document: DocumentKey, page: u32 },
    /// Tries an operation that the sandbox must block.
    RunProbe(SandboxProbe),
}

/// The values that a worker needs before it enters its sandbox.
#[derive(Serialize, Deserialize)]
pub(crate) struct WorkerConfig {
    /// Path of the PDFium library.
    pub(crate) pdfium_path: Vec<u8>,
    /// Process id of the host.
    pub(crate) host_pid: u32,
    /// Maximum private memory in bytes.
    pub(crate) max_heap_bytes: u64,
    /// Maximum address space in bytes, in addition to the mappings at the start.
    pub(crate) max_extra_address_bytes: u64,
}

/// How a page is drawn into a segment. Rows run from the top. A pixel is three bytes (blue, green, red), or one gray byte if the
/// worker finds that the page has no colors.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
pub(crate) struct DrawParams {
    pub(crate) document: DocumentKey,
    /// 0-based.
    pub(crate) page: u32,
    pub(crate) segment: SegmentKey,
    pub(crate) width: u32,
    pub(crate) height: u32,
    /// Bytes from row to row in color.
    pub(crate) stride: u32,
    /// Bytes from row to row in gray.
    pub(crate) gray_stride: u32,
    /// JPEG quality; `None` if no encoded image is wanted.
    pub(crate) jpeg_quality: Option<u32>,
}

/// An operation that the sandbox must block.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum SandboxProbe {
    /// Read a file by its path.
    OpenFile,
    /// Create a socket.
    CreateSocket,
    /// Start a process.
    SpawnProcess,
    /// Signal another process.
    SignalProcess,
    /// Map executable memory.
    MapExecutableMemory,
    /// Allocate more memory than the limit.
    ExceedMemoryLimit,
}

impl SandboxProbe {
    /// Every probe.
    pub const ALL: [Self; 6] = [
        Self::OpenFile,
        Self::CreateSocket,
        Self::SpawnProcess,
        Self::SignalProcess,
        Self::MapExecutableMemory,
        Self::ExceedMemoryLimit,
    ];
}

/// The sandbox mechanisms that the kernel enforces on a worker.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct SandboxStatus {
    /// Denial of the file system (landlock).
    pub landlock: EnforcementLevel,
    /// The filter of system calls (seccomp).
    pub seccomp: EnforcementLevel,
}

/// How far the kernel enforces one mechanism.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum EnforcementLevel {
    /// All requested rules.
    Full,
    /// Some of the rules: the kernel is older.
    Partial,
    /// Nothing: the kernel lacks the mechanism or has it disabled.
    None,
}

/// A response from worker to host. The encoded image, if requested, follows `PageDrawn` as the payload.
#[derive(Serialize, Deserialize)]
pub(crate) enum WorkerResponse {
    /// The worker has entered its sandbox and waits for requests.
    Ready(SandboxStatus),
    /// The worker cannot start.
    StartFailed {
        what: String,
        remedy: String,
    },
    /// The document is open. Title and outline are included only if requested.
    DocumentOpened(DocumentInfo),
    /// The document cannot be opened.
    OpenFailed(OpenFailure),
    /// Width and height in points after rotation; `None` for a page that cannot be found.
    PageSizes(Vec<Option<(f32, f32)>>),
    PageFacts(Vec<PageFacts>),
    PageDrawn {
        /// Whether the page was drawn in color.
        is_color: bool,
    },
    PageText(Vec<Line>),
    /// The page cannot be opened or drawn.
    PageUnreadable(String),
    /// The request was canceled.
    Canceled,
    /// Whether the forbidden operation succeeded: `true` if the sandbox did not block it.
    ProbeFinished(bool),
}

/// The reason why a document cannot be opened.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum OpenFailure {
    PasswordRequired,
    Damaged(String),
}
