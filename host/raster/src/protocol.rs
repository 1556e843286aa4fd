//! What host and worker say to each other.
//!
//! One type each way, so that a message is decoded once, into something that is either meant or refused. The worker is
//! the untrusted side: the host bounds the length of every answer before it reads it and checks every number in it
//! ([`crate::answers`]).

use std::ops::Range;

use serde::{Deserialize, Serialize};
use weir_core::page::{DocumentInfo, PageFacts};
use weir_core::text::Line;

/// Names an open document between a host and its workers.
pub(crate) type DocumentKey = u64;

/// Names a segment of shared memory between a host and one worker.
pub(crate) type SegmentKey = u64;

/// From host to worker. `Close`, `Share` and `Unshare` are not answered.
#[derive(Serialize, Deserialize)]
pub(crate) enum Order {
    /// The first message; with the pulse's descriptor.
    Start(Start),
    /// Opens a document; with the file's descriptor.
    Open {
        document: DocumentKey,
        length: u64,
        password: Option<String>,
        /// Whether title and outline are wanted in the answer.
        describe: bool,
    },
    /// Closes a document.
    Close { document: DocumentKey },
    /// Maps a segment; with its descriptor.
    Share { segment: SegmentKey, length: u64 },
    /// Unmaps a segment.
    Unshare { segment: SegmentKey },
    /// Sizes of pages (0-based, half open).
    Sizes {
        document: DocumentKey,
        pages: Range<u32>,
    },
    /// Facts of pages (0-based, half open).
    Facts {
        document: DocumentKey,
        pages: Range<u32>,
    },
    /// Draws a page.
    Draw(Draw),
    /// The text of a page (0-based).
    Text { document: DocumentKey, page: u32 },
    /// Tries what the sandbox must refuse.
    Probe(Probe),
}

/// What a worker needs before it locks itself in.
#[derive(Serialize, Deserialize)]
pub(crate) struct Start {
    /// The PDFium library's path.
    pub(crate) pdfium: Vec<u8>,
    /// The host's process id.
    pub(crate) host: u32,
    /// Bytes of private memory it may use.
    pub(crate) heap_bytes: u64,
    /// Bytes of address space beyond what is mapped at the start.
    pub(crate) address_bytes: u64,
}

/// How a page is drawn into a segment: rows from the top, each pixel in blue, green and red, or in gray if the worker finds
/// that the page has no colours.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
pub(crate) struct Draw {
    pub(crate) document: DocumentKey,
    /// 0-based.
    pub(crate) page: u32,
    pub(crate) segment: SegmentKey,
    pub(crate) width: u32,
    pub(crate) height: u32,
    /// Bytes from row to row in colour.
    pub(crate) stride: u32,
    /// Bytes from row to row in gray.
    pub(crate) gray_stride: u32,
    /// JPEG quality, if the encoded image is wanted.
    pub(crate) quality: Option<u32>,
}

/// What a worker must not be able to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Probe {
    /// Read a file by its path.
    OpenFile,
    /// Make a socket.
    Socket,
    /// Start a process.
    Execute,
    /// Signal another process.
    Signal,
    /// Map memory that can be executed.
    ExecutableMemory,
    /// Take more memory than it is given.
    Memory,
}

impl Probe {
    /// Every probe.
    pub const ALL: [Self; 6] = [
        Self::OpenFile,
        Self::Socket,
        Self::Execute,
        Self::Signal,
        Self::ExecutableMemory,
        Self::Memory,
    ];
}

/// How far the kernel locks a worker in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Sandbox {
    /// No file system (landlock).
    pub landlock: Lock,
    /// A short list of system calls (seccomp).
    pub seccomp: Lock,
}

/// How far one mechanism holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Lock {
    /// All that was asked for.
    Full,
    /// Some of it: an older kernel.
    Partial,
    /// The kernel lacks it or has it switched off.
    None,
}

/// From worker to host. `Drawn` is followed by the encoded image, if one was asked for.
#[derive(Serialize, Deserialize)]
pub(crate) enum Answer {
    /// It is locked in and waits for orders.
    Ready(Sandbox),
    /// It cannot serve at all.
    Unfit {
        what: String,
        remedy: String,
    },
    /// A document is open. Title and outline are there only if they were wanted.
    Opened(DocumentInfo),
    /// A document cannot be opened.
    Refused(Refusal),
    /// Width and height in points after rotation, or nothing for a page that cannot be found.
    Sizes(Vec<Option<(f32, f32)>>),
    Facts(Vec<PageFacts>),
    Drawn {
        /// Whether it is drawn in colour.
        colour: bool,
    },
    Text(Vec<Line>),
    /// A page cannot be opened or drawn.
    Unreadable(String),
    /// Nobody wanted it any more.
    Abandoned,
    /// A probe got through (`true`), or the system refused it.
    Probed(bool),
}

/// Why a document is not opened.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Refusal {
    Password,
    Damaged(String),
}
