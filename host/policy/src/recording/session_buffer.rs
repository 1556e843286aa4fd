//! Encoded frames of one session that wait to be stored.

use std::io;
use std::sync::Arc;
use std::time::{Duration, Instant};

use weir_core::StorageError;
use weir_core::recording::{AppendOutcome, MAX_APPEND_DELAY, RecordingStore};

use super::RecordingFrame;
use super::frames::{MAX_SESSION_BYTES, encode_frames};
use super::recording_in_progress::RecordingInProgress;

/// Bytes from which a part is stored before its interval has passed.
const PART_BYTES: usize = 1 << 20;
/// Delay before a part is stored again after the store was not available.
const RETRY_DELAY: Duration = Duration::from_secs(5);

/// What is to be done with a session after an attempt to store a part.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum SessionState {
    /// More parts can follow, or the part must be stored again.
    Open,
    /// Nothing more is stored.
    Closed,
}

/// The frames of a session that are not stored yet.
pub(super) struct SessionBuffer {
    recording: Arc<RecordingInProgress>,
    bytes: Vec<u8>,
    /// Estimated bytes of these frames, which count against the limit of all sessions.
    pub(super) pending_bytes: usize,
    /// When the first of these frames was added.
    pub(super) waiting_since: Instant,
    next_part: u32,
    stored_bytes: u64,
    /// When the last part was stored, or else the buffer was created.
    last_stored: Instant,
    /// When the next part is stored, unless the session ends or the part is large.
    due: Instant,
    /// Set after the store was not available.
    retry_at: Option<Instant>,
    has_ended: bool,
}

impl SessionBuffer {
    /// Creates a buffer whose first part is stored at once: a session of which nothing is stored could not be reported as incomplete
    /// after the process is killed.
    pub(super) fn new(recording: Arc<RecordingInProgress>) -> Self {
        let now = Instant::now();
        Self {
            recording,
            bytes: Vec::new(),
            pending_bytes: 0,
            waiting_since: now,
            next_part: 0,
            stored_bytes: 0,
            last_stored: now,
            due: now,
            retry_at: None,
            has_ended: false,
        }
    }

    /// Adds frames. If the session would become too large or a frame cannot be encoded, its recording stops with a note instead.
    pub(super) fn push_frames(&mut self, frames: &[RecordingFrame], pending_bytes: usize) {
        let is_last = matches!(
            frames.last(),
            Some(RecordingFrame::SessionEnded { .. } | RecordingFrame::RecordingStopped(_))
        );
        self.push_encoded_frames(encode_frames(frames), is_last, pending_bytes);
    }

    pub(super) fn push_encoded_frames(
        &mut self,
        encoded: io::Result<Vec<u8>>,
        is_last: bool,
        pending_bytes: usize,
    ) {
        if !self.has_bytes() {
            self.waiting_since = Instant::now();
        }
        self.pending_bytes += pending_bytes;
        match encoded {
            Ok(encoded) => {
                let total = self.stored_bytes + (self.bytes.len() + encoded.len()) as u64;
                if total > MAX_SESSION_BYTES {
                    self.stop(format!("the recording has reached {MAX_SESSION_BYTES} bytes"));
                } else {
                    self.bytes.extend(encoded);
                    self.has_ended = is_last;
                }
            }
            Err(error) => {
                let job = self.recording.session.job;
                tracing::warn!(%job, %error, "cannot encode a recording; the job goes on without it");
                self.stop(format!("a call cannot be encoded: {error}"));
            }
        }
    }

    /// Ends the recording before the job, with a note.
    fn stop(&mut self, reason: String) {
        self.recording.close();
        self.has_ended = true;
        let note = encode_frames(&[RecordingFrame::RecordingStopped(reason)]);
        self.bytes.extend(note.unwrap_or_default());
    }

    pub(super) fn recording(&self) -> &RecordingInProgress {
        &self.recording
    }

    pub(super) fn has_bytes(&self) -> bool {
        !self.bytes.is_empty()
    }

    /// Returns when the next part is to be stored; `None` if there are no frames.
    pub(super) fn due(&self) -> Option<Instant> {
        if !self.has_bytes() {
            return None;
        }
        let is_due = self.has_ended || self.bytes.len() >= PART_BYTES;
        let due = if is_due { self.last_stored } else { self.due };
        Some(self.retry_at.map_or(due, |retry_at| retry_at.max(due)))
    }

    /// Whether the store was not available a moment ago.
    pub(super) fn waits_for_store(&self, now: Instant) -> bool {
        self.retry_at.is_some_and(|retry_at| retry_at > now)
    }

    /// Stores the frames as the next part of the session. Returns the bytes that were stored.
    pub(super) async fn store_part(&mut self, store: &dyn RecordingStore) -> (SessionState, u64) {
        let session = &self.recording.session;
        if self.waiting_since.elapsed() > MAX_APPEND_DELAY {
            tracing::warn!(job = %session.job, "the store of recordings was not available for too long; the job goes on without a recording");
            return (self.close(), 0);
        }
        let stored = store.append_part(session, self.next_part, &self.bytes).await;
        let now = Instant::now();
        match stored {
            Ok(AppendOutcome::Appended) => {
                let bytes = self.bytes.len() as u64;
                self.bytes.clear();
                self.stored_bytes += bytes;
                self.next_part += 1;
                (self.last_stored, self.due, self.retry_at) = (now, now + store.append_interval(), None);
                match self.has_ended {
                    true => (self.close(), bytes),
                    false => (SessionState::Open, bytes),
                }
            }
            Ok(AppendOutcome::Removed) => (self.close(), 0),
            Err(error @ StorageError::Unavailable { .. }) => {
                tracing::warn!(job = %session.job, %error, "cannot store a part of a recording; it is stored later");
                self.retry_at = Some(now + RETRY_DELAY);
                (SessionState::Open, 0)
            }
            Err(error) => {
                tracing::warn!(job = %session.job, %error, "cannot store a recording; the job goes on without it");
                (self.close(), 0)
            }
        }
    }

    fn close(&self) -> SessionState {
        self.recording.close();
        SessionState::Closed
    }
}
