//! The file of one job's recording: its path and its encoding.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Seek as _, SeekFrom, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};

use weir_core::JobId;

use super::{RecordingFrame, reader};

/// Bytes of one job's recording.
pub(super) const MAX_RECORDING_BYTES: u64 = 64 << 20;

/// A recording that is being written.
pub(super) struct RecordingInProgress {
    pub(super) path: PathBuf,
    /// Set when the recorder must not accept more calls.
    pub(super) stopped: AtomicBool,
    /// Set when nothing more is appended to the file.
    closed: AtomicBool,
    /// Set when the recording is removed. Nothing is written to the file after that.
    pub(super) removed: AtomicBool,
}

impl RecordingInProgress {
    pub(super) const fn new(path: PathBuf) -> Self {
        Self {
            path,
            stopped: AtomicBool::new(false),
            closed: AtomicBool::new(false),
            removed: AtomicBool::new(false),
        }
    }

    /// Stops the recording: nothing more is written to the file.
    pub(super) fn stop_recording(&self) {
        self.stopped.store(true, Ordering::Relaxed);
        self.closed.store(true, Ordering::Relaxed);
    }
}

/// Returns the path of a job's recording in its tenant's folder.
pub(super) fn recording_path(folder: &Path, job: &JobId) -> PathBuf {
    folder.join(format!("{job}.calls"))
}

/// Appends frames to a recording and returns the number of bytes written. After an error the file has its previous length.
pub(super) fn append_frames(recording: &RecordingInProgress, frames: &[RecordingFrame]) -> io::Result<u64> {
    if recording.closed.load(Ordering::Relaxed) {
        return Ok(0);
    }
    let starts_session = frames
        .first()
        .is_some_and(|f| matches!(f, RecordingFrame::SessionStarted(_)));
    let mut file = open_and_trim_recording_file(&recording.path, starts_session)?;
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
fn open_and_trim_recording_file(path: &Path, starts_session: bool) -> io::Result<File> {
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

pub(super) fn create_private_folder(folder: &Path) -> io::Result<()> {
    DirBuilder::new().recursive(true).mode(0o700).create(folder)
}

pub(super) fn encode_frames(frames: &[RecordingFrame]) -> io::Result<Vec<u8>> {
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
