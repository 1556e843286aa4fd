//! Errors of the ports.
//!
//! Each error says what failed and has a stable `kind` for programs. Its message is one line in lower case and says
//! what to do where something can be done. Tenants read the message in events and API responses. So it names
//! documents, pages and settings, but no path of the host; paths are written to the log.

use serde::{Deserialize, Serialize};

use crate::id::{JobId, PageNumber};

/// An error in events and API responses.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ErrorInfo {
    /// Stable error kind for programs.
    pub kind: String,
    /// One-line message for people.
    pub message: String,
}

/// A document or a page could not be rasterized.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RasterError {
    /// The file has no bytes.
    #[error("the file is empty")]
    Empty,
    /// The file is not a PDF.
    #[error("not a PDF: {0}")]
    NotPdf(String),
    /// The file starts like a PDF but cannot be opened.
    #[error("the PDF is damaged or cut short: {0}")]
    Damaged(String),
    /// The PDF needs a password.
    #[error("the PDF is encrypted: give its password with --password")]
    Encrypted,
    /// The given password does not open the PDF.
    #[error("the password does not open the PDF")]
    WrongPassword,
    /// The PDF has no pages.
    #[error("the PDF has no pages")]
    NoPages,
    /// The PDF has more pages than the host accepts.
    #[error("the PDF has {pages} pages, more than the {limit} that raster.max_document_pages allows")]
    TooManyPages {
        /// Number of pages.
        pages: u32,
        /// Maximum number of pages.
        limit: u32,
    },
    /// A page cannot be rasterized or read.
    #[error("page {page} cannot be read: {reason}")]
    PageUnreadable {
        /// The page.
        page: PageNumber,
        /// Error from PDFium.
        reason: String,
    },
    /// Even at the lowest resolution the page image is larger than allowed.
    #[error("page {page} is {width} × {height} points, too large to draw within {limit} bytes")]
    PageTooLarge {
        /// The page.
        page: PageNumber,
        /// Width in points.
        width: u32,
        /// Height in points.
        height: u32,
        /// Maximum size of a page image in bytes.
        limit: u64,
    },
    /// A page exceeded its timeout.
    #[error("page {page} was not drawn within {seconds} s")]
    PageTimeout {
        /// The page.
        page: PageNumber,
        /// The timeout.
        seconds: u32,
    },
    /// Opening the PDF exceeded its timeout.
    #[error("the PDF could not be opened within {seconds} s")]
    OpenTimeout {
        /// The timeout.
        seconds: u32,
    },
    /// The worker process died twice on this page.
    #[error("the PDF worker died on page {page}: {reason}")]
    WorkerDied {
        /// The page; 0 if the document was being opened.
        page: PageNumber,
        /// How the worker process ended.
        reason: String,
    },
    /// The file cannot be read.
    #[error("the file cannot be read: {reason}")]
    FileUnreadable {
        /// Error from the operating system.
        reason: String,
    },
    /// PDFium or a worker process is not available.
    #[error("{what} is not available: {remedy}")]
    Unavailable {
        /// The missing model, library or process.
        what: String,
        /// What to do about it.
        remedy: String,
    },
}

impl RasterError {
    /// Returns the stable error kind for programs.
    pub const fn kind(&self) -> &'static str {
        match self {
            Self::Empty => "empty-file",
            Self::NotPdf(_) => "not-a-pdf",
            Self::Damaged(_) => "damaged-pdf",
            Self::Encrypted => "encrypted",
            Self::WrongPassword => "wrong-password",
            Self::NoPages => "no-pages",
            Self::TooManyPages { .. } => "too-many-pages",
            Self::PageUnreadable { .. } => "page-unreadable",
            Self::PageTooLarge { .. } => "page-too-large",
            Self::PageTimeout { .. } => "page-timeout",
            Self::OpenTimeout { .. } => "open-timeout",
            Self::WorkerDied { .. } => "worker-died",
            Self::FileUnreadable { .. } => "file",
            Self::Unavailable { .. } => "rasterizer-unavailable",
        }
    }
}

/// A model did not produce a result.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum InferenceError {
    /// A model or the runtime is missing.
    #[error("{what} is not available: {remedy}")]
    Unavailable {
        /// The missing model, library or process.
        what: String,
        /// What to do about it.
        remedy: String,
    },
    /// The queue of a model is full.
    #[error("the queue of {model} is full ({waiting} waiting)")]
    QueueFull {
        /// The model.
        model: String,
        /// Requests in the queue.
        waiting: usize,
    },
    /// The model ran and failed.
    #[error("{model} failed: {reason}")]
    Failed {
        /// The model.
        model: String,
        /// Error from the runtime.
        reason: String,
    },
    /// The model does not accept the input.
    #[error("{model} does not accept this input: {reason}")]
    InvalidInput {
        /// The model.
        model: String,
        /// Why the input is not accepted.
        reason: String,
    },
}

impl InferenceError {
    /// Returns the stable error kind for programs.
    pub const fn kind(&self) -> &'static str {
        match self {
            Self::Unavailable { .. } => "model-unavailable",
            Self::QueueFull { .. } => "model-queue-full",
            Self::Failed { .. } => "model-failed",
            Self::InvalidInput { .. } => "model-input",
        }
    }
}

