//! The worker's side: load PDFium, lock yourself in, then answer orders until the host is gone.

mod draw;
mod facts;
mod outline;
mod own;
mod pdfium;
mod probe;
mod sandbox;
mod text;

use std::collections::HashMap;
use std::ffi::OsStr;
use std::io::{self, Write};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::process::ExitCode;

use memmap2::MmapMut;
use weir_core::page::DocumentInfo;

use crate::protocol::{Answer, DocumentKey, Order, Refusal, SegmentKey, Start};
use crate::shared::{self, Pulse};
use crate::wire;
use pdfium::{Document, Library, OpenError};

/// Runs a worker on the socket that is its standard input, until the host closes it. The host starts it; by hand it
/// only says so.
///
/// To be called before the program has opened anything: it closes every descriptor but the standard three, in case the
/// host has leaked one.
pub fn worker_main() -> ExitCode {
    own::close_inherited();
    let stdin = io::stdin();
    let socket = stdin.as_fd();
    match work(socket) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            drop(writeln!(io::stderr(), "this is started by weir itself: {error}"));
            ExitCode::FAILURE
        }
    }
}

fn work(socket: BorrowedFd<'_>) -> io::Result<()> {
    let Some((Order::Start(start), Some(pulse))) = wire::receive_order(socket)? else {
        return Err(io::ErrorKind::InvalidInput.into());
    };
    let mut desk = match begin(&start, &pulse) {
        Ok((desk, sandbox)) => {
            drop(pulse);
            wire::send_answer(socket, &Answer::Ready(sandbox), &[])?;
            desk
        }
        Err((what, remedy)) => return wire::send_answer(socket, &Answer::Unfit { what, remedy }, &[]),
    };
    while let Some((order, fd)) = wire::receive_order(socket)? {
        if let Some(answer) = desk.obey(order, fd)? {
            wire::send_answer(socket, &answer, desk.encoder.encoded())?;
            desk.encoder.clear();
        }
    }
    Ok(())
}

type Unfit = (String, String);

fn begin(start: &Start, pulse: &OwnedFd) -> Result<(Desk, crate::Sandbox), Unfit> {
    own::keep_memory();
    let unfit = |what: &str, error: &dyn std::fmt::Display| (what.to_owned(), error.to_string());
    let pulse = Pulse::map(pulse.as_fd()).map_err(|e| unfit("the worker's pulse", &e))?;
    let path = Path::new(OsStr::from_bytes(&start.pdfium));
    let library = Library::load(path).map_err(|e| {
        let reason = e.to_string().replace(&path.display().to_string(), "libpdfium.so");
        (
            "PDFium".to_owned(),
            format!("run 'make setup' or set paths.assets ({reason})"),
        )
    })?;
    let encoder = draw::Encoder::new().map_err(|e| unfit("the JPEG encoder", &e))?;
    let sandbox = sandbox::enter(start).map_err(|e| unfit("the worker's sandbox", &e))?;
    Ok((
        Desk {
            library,
            pulse,
            encoder,
            heap_bytes: start.heap_bytes,
            documents: HashMap::new(),
            segments: HashMap::new(),
        },
        sandbox,
    ))
}

/// What the worker has before it.
struct Desk {
    library: Library,
    pulse: Pulse,
    encoder: draw::Encoder,
    /// Private memory that the worker may have.
    heap_bytes: u64,
    documents: HashMap<DocumentKey, Document>,
    segments: HashMap<SegmentKey, MmapMut>,
}

impl Desk {
    /// Does as ordered; `None` where no answer is expected. An error is a fault of the host or a lack of memory, and ends
    /// the worker.
    fn obey(&mut self, order: Order, fd: Option<OwnedFd>) -> io::Result<Option<Answer>> {
        let pulse = &self.pulse;
        let answer = match order {
            Order::Start(_) => return Err(io::ErrorKind::InvalidInput.into()),
            Order::Close { document } => {
                self.documents.remove(&document);
                return Ok(None);
            }
            Order::Share { segment, length } => {
                let fd = fd.ok_or(io::ErrorKind::InvalidInput)?;
                self.segments.insert(segment, shared::canvas(&fd, size(length)?)?);
                return Ok(None);
            }
            Order::Unshare { segment } => {
                self.segments.remove(&segment);
                return Ok(None);
            }
            Order::Open {
                document,
                length,
                password,
                describe,
            } => {
                let fd = fd.ok_or(io::ErrorKind::InvalidInput)?;
                let file = shared::file(fd, size(length)?)?;
                match self.library.open(file, password.as_deref()) {
                    Ok(opened) => {
                        let info = describe_document(&opened, describe);
                        self.documents.insert(document, opened);
                        Answer::Opened(info)
                    }
                    Err(OpenError::Password) => Answer::Refused(Refusal::Password),
                    Err(OpenError::Damaged(reason)) => Answer::Refused(Refusal::Damaged(reason.into())),
                }
            }
            Order::Sizes { document, pages } => {
                let document = self.documents.get(&document).ok_or(io::ErrorKind::InvalidInput)?;
                Answer::Sizes(
                    pages
                        .map(|page| {
                            pulse.beat();
                            document.page_size(page)
                        })
                        .collect(),
                )
            }
            Order::Facts { document, pages } => {
                let document = self.documents.get(&document).ok_or(io::ErrorKind::InvalidInput)?;
                let mut facts = Vec::with_capacity(pages.len());
                for page in pages {
                    if pulse.is_abandoned() {
                        return Ok(Some(Answer::Abandoned));
                    }
                    facts.push(facts::facts(document, page, pulse));
                }
                Answer::Facts(facts)
            }
            Order::Text { document, page } => {
                let document = self.documents.get(&document).ok_or(io::ErrorKind::InvalidInput)?;
                text::text(document, page, pulse)
            }
            Order::Draw(order) => {
                let document = self
                    .documents
                    .get(&order.document)
                    .ok_or(io::ErrorKind::InvalidInput)?;
                let segment = self
                    .segments
                    .get_mut(&order.segment)
                    .ok_or(io::ErrorKind::InvalidInput)?;
                draw::draw(document, &order, segment, &mut self.encoder, pulse)
            }
            Order::Probe(probe) => Answer::Probed(probe::got_through(probe, self.heap_bytes)),
        };
        Ok(Some(answer))
    }
}

fn size(length: u64) -> io::Result<usize> {
    usize::try_from(length).map_err(|_| io::ErrorKind::OutOfMemory.into())
}

fn describe_document(document: &Document, describe: bool) -> DocumentInfo {
    let pages = document.pages();
    if !describe {
        return DocumentInfo {
            pages,
            ..DocumentInfo::default()
        };
    }
    DocumentInfo {
        pages,
        title: document.title(),
        outline: outline::outline(document),
    }
}
