//! One worker process, as the host sees it: sends requests, receives responses and enforces timeouts.
//!
//! Two timeouts apply to work on pages. The work must end within `page_timeout_seconds`, and the worker must send a heartbeat within
//! every `stall_timeout_seconds`. A heartbeat proves real progress; no timer sends it. PDFium asks between page objects whether
//! it should pause, and the worker sends a heartbeat at each of these calls and in its own loops. PDFium parses the content of
//! a page in one call without asking, so a page that takes longer than the stall timeout to parse fails too. Opening a document
//! has no heartbeat at all, so only the longer timeout applies to it.

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

use crate::config::RasterConfig;
use crate::dispatcher::Dispatcher;
use crate::framing::WorkerConnection;
use crate::image_reservation::ImageReservation;
use crate::protocol::{
    DocumentKey, DrawParams, OpenFailure, SandboxStatus, SegmentKey, WorkerConfig, WorkerRequest,
    WorkerResponse,
};
use crate::response_validation;
use crate::sandbox_requirements;
use crate::segment_pool::{ImageSegment, WorkerId};
use crate::shared_memory::{Heartbeat, SharedMemory};
use crate::task::{
    DocumentFile, QueuedTask, TaskOutput, TaskResult, TaskResultSender, WorkerLossReason, WorkerTask,
};
use crate::worker_spawner::WorkerSpawner;

/// Maximum number of documents that a worker keeps open.
const MAX_OPEN_DOCUMENTS: usize = 8;

/// Timeout of the start: the program is large and may have to be read from a cold disk.
const START_TIMEOUT: Duration = Duration::from_secs(30);

/// A worker that does not notice the cancellation of its request within this time is replaced.
const CANCEL_GRACE_PERIOD: Duration = Duration::from_secs(1);

/// Address space for mapped PDFs, in addition to private memory.
const MAPPED_FILES_ADDRESS_BYTES: u64 = 64 << 30;

#[derive(Clone, Copy)]
struct RequestTimeouts {
    total: Duration,
    stall: Option<Duration>,
}

/// A worker process that has entered its sandbox.
#[derive(Debug)]
pub(crate) struct WorkerProcess {
    pub(crate) id: WorkerId,
    pub(crate) pid: u32,
    pub(crate) sandbox: SandboxStatus,
    /// Number of pages processed, for recycling.
    pub(crate) pages_processed: u32,
    /// Open documents, least recently used first.
    open_documents: VecDeque<DocumentKey>,
    mapped_segments: HashSet<SegmentKey>,
    connection: WorkerConnection,
    heartbeat: Heartbeat,
    dispatcher: Arc<Dispatcher>,
    spawner: Arc<WorkerSpawner>,
    is_reaped: bool,
}

