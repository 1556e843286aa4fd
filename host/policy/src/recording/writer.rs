//! Writes recordings to files.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{self, Receiver, RecvTimeoutError, Sender};
use std::sync::{Arc, Weak};
use std::thread::JoinHandle;
use std::time::{Duration, Instant, SystemTime};
use std::{fs, io};

use parking_lot::Mutex;
use tokio::sync::oneshot;
use weir_core::{JobId, TenantId};

use super::RecordingFrame;
use super::recording_file::{RecordingInProgress, append_frames, create_private_folder, recording_path};
use super::retention::{Retention, list_files_in_folder, remove_files, remove_old_and_excess_recordings};

/// Pause of the thread after it has written everything. Waking a blocked thread costs the job some microseconds. A sleeping
/// thread is not woken, so the jobs pay this at most a hundred times a second.
const WRITE_INTERVAL: Duration = Duration::from_millis(10);

/// Interval between removals of expired recordings.
const SWEEP_INTERVAL: Duration = Duration::from_secs(600);
/// Expired recordings are also removed whenever this fraction (one sixteenth) of the byte limit has been written.
const SWEEP_BYTES_DIVISOR: u64 = 16;

/// The recordings that are being written, by path.
type OpenFiles = Arc<Mutex<HashMap<PathBuf, Weak<RecordingInProgress>>>>;

pub(super) enum WriterCommand {
    Write {
        file: Arc<RecordingInProgress>,
        frames: Vec<RecordingFrame>,
        bytes: usize,
    },
    Flush(oneshot::Sender<()>),
    /// Removes these files of a folder, or all if `files` is `None`. Also removes the folder if it is empty afterward.
    Remove {
        files: Option<Vec<PathBuf>>,
        folder: PathBuf,
        done: oneshot::Sender<io::Result<()>>,
    },
}

/// Handle of the writer thread. Dropping it waits until everything is written.
pub(crate) struct RecordingWriter {
    folder: PathBuf,
    retention: Retention,
    pub(super) commands: Option<Sender<WriterCommand>>,
    /// Bytes of frames that wait for the thread.
    pub(super) pending_bytes: Arc<AtomicUsize>,
    open_files: OpenFiles,
    thread: Option<JoinHandle<()>>,
}

impl RecordingWriter {
    pub(crate) fn start(folder: PathBuf, retention: Retention) -> io::Result<Self> {
        create_private_folder(&folder)?;
        let (commands, received) = mpsc::channel();
        let pending_bytes = Arc::new(AtomicUsize::new(0));
        let open_files = OpenFiles::default();
        let writer_thread = WriterThread {
            folder: folder.clone(),
            retention,
            pending_bytes: Arc::clone(&pending_bytes),
            open_files: Arc::clone(&open_files),
            bytes_since_sweep: 0,
            next_sweep: Instant::now(),
        };
        let thread = std::thread::Builder::new()
            .name("weir-recorder".into())
            .spawn(move || writer_thread.run(&received))?;
        Ok(Self {
            folder,
            retention,
            commands: Some(commands),
            pending_bytes,
            open_files,
            thread: Some(thread),
        })
    }

    pub(crate) fn folder(&self) -> &Path {
        &self.folder
    }

    pub(crate) const fn retention(&self) -> Retention {
        self.retention
    }

    /// Registers a job's recording file as open, so that it is not removed as expired. Does not touch the disk.
    pub(super) fn register_recording_in_progress(
        &self,
        tenant: &TenantId,
        job: &JobId,
    ) -> Arc<RecordingInProgress> {
        let path = recording_path(&self.folder.join(tenant.as_str()), job);
        let file = Arc::new(RecordingInProgress::new(path.clone()));
        self.open_files.lock().insert(path, Arc::downgrade(&file));
        file
    }

