//! An open PDF, and the checks of a file before a worker sees it.

use std::fs::{File, OpenOptions};
use std::io::{self, Read};
use std::ops::Range;
use std::os::fd::OwnedFd;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::Path;
use std::sync::Arc;

use async_trait::async_trait;
use futures::stream::{self, StreamExt, TryStreamExt};
use tokio::sync::OnceCell;
use weir_core::error::RasterError;
use weir_core::id::PageNumber;
use weir_core::page::{DocumentInfo, PageFacts};
use weir_core::page_text::Line;
use weir_core::ports::{OpenedPdf, PageWithReservedMemory, PdfFileToOpen, RasterizeOptions, RasterizeOutput};

use crate::image_reservation::ImageReservation;
use crate::page_image_resolution::ImageDimensions;
use crate::pool_state::PoolState;
use crate::protocol::DocumentKey;
use crate::response_validation;
use crate::task::{DocumentFile, TaskOutput, TaskResult, WorkerTask, pool_closed_error};

/// Number of pages whose sizes are requested at once.
const PAGE_SIZES_PER_REQUEST: u32 = 128;

/// Number of pages whose facts are requested from one worker at once.
const PAGE_FACTS_PER_REQUEST: u32 = 8;

/// `%PDF-` must stand within this many bytes from the start of the file (ISO 32000-1, annex H.3.4.1).
const HEADER_SEARCH_BYTES: usize = 1024;

/// `startxref` must stand within this many bytes from the end of the file; a generous limit.
const TRAILER_SEARCH_BYTES: u64 = 4096;

/// Opens a file and checks that it is a regular, readable file that starts like a PDF.
pub(crate) async fn open_and_check_source_file(
    source: &PdfFileToOpen,
    key: DocumentKey,
) -> Result<DocumentFile, RasterError> {
    let (path, password) = (source.path.clone(), source.password.clone());
    // A PDF password contains no zero byte, and C would end the string there.
    if password.as_ref().is_some_and(|p| p.contains('\0')) {
        return Err(RasterError::WrongPassword);
    }
    let checked = tokio::task::spawn_blocking(move || open_file_and_check_header(&path));
    let (file, length) = checked.await.map_err(|_| pool_closed_error())??;
    Ok(DocumentFile {
        key,
        flow_id: source.flow_id,
        file,
        length,
        password,
    })
}

fn open_file_and_check_header(path: &Path) -> Result<(OwnedFd, u64), RasterError> {
    let unreadable = |reason: String| {
        tracing::warn!(path = %path.display(), reason, "cannot read a file");
        RasterError::FileUnreadable { reason }
    };
    let failed = |error: io::Error| {
        unreadable(match error.kind() {
            io::ErrorKind::NotFound => "there is no such file".into(),
            io::ErrorKind::PermissionDenied => "permission denied".into(),
            _ => error.to_string(),
        })
    };
    // Without this flag, opening a named pipe would wait for a writer.
    let nonblocking = OpenOptions::new()
        .read(true)
        .custom_flags(libc::O_NONBLOCK)
        .open(path);
    let file = nonblocking.map_err(failed)?;
    let metadata = file.metadata().map_err(failed)?;
    if metadata.is_dir() {
        return Err(unreadable("it is a directory".into()));
    }
    if !metadata.is_file() {
        return Err(unreadable("it is not a regular file".into()));
    }
    if metadata.len() == 0 {
        return Err(RasterError::Empty);
    }
    let mut head = Vec::with_capacity(HEADER_SEARCH_BYTES);
    (&file)
        .take(HEADER_SEARCH_BYTES as u64)
        .read_to_end(&mut head)
        .map_err(failed)?;
    if !head.windows(5).any(|bytes| bytes == b"%PDF-") {
        return Err(RasterError::NotPdf("it does not begin with %PDF".into()));
    }
    Ok((file.into(), metadata.len()))
}

/// Returns whether the end of the file is missing: it has no trailer.
fn is_pdf_file_truncated(opened: &DocumentFile) -> bool {
    let Ok(file) = opened.file.try_clone().map(File::from) else {
        return false;
    };
    let from = opened.length.saturating_sub(TRAILER_SEARCH_BYTES);
    let mut tail = vec![0; usize::try_from(opened.length - from).unwrap_or(0)];
    file.read_exact_at(&mut tail, from).is_err() || !tail.windows(9).any(|bytes| bytes == b"startxref")
}