impl WorkerProcess {
    /// Starts a worker and waits until it has entered its sandbox.
    pub(crate) async fn start(
        config: &RasterConfig,
        dispatcher: &Arc<Dispatcher>,
        spawner: &Arc<WorkerSpawner>,
    ) -> Result<Self, RasterError> {
        let unavailable = |error: io::Error| RasterError::Unavailable {
            what: "a PDF worker process".into(),
            remedy: format!("it cannot be started: {error}"),
        };
        let (connection, socket) = WorkerConnection::create_pair().map_err(unavailable)?;
        let memory = SharedMemory::new("weir-pulse", Heartbeat::MAP_BYTES).map_err(unavailable)?;
        let heartbeat = Heartbeat::map_heartbeat(memory.fd()).map_err(unavailable)?;
        let pid = spawner.spawn_worker(socket).await.map_err(unavailable)?;
        let mut process = Self {
            id: dispatcher.allocate_unique_key(),
            pid,
            sandbox: SandboxStatus {
                landlock: crate::EnforcementLevel::None,
                seccomp: crate::EnforcementLevel::None,
            },
            pages_processed: 0,
            open_documents: VecDeque::new(),
            mapped_segments: HashSet::new(),
            connection,
            heartbeat,
            dispatcher: Arc::clone(dispatcher),
            spawner: Arc::clone(spawner),
            is_reaped: false,
        };
        let initialize_request = WorkerRequest::Initialize(WorkerConfig {
            pdfium_path: config.pdfium_path.as_os_str().as_bytes().to_vec(),
            host_pid: std::process::id(),
            max_heap_bytes: config.max_worker_heap_bytes,
            max_extra_address_bytes: config
                .max_worker_heap_bytes
                .saturating_add(config.max_image_bytes)
                .saturating_add(MAPPED_FILES_ADDRESS_BYTES),
        });
        let ready = async {
            process
                .connection
                .send_request(&initialize_request, Some(memory.fd()))
                .await?;
            process.connection.receive_response(0).await
        };
        match tokio::time::timeout(START_TIMEOUT, ready).await {
            Ok(Ok((WorkerResponse::Ready(sandbox), _))) => {
                if let Some(missing) = sandbox_requirements::describe_missing_sandbox_parts(sandbox) {
                    match config.sandbox_mode {
                        SandboxMode::Required => {
                            return Err(sandbox_requirements::sandbox_unavailable_error(&missing));
                        }
                        SandboxMode::BestEffort => spawner.warn_about_sandbox_once(&missing),
                    }
                }
                process.sandbox = sandbox;
                dispatcher.start_segment_caching_of_worker(process.id);
                Ok(process)
            }
            Ok(Ok((WorkerResponse::StartFailed { what, remedy }, _))) => {
                let pdfium = config.pdfium_path.display();
                tracing::warn!(%pdfium, what, remedy, "a PDF worker cannot start");
                Err(RasterError::Unavailable { what, remedy })
            }
            Ok(Ok(_)) => Err(unavailable(io::Error::other("it did not report ready"))),
            Ok(Err(error)) => {
                let exit_description = process.kill_and_reap().await;
                Err(unavailable(io::Error::other(format!(
                    "{error}, {exit_description}"
                ))))
            }
            Err(_) => Err(unavailable(io::ErrorKind::TimedOut.into())),
        }
    }

    /// Returns whether the process ended while it was idle.
    pub(crate) fn has_exited(&self) -> bool {
        self.connection.is_connection_broken()
    }

    /// Returns the documents that are open in the worker.
    pub(crate) fn keys_of_open_documents(&self) -> Vec<DocumentKey> {
        self.open_documents.iter().copied().collect()
    }

    /// Kills the process, waits for its end and describes how it ended.
    pub(crate) async fn kill_and_reap(&mut self) -> String {
        self.is_reaped = true;
        self.dispatcher.stop_segment_caching_of_worker(self.id);
        self.spawner.kill_and_reap(self.pid).await
    }

    /// Closes a document if it is open.
    pub(crate) async fn close_document(&mut self, document: DocumentKey) -> Result<(), WorkerLossReason> {
        if let Some(at) = self.open_documents.iter().position(|key| *key == document) {
            self.open_documents.remove(at);
            self.send_request_without_response(&WorkerRequest::CloseDocument { document })
                .await?;
        }
        Ok(())
    }

    async fn send_request_without_response(&self, request: &WorkerRequest) -> Result<(), WorkerLossReason> {
        self.connection
            .send_request(request, None)
            .await
            .map_err(|_| WorkerLossReason::Died)
    }

