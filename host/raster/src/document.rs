//! An open PDF, and what is settled about a file before any worker sees it.

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
use weir_core::ports::{Drawing, DrawnPage, OpenDocument, ReservedDrawing, Source};
use weir_core::text::Line;

use crate::answers;
use crate::desk::{Hold, closed};
use crate::pool::Shared;
use crate::protocol::DocumentKey;
use crate::sizing::Raster;
use crate::work::{Opened, Outcome, Served, Work};

/// Pages whose sizes are asked for at once.
const SIZES: u32 = 128;

/// Pages whose facts are asked of one worker at once.
const FACTS: u32 = 8;

/// Bytes at the head of a file among which `%PDF-` must stand (ISO 32000-1, annex H.3.4.1).
const HEAD: usize = 1024;

/// Bytes at the end of a file among which `startxref` must stand, taken generously.
const TAIL: u64 = 4096;

/// Opens a file as far as the host does it: a regular, readable file that begins like a PDF.
pub(crate) async fn look(source: &Source, key: DocumentKey) -> Result<Opened, RasterError> {
    let (path, password) = (source.path.clone(), source.password.clone());
    // No PDF has a password with a zero in it, and C would cut it there.
    if password.as_ref().is_some_and(|p| p.contains('\0')) {
        return Err(RasterError::WrongPassword);
    }
    let looked = tokio::task::spawn_blocking(move || head_of(&path));
    let (file, length) = looked.await.map_err(|_| closed())??;
    Ok(Opened {
        key,
        party: source.party,
        file,
        length,
        password,
    })
}

fn head_of(path: &Path) -> Result<(OwnedFd, u64), RasterError> {
    let unreadable = |reason: String| {
        tracing::warn!(path = %path.display(), reason, "a file cannot be read");
        RasterError::File { reason }
    };
    let failed = |error: io::Error| {
        unreadable(match error.kind() {
            io::ErrorKind::NotFound => "there is no such file".into(),
            io::ErrorKind::PermissionDenied => "permission denied".into(),
            _ => error.to_string(),
        })
    };
    // Opening a named pipe would wait for a writer otherwise.
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
    let mut head = Vec::with_capacity(HEAD);
    (&file).take(HEAD as u64).read_to_end(&mut head).map_err(failed)?;
    if !head.windows(5).any(|bytes| bytes == b"%PDF-") {
        return Err(RasterError::NotPdf("it does not begin with %PDF".into()));
    }
    Ok((file.into(), metadata.len()))
}

/// Whether the end of the file is missing, by its trailer.
fn is_cut_short(opened: &Opened) -> bool {
    let Ok(file) = opened.file.try_clone().map(File::from) else {
        return false;
    };
    let from = opened.length.saturating_sub(TAIL);
    let mut tail = vec![0; usize::try_from(opened.length - from).unwrap_or(0)];
    file.read_exact_at(&mut tail, from).is_err() || !tail.windows(9).any(|bytes| bytes == b"startxref")
}

/// A document that is none, for requests that are about no document.
pub(crate) fn nothing(key: DocumentKey) -> Result<Opened, RasterError> {
    let file = File::open("/dev/null").map_err(|error| RasterError::File {
        reason: error.to_string(),
    })?;
    Ok(Opened {
        key,
        party: 0,
        file: file.into(),
        length: 0,
        password: None,
    })
}

/// The right to ask about a document; dropping it lets the workers close it.
#[derive(Debug)]
pub(crate) struct Lease {
    opened: Arc<Opened>,
    shared: Arc<Shared>,
}

impl Lease {
    pub(crate) fn new(opened: Opened, shared: Arc<Shared>) -> Self {
        Self {
            opened: Arc::new(opened),
            shared,
        }
    }

    async fn request(&self, work: Work) -> Served {
        self.shared.request(&self.opened, work, None).await
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        self.shared.desk.forget(self.opened.key);
    }
}

