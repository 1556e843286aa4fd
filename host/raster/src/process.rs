//! One worker process, as the host sees it: orders out, answers in, and patience that ends.
//!
//! Two deadlines hold for work on pages. The whole of it must end within `page_seconds`; and within any `stall_seconds` the
//! worker's pulse must have moved. The pulse is real progress, not a thread that ticks: PDFium asks between objects
//! whether it should pause, and the worker beats there and in its own loops. PDFium parses a page's content in one go,
//! without asking; a page that takes longer than the stall deadline to parse is given up too. Opening has no pulse at all,
//! so only the longer deadline holds for it.

use std::collections::{HashSet, VecDeque};
use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::ffi::OsStrExt;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;
use weir_core::error::RasterError;
use weir_core::page::DocumentInfo;
use weir_core::settings::SandboxMode;

use crate::answers;
use crate::arena::{Home, Segment};
use crate::desk::{Desk, Hold};
use crate::nursery::Nursery;
use crate::pool::RasterConfig;
use crate::protocol::{Answer, DocumentKey, Draw, Order, Refusal, Sandbox, SegmentKey, Start};
use crate::required;
use crate::shared::{Memory, Pulse};
use crate::wire::Wire;
use crate::work::{Opened, Outcome, Reply, Served, Ticket, Work};

/// Documents a worker keeps open.
const KEPT_OPEN: usize = 8;

/// How long starting may take: the program is large and may have to be read from a cold disk.
const START: Duration = Duration::from_secs(30);

/// How long an abandoned worker may take to notice before it is replaced.
const GRACE: Duration = Duration::from_secs(1);

/// Address space for mapped PDFs, which private memory does not count.
const FILE_BYTES: u64 = 64 << 30;

/// How a worker was lost.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Fall {
    /// The connection broke.
    Died,
    /// It took too long.
    Stuck { seconds: u32 },
    /// It answered something else than it was asked.
    Nonsense(String),
}

#[derive(Clone, Copy)]
struct Patience {
    whole: Duration,
    stall: Option<Duration>,
}

/// A worker process that has locked itself in.
#[derive(Debug)]
pub(crate) struct Process {
    pub(crate) home: Home,
    pub(crate) pid: u32,
    pub(crate) sandbox: Sandbox,
    /// Pages done.
    pub(crate) pages: u32,
    /// Documents open, the one used last at the back.
    open: VecDeque<DocumentKey>,
    mapped: HashSet<SegmentKey>,
    wire: Wire,
    pulse: Pulse,
    desk: Arc<Desk>,
    nursery: Arc<Nursery>,
    buried: bool,
}

impl Process {
    /// Starts a worker and waits until it is locked in.
    pub(crate) async fn start(
        config: &RasterConfig,
        desk: &Arc<Desk>,
        nursery: &Arc<Nursery>,
    ) -> Result<Self, RasterError> {
        let unavailable = |error: io::Error| RasterError::Unavailable {
            what: "a PDF worker process".into(),
            remedy: format!("it could not be started: {error}"),
        };
        let (wire, socket) = Wire::pair().map_err(unavailable)?;
        let memory = Memory::new("weir-pulse", Pulse::BYTES).map_err(unavailable)?;
        let pulse = Pulse::map(memory.fd()).map_err(unavailable)?;
        let pid = nursery.start(socket).await.map_err(unavailable)?;
        let mut process = Self {
            home: desk.key(),
            pid,
            sandbox: Sandbox {
                landlock: crate::Lock::None,
                seccomp: crate::Lock::None,
            },
            pages: 0,
            open: VecDeque::new(),
            mapped: HashSet::new(),
            wire,
            pulse,
            desk: Arc::clone(desk),
            nursery: Arc::clone(nursery),
            buried: false,
        };
        let start = Order::Start(Start {
            pdfium: config.pdfium.as_os_str().as_bytes().to_vec(),
            host: std::process::id(),
            heap_bytes: config.worker_bytes,
            address_bytes: config
                .worker_bytes
                .saturating_add(config.image_bytes)
                .saturating_add(FILE_BYTES),
        });
        let ready = async {
            process.wire.send(&start, Some(memory.fd())).await?;
            process.wire.receive(0).await
        };
        match tokio::time::timeout(START, ready).await {
            Ok(Ok((Answer::Ready(sandbox), _))) => {
                if let Some(missing) = required::missing(sandbox) {
                    match config.sandbox {
                        SandboxMode::Required => return Err(required::refused(&missing)),
                        SandboxMode::BestEffort => nursery.warn_of_sandbox(&missing),
                    }
                }
                process.sandbox = sandbox;
                desk.settle(process.home);
                Ok(process)
            }
            Ok(Ok((Answer::Unfit { what, remedy }, _))) => {
                let pdfium = config.pdfium.display();
                tracing::warn!(%pdfium, what, remedy, "a PDF worker cannot work");
                Err(RasterError::Unavailable { what, remedy })
            }
            Ok(Ok(_)) => Err(unavailable(io::Error::other("it did not say that it is ready"))),
            Ok(Err(error)) => {
                let end = process.bury().await;
                Err(unavailable(io::Error::other(format!("{error}, {end}"))))
            }
            Err(_) => Err(unavailable(io::ErrorKind::TimedOut.into())),
        }
    }