    /// Runs a task. If its result is no longer awaited, sets the cancellation flag, which the worker checks at its next
    /// heartbeat.
    pub(crate) async fn run_task(
        &mut self,
        config: &RasterConfig,
        queued: &mut QueuedTask,
    ) -> Result<TaskResult, WorkerLossReason> {
        let QueuedTask {
            document,
            task,
            reservation,
            result_sender,
        } = queued;
        let page_timeout = Duration::from_secs(u64::from(config.page_timeout_seconds));
        let open_timeouts = RequestTimeouts {
            total: page_timeout,
            stall: None,
        };
        let page_timeouts = RequestTimeouts {
            total: page_timeout,
            stall: Some(Duration::from_secs(u64::from(config.stall_timeout_seconds))),
        };
        let include_metadata = matches!(task, WorkerTask::OpenDocument);
        if !matches!(task, WorkerTask::RunProbe(_)) {
            match self
                .ensure_document_open(document, include_metadata, open_timeouts, result_sender)
                .await?
            {
                Ok(Some(info)) if include_metadata => {
                    return Ok(Ok(TaskOutput::DocumentOpened(
                        response_validation::sanitize_document_info(info),
                    )));
                }
                Ok(_) => {}
                Err(error) => return Ok(Err(error)),
            }
        }
        let document = document.key;
        let mut image_limit = 0;
        let request = match &*task {
            WorkerTask::OpenDocument => {
                return Err(WorkerLossReason::InvalidResponse(
                    "the document was not opened".into(),
                ));
            }
            WorkerTask::RunProbe(probe) => WorkerRequest::RunProbe(*probe),
            WorkerTask::ReadPageSizes(pages) => WorkerRequest::ReadPageSizes {
                document,
                pages: pages.clone(),
            },
            WorkerTask::ReadPageFacts(pages) => WorkerRequest::ReadPageFacts {
                document,
                pages: pages.clone(),
            },
            WorkerTask::ReadPageText(page) => WorkerRequest::ReadPageText {
                document,
                page: *page,
            },
            WorkerTask::DrawPage {
                page,
                dimensions,
                drawing,
                jpeg_quality: quality,
            } => {
                let image_reservation = reservation.as_mut().ok_or_else(|| {
                    WorkerLossReason::InvalidResponse("no memory is reserved for the page".into())
                })?;
                let segment = match self.ensure_segment_mapped(image_reservation).await? {
                    Ok(segment) => segment,
                    Err(error) => return Ok(Err(error)),
                };
                image_limit = dimensions.color_pixel_byte_count() + (64 << 10);
                WorkerRequest::DrawPage(DrawParams {
                    document,
                    page: *page,
                    segment,
                    width: dimensions.width,
                    height: dimensions.height,
                    stride: dimensions.stride,
                    gray_stride: dimensions.gray_stride(),
                    jpeg_quality: drawing.want_encoded.then_some(*quality),
                })
            }
        };
        let (response, payload) = self
            .send_and_await_response(&request, None, page_timeouts, image_limit, result_sender)
            .await?;
        self.pages_processed = self.pages_processed.saturating_add(task.processed_page_count());
        response_validation::validate_and_convert_response(task, response, payload, reservation)
    }

    async fn send_and_await_response(
        &mut self,
        request: &WorkerRequest,
        fd: Option<BorrowedFd<'_>>,
        timeouts: RequestTimeouts,
        limit: usize,
        result_sender: &mut TaskResultSender,
    ) -> Result<(WorkerResponse, Vec<u8>), WorkerLossReason> {
        self.heartbeat.set_canceled(false);
        self.connection
            .send_request(request, fd)
            .await
            .map_err(|_| WorkerLossReason::Died)?;
        let begun = Instant::now();
        let mut deadline = begun + timeouts.total;
        let mut exceeded_timeout = timeouts.total;
        let (mut last_beat_count, mut last_progress) = (self.heartbeat.beat_count(), begun);
        let check_interval = timeouts
            .stall
            .map_or(timeouts.total, |stall| stall / 8)
            .clamp(Duration::from_millis(10), Duration::from_millis(500));
        let mut checks = tokio::time::interval_at(begun + check_interval, check_interval);
        let mut is_awaited = true;
        let receive = self.connection.receive_response(limit);
        tokio::pin!(receive);
        loop {
            tokio::select! {
                biased;
                response = &mut receive => {
                    return response.map_err(|error| match error.kind() {
                        io::ErrorKind::InvalidData => WorkerLossReason::InvalidResponse(error.to_string()),
                        _ => WorkerLossReason::Died,
                    });
                }
                () = result_sender.closed(), if is_awaited => {
                    is_awaited = false;
                    self.heartbeat.set_canceled(true);
                    deadline = deadline.min(Instant::now() + CANCEL_GRACE_PERIOD);
                }
                _ = checks.tick() => {
                    let now = Instant::now();
                    let beat = self.heartbeat.beat_count();
                    if beat != last_beat_count {
                        (last_beat_count, last_progress) = (beat, now);
                    }
                    let stalled = timeouts.stall.filter(|stall| now - last_progress >= *stall);
                    exceeded_timeout = stalled.unwrap_or(exceeded_timeout);
                    if stalled.is_some() || now >= deadline {
                        let seconds = u32::try_from(exceeded_timeout.as_secs()).unwrap_or(u32::MAX);
                        return Err(WorkerLossReason::TimedOut { seconds });
                    }
                }
            }
        }
    }

