//! The thread that stores recordings.

use std::collections::HashMap;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{self, Receiver, RecvTimeoutError, Sender};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use futures::{StreamExt as _, stream};
use parking_lot::Mutex;
use tokio::runtime::Handle;
use tokio::sync::{Notify, oneshot, watch};
use tokio::task::AbortHandle;
use weir_core::recording::{RecordingSession, RecordingStore};
use weir_core::{JobId, StorageError, TenantId};

use super::RecordingFrame;
use super::recording_in_progress::{OpenSessions, RecordingInProgress};
use super::retention::{RecordingSweeper, Retention};
use super::session_buffer::{SessionBuffer, SessionState};

/// Pause of the thread after it has stored everything. Waking a blocked thread costs the job some microseconds. A sleeping
/// thread is not woken, so the jobs pay this at most a hundred times a second.
const WRITE_INTERVAL: Duration = Duration::from_millis(10);

/// Bytes of all jobs' frames that may wait to be stored.
pub(super) const MAX_PENDING_BYTES: usize = 32 << 20;
/// Bytes of waiting frames from which they are stored before their intervals have passed.
const CROWDED_BYTES: usize = MAX_PENDING_BYTES / 2;
/// Parts that are stored at the same time.
const MAX_CONCURRENT_PARTS: usize = 8;

/// Expired recordings are also removed whenever this fraction (one sixteenth) of the byte limit has been written.
const SWEEP_BYTES_DIVISOR: u64 = 16;
/// Time for which the thread may go on when the writer is dropped, unless [`RecordingWriter::close`] has set another.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(10);
/// Time between two checks of a thread that has nothing to do and gets no commands.
const IDLE_INTERVAL: Duration = Duration::from_secs(3600);

pub(super) enum WriterCommand {
    Write {
        recording: Arc<RecordingInProgress>,
        frames: Vec<RecordingFrame>,
        bytes: usize,
    },
    /// Stores everything that was submitted for this job, or for all jobs if `job` is `None`.
    Flush {
        job: Option<JobId>,
        done: oneshot::Sender<()>,
    },
    /// Drops the frames of closed sessions of these jobs, or of all jobs of the tenant if `jobs` is `None`.
    DropRemoved {
        tenant: TenantId,
        jobs: Option<Vec<JobId>>,
    },
    /// Stores everything and ends the thread.
    Close,
}

/// Handle of the writer thread. Dropping it waits until everything is stored, but not for longer than a timeout.
pub(crate) struct RecordingWriter {
    store: Arc<dyn RecordingStore>,
    retention: Retention,
    pub(super) commands: Sender<WriterCommand>,
    /// Bytes of frames that wait to be stored.
    pub(super) pending_bytes: Arc<AtomicUsize>,
    open_sessions: OpenSessions,
    /// When the thread must have ended.
    close_deadline: Mutex<Option<Instant>>,
    /// Gives up the calls of the store in progress.
    cancel_calls: watch::Sender<bool>,
    /// Disconnected when the thread has ended.
    thread_running: Mutex<Receiver<()>>,
    thread: Option<JoinHandle<()>>,
    sweeper: AbortHandle,
}

impl RecordingWriter {
    /// Starts the thread, which runs the calls of the store on the runtime of the caller.
    pub(crate) fn start(store: Arc<dyn RecordingStore>, retention: Retention) -> io::Result<Self> {
        let runtime = Handle::try_current().map_err(io::Error::other)?;
        let (commands, received) = mpsc::channel();
        let (running, thread_running) = mpsc::channel();
        let pending_bytes = Arc::new(AtomicUsize::new(0));
        let (open_sessions, sweep_due) = (OpenSessions::default(), Arc::new(Notify::new()));
        let cancel_calls = watch::Sender::new(false);
        let sweeper = RecordingSweeper {
            store: Arc::clone(&store),
            retention,
            open_sessions: open_sessions.clone(),
            is_due: Arc::clone(&sweep_due),
        };
        let writer_thread = WriterThread {
            store: Arc::clone(&store),
            runtime: runtime.clone(),
            retention,
            pending_bytes: Arc::clone(&pending_bytes),
            buffers: HashMap::new(),
            bytes_since_sweep: 0,
            sweep_due,
            calls_canceled: cancel_calls.subscribe(),
        };
        let thread = std::thread::Builder::new()
            .name("weir-recorder".into())
            .spawn(move || {
                let _running: Sender<()> = running;
                writer_thread.run(&received);
            })?;
        Ok(Self {
            store,
            retention,
            commands,
            pending_bytes,
            open_sessions,
            close_deadline: Mutex::new(None),
            cancel_calls,
            thread_running: Mutex::new(thread_running),
            thread: Some(thread),
            sweeper: runtime.spawn(sweeper.run()).abort_handle(),
        })
    }

