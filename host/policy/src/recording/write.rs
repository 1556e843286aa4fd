//! From calls to files.

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

use super::retention::{list, remove_files, sweep};
use super::{Call, Frame, Opened, Retention, read};

/// Bytes of a job's recording.
const JOB_BYTES: u64 = 64 << 20;
/// Calls of a job that are written together.
const GROUP: usize = 64;
/// Bytes after which they are written although they are fewer.
const GROUP_BYTES: usize = 256 << 10;
/// Bytes that may wait for the thread, of all jobs.
const WAITING_BYTES: usize = 32 << 20;

/// How long the thread rests after it has written all there was. Waking it costs the call that does so some microseconds;
/// a thread that rests is not woken, so this happens a hundred times a second at most, whatever the jobs do.
const REST: Duration = Duration::from_millis(10);

/// How often the folder is looked through for recordings that are not to be kept.
const SWEEP: Duration = Duration::from_secs(600);
/// The share of the bytes that recordings may have, after which it is looked through in any case.
const SHARE: u64 = 16;

/// A file being recorded to.
struct Tape {
    path: PathBuf,
    /// No call is taken any more.
    stopped: AtomicBool,
    /// The file takes no more; only the thread that writes looks at it.
    closed: AtomicBool,
    /// Set when the recording is removed: nothing is written to the file from then on.
    removed: AtomicBool,
}

/// The files that are written to, by path.
type OpenTapes = Arc<Mutex<HashMap<PathBuf, Weak<Tape>>>>;

enum Order {
    Write {
        tape: Arc<Tape>,
        frames: Vec<Frame>,
        weight: usize,
    },
    Flush(oneshot::Sender<()>),
    /// Removes files of a folder, all if none are named, and the folder if it is then empty.
    Remove {
        files: Option<Vec<PathBuf>>,
        folder: PathBuf,
        done: oneshot::Sender<io::Result<()>>,
    },
}

/// The thread that writes. Dropping it waits until everything is written.
pub(crate) struct Writer {
    folder: PathBuf,
    retention: Retention,
    orders: Option<Sender<Order>>,
    waiting: Arc<AtomicUsize>,
    tapes: OpenTapes,
    thread: Option<JoinHandle<()>>,
}

impl Writer {
    pub(crate) fn start(folder: PathBuf, retention: Retention) -> io::Result<Self> {
        make_folder(&folder)?;
        let (orders, received) = mpsc::channel();
        let waiting = Arc::new(AtomicUsize::new(0));
        let tapes = OpenTapes::default();
        let shelf = Shelf {
            folder: folder.clone(),
            retention,
            waiting: Arc::clone(&waiting),
            tapes: Arc::clone(&tapes),
            written: 0,
            next: Instant::now(),
        };
        let thread = std::thread::Builder::new()
            .name("weir-recorder".into())
            .spawn(move || shelf.serve(&received))?;
        Ok(Self {
            folder,
            retention,
            orders: Some(orders),
            waiting,
            tapes,
            thread: Some(thread),
        })
    }

    pub(crate) fn folder(&self) -> &Path {
        &self.folder
    }

    pub(crate) const fn retention(&self) -> Retention {
        self.retention
    }

    /// Returns when what was ordered before is in its files.
    pub(crate) async fn flush(&self) {
        let (done, flushed) = oneshot::channel();
        if let Some(orders) = &self.orders
            && orders.send(Order::Flush(done)).is_ok()
        {
            // An error means that the thread is gone, and then there is nothing to wait for.
            let _ = flushed.await;
        }
    }

