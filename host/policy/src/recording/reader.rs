//! Reads recordings from files.

use std::fs::File;
use std::io::{self, Read as _};
use std::path::Path;

use super::RecordingFrame;

/// Bytes of a file that can be read: a little more than is ever written.
const MAX_FILE_BYTES: u64 = 80 << 20;

/// Reads the frames of a recording, in order. An incomplete frame at the end, left by a process that was killed during a write,
/// is ignored.
///
/// # Errors
/// The file cannot be read, is larger than any recording, or has a complete frame that cannot be decoded.
pub fn read_recording(path: &Path) -> io::Result<Vec<RecordingFrame>> {
    let mut bytes = Vec::new();
    File::open(path)?
        .take(MAX_FILE_BYTES + 1)
        .read_to_end(&mut bytes)?;
    let invalid_data = |reason: String| io::Error::new(io::ErrorKind::InvalidData, reason);
    if bytes.len() as u64 > MAX_FILE_BYTES {
        return Err(invalid_data("the file is too large for a recording".into()));
    }
    let mut frames = Vec::new();
    let mut rest = bytes.as_slice();
    while let Some((frame, remaining)) = split_first_frame(rest) {
        frames.push(
            postcard::from_bytes(frame).map_err(|e| {
                invalid_data(format!("the file is damaged after {} frames: {e}", frames.len()))
            })?,
        );
        rest = remaining;
    }
    Ok(frames)
}

/// Returns the number of bytes of the complete frames at the start.
pub(super) fn complete_frames_len(bytes: &[u8]) -> usize {
    let mut rest = bytes;
    while let Some((_, remaining)) = split_first_frame(rest) {
        rest = remaining;
    }
    bytes.len() - rest.len()
}

/// Splits off the first complete frame; `None` if there is none. A length of zero ends the recording: no frame is empty, and
/// after a power failure a file can end with zeros, in space that the file system had allocated.
fn split_first_frame(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let (length, rest) = bytes.split_first_chunk::<4>()?;
    let length = usize::try_from(u32::from_le_bytes(*length)).ok()?;
    (length > 0).then(|| rest.split_at_checked(length)).flatten()
}
