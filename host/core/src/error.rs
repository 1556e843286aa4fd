//! What can go wrong behind each port. Every error names its culprit and has a stable `kind` for programs; its text is one
//! line for people, lower case, and says what to do where something can be done. Tenants read it in events and answers, so it
//! names documents, pages and settings, and no path of the host: paths go to the log.

use crate::id::PageNumber;

/// A document or page that could not be drawn.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RasterError {
    /// The file has no bytes.
    #[error("the file is empty")]
    Empty,
    /// The bytes are no PDF.
    #[error("not a PDF: {0}")]
    NotPdf(String),
    /// It begins like a PDF but cannot be opened.
    #[error("the PDF is damaged or cut short: {0}")]
    Damaged(String),
    /// A password is needed, or the one given is wrong.
    #[error("the PDF is encrypted: give its password with --password")]
    Encrypted,
    /// The password given does not open it.
    #[error("the password does not open the PDF")]
    WrongPassword,
    /// A PDF without a page.
    #[error("the PDF has no pages")]
    NoPages,
    /// More pages than the host takes.
    #[error("the PDF has {pages} pages, more than the {limit} that raster.max_pages allows")]
    TooManyPages {
        /// Pages it has.
        pages: u32,
        /// Pages allowed.
        limit: u32,
    },
    /// A page that cannot be drawn or read.
    #[error("page {page} cannot be read: {reason}")]
    PageUnreadable {
        /// The page.
        page: PageNumber,
        /// What PDFium said.
        reason: String,
    },
    /// A page whose image would be larger than a worker may hold, even at the lowest resolution.
    #[error("page {page} is {width} × {height} points, too large to draw within {limit} bytes")]
    PageTooLarge {
        /// The page.
        page: PageNumber,
        /// Width in points.
        width: u32,
        /// Height in points.
        height: u32,
        /// Bytes a page image may take.
        limit: u64,
    },
    /// A page that took longer than its deadline.
    #[error("page {page} was not drawn within {seconds} s")]
    Deadline {
        /// The page.
        page: PageNumber,
        /// The deadline.
        seconds: u32,
    },
    /// Opening took longer than its deadline.
    #[error("the PDF could not be opened within {seconds} s")]
    OpenDeadline {
        /// The deadline.
        seconds: u32,
    },
    /// The worker died on this page twice.
    #[error("the PDF worker died on page {page}: {reason}")]
    WorkerDied {
        /// The page; 0 while the document was being opened.
        page: PageNumber,
        /// How it died.
        reason: String,
    },
    /// The file cannot be read.
    #[error("the file cannot be read: {reason}")]
    File {
        /// What the system said.
        reason: String,
    },
    /// PDFium or a worker process cannot be had.
    #[error("{what} is not available: {remedy}")]
    Unavailable {
        /// What is missing.
        what: String,
        /// What to do about it.
        remedy: String,
    },
}

impl RasterError {
    /// A stable word for programs.
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
            Self::Deadline { .. } => "page-deadline",
            Self::OpenDeadline { .. } => "open-deadline",
            Self::WorkerDied { .. } => "worker-died",
            Self::File { .. } => "file",
            Self::Unavailable { .. } => "rasterizer-unavailable",
        }
    }
}

/// A model that could not answer.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum InferenceError {
    /// A model or the runtime is missing.
    #[error("{what} is not available: {remedy}")]
    Unavailable {
        /// What is missing.
        what: String,
        /// What to do about it.
        remedy: String,
    },
    /// The waiting room of a model is full.
    #[error("the queue of {model} is full ({waiting} waiting)")]
    Full {
        /// The model.
        model: String,
        /// Requests waiting.
        waiting: usize,
    },
    /// The model ran and failed.
    #[error("{model} failed: {reason}")]
    Failed {
        /// The model.
        model: String,
        /// What the runtime said.
        reason: String,
    },
    /// The input is outside what the model takes.
    #[error("{model} cannot take this input: {reason}")]
    Input {
        /// The model.
        model: String,
        /// What is wrong with it.
        reason: String,
    },
}

impl InferenceError {
    /// A stable word for programs.
    pub const fn kind(&self) -> &'static str {
        match self {
            Self::Unavailable { .. } => "model-unavailable",
            Self::Full { .. } => "model-queue-full",
            Self::Failed { .. } => "model-failed",
            Self::Input { .. } => "model-input",
        }
    }
}