    /// Removes the recordings of these jobs, or all of the tenant's. What their recorders still have is dropped.
    pub(crate) async fn remove(&self, tenant: &TenantId, jobs: Option<&[JobId]>) -> io::Result<()> {
        let folder = self.folder.join(tenant.as_str());
        let files: Option<Vec<PathBuf>> =
            jobs.map(|jobs| jobs.iter().map(|job| file(&folder, job)).collect());
        let meant = |path: &PathBuf| match &files {
            Some(files) => files.contains(path),
            None => path.parent() == Some(&folder),
        };
        for (path, tape) in self.tapes.lock().iter() {
            if let Some(tape) = tape.upgrade().filter(|_| meant(path)) {
                tape.removed.store(true, Ordering::Release);
            }
        }
        let (done, removed) = oneshot::channel();
        if let Some(orders) = &self.orders {
            let order = Order::Remove { files, folder, done };
            orders
                .send(order)
                .map_err(|_| io::Error::other("the recorder has ended"))?;
        }
        removed.await.map_err(io::Error::other)?
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        self.orders = None;
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// A job's end of it. Dropping it hands over what is left. A job that never asked anything leaves no file.
pub(crate) struct Recorder {
    tape: Arc<Tape>,
    orders: Option<Sender<Order>>,
    waiting: Arc<AtomicUsize>,
    pending: Mutex<Pending>,
}

#[derive(Default)]
struct Pending {
    frames: Vec<Frame>,
    weight: usize,
    /// Calls that were added, also those that are handed over.
    calls: u64,
}

impl Recorder {
    pub(crate) fn new(writer: &Writer, opened: Opened) -> Self {
        let path = file(&writer.folder.join(opened.tenant.as_str()), &opened.job);
        let tape = Arc::new(Tape {
            path: path.clone(),
            stopped: AtomicBool::new(false),
            closed: AtomicBool::new(false),
            removed: AtomicBool::new(false),
        });
        writer.tapes.lock().insert(path, Arc::downgrade(&tape));
        Self {
            tape,
            orders: writer.orders.clone(),
            waiting: Arc::clone(&writer.waiting),
            pending: Mutex::new(Pending {
                weight: opened.weight(),
                frames: vec![Frame::Opened(Box::new(opened))],
                calls: 0,
            }),
        }
    }

    /// Adds a call.
    pub(crate) fn push(&self, call: Call) {
        if self.tape.stopped.load(Ordering::Relaxed) {
            return;
        }
        let weight = call.weight();
        let mut pending = self.pending.lock();
        pending.frames.push(Frame::Call(Box::new(call)));
        pending.weight += weight;
        pending.calls += 1;
        if pending.frames.len() >= GROUP || pending.weight >= GROUP_BYTES {
            // Under the lock, so that no later group is written before this one. Sending never waits.
            self.hand_over(&mut pending);
        }
    }

    /// Hands over what is pending, in the order of calls of this function.
    fn hand_over(&self, pending: &mut Pending) {
        if self.tape.stopped.load(Ordering::Relaxed) {
            return;
        }
        // A job that has filled one group fills another; most never do and hold no room for it.
        let mut frames = std::mem::replace(&mut pending.frames, Vec::with_capacity(GROUP));
        let mut weight = std::mem::take(&mut pending.weight);
        if self.waiting.fetch_add(weight, Ordering::Relaxed) > WAITING_BYTES {
            self.tape.stopped.store(true, Ordering::Relaxed);
            self.waiting.fetch_sub(weight, Ordering::Relaxed);
            weight = 0;
            let begins = matches!(frames.first(), Some(Frame::Opened(_)));
            frames.truncate(usize::from(begins));
            let reason = "calls came faster than they could be written";
            frames.push(Frame::Stopped(reason.into()));
        }
        if let Some(orders) = &self.orders {
            // An error means that the thread is gone; the job goes on without a recording.
            let _ = orders.send(Order::Write {
                tape: Arc::clone(&self.tape),
                frames,
                weight,
            });
        }
    }
}

impl Drop for Recorder {
    fn drop(&mut self) {
        let mut pending = std::mem::take(self.pending.get_mut());
        if pending.calls > 0 {
            pending.frames.push(Frame::Ended { calls: pending.calls });
            self.hand_over(&mut pending);
        }
    }
}

/// What the thread knows.
struct Shelf {
    folder: PathBuf,
    retention: Retention,
    waiting: Arc<AtomicUsize>,
    tapes: OpenTapes,
    /// Bytes written since the folder was looked through.
    written: u64,
    /// When it is looked through next.
    next: Instant,
}

impl Shelf {
    fn serve(mut self, orders: &Receiver<Order>) {
        loop {
            match orders.recv_timeout(self.next.saturating_duration_since(Instant::now())) {
                Ok(first) => {
                    for order in std::iter::once(first).chain(orders.try_iter()) {
                        self.carry_out(order);
                    }
                    std::thread::sleep(REST);
                }
                Err(RecvTimeoutError::Timeout) => self.sweep(),
                Err(RecvTimeoutError::Disconnected) => return,
            }
        }
    }

    fn carry_out(&mut self, order: Order) {
        match order {
            Order::Write { tape, frames, weight } => {
                if !tape.removed.load(Ordering::Acquire) {
                    match append(&tape, &frames) {
                        Ok(bytes) => self.written += bytes,
                        Err(error) => {
                            tape.close();
                            tracing::warn!(file = %tape.path.display(), %error, "a job's calls are not recorded any further");
                        }
                    }
                }
                self.waiting.fetch_sub(weight, Ordering::Relaxed);
                if self.retention.bytes > 0 && self.written > self.retention.bytes / SHARE {
                    self.sweep();
                }
            }
            Order::Flush(done) => {
                // Nobody may be waiting any more.
                let _ = done.send(());
            }
            Order::Remove { files, folder, done } => {
                let files = files.map_or_else(|| list(&folder), Ok);
                let removed = files.and_then(|files| remove_files(&files));
                // Fails as long as there is something else in it.
                let _ = fs::remove_dir(folder);
                let _ = done.send(removed);
            }
        }
    }

    /// Removes what is not to be kept.
    fn sweep(&mut self) {
        self.written = 0;
        self.next = Instant::now() + SWEEP;
        let open = {
            let mut tapes = self.tapes.lock();
            tapes.retain(|_, tape| tape.strong_count() > 0);
            tapes.keys().cloned().collect()
        };
        match sweep(&self.folder, self.retention, &open, SystemTime::now()) {
            Ok(0) => {}
            Ok(removed) => tracing::info!(
                removed,
                "recordings of jobs were removed, as policy.record_days and policy.record_bytes say"
            ),
            Err(error) => {
                tracing::warn!(folder = %self.folder.display(), %error, "recordings cannot be removed");
            }
        }
    }
}

/// The recording of a job in its tenant's folder.
fn file(folder: &Path, job: &JobId) -> PathBuf {
    folder.join(format!("{job}.calls"))
}

impl Tape {
    /// Nothing is written behind this.
    fn close(&self) {
        self.stopped.store(true, Ordering::Relaxed);
        self.closed.store(true, Ordering::Relaxed);
    }
}

/// Says how many bytes it wrote. After an error the file is as long as before.
fn append(tape: &Tape, frames: &[Frame]) -> io::Result<u64> {
    if tape.closed.load(Ordering::Relaxed) {
        return Ok(0);
    }
    let first = frames.first().is_some_and(|f| matches!(f, Frame::Opened(_)));
    let mut file = open(&tape.path, first)?;
    let length = file.seek(SeekFrom::End(0))?;
    let mut bytes = encode(frames)?;
    if length + bytes.len() as u64 > JOB_BYTES {
        tape.close();
        bytes = encode(&[Frame::Stopped(format!("it has reached {JOB_BYTES} bytes"))])?;
    }
    if let Err(error) = file.write_all(&bytes) {
        // What stands behind half a frame could not be read.
        let _ = file.set_len(length);
        return Err(error);
    }
    Ok(bytes.len() as u64)
}

/// Opens a recording to be continued. A process that was killed may have left half a frame at its end; what a sitting
/// begins behind it could never be read, so it is cut off first.
fn open(path: &Path, first: bool) -> io::Result<File> {
    let mut options = OpenOptions::new();
    options.append(true).create(true).mode(0o600);
    if !first {
        return options.open(path);
    }
    if let Some(folder) = path.parent() {
        make_folder(folder)?;
    }
    let file = options.open(path)?;
    if file.metadata()?.len() > 0 {
        file.set_len(read::whole(&fs::read(path)?) as u64)?;
    }
    Ok(file)
}

fn make_folder(folder: &Path) -> io::Result<()> {
    DirBuilder::new().recursive(true).mode(0o700).create(folder)
}

fn encode(frames: &[Frame]) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    for frame in frames {
        let start = bytes.len();
        bytes.extend_from_slice(&[0; 4]);
        bytes = postcard::to_extend(frame, bytes).map_err(io::Error::other)?;
        let length = u32::try_from(bytes.len() - start - 4).map_err(io::Error::other)?;
        if let Some(head) = bytes.get_mut(start..start + 4) {
            head.copy_from_slice(&length.to_le_bytes());
        }
    }
    Ok(bytes)
}

#[cfg(test)]
#[path = "tests.rs"]
mod tests;