/// Returns a document without content, for tasks that concern no document.
pub(crate) fn placeholder_document_file(key: DocumentKey) -> Result<DocumentFile, RasterError> {
    let file = File::open("/dev/null").map_err(|error| RasterError::FileUnreadable {
        reason: error.to_string(),
    })?;
    Ok(DocumentFile {
        key,
        flow_id: 0,
        file: file.into(),
        length: 0,
        password: None,
    })
}

/// A handle to a document in the workers. Dropping it closes the document there.
#[derive(Debug)]
pub(crate) struct WorkerDocumentHandle {
    file: Arc<DocumentFile>,
    pool: Arc<PoolState>,
}

impl WorkerDocumentHandle {
    pub(crate) fn new(opened: DocumentFile, pool: Arc<PoolState>) -> Self {
        Self {
            file: Arc::new(opened),
            pool,
        }
    }

    async fn run_task_on_document(&self, task: WorkerTask) -> TaskResult {
        self.pool.run_task_in_worker(&self.file, task, None).await
    }
}

impl Drop for WorkerDocumentHandle {
    fn drop(&mut self) {
        self.pool.dispatcher.close_document(self.file.key);
    }
}

/// Opens the document in a worker and checks its number of pages.
pub(crate) async fn open_document_in_worker(
    handle: WorkerDocumentHandle,
) -> Result<PdfDocument, RasterError> {
    let info = match handle.run_task_on_document(WorkerTask::OpenDocument).await {
        Ok(TaskOutput::DocumentOpened(info)) => info,
        Ok(_) => return Err(pool_closed_error()),
        Err(error) => return Err(error),
    };
    let limit = handle.pool.config.max_document_pages;
    if info.pages == 0 {
        return Err(if is_pdf_file_truncated(&handle.file) {
            RasterError::Damaged("its end is missing".into())
        } else {
            RasterError::NoPages
        });
    }
    if info.pages > limit {
        return Err(RasterError::TooManyPages {
            pages: info.pages,
            limit,
        });
    }
    let chunks = info.pages.div_ceil(PAGE_SIZES_PER_REQUEST);
    Ok(PdfDocument {
        handle,
        info,
        page_sizes: (0..chunks).map(|_| OnceCell::new()).collect(),
    })
}

/// Width and height of consecutive pages in points; `None` for a page that cannot be found.
type PageSizes = Vec<Option<(f32, f32)>>;

/// An open PDF.
#[derive(Debug)]
pub(crate) struct PdfDocument {
    handle: WorkerDocumentHandle,
    info: DocumentInfo,
    /// Sizes of the pages, loaded on demand in groups of [`PAGE_SIZES_PER_REQUEST`].
    page_sizes: Vec<OnceCell<PageSizes>>,
}

impl PdfDocument {
    /// Converts a page number to a 0-based index.
    fn page_number_to_index(&self, page: PageNumber) -> Result<u32, RasterError> {
        match page.checked_sub(1).filter(|index| *index < self.info.pages) {
            Some(index) => Ok(index),
            None => Err(RasterError::PageUnreadable {
                page,
                reason: format!("the document has {} pages", self.info.pages),
            }),
        }
    }

    async fn request_page_sizes(&self, pages: Range<u32>) -> Result<PageSizes, RasterError> {
        match self
            .handle
            .run_task_on_document(WorkerTask::ReadPageSizes(pages))
            .await?
        {
            TaskOutput::PageSizes(sizes) => Ok(sizes),
            _ => Err(pool_closed_error()),
        }
    }

    /// Returns width and height of a page in points. The memory for a page is reserved before it is drawn, which needs its size.
    async fn page_size(&self, index: u32) -> Result<(f32, f32), RasterError> {
        let first = index / PAGE_SIZES_PER_REQUEST * PAGE_SIZES_PER_REQUEST;
        let pages = first..first.saturating_add(PAGE_SIZES_PER_REQUEST).min(self.info.pages);
        let unreadable = || RasterError::PageUnreadable {
            page: index.saturating_add(1),
            reason: "it is missing or has no size".into(),
        };
        let cell = self
            .page_sizes
            .get((index / PAGE_SIZES_PER_REQUEST) as usize)
            .ok_or_else(unreadable)?;
        let size = match cell.get_or_try_init(|| self.request_page_sizes(pages)).await {
            Ok(sizes) => sizes.get((index - first) as usize).copied().flatten(),
            // Another page of the group may have killed the worker; this page alone may be readable.
            Err(error) if is_worker_loss(&error) => {
                let sizes_of_page = self.request_page_sizes(index..index.saturating_add(1)).await?;
                sizes_of_page.first().copied().flatten()
            }
            Err(error) => return Err(error),
        };
        size.ok_or_else(unreadable)
    }

