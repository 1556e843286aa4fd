//! Writes recordings to files.

use std::collections::HashMap;
use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Seek as _, SeekFrom, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::mpsc::{self, Receiver, RecvTimeoutError, Sender};
use std::sync::{Arc, Weak};
use std::thread::JoinHandle;
use std::time::{Duration, Instant, SystemTime};

use parking_lot::Mutex;
use tokio::sync::oneshot;
use weir_core::{JobId, TenantId};

use super::retention::{list_files, remove_expired_recordings, remove_files};
use super::{RecordedCall, RecordingFrame, Retention, SessionHeader, reader};

/// Bytes of one job's recording.
const MAX_RECORDING_BYTES: u64 = 64 << 20;
/// Frames of a job that are written together.
const MAX_GROUP_FRAMES: usize = 64;
/// Bytes of frames from which a smaller group is written.
const MAX_GROUP_BYTES: usize = 256 << 10;
/// Bytes of all jobs' frames that may wait for the thread.
const MAX_PENDING_BYTES: usize = 32 << 20;

/// Pause of the thread after it has written everything. Waking a blocked thread costs the job some microseconds. A sleeping
/// thread is not woken, so the jobs pay this at most a hundred times a second.
const WRITE_INTERVAL: Duration = Duration::from_millis(10);

/// Interval between removals of expired recordings.
const SWEEP_INTERVAL: Duration = Duration::from_secs(600);
/// Expired recordings are also removed whenever this fraction (one sixteenth) of the byte limit has been written.
const SWEEP_BYTES_DIVISOR: u64 = 16;

/// A recording that is being written.
struct RecordingFile {
    path: PathBuf,
    /// Set when the recorder must not accept more calls.
    stopped: AtomicBool,
    /// Set when nothing more is appended to the file. Used only by the writer thread.
    closed: AtomicBool,
    /// Set when the recording is removed. Nothing is written to the file after that.
    removed: AtomicBool,
}

/// The recordings that are being written, by path.
type OpenFiles = Arc<Mutex<HashMap<PathBuf, Weak<RecordingFile>>>>;