    /// Whether it has ended while it had nothing to do.
    pub(crate) fn is_gone(&self) -> bool {
        self.wire.is_broken()
    }

    /// Documents open in it.
    pub(crate) fn open_documents(&self) -> Vec<DocumentKey> {
        self.open.iter().copied().collect()
    }

    /// Kills it, waits for its end and says how it ended.
    pub(crate) async fn bury(&mut self) -> String {
        self.buried = true;
        self.desk.leave(self.home);
        self.nursery.bury(self.pid).await
    }

    /// Closes a document.
    pub(crate) async fn forget(&mut self, document: DocumentKey) -> Result<(), Fall> {
        if let Some(at) = self.open.iter().position(|key| *key == document) {
            self.open.remove(at);
            self.tell(&Order::Close { document }).await?;
        }
        Ok(())
    }

    async fn tell(&self, order: &Order) -> Result<(), Fall> {
        self.wire.send(order, None).await.map_err(|_| Fall::Died)
    }

    /// Does a job. When nobody waits for it any more, the worker is told and drops it as soon as it notices.
    pub(crate) async fn serve(&mut self, config: &RasterConfig, job: &mut Ticket) -> Result<Served, Fall> {
        let Ticket {
            document,
            work,
            hold,
            reply,
        } = job;
        let whole = Duration::from_secs(u64::from(config.page_seconds));
        let opening = Patience { whole, stall: None };
        let working = Patience {
            whole,
            stall: Some(Duration::from_secs(u64::from(config.stall_seconds))),
        };
        let describe = matches!(work, Work::Open);
        if !matches!(work, Work::Probe(_)) {
            match self.open(document, describe, opening, reply).await? {
                Ok(Some(info)) if describe => return Ok(Ok(Outcome::Open(answers::info(info)))),
                Ok(_) => {}
                Err(error) => return Ok(Err(error)),
            }
        }
        let document = document.key;
        let mut image_limit = 0;
        let order = match &*work {
            Work::Open => return Err(Fall::Nonsense("the document was not opened".into())),
            Work::Probe(probe) => Order::Probe(*probe),
            Work::Sizes(pages) => Order::Sizes {
                document,
                pages: pages.clone(),
            },
            Work::Facts(pages) => Order::Facts {
                document,
                pages: pages.clone(),
            },
            Work::Text(page) => Order::Text {
                document,
                page: *page,
            },
            Work::Draw {
                page,
                raster,
                drawing,
                quality,
            } => {
                let hold = hold
                    .as_mut()
                    .ok_or_else(|| Fall::Nonsense("no memory was granted".into()))?;
                let segment = match self.segment(hold).await? {
                    Ok(segment) => segment,
                    Err(error) => return Ok(Err(error)),
                };
                image_limit = raster.bytes() + (64 << 10);
                Order::Draw(Draw {
                    document,
                    page: *page,
                    segment,
                    width: raster.width,
                    height: raster.height,
                    stride: raster.stride,
                    gray_stride: raster.gray_stride(),
                    quality: drawing.encoded.then_some(*quality),
                })
            }
        };
        let (answer, payload) = self.ask(&order, None, working, image_limit, reply).await?;
        self.pages = self.pages.saturating_add(work.pages());
        answers::accept(work, answer, payload, hold)
    }

