//! From files to calls.

use std::fs::File;
use std::io::{self, Read as _};
use std::path::Path;

use super::Frame;

/// Bytes a file may have to be read: a little more than is ever written.
const FILE_BYTES: u64 = 80 << 20;

/// The frames of a recording, in order. A frame that was cut short at the end, because the process was killed while it
/// wrote, is left out.
///
/// # Errors
/// The file cannot be read, is larger than any recording, or has a whole frame that is not one of ours.
pub fn read_recording(path: &Path) -> io::Result<Vec<Frame>> {
    let mut bytes = Vec::new();
    File::open(path)?.take(FILE_BYTES + 1).read_to_end(&mut bytes)?;
    let wrong = |reason: String| io::Error::new(io::ErrorKind::InvalidData, reason);
    if bytes.len() as u64 > FILE_BYTES {
        return Err(wrong("it is too large for a recording".into()));
    }
    let mut frames = Vec::new();
    let mut rest = bytes.as_slice();
    while let Some((frame, behind)) = split(rest) {
        frames.push(
            postcard::from_bytes(frame)
                .map_err(|e| wrong(format!("it is damaged after {} calls: {e}", frames.len())))?,
        );
        rest = behind;
    }
    Ok(frames)
}

/// Bytes of the whole frames at the start.
pub(super) fn whole(bytes: &[u8]) -> usize {
    let mut rest = bytes;
    while let Some((_, behind)) = split(rest) {
        rest = behind;
    }
    bytes.len() - rest.len()
}

/// The first frame and what is behind it. No frame is empty: four zeros are space that the file system had set aside when
/// the power went.
fn split(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let (length, rest) = bytes.split_first_chunk::<4>()?;
    let length = usize::try_from(u32::from_le_bytes(*length)).ok()?;
    (length > 0).then(|| rest.split_at_checked(length)).flatten()
}