enum WriterCommand {
    Write {
        file: Arc<RecordingFile>,
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
    commands: Option<Sender<WriterCommand>>,
    pending_bytes: Arc<AtomicUsize>,
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

/// Records the calls of one job. Dropping it submits the remaining frames. A job without calls leaves no file.
pub(crate) struct JobRecorder {
    file: Arc<RecordingFile>,
    commands: Option<Sender<WriterCommand>>,
    pending_bytes: Arc<AtomicUsize>,
    pending: Mutex<PendingFrames>,
}

#[derive(Default)]
struct PendingFrames {
    frames: Vec<RecordingFrame>,
    bytes: usize,
    /// All calls of the session, including those already submitted.
    calls: u64,
}

impl JobRecorder {
    pub(crate) fn new(writer: &RecordingWriter, header: SessionHeader) -> Self {
        let path = recording_path(&writer.folder.join(header.tenant.as_str()), &header.job);
        let recording = Arc::new(RecordingFile {
            path: path.clone(),
            stopped: AtomicBool::new(false),
            closed: AtomicBool::new(false),
            removed: AtomicBool::new(false),
        });
        writer.open_files.lock().insert(path, Arc::downgrade(&recording));
        Self {
            file: recording,
            commands: writer.commands.clone(),
            pending_bytes: Arc::clone(&writer.pending_bytes),
            pending: Mutex::new(PendingFrames {
                bytes: header.estimate_bytes(),
                frames: vec![RecordingFrame::SessionStarted(Box::new(header))],
                calls: 0,
            }),
        }
    }

    pub(crate) fn push(&self, call: RecordedCall) {
        if self.file.stopped.load(Ordering::Relaxed) {
            return;
        }
        let bytes = call.estimate_bytes();
        let mut pending = self.pending.lock();
        pending.frames.push(RecordingFrame::Call(Box::new(call)));
        pending.bytes += bytes;
        pending.calls += 1;
        if pending.frames.len() >= MAX_GROUP_FRAMES || pending.bytes >= MAX_GROUP_BYTES {
            // Sent under the lock, so that groups are written in order. Sending does not block.
            self.submit_pending(&mut pending);
        }
    }

    /// Sends the pending frames to the writer thread, or stops recording if too many bytes are waiting there.
    fn submit_pending(&self, pending: &mut PendingFrames) {
        if self.file.stopped.load(Ordering::Relaxed) {
            return;
        }
        // A job that has filled one group usually fills another, so capacity is reserved. Most jobs never fill one.
        let mut frames = std::mem::replace(&mut pending.frames, Vec::with_capacity(MAX_GROUP_FRAMES));
        let mut bytes = std::mem::take(&mut pending.bytes);
        if self.pending_bytes.fetch_add(bytes, Ordering::Relaxed) > MAX_PENDING_BYTES {
            self.file.stopped.store(true, Ordering::Relaxed);
            self.pending_bytes.fetch_sub(bytes, Ordering::Relaxed);
            bytes = 0;
            let has_header = matches!(frames.first(), Some(RecordingFrame::SessionStarted(_)));
            frames.truncate(usize::from(has_header));
            let reason = "the job made calls faster than they could be written";
            frames.push(RecordingFrame::RecordingStopped(reason.into()));
        }
        if let Some(commands) = &self.commands {
            // An error means that the thread has stopped; the job goes on without a recording.
            let _ = commands.send(WriterCommand::Write {
                file: Arc::clone(&self.file),
                frames,
                bytes,
            });
        }
    }
}

impl Drop for JobRecorder {
    fn drop(&mut self) {
        let mut pending = std::mem::take(self.pending.get_mut());
        if pending.calls > 0 {
            pending
                .frames
                .push(RecordingFrame::SessionEnded { calls: pending.calls });
            self.submit_pending(&mut pending);
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
                let files = files.map_or_else(|| list_files(&folder), Ok);
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
        match remove_expired_recordings(&self.folder, self.retention, &open, SystemTime::now()) {
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

/// Returns the path of a job's recording in its tenant's folder.
fn recording_path(folder: &Path, job: &JobId) -> PathBuf {
    folder.join(format!("{job}.calls"))
}

impl RecordingFile {
    /// Stops the recording: nothing more is written to the file.
    fn stop_recording(&self) {
        self.stopped.store(true, Ordering::Relaxed);
        self.closed.store(true, Ordering::Relaxed);
    }
}

/// Appends frames to a recording and returns the number of bytes written. After an error the file has its previous length.
fn append_frames(recording: &RecordingFile, frames: &[RecordingFrame]) -> io::Result<u64> {
    if recording.closed.load(Ordering::Relaxed) {
        return Ok(0);
    }
    let starts_session = frames
        .first()
        .is_some_and(|f| matches!(f, RecordingFrame::SessionStarted(_)));
    let mut file = open_recording_file(&recording.path, starts_session)?;
    let length = file.seek(SeekFrom::End(0))?;
    let mut bytes = encode_frames(frames)?;
    if length + bytes.len() as u64 > MAX_RECORDING_BYTES {
        recording.stop_recording();
        bytes = encode_frames(&[RecordingFrame::RecordingStopped(format!(
            "the recording has reached {MAX_RECORDING_BYTES} bytes"
        ))])?;
    }
    if let Err(error) = file.write_all(&bytes) {
        // Frames after an incomplete frame could not be read.
        let _ = file.set_len(length);
        return Err(error);
    }
    Ok(bytes.len() as u64)
}

/// Opens a recording to append to it. At the start of a session, an incomplete frame at the end is cut off. A killed process may
/// have left it, and frames after it could not be read.
fn open_recording_file(path: &Path, starts_session: bool) -> io::Result<File> {
    let mut options = OpenOptions::new();
    options.append(true).create(true).mode(0o600);
    if !starts_session {
        return options.open(path);
    }
    if let Some(folder) = path.parent() {
        create_private_folder(folder)?;
    }
    let file = options.open(path)?;
    if file.metadata()?.len() > 0 {
        file.set_len(reader::complete_frames_len(&fs::read(path)?) as u64)?;
    }
    Ok(file)
}

fn create_private_folder(folder: &Path) -> io::Result<()> {
    DirBuilder::new().recursive(true).mode(0o700).create(folder)
}

fn encode_frames(frames: &[RecordingFrame]) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    for frame in frames {
        let start = bytes.len();
        bytes.extend_from_slice(&[0; 4]);
        bytes = postcard::to_extend(frame, bytes).map_err(io::Error::other)?;
        let length = u32::try_from(bytes.len() - start - 4).map_err(io::Error::other)?;
        if let Some(prefix) = bytes.get_mut(start..start + 4) {
            prefix.copy_from_slice(&length.to_le_bytes());
        }
    }
    Ok(bytes)
}

#[cfg(test)]
#[path = "tests.rs"]
mod tests;