/// A store could not be read or written.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum StorageError {
    /// No space is left.
    #[error("no space left for {what}: free some space and run again; finished work is kept")]
    NoSpace {
        /// What was being written.
        what: String,
    },
    /// No permission.
    #[error("no permission for {what}: {reason}")]
    PermissionDenied {
        /// The file or object that was accessed.
        what: String,
        /// Error from the operating system.
        reason: String,
    },
    /// Another process has it open.
    #[error("{what} is in use by another weir process: stop it, or give another folder with --data")]
    InUse {
        /// The file or folder in use.
        what: String,
    },
    /// A store on another machine does not respond or is overloaded. A later attempt can succeed.
    #[error("{what} is not available: {reason}")]
    Unavailable {
        /// The store.
        what: String,
        /// Error from the connection or the store.
        reason: String,
    },
    /// Another node has claimed the job.
    #[error("job {job} is run by another node")]
    ClaimLost {
        /// The job.
        job: JobId,
    },
    /// The file or object does not exist.
    #[error("{what} does not exist")]
    NotFound {
        /// The file or object that was requested.
        what: String,
    },
    /// The stored data cannot be decoded.
    #[error("{what} is damaged: {reason}")]
    Damaged {
        /// The data that was read.
        what: String,
        /// What is wrong with it.
        reason: String,
    },
    /// Any other error.
    #[error("{what} failed: {reason}")]
    Failed {
        /// The operation that failed.
        what: String,
        /// Error from the operating system or the store.
        reason: String,
    },
}

impl StorageError {
    /// Returns the stable error kind for programs.
    pub const fn kind(&self) -> &'static str {
        match self {
            Self::NoSpace { .. } => "storage-full",
            Self::PermissionDenied { .. } => "storage-denied",
            Self::InUse { .. } => "storage-in-use",
            Self::Unavailable { .. } => "storage-unavailable",
            Self::ClaimLost { .. } => "claim-lost",
            Self::NotFound { .. } => "missing",
            Self::Damaged { .. } => "storage-damaged",
            Self::Failed { .. } => "storage-failed",
        }
    }

    /// Whether the store itself failed, not the request.
    pub const fn is_store_failure(&self) -> bool {
        match self {
            Self::NoSpace { .. }
            | Self::PermissionDenied { .. }
            | Self::Unavailable { .. }
            | Self::Damaged { .. }
            | Self::Failed { .. } => true,
            Self::InUse { .. } | Self::ClaimLost { .. } | Self::NotFound { .. } => false,
        }
    }

    /// Converts the error of an I/O call on `what`.
    pub fn from_io_error(what: impl Into<String>, error: &std::io::Error) -> Self {
        use std::io::ErrorKind;
        let (what, reason) = (what.into(), error.to_string());
        match error.kind() {
            ErrorKind::StorageFull | ErrorKind::QuotaExceeded => Self::NoSpace { what },
            ErrorKind::PermissionDenied | ErrorKind::ReadOnlyFilesystem => {
                Self::PermissionDenied { what, reason }
            }
            ErrorKind::NotFound => Self::NotFound { what },
            _ => Self::Failed { what, reason },
        }
    }
}

/// A component call did not return a valid decision.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PolicyError {
    /// The component cannot be used: it is not a component, has the wrong world, imports a capability that is not
    /// granted, or is too expensive to compile.
    #[error("component {component} cannot be used: {reason}")]
    Unusable {
        /// The component's name in the manifest.
        component: String,
        /// Why.
        reason: String,
    },
    /// The component trapped.
    #[error("component {component} trapped in {function}: {reason}")]
    Trap {
        /// The component.
        component: String,
        /// The function that was called.
        function: &'static str,
        /// Trap and guest backtrace on one line.
        reason: String,
    },
    /// The call exceeded its timeout.
    #[error("component {component} did not return from {function} within {millis} ms")]
    CallTimeout {
        /// The component.
        component: String,
        /// The function that was called.
        function: &'static str,
        /// The timeout.
        millis: u64,
    },
    /// The call exceeded its limit of memory, stack or output.
    #[error("component {component} exceeded its limit of {limit} in {function}")]
    LimitExceeded {
        /// The component.
        component: String,
        /// The function that was called.
        function: &'static str,
        /// The limit that was exceeded.
        limit: String,
    },
    /// The component returned an invalid decision.
    #[error("component {component} returned an invalid decision from {function}: {reason}")]
    InvalidDecision {
        /// The component.
        component: String,
        /// The function that was called.
        function: &'static str,
        /// Why the decision is invalid.
        reason: String,
    },
    /// No instance is available.
    #[error("no component instance is available: {reason}")]
    NoInstanceAvailable {
        /// The resource that ran out.
        reason: String,
    },
}

impl PolicyError {
    /// Returns the limit that the call exceeded, if it exceeded one.
    pub fn exceeded_limit(&self) -> Option<String> {
        match self {
            Self::CallTimeout { millis, .. } => Some(format!("{millis} ms")),
            Self::LimitExceeded { limit, .. } => Some(limit.clone()),
            Self::Unusable { .. }
            | Self::Trap { .. }
            | Self::InvalidDecision { .. }
            | Self::NoInstanceAvailable { .. } => None,
        }
    }

    /// Returns the stable error kind for programs.
    pub const fn kind(&self) -> &'static str {
        match self {
            Self::Unusable { .. } => "component-unusable",
            Self::Trap { .. } => "component-trap",
            Self::CallTimeout { .. } => "component-timeout",
            Self::LimitExceeded { .. } => "component-limit",
            Self::InvalidDecision { .. } => "component-invalid-decision",
            Self::NoInstanceAvailable { .. } => "component-exhausted",
        }
    }
}