    async fn ask(
        &mut self,
        order: &Order,
        fd: Option<BorrowedFd<'_>>,
        patience: Patience,
        limit: usize,
        reply: &mut Reply,
    ) -> Result<(Answer, Vec<u8>), Fall> {
        self.pulse.abandon(false);
        self.wire.send(order, fd).await.map_err(|_| Fall::Died)?;
        let begun = Instant::now();
        let mut whole = begun + patience.whole;
        let mut given = patience.whole;
        let (mut beats, mut moved) = (self.pulse.beats(), begun);
        let look = patience
            .stall
            .map_or(patience.whole, |stall| stall / 8)
            .clamp(Duration::from_millis(10), Duration::from_millis(500));
        let mut looks = tokio::time::interval_at(begun + look, look);
        let mut wanted = true;
        let receive = self.wire.receive(limit);
        tokio::pin!(receive);
        loop {
            tokio::select! {
                biased;
                answer = &mut receive => {
                    return answer.map_err(|error| match error.kind() {
                        io::ErrorKind::InvalidData => Fall::Nonsense(error.to_string()),
                        _ => Fall::Died,
                    });
                }
                () = reply.closed(), if wanted => {
                    wanted = false;
                    self.pulse.abandon(true);
                    whole = whole.min(Instant::now() + GRACE);
                }
                _ = looks.tick() => {
                    let now = Instant::now();
                    let beat = self.pulse.beats();
                    if beat != beats {
                        (beats, moved) = (beat, now);
                    }
                    let stalled = patience.stall.filter(|stall| now - moved >= *stall);
                    given = stalled.unwrap_or(given);
                    if stalled.is_some() || now >= whole {
                        let seconds = u32::try_from(given.as_secs()).unwrap_or(u32::MAX);
                        return Err(Fall::Stuck { seconds });
                    }
                }
            }
        }
    }

    /// Opens a document unless it is open; the answer if it had to be.
    async fn open(
        &mut self,
        document: &Opened,
        describe: bool,
        patience: Patience,
        reply: &mut Reply,
    ) -> Result<Result<Option<DocumentInfo>, RasterError>, Fall> {
        if let Some(at) = self.open.iter().position(|key| *key == document.key) {
            self.open.remove(at);
            self.open.push_back(document.key);
            return Ok(Ok(None));
        }
        while self.open.len() >= KEPT_OPEN {
            if let Some(oldest) = self.open.pop_front() {
                self.tell(&Order::Close { document: oldest }).await?;
            }
        }
        let order = Order::Open {
            document: document.key,
            length: document.length,
            password: document.password.clone(),
            describe,
        };
        let file = Some(document.file.as_fd());
        match self.ask(&order, file, patience, 0, reply).await?.0 {
            Answer::Opened(info) => {
                self.open.push_back(document.key);
                Ok(Ok(Some(info)))
            }
            Answer::Refused(Refusal::Password) if document.password.is_some() => {
                Ok(Err(RasterError::WrongPassword))
            }
            Answer::Refused(Refusal::Password) => Ok(Err(RasterError::Encrypted)),
            Answer::Refused(Refusal::Damaged(reason)) => {
                Ok(Err(RasterError::Damaged(answers::title(&reason))))
            }
            _ => Err(Fall::Nonsense("it was asked to open a document".into())),
        }
    }

    /// The segment to draw into, mapped by the worker.
    async fn segment(&mut self, hold: &mut Hold) -> Result<Result<SegmentKey, RasterError>, Fall> {
        for lost in self.desk.lost_segments(self.home) {
            if self.mapped.remove(&lost) {
                self.tell(&Order::Unshare { segment: lost }).await?;
            }
        }
        let bytes = hold.bytes();
        // A segment of a process that has ended since is of no use here.
        let fits = hold
            .segment
            .take()
            .filter(|s| s.home == self.home && s.bytes == bytes);
        let segment = match fits.map_or_else(|| Segment::new(self.desk.key(), self.home, bytes), Ok) {
            Ok(segment) => segment,
            Err(error) => {
                return Ok(Err(RasterError::Unavailable {
                    what: "shared memory for a page image".into(),
                    remedy: format!("{error}: raise the limit of memory or lower raster.image_bytes"),
                }));
            }
        };
        let segment = hold.segment.insert(segment);
        if self.mapped.insert(segment.key) {
            let order = Order::Share {
                segment: segment.key,
                length: segment.bytes,
            };
            let sent = self.wire.send(&order, Some(segment.memory.fd())).await;
            sent.map_err(|_| Fall::Died)?;
        }
        Ok(Ok(segment.key))
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        if !self.buried {
            self.desk.leave(self.home);
            self.nursery.bury_unseen(self.pid);
        }
    }
}
