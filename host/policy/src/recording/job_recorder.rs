//! Records the calls of one job.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::Sender;

use parking_lot::Mutex;

use super::recording_in_progress::RecordingInProgress;
use super::writer::{MAX_PENDING_BYTES, RecordingWriter, WriterCommand};
use super::{RecordedCall, RecordingFrame, SessionHeader};

/// Frames of a job that are written together.
pub(super) const MAX_GROUP_FRAMES: usize = 64;
/// Bytes of frames from which a smaller group is written.
const MAX_GROUP_BYTES: usize = 256 << 10;

/// Records the calls of one session of a job. Dropping it submits the remaining frames. A session without calls is not stored.
pub(crate) struct JobRecorder {
    recording: Arc<RecordingInProgress>,
    commands: Sender<WriterCommand>,
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
        Self {
            recording: writer.register_session(&header.tenant, &header.job),
            commands: writer.commands.clone(),
            pending_bytes: Arc::clone(&writer.pending_bytes),
            pending: Mutex::new(PendingFrames {
                bytes: header.estimate_bytes(),
                frames: vec![RecordingFrame::SessionStarted(Box::new(header))],
                calls: 0,
            }),
        }
    }

    pub(crate) fn push_call(&self, call: RecordedCall) {
        if self.recording.stopped.load(Ordering::Relaxed) {
            return;
        }
        let bytes = call.estimate_bytes();
        let mut pending = self.pending.lock();
        pending.frames.push(RecordingFrame::Call(Box::new(call)));
        pending.bytes += bytes;
        pending.calls += 1;
        // The first call is submitted at once, so that a session is known to the store if the process is killed.
        if pending.calls == 1 || pending.frames.len() >= MAX_GROUP_FRAMES || pending.bytes >= MAX_GROUP_BYTES
        {
            // Sent under the lock, so that groups are written in order. Sending does not block.
            self.submit_pending_frames(&mut pending);
        }
    }

    /// Sends the pending frames to the writer thread, or stops recording if too many bytes are waiting there.
    fn submit_pending_frames(&self, pending: &mut PendingFrames) {
        if self.recording.stopped.load(Ordering::Relaxed) {
            return;
        }
        // A job that has filled one group usually fills another, so capacity is reserved. Most jobs never fill one.
        let mut frames = std::mem::replace(&mut pending.frames, Vec::with_capacity(MAX_GROUP_FRAMES));
        let mut bytes = std::mem::take(&mut pending.bytes);
        if self.pending_bytes.fetch_add(bytes, Ordering::Relaxed) > MAX_PENDING_BYTES {
            self.recording.stopped.store(true, Ordering::Relaxed);
            self.pending_bytes.fetch_sub(bytes, Ordering::Relaxed);
            bytes = 0;
            let has_header = matches!(frames.first(), Some(RecordingFrame::SessionStarted(_)));
            frames.truncate(usize::from(has_header));
            let reason = "the job made calls faster than they could be written";
            frames.push(RecordingFrame::RecordingStopped(reason.into()));
        }
        // An error means that the thread has stopped; the job goes on without a recording.
        let _ = self.commands.send(WriterCommand::Write {
            recording: Arc::clone(&self.recording),
            frames,
            bytes,
        });
    }
}

impl Drop for JobRecorder {
    fn drop(&mut self) {
        let mut pending = std::mem::take(self.pending.get_mut());
        if pending.calls > 0 {
            pending
                .frames
                .push(RecordingFrame::SessionEnded { calls: pending.calls });
            self.submit_pending_frames(&mut pending);
        }
    }
}