    /// Opens a document unless it is open already. Returns its description only if it had to be opened.
    async fn ensure_document_open(
        &mut self,
        document: &DocumentFile,
        include_metadata: bool,
        timeouts: RequestTimeouts,
        result_sender: &mut TaskResultSender,
    ) -> Result<Result<Option<DocumentInfo>, RasterError>, WorkerLossReason> {
        if let Some(at) = self.open_documents.iter().position(|key| *key == document.key) {
            self.open_documents.remove(at);
            self.open_documents.push_back(document.key);
            return Ok(Ok(None));
        }
        while self.open_documents.len() >= MAX_OPEN_DOCUMENTS {
            if let Some(oldest) = self.open_documents.pop_front() {
                self.send_request_without_response(&WorkerRequest::CloseDocument { document: oldest })
                    .await?;
            }
        }
        let request = WorkerRequest::OpenDocument {
            document: document.key,
            length: document.length,
            password: document.password.clone(),
            include_metadata,
        };
        let file = Some(document.file.as_fd());
        match self
            .send_and_await_response(&request, file, timeouts, 0, result_sender)
            .await?
            .0
        {
            WorkerResponse::DocumentOpened(info) => {
                self.open_documents.push_back(document.key);
                Ok(Ok(Some(info)))
            }
            WorkerResponse::OpenFailed(OpenFailure::PasswordRequired) if document.password.is_some() => {
                Ok(Err(RasterError::WrongPassword))
            }
            WorkerResponse::OpenFailed(OpenFailure::PasswordRequired) => Ok(Err(RasterError::Encrypted)),
            WorkerResponse::OpenFailed(OpenFailure::Damaged(reason)) => Ok(Err(RasterError::Damaged(
                response_validation::sanitize_title(&reason),
            ))),
            _ => Err(WorkerLossReason::InvalidResponse(
                "invalid response to open".into(),
            )),
        }
    }

    /// Returns a segment that the worker has mapped and can draw into.
    async fn ensure_segment_mapped(
        &mut self,
        reservation: &mut ImageReservation,
    ) -> Result<Result<SegmentKey, RasterError>, WorkerLossReason> {
        for segment_key in self.dispatcher.take_segments_to_unmap(self.id) {
            if self.mapped_segments.remove(&segment_key) {
                self.send_request_without_response(&WorkerRequest::UnmapSegment { segment: segment_key })
                    .await?;
            }
        }
        let bytes = reservation.reserved_byte_count();
        // A segment of a process that has ended cannot be used.
        let fits = reservation
            .segment
            .take()
            .filter(|s| s.worker_id == self.id && s.bytes == bytes);
        let segment = match fits.map_or_else(
            || ImageSegment::new(self.dispatcher.allocate_unique_key(), self.id, bytes),
            Ok,
        ) {
            Ok(segment) => segment,
            Err(error) => {
                return Ok(Err(RasterError::Unavailable {
                    what: "shared memory for a page image".into(),
                    remedy: format!("{error}: raise the memory limit or lower raster.max_total_image_bytes"),
                }));
            }
        };
        let segment = reservation.segment.insert(segment);
        if self.mapped_segments.insert(segment.key) {
            let request = WorkerRequest::MapSegment {
                segment: segment.key,
                length: segment.bytes,
            };
            let sent = self
                .connection
                .send_request(&request, Some(segment.memory.fd()))
                .await;
            sent.map_err(|_| WorkerLossReason::Died)?;
        }
        Ok(Ok(segment.key))
    }
}

impl Drop for WorkerProcess {
    fn drop(&mut self) {
        if !self.is_reaped {
            self.dispatcher.stop_segment_caching_of_worker(self.id);
            self.spawner.kill_and_reap_in_background(self.pid);
        }
    }
}
