//! The thread that stores recordings.

use std::collections::{HashMap, HashSet};
use std::io;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{self, Receiver, RecvTimeoutError, Sender};
use std::sync::{Arc, Weak};
use std::thread::JoinHandle;
use std::time::{Duration, Instant, SystemTime};

use futures::{StreamExt as _, stream};
use parking_lot::Mutex;
use tokio::runtime::Handle;
use tokio::sync::oneshot;
use weir_core::recording::{RecordingSession, RecordingStore};
use weir_core::{JobId, StorageError, TenantId};

use super::RecordingFrame;
use super::recording_in_progress::RecordingInProgress;
use super::retention::{Retention, remove_old_and_excess_recordings};
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

/// The list of open sessions is freed of ended ones whenever its length is a multiple of this.
const PRUNED_SESSIONS: usize = 256;

/// Interval between removals of expired recordings.
const SWEEP_INTERVAL: Duration = Duration::from_secs(3600);
/// Expired recordings are also removed whenever this fraction (one sixteenth) of the byte limit has been written.
const SWEEP_BYTES_DIVISOR: u64 = 16;

/// The sessions that are being recorded.
type OpenSessions = Arc<Mutex<Vec<Weak<RecordingInProgress>>>>;

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
    /// Removes the recordings of these jobs, or all of the tenant if `jobs` is `None`.
    Remove {
        tenant: TenantId,
        jobs: Option<Vec<JobId>>,
        done: oneshot::Sender<Result<(), StorageError>>,
    },
}

/// Handle of the writer thread. Dropping it waits until everything is stored.
pub(crate) struct RecordingWriter {
    store: Arc<dyn RecordingStore>,
    retention: Retention,
    pub(super) commands: Option<Sender<WriterCommand>>,
    /// Bytes of frames that wait to be stored.
    pub(super) pending_bytes: Arc<AtomicUsize>,
    open_sessions: OpenSessions,
    thread: Option<JoinHandle<()>>,
}

impl RecordingWriter {
    /// Starts the thread, which runs the calls of the store on the runtime of the caller.
    pub(crate) fn start(store: Arc<dyn RecordingStore>, retention: Retention) -> io::Result<Self> {
        let runtime = Handle::try_current().map_err(io::Error::other)?;
        let (commands, received) = mpsc::channel();
        let pending_bytes = Arc::new(AtomicUsize::new(0));
        let open_sessions = OpenSessions::default();
        let writer_thread = WriterThread {
            store: Arc::clone(&store),
            runtime,
            retention,
            pending_bytes: Arc::clone(&pending_bytes),
            open_sessions: Arc::clone(&open_sessions),
            buffers: HashMap::new(),
            bytes_since_sweep: 0,
            next_sweep: Instant::now(),
        };
        let thread = std::thread::Builder::new()
            .name("weir-recorder".into())
            .spawn(move || writer_thread.run(&received))?;
        Ok(Self {
            store,
            retention,
            commands: Some(commands),
            pending_bytes,
            open_sessions,
            thread: Some(thread),
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
        let mut open = self.open_sessions.lock();
        if open.len().is_multiple_of(PRUNED_SESSIONS) {
            open.retain(|recording| recording.strong_count() > 0);
        }
        open.push(Arc::downgrade(&recording));
        drop(open);
        recording
    }

    /// Waits until everything is stored that was submitted for a job, or for all jobs. Frames that cannot be stored because the store is
    /// not available are stored later.
    pub(crate) async fn flush(&self, job: Option<JobId>) {
        let (done, flushed) = oneshot::channel();
        if let Some(commands) = &self.commands
            && commands.send(WriterCommand::Flush { job, done }).is_ok()
        {
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
        for recording in self.open_sessions.lock().iter().filter_map(Weak::upgrade) {
            let session = &recording.session;
            if session.tenant == *tenant && jobs.is_none_or(|jobs| jobs.contains(&session.job)) {
                recording.close();
            }
        }
        let (done, removed) = oneshot::channel();
        let stopped = || StorageError::Failed {
            what: "removing recordings".into(),
            reason: "the thread that stores recordings has stopped".into(),
        };
        if let Some(commands) = &self.commands {
            let command = WriterCommand::Remove {
                tenant: tenant.clone(),
                jobs: jobs.map(<[JobId]>::to_vec),
                done,
            };
            commands.send(command).map_err(|_| stopped())?;
        }
        removed.await.map_err(|_| stopped())?
    }
}

impl Drop for RecordingWriter {
    fn drop(&mut self) {
        self.commands = None;
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
    open_sessions: OpenSessions,
    /// The sessions that have stored parts or waiting frames, and can get more.
    buffers: HashMap<RecordingSession, SessionBuffer>,
    /// Bytes stored since expired recordings were last removed.
    bytes_since_sweep: u64,
    /// When expired recordings are removed next.
    next_sweep: Instant,
}

impl WriterThread {
    fn run(mut self, commands: &Receiver<WriterCommand>) {
        loop {
            let due = self.buffers.values().filter_map(SessionBuffer::due).min();
            let wake = due.map_or(self.next_sweep, |due| due.min(self.next_sweep));
            match commands.recv_timeout(wake.saturating_duration_since(Instant::now())) {
                Ok(first) => {
                    for command in std::iter::once(first).chain(commands.try_iter()) {
                        self.execute_command(command);
                    }
                    self.store_due_parts();
                    std::thread::sleep(WRITE_INTERVAL);
                }
                Err(RecvTimeoutError::Timeout) => self.store_due_parts(),
                Err(RecvTimeoutError::Disconnected) => {
                    self.store_parts(|_| true);
                    return;
                }
            }
            if self.next_sweep <= Instant::now() {
                self.sweep_recordings();
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
            WriterCommand::Remove { tenant, jobs, done } => {
                let closed = self
                    .buffers
                    .extract_if(|_, buffer| buffer.recording().is_closed());
                let pending: usize = closed.map(|(_, buffer)| buffer.pending_bytes).sum();
                self.pending_bytes.fetch_sub(pending, Ordering::Relaxed);
                let removed = self.runtime.block_on(async {
                    match jobs {
                        Some(jobs) => self.store.remove_recordings(&tenant, &jobs).await,
                        None => self.store.remove_all_recordings_of_tenant(&tenant).await,
                    }
                });
                let _ = done.send(removed);
            }
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
        if let Err(error) = buffer.push_frames(frames, pending_bytes) {
            tracing::warn!(%error, "cannot encode a recording; the job goes on without it");
            buffer.recording().close();
        }
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
            self.sweep_recordings();
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

    /// Removes expired recordings.
    fn sweep_recordings(&mut self) {
        self.bytes_since_sweep = 0;
        self.next_sweep = Instant::now() + SWEEP_INTERVAL;
        let open: HashSet<_> = {
            let mut open_sessions = self.open_sessions.lock();
            open_sessions.retain(|recording| recording.strong_count() > 0);
            let open = open_sessions.iter().filter_map(Weak::upgrade);
            open.map(|recording| (recording.session.tenant.clone(), recording.session.job))
                .collect()
        };
        let removed =
            remove_old_and_excess_recordings(&*self.store, self.retention, &open, SystemTime::now());
        match self.runtime.block_on(removed) {
            Ok(0) => {}
            Ok(removed) => tracing::info!(
                removed,
                "removed recordings over the limits policy.recording_retention_days and policy.max_recording_bytes"
            ),
            Err(error) => tracing::warn!(%error, "cannot remove expired recordings"),
        }
    }
}