/// A store that could not be read or written.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum StorageError {
    /// No room.
    #[error("no space left for {what}: free some and run again, nothing finished is lost")]
    Full {
        /// What was being written.
        what: String,
    },
    /// No permission.
    #[error("no permission for {what}: {reason}")]
    Denied {
        /// What was touched.
        what: String,
        /// What the system said.
        reason: String,
    },
    /// Another process has it open.
    #[error("{what} is in use by another weir process: stop it, or give another folder with --data")]
    InUse {
        /// What is in use.
        what: String,
    },
    /// Not there.
    #[error("{what} does not exist")]
    Missing {
        /// What was asked for.
        what: String,
    },
    /// What is stored cannot be understood.
    #[error("{what} is damaged: {reason}")]
    Damaged {
        /// What was read.
        what: String,
        /// What is wrong with it.
        reason: String,
    },
    /// Anything else the system says.
    #[error("{what} failed: {reason}")]
    Failed {
        /// What was tried.
        what: String,
        /// What the system said.
        reason: String,
    },
}

impl StorageError {
    /// A stable word for programs.
    pub const fn kind(&self) -> &'static str {
        match self {
            Self::Full { .. } => "storage-full",
            Self::Denied { .. } => "storage-denied",
            Self::InUse { .. } => "storage-in-use",
            Self::Missing { .. } => "missing",
            Self::Damaged { .. } => "storage-damaged",
            Self::Failed { .. } => "storage-failed",
        }
    }

    /// The error of an I/O call on `what`.
    pub fn io(what: impl Into<String>, error: &std::io::Error) -> Self {
        use std::io::ErrorKind;
        let (what, reason) = (what.into(), error.to_string());
        match error.kind() {
            ErrorKind::StorageFull | ErrorKind::QuotaExceeded => Self::Full { what },
            ErrorKind::PermissionDenied | ErrorKind::ReadOnlyFilesystem => Self::Denied { what, reason },
            ErrorKind::NotFound => Self::Missing { what },
            _ => Self::Failed { what, reason },
        }
    }
}

/// A component that did not decide.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PolicyError {
    /// The component cannot be used at all: not a component, wrong world, not granted, too costly to compile.
    #[error("component {component} cannot be used: {reason}")]
    Unusable {
        /// The component's name in the manifest.
        component: String,
        /// Why.
        reason: String,
    },
    /// It trapped.
    #[error("component {component} trapped in {function}: {reason}")]
    Trap {
        /// The component.
        component: String,
        /// The function that was called.
        function: &'static str,
        /// Trap and guest backtrace, on one line.
        reason: String,
    },
    /// It ran past its deadline.
    #[error("component {component} did not answer {function} within {millis} ms")]
    Deadline {
        /// The component.
        component: String,
        /// The function that was called.
        function: &'static str,
        /// The deadline.
        millis: u64,
    },
    /// It wanted more memory, stack or output than it may have.
    #[error("component {component} went over its limit of {limit} in {function}")]
    Limit {
        /// The component.
        component: String,
        /// The function that was called.
        function: &'static str,
        /// Which limit.
        limit: String,
    },
    /// It answered something that cannot be followed.
    #[error("component {component} answered {function} with nonsense: {reason}")]
    Nonsense {
        /// The component.
        component: String,
        /// The function that was called.
        function: &'static str,
        /// What is wrong with the answer.
        reason: String,
    },
    /// No instance can be had.
    #[error("no room for another component instance: {reason}")]
    Exhausted {
        /// What ran out.
        reason: String,
    },
}

impl PolicyError {
    /// The limit that a component went over, if it did.
    pub fn limit(&self) -> Option<String> {
        match self {
            Self::Deadline { millis, .. } => Some(format!("{millis} ms")),
            Self::Limit { limit, .. } => Some(limit.clone()),
            Self::Unusable { .. } | Self::Trap { .. } | Self::Nonsense { .. } | Self::Exhausted { .. } => {
                None
            }
        }
    }

    /// A stable word for programs.
    pub const fn kind(&self) -> &'static str {
        match self {
            Self::Unusable { .. } => "component-unusable",
            Self::Trap { .. } => "component-trap",
            Self::Deadline { .. } => "component-deadline",
            Self::Limit { .. } => "component-limit",
            Self::Nonsense { .. } => "component-nonsense",
            Self::Exhausted { .. } => "component-exhausted",
        }
    }
}