    async fn request_page_facts(&self, pages: Range<u32>) -> Result<Vec<PageFacts>, RasterError> {
        match self
            .handle
            .run_task_on_document(WorkerTask::ReadPageFacts(pages))
            .await?
        {
            TaskOutput::PageFacts(facts) => Ok(facts),
            _ => Err(pool_closed_error()),
        }
    }

    /// Reads the facts of a few pages. If that kills the worker, reads them again page by page.
    async fn request_facts_with_page_retry(&self, pages: Range<u32>) -> Result<Vec<PageFacts>, RasterError> {
        match self.request_page_facts(pages.clone()).await {
            Err(error) if is_worker_loss(&error) => {}
            other => return other,
        }
        let mut facts = Vec::with_capacity(pages.len());
        for page in pages {
            match self.request_page_facts(page..page.saturating_add(1)).await {
                Ok(facts_of_page) => facts.extend(facts_of_page),
                Err(error) if is_worker_loss(&error) => {
                    facts.push(response_validation::unreadable_page_facts(page))
                }
                Err(error) => return Err(error),
            }
        }
        Ok(facts)
    }
}

/// A page whose image memory is reserved.
struct PdfPageWithReservedMemory {
    file: Arc<DocumentFile>,
    pool: Arc<PoolState>,
    task: WorkerTask,
    reservation: ImageReservation,
}

#[async_trait]
impl PageWithReservedMemory for PdfPageWithReservedMemory {
    async fn rasterize_page(self: Box<Self>) -> Result<RasterizeOutput, RasterError> {
        let request = self
            .pool
            .run_task_in_worker(&self.file, self.task, Some(self.reservation));
        match request.await? {
            TaskOutput::PageDrawn(drawn) => Ok(drawn),
            _ => Err(pool_closed_error()),
        }
    }
}

fn is_worker_loss(error: &RasterError) -> bool {
    matches!(
        error,
        RasterError::WorkerDied { .. } | RasterError::PageTimeout { .. } | RasterError::OpenTimeout { .. }
    )
}

#[async_trait]
impl OpenedPdf for PdfDocument {
    fn document_info(&self) -> &DocumentInfo {
        &self.info
    }

    async fn read_page_facts(&self, pages: Range<PageNumber>) -> Result<Vec<PageFacts>, RasterError> {
        let end = pages.end.saturating_sub(1).min(self.info.pages);
        let first = pages.start.saturating_sub(1);
        let parts = (first..end).step_by(PAGE_FACTS_PER_REQUEST as usize);
        let parts = parts.map(|from| {
            self.request_facts_with_page_retry(from..from.saturating_add(PAGE_FACTS_PER_REQUEST).min(end))
        });
        let workers = self.handle.pool.workers.max(1) as usize;
        let facts: Vec<_> = stream::iter(parts).buffered(workers).try_collect().await?;
        Ok(facts.concat())
    }

    async fn reserve_page_memory(
        &self,
        page: PageNumber,
        drawing: RasterizeOptions,
    ) -> Result<Box<dyn PageWithReservedMemory>, RasterError> {
        let index = self.page_number_to_index(page)?;
        let WorkerDocumentHandle {
            file: document_file,
            pool,
        } = &self.handle;
        let size = self.page_size(index).await?;
        let dimensions = ImageDimensions::plan_within_limit(
            page,
            size,
            drawing.dpi,
            pool.config.max_single_image_bytes(),
        )?;
        Ok(Box::new(PdfPageWithReservedMemory {
            file: Arc::clone(document_file),
            pool: Arc::clone(pool),
            task: WorkerTask::DrawPage {
                page: index,
                dimensions,
                drawing,
                jpeg_quality: pool.config.jpeg_quality,
            },
            reservation: pool
                .dispatcher
                .await_image_reservation(document_file, dimensions.segment_bytes)
                .await?,
        }))
    }

    async fn read_text_layer(&self, page: PageNumber) -> Result<Vec<Line>, RasterError> {
        let index = self.page_number_to_index(page)?;
        match self
            .handle
            .run_task_on_document(WorkerTask::ReadPageText(index))
            .await?
        {
            TaskOutput::PageText(lines) => Ok(lines),
            _ => Err(pool_closed_error()),
        }
    }
}