    pub(crate) fn store(&self) -> &dyn RecordingStore {
        &*self.store
    }

    pub(crate) const fn retention(&self) -> Retention {
        self.retention
    }

    /// Starts a session of a job, which is not removed as expired while it is recorded. Stores nothing.
    pub(super) fn register_session(&self, tenant: &TenantId, job: &JobId) -> Arc<RecordingInProgress> {
        let session = RecordingSession::start(tenant.clone(), *job);
        let recording = Arc::new(RecordingInProgress::new(session));
        self.open_sessions.add_session(&recording);
        recording
    }

    /// Waits until everything is stored that was submitted for a job, or for all jobs. Frames that cannot be stored because the store is
    /// not available are stored later.
    pub(crate) async fn flush(&self, job: Option<JobId>) {
        let (done, flushed) = oneshot::channel();
        if self.commands.send(WriterCommand::Flush { job, done }).is_ok() {
            // An error means that the thread has stopped, so there is nothing to wait for.
            let _ = flushed.await;
        }
    }

    /// Removes the recordings of these jobs; all recordings of the tenant if `jobs` is `None`. Frames that their recorders still
    /// hold are dropped.
    pub(crate) async fn remove_recordings(
        &self,
        tenant: &TenantId,
        jobs: Option<&[JobId]>,
    ) -> Result<(), StorageError> {
        for recording in self.open_sessions.sessions_of(tenant, jobs) {
            recording.close();
        }
        let command = WriterCommand::DropRemoved {
            tenant: tenant.clone(),
            jobs: jobs.map(<[JobId]>::to_vec),
        };
        // An error means that the thread has stopped, and stores nothing more.
        let _ = self.commands.send(command);
        // The store refuses the part of a removed session that the thread is just storing.
        match jobs {
            Some(jobs) => self.store.remove_recordings(tenant, jobs).await,
            None => self.store.remove_all_recordings_of_tenant(tenant).await,
        }
    }

    /// Waits until everything is stored, at most for `limit`, of which the rest is left when the writer is dropped. Returns whether
    /// the store has responded in this time.
    pub(crate) async fn close(&self, limit: Duration) -> bool {
        *self.close_deadline.lock() = Some(Instant::now() + limit);
        tokio::time::timeout(limit, self.flush(None)).await.is_ok()
    }
}

