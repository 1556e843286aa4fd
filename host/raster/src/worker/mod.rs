//! The worker process: loads PDFium, enters its sandbox and then serves requests until the host closes the connection.

mod outline;
mod page_drawing_and_encoding;
mod page_facts;
mod pdfium;
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

use crate::framing;
use crate::protocol::{DocumentKey, OpenFailure, SegmentKey, WorkerConfig, WorkerRequest, WorkerResponse};
use crate::shared_memory::{self, Heartbeat};
use pdfium::{Document, OpenError, PdfiumLibrary};

/// Runs a worker on the socket that is its standard input, until the host closes it. Only the host starts a worker; started by
/// hand, it prints an error.
///
/// Call it before the program opens a file: it closes every descriptor except the three standard ones, in case the host has
/// leaked one.
pub fn worker_main() -> ExitCode {
    sandbox::close_inherited_descriptors();
    let stdin = io::stdin();
    let socket = stdin.as_fd();
    match serve_host_requests(socket) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            drop(writeln!(io::stderr(), "only weir starts PDF workers: {error}"));
            ExitCode::FAILURE
        }
    }
}

fn serve_host_requests(socket: BorrowedFd<'_>) -> io::Result<()> {
    let Some((WorkerRequest::Initialize(config), Some(heartbeat_memory))) = framing::receive_request(socket)?
    else {
        return Err(io::ErrorKind::InvalidInput.into());
    };
    let mut worker = match initialize_worker(&config, &heartbeat_memory) {
        Ok((worker, sandbox)) => {
            drop(heartbeat_memory);
            framing::send_response(socket, &WorkerResponse::Ready(sandbox), &[])?;
            worker
        }
        Err((what, remedy)) => {
            return framing::send_response(socket, &WorkerResponse::StartFailed { what, remedy }, &[]);
        }
    };
    while let Some((request, fd)) = framing::receive_request(socket)? {
        if let Some(response) = worker.handle_request(request, fd)? {
            framing::send_response(socket, &response, worker.encoder.last_encoded_image())?;
            worker.encoder.clear_encoded_image();
        }
    }
    Ok(())
}

type StartFailure = (String, String);

fn initialize_worker(
    config: &WorkerConfig,
    heartbeat_memory: &OwnedFd,
) -> Result<(WorkerState, crate::SandboxStatus), StartFailure> {
    sandbox::retain_freed_memory();
    let start_failure = |what: &str, error: &dyn std::fmt::Display| (what.to_owned(), error.to_string());
    let heartbeat = Heartbeat::map_heartbeat(heartbeat_memory.as_fd())
        .map_err(|e| start_failure("the worker's heartbeat memory", &e))?;
    let path = Path::new(OsStr::from_bytes(&config.pdfium_path));
    let library = PdfiumLibrary::load(path).map_err(|e| {
        let reason = e.to_string().replace(&path.display().to_string(), "libpdfium.so");
        (
            "PDFium".to_owned(),
            format!("run 'make setup' or set paths.assets ({reason})"),
        )
    })?;
    let encoder =
        page_drawing_and_encoding::JpegEncoder::new().map_err(|e| start_failure("the JPEG encoder", &e))?;
    let sandbox = sandbox::enter_sandbox(config).map_err(|e| start_failure("the worker's sandbox", &e))?;
    Ok((
        WorkerState {
            library,
            heartbeat,
            encoder,
            max_heap_bytes: config.max_heap_bytes,
            documents: HashMap::new(),
            segments: HashMap::new(),
        },
        sandbox,
    ))
}

/// The state of a worker that serves requests.
struct WorkerState {
    library: PdfiumLibrary,
    heartbeat: Heartbeat,
    encoder: page_drawing_and_encoding::JpegEncoder,
    /// Maximum private memory in bytes.
    max_heap_bytes: u64,
    documents: HashMap<DocumentKey, Document>,
    segments: HashMap<SegmentKey, MmapMut>,
}