    /// Waits until all frames submitted so far are written.
    pub(crate) async fn flush(&self) {
        let (done, flushed) = oneshot::channel();
        if let Some(commands) = &self.commands
            && commands.send(WriterCommand::Flush(done)).is_ok()
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
    ) -> io::Result<()> {
        let folder = self.folder.join(tenant.as_str());
        let files: Option<Vec<PathBuf>> =
            jobs.map(|jobs| jobs.iter().map(|job| recording_path(&folder, job)).collect());
        let is_removed = |path: &PathBuf| match &files {
            Some(files) => files.contains(path),
            None => path.parent() == Some(&folder),
        };
        for (path, file) in self.open_files.lock().iter() {
            if let Some(file) = file.upgrade().filter(|_| is_removed(path)) {
                file.removed.store(true, Ordering::Release);
            }
        }
        let (done, removed) = oneshot::channel();
        if let Some(commands) = &self.commands {
            let command = WriterCommand::Remove { files, folder, done };
            commands
                .send(command)
                .map_err(|_| io::Error::other("the thread that writes recordings has stopped"))?;
        }
        removed.await.map_err(io::Error::other)?
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
    folder: PathBuf,
    retention: Retention,
    pending_bytes: Arc<AtomicUsize>,
    open_files: OpenFiles,
    /// Bytes written since expired recordings were last removed.
    bytes_since_sweep: u64,
    /// When expired recordings are removed next.
    next_sweep: Instant,
}

impl WriterThread {
    fn run(mut self, commands: &Receiver<WriterCommand>) {
        loop {
            match commands.recv_timeout(self.next_sweep.saturating_duration_since(Instant::now())) {
                Ok(first) => {
                    for command in std::iter::once(first).chain(commands.try_iter()) {
                        self.execute_command(command);
                    }
                    std::thread::sleep(WRITE_INTERVAL);
                }
                Err(RecvTimeoutError::Timeout) => self.sweep_recordings(),
                Err(RecvTimeoutError::Disconnected) => return,
            }
        }
    }

    fn execute_command(&mut self, command: WriterCommand) {
        match command {
            WriterCommand::Write {
                file,
                frames,
                bytes: pending,
            } => {
                if !file.removed.load(Ordering::Acquire) {
                    match append_frames(&file, &frames) {
                        Ok(bytes) => self.bytes_since_sweep += bytes,
                        Err(error) => {
                            file.stop_recording();
                            tracing::warn!(file = %file.path.display(), %error, "cannot write a recording; the job goes on without it");
                        }
                    }
                }
                self.pending_bytes.fetch_sub(pending, Ordering::Relaxed);
                if self.retention.max_bytes > 0
                    && self.bytes_since_sweep > self.retention.max_bytes / SWEEP_BYTES_DIVISOR
                {
                    self.sweep_recordings();
                }
            }
            WriterCommand::Flush(done) => {
                // An error means that the caller has been dropped.
                let _ = done.send(());
            }
            WriterCommand::Remove { files, folder, done } => {
                let files = files.map_or_else(|| list_files_in_folder(&folder), Ok);
                let removed = files.and_then(|files| remove_files(&files));
                // Fails while the folder is not empty.
                let _ = fs::remove_dir(folder);
                let _ = done.send(removed);
            }
        }
    }

    /// Removes expired recordings.
    fn sweep_recordings(&mut self) {
        self.bytes_since_sweep = 0;
        self.next_sweep = Instant::now() + SWEEP_INTERVAL;
        let open = {
            let mut open_files = self.open_files.lock();
            open_files.retain(|_, file| file.strong_count() > 0);
            open_files.keys().cloned().collect()
        };
        match remove_old_and_excess_recordings(&self.folder, self.retention, &open, SystemTime::now()) {
            Ok(0) => {}
            Ok(removed) => tracing::info!(
                removed,
                "removed recordings over the limits policy.recording_retention_days and policy.max_recording_bytes"
            ),
            Err(error) => {
                tracing::warn!(folder = %self.folder.display(), %error, "cannot remove expired recordings");
            }
        }
    }
}