impl Drop for RecordingWriter {
    fn drop(&mut self) {
        self.sweeper.abort();
        let deadline = self.close_deadline.lock().take();
        let deadline = deadline.unwrap_or_else(|| Instant::now() + CLOSE_TIMEOUT);
        // An error means that the thread has stopped.
        let _ = self.commands.send(WriterCommand::Close);
        let remaining = deadline.saturating_duration_since(Instant::now());
        if self.thread_running.get_mut().recv_timeout(remaining) == Err(RecvTimeoutError::Timeout) {
            tracing::warn!(
                "the store of recordings does not respond: the last recorded calls are not stored"
            );
            self.cancel_calls.send_replace(true);
        }
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// State of the writer thread.
struct WriterThread {
    store: Arc<dyn RecordingStore>,
    runtime: Handle,
    retention: Retention,
    pending_bytes: Arc<AtomicUsize>,
    /// The sessions that have stored parts or waiting frames, and can get more.
    buffers: HashMap<RecordingSession, SessionBuffer>,
    /// Bytes stored since the last removal of expired recordings began.
    bytes_since_sweep: u64,
    sweep_due: Arc<Notify>,
    calls_canceled: watch::Receiver<bool>,
}

impl WriterThread {
    fn run(mut self, commands: &Receiver<WriterCommand>) {
        loop {
            let due = self.buffers.values().filter_map(SessionBuffer::due).min();
            let wait = due.map_or(IDLE_INTERVAL, |due| due.saturating_duration_since(Instant::now()));
            match commands.recv_timeout(wait) {
                Ok(first) => {
                    let mut is_closing = false;
                    for command in std::iter::once(first).chain(commands.try_iter()) {
                        is_closing |= matches!(command, WriterCommand::Close);
                        self.execute_command(command);
                    }
                    if is_closing {
                        return;
                    }
                    self.store_due_parts();
                    std::thread::sleep(WRITE_INTERVAL);
                }
                Err(RecvTimeoutError::Timeout) => self.store_due_parts(),
                Err(RecvTimeoutError::Disconnected) => return,
            }
        }
    }

    fn execute_command(&mut self, command: WriterCommand) {
        match command {
            WriterCommand::Write {
                recording,
                frames,
                bytes,
            } => self.buffer_frames(recording, &frames, bytes),
            WriterCommand::Flush { job, done } => {
                self.store_parts(|buffer| job.is_none_or(|job| buffer.recording().session.job == job));
                // An error means that the caller has been dropped.
                let _ = done.send(());
            }
            WriterCommand::DropRemoved { tenant, jobs } => {
                let removed = self.buffers.extract_if(|_, buffer| {
                    // A session that has begun since the removal is open.
                    let recording = buffer.recording();
                    recording.is_closed() && recording.belongs_to(&tenant, jobs.as_deref())
                });
                let pending: usize = removed.map(|(_, buffer)| buffer.pending_bytes).sum();
                self.pending_bytes.fetch_sub(pending, Ordering::Relaxed);
            }
            WriterCommand::Close => self.store_parts(|_| true),
        }
    }

    fn buffer_frames(
        &mut self,
        recording: Arc<RecordingInProgress>,
        frames: &[RecordingFrame],
        pending_bytes: usize,
    ) {
        if recording.is_closed() {
            self.pending_bytes.fetch_sub(pending_bytes, Ordering::Relaxed);
            return;
        }
        let session = recording.session.clone();
        let buffer = self
            .buffers
            .entry(session)
            .or_insert_with(|| SessionBuffer::new(recording));
        buffer.push_frames(frames, pending_bytes);
    }

    fn store_due_parts(&mut self) {
        let now = Instant::now();
        let is_crowded = self.pending_bytes.load(Ordering::Relaxed) > CROWDED_BYTES;
        self.store_parts(|buffer| {
            (is_crowded && !buffer.waits_for_store(now)) || buffer.due().is_some_and(|due| due <= now)
        });
        if self.retention.max_bytes > 0
            && self.bytes_since_sweep > self.retention.max_bytes / SWEEP_BYTES_DIVISOR
        {
            self.bytes_since_sweep = 0;
            self.sweep_due.notify_one();
        }
    }

    /// Stores the waiting frames of the sessions for which `is_chosen` is true.
    fn store_parts(&mut self, is_chosen: impl Fn(&SessionBuffer) -> bool) {
        let chosen = self
            .buffers
            .extract_if(|_, buffer| buffer.has_bytes() && is_chosen(buffer));
        let chosen: Vec<_> = chosen.collect();
        if chosen.is_empty() {
            return;
        }
        let store = &*self.store;
        let store_part = |(session, mut buffer): (RecordingSession, SessionBuffer)| async move {
            let (state, bytes) = buffer.store_part(store).await;
            (session, buffer, state, bytes)
        };
        let parts = stream::iter(chosen)
            .map(store_part)
            .buffer_unordered(MAX_CONCURRENT_PARTS)
            .collect::<Vec<_>>();
        let mut canceled = self.calls_canceled.clone();
        let parts = async {
            tokio::select! {
                parts = parts => parts,
                _ = canceled.wait_for(|is_canceled| *is_canceled) => Vec::new(),
            }
        };
        for (session, mut buffer, state, bytes) in self.runtime.block_on(parts) {
            self.bytes_since_sweep += bytes;
            if state == SessionState::Closed || !buffer.has_bytes() {
                let pending = std::mem::take(&mut buffer.pending_bytes);
                self.pending_bytes.fetch_sub(pending, Ordering::Relaxed);
            }
            if state == SessionState::Open {
                self.buffers.insert(session, buffer);
            }
        }
    }
}