impl WorkerState {
    /// Handles a request; `None` if it gets no response. An error means an invalid request or a lack of memory, and ends the worker.
    fn handle_request(
        &mut self,
        request: WorkerRequest,
        fd: Option<OwnedFd>,
    ) -> io::Result<Option<WorkerResponse>> {
        let heartbeat = &self.heartbeat;
        let response = match request {
            WorkerRequest::Initialize(_) => return Err(io::ErrorKind::InvalidInput.into()),
            WorkerRequest::CloseDocument { document } => {
                self.documents.remove(&document);
                return Ok(None);
            }
            WorkerRequest::MapSegment { segment, length } => {
                let fd = fd.ok_or(io::ErrorKind::InvalidInput)?;
                self.segments.insert(
                    segment,
                    shared_memory::map_segment_for_drawing(&fd, length_to_usize(length)?)?,
                );
                return Ok(None);
            }
            WorkerRequest::UnmapSegment { segment } => {
                self.segments.remove(&segment);
                return Ok(None);
            }
            WorkerRequest::OpenDocument {
                document,
                length,
                password,
                include_metadata,
            } => {
                let fd = fd.ok_or(io::ErrorKind::InvalidInput)?;
                let file = shared_memory::map_pdf_file(fd, length_to_usize(length)?)?;
                match self.library.open_document(file, password.as_deref()) {
                    Ok(opened) => {
                        let info = read_document_info(&opened, include_metadata);
                        self.documents.insert(document, opened);
                        WorkerResponse::DocumentOpened(info)
                    }
                    Err(OpenError::PasswordRequired) => {
                        WorkerResponse::OpenFailed(OpenFailure::PasswordRequired)
                    }
                    Err(OpenError::Damaged(reason)) => {
                        WorkerResponse::OpenFailed(OpenFailure::Damaged(reason.into()))
                    }
                }
            }
            WorkerRequest::ReadPageSizes { document, pages } => {
                let document = self.documents.get(&document).ok_or(io::ErrorKind::InvalidInput)?;
                WorkerResponse::PageSizes(
                    pages
                        .map(|page| {
                            heartbeat.record_beat();
                            document.page_size(page)
                        })
                        .collect(),
                )
            }
            WorkerRequest::ReadPageFacts { document, pages } => {
                let document = self.documents.get(&document).ok_or(io::ErrorKind::InvalidInput)?;
                let mut facts = Vec::with_capacity(pages.len());
                for page in pages {
                    if heartbeat.is_canceled() {
                        return Ok(Some(WorkerResponse::Canceled));
                    }
                    facts.push(page_facts::read_page_facts(document, page, heartbeat));
                }
                WorkerResponse::PageFacts(facts)
            }
            WorkerRequest::ReadPageText { document, page } => {
                let document = self.documents.get(&document).ok_or(io::ErrorKind::InvalidInput)?;
                text::read_page_text(document, page, heartbeat)
            }
            WorkerRequest::DrawPage(request) => {
                let document = self
                    .documents
                    .get(&request.document)
                    .ok_or(io::ErrorKind::InvalidInput)?;
                let segment = self
                    .segments
                    .get_mut(&request.segment)
                    .ok_or(io::ErrorKind::InvalidInput)?;
                page_drawing_and_encoding::draw_and_encode_page(
                    document,
                    &request,
                    segment,
                    &mut self.encoder,
                    heartbeat,
                )
            }
            WorkerRequest::RunProbe(probe) => WorkerResponse::ProbeFinished(
                sandbox::does_forbidden_operation_succeed(probe, self.max_heap_bytes),
            ),
        };
        Ok(Some(response))
    }
}

fn length_to_usize(length: u64) -> io::Result<usize> {
    usize::try_from(length).map_err(|_| io::ErrorKind::OutOfMemory.into())
}

fn read_document_info(document: &Document, include_metadata: bool) -> DocumentInfo {
    let pages = document.page_count();
    if !include_metadata {
        return DocumentInfo {
            pages,
            ..DocumentInfo::default()
        };
    }
    DocumentInfo {
        pages,
        title: document.title(),
        outline: outline::read_outline(document),
    }
}