/// Opens it in a worker.
pub(crate) async fn open(lease: Lease) -> Result<PdfDocument, RasterError> {
    let info = match lease.request(Work::Open).await {
        Ok(Outcome::Open(info)) => info,
        Ok(_) => return Err(closed()),
        Err(error) => return Err(error),
    };
    let limit = lease.shared.config.max_pages;
    if info.pages == 0 {
        return Err(if is_cut_short(&lease.opened) {
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
    let chunks = info.pages.div_ceil(SIZES);
    Ok(PdfDocument {
        lease,
        info,
        sizes: (0..chunks).map(|_| OnceCell::new()).collect(),
    })
}

/// Width and height of some pages, in points; nothing for a page that cannot be found.
type Sizes = Vec<Option<(f32, f32)>>;

/// An open PDF.
#[derive(Debug)]
pub(crate) struct PdfDocument {
    lease: Lease,
    info: DocumentInfo,
    /// Sizes of pages in points, [`SIZES`] at a time, as they are needed.
    sizes: Vec<OnceCell<Sizes>>,
}

impl PdfDocument {
    /// The 0-based index of a page.
    fn index(&self, page: PageNumber) -> Result<u32, RasterError> {
        match page.checked_sub(1).filter(|index| *index < self.info.pages) {
            Some(index) => Ok(index),
            None => Err(RasterError::PageUnreadable {
                page,
                reason: format!("the document has {} pages", self.info.pages),
            }),
        }
    }

    async fn ask_sizes(&self, pages: Range<u32>) -> Result<Sizes, RasterError> {
        match self.lease.request(Work::Sizes(pages)).await? {
            Outcome::Sizes(sizes) => Ok(sizes),
            _ => Err(closed()),
        }
    }

    /// Width and height of a page in points. The size is needed before the page is drawn, because memory is.
    async fn size(&self, index: u32) -> Result<(f32, f32), RasterError> {
        let first = index / SIZES * SIZES;
        let pages = first..first.saturating_add(SIZES).min(self.info.pages);
        let unreadable = || RasterError::PageUnreadable {
            page: index.saturating_add(1),
            reason: "it is missing or has no size".into(),
        };
        let cell = self.sizes.get((index / SIZES) as usize).ok_or_else(unreadable)?;
        let size = match cell.get_or_try_init(|| self.ask_sizes(pages)).await {
            Ok(sizes) => sizes.get((index - first) as usize).copied().flatten(),
            // One of the many may have cost the worker its life; this one may be well.
            Err(error) if is_loss(&error) => {
                let alone = self.ask_sizes(index..index.saturating_add(1)).await?;
                alone.first().copied().flatten()
            }
            Err(error) => return Err(error),
        };
        size.ok_or_else(unreadable)
    }

    async fn ask_facts(&self, pages: Range<u32>) -> Result<Vec<PageFacts>, RasterError> {
        match self.lease.request(Work::Facts(pages)).await? {
            Outcome::Facts(facts) => Ok(facts),
            _ => Err(closed()),
        }
    }

    /// Facts of a few pages, page by page if the worker was lost over them.
    async fn facts_of(&self, pages: Range<u32>) -> Result<Vec<PageFacts>, RasterError> {
        match self.ask_facts(pages.clone()).await {
            Err(error) if is_loss(&error) => {}
            other => return other,
        }
        let mut facts = Vec::with_capacity(pages.len());
        for page in pages {
            match self.ask_facts(page..page.saturating_add(1)).await {
                Ok(alone) => facts.extend(alone),
                Err(error) if is_loss(&error) => facts.push(answers::unreadable(page)),
                Err(error) => return Err(error),
            }
        }
        Ok(facts)
    }
}

/// A page that has its memory.
struct Reserved {
    document: Arc<Opened>,
    shared: Arc<Shared>,
    work: Work,
    hold: Hold,
}

#[async_trait]
impl ReservedDrawing for Reserved {
    async fn draw(self: Box<Self>) -> Result<DrawnPage, RasterError> {
        let request = self.shared.request(&self.document, self.work, Some(self.hold));
        match request.await? {
            Outcome::Drawn(drawn) => Ok(drawn),
            _ => Err(closed()),
        }
    }
}

/// Whether a worker was lost over a request.
fn is_loss(error: &RasterError) -> bool {
    matches!(
        error,
        RasterError::WorkerDied { .. } | RasterError::Deadline { .. } | RasterError::OpenDeadline { .. }
    )
}

#[async_trait]
impl OpenDocument for PdfDocument {
    fn info(&self) -> &DocumentInfo {
        &self.info
    }

    async fn facts(&self, pages: Range<PageNumber>) -> Result<Vec<PageFacts>, RasterError> {
        let end = pages.end.saturating_sub(1).min(self.info.pages);
        let first = pages.start.saturating_sub(1);
        let parts = (first..end).step_by(FACTS as usize);
        let parts = parts.map(|from| self.facts_of(from..from.saturating_add(FACTS).min(end)));
        let workers = self.lease.shared.workers.max(1) as usize;
        let facts: Vec<_> = stream::iter(parts).buffered(workers).try_collect().await?;
        Ok(facts.concat())
    }

    async fn reserve(
        &self,
        page: PageNumber,
        drawing: Drawing,
    ) -> Result<Box<dyn ReservedDrawing>, RasterError> {
        let index = self.index(page)?;
        let Lease { opened, shared } = &self.lease;
        let size = self.size(index).await?;
        let raster = Raster::plan(page, size, drawing.dpi, shared.config.largest_image())?;
        Ok(Box::new(Reserved {
            document: Arc::clone(opened),
            shared: Arc::clone(shared),
            work: Work::Draw {
                page: index,
                raster,
                drawing,
                quality: shared.config.jpeg_quality,
            },
            hold: shared.desk.reserve(opened, raster.segment_bytes).await?,
        }))
    }

    async fn text(&self, page: PageNumber) -> Result<Vec<Line>, RasterError> {
        let index = self.index(page)?;
        match self.lease.request(Work::Text(index)).await? {
            Outcome::Text(lines) => Ok(lines),
            _ => Err(closed()),
        }
    }
}
