//! Encodes and decodes the frames of a recording.

use std::io;

use weir_core::recording::{RecordingStore, StoredSession};
use weir_core::replay::ReplayError;
use weir_core::{JobId, TenantId};

use super::RecordingFrame;

/// Bytes of one session.
pub(super) const MAX_SESSION_BYTES: u64 = 64 << 20;
/// Bytes of a session that can be read: a little more than is ever written.
const MAX_READ_BYTES: u64 = 80 << 20;

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

/// Decodes the frames of a session, in order. An incomplete frame at the end, left by a process that was killed during a write,
/// is ignored.
///
/// # Errors
/// A complete frame cannot be decoded.
pub fn decode_frames(bytes: &[u8]) -> io::Result<Vec<RecordingFrame>> {
    let mut frames = Vec::new();
    let mut rest = bytes;
    while let Some((frame, remaining)) = split_first_frame(rest) {
        frames.push(postcard::from_bytes(frame).map_err(|e| {
            let reason = format!("it is damaged after {} frames: {e}", frames.len());
            io::Error::new(io::ErrorKind::InvalidData, reason)
        })?);
        rest = remaining;
    }
    Ok(frames)
}

/// Splits off the first complete frame; `None` if there is none. A length of zero ends the recording: no frame is empty, and
/// after a power failure a file can end with zeros, in space that the file system had allocated.
fn split_first_frame(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let (length, rest) = bytes.split_first_chunk::<4>()?;
    let length = usize::try_from(u32::from_le_bytes(*length)).ok()?;
    (length > 0).then(|| rest.split_at_checked(length)).flatten()
}

/// Reads the frames of a stored session. A session that was removed after it was listed has none.
pub(crate) async fn read_session_frames(
    store: &dyn RecordingStore,
    tenant: &TenantId,
    job: &JobId,
    session: &StoredSession,
) -> Result<Vec<RecordingFrame>, ReplayError> {
    if session.bytes > MAX_READ_BYTES {
        return Err(ReplayError::Unreadable("it is too large for a recording".into()));
    }
    let bytes = store.read_session(tenant, job, &session.name).await?;
    let decoded = tokio::task::spawn_blocking(move || decode_frames(&bytes.unwrap_or_default())).await;
    match decoded {
        Ok(frames) => frames.map_err(|error| ReplayError::Unreadable(error.to_string())),
        Err(error) => Err(ReplayError::Unreadable(error.to_string())),
    }
}

/// Reads the frames of all sessions of a job; none if the job has no recording.
///
/// # Errors
/// [`ReplayError::Storage`] if the store cannot be read, and [`ReplayError::Unreadable`] if a session cannot be decoded.
pub async fn read_recording(
    store: &dyn RecordingStore,
    tenant: &TenantId,
    job: &JobId,
) -> Result<Vec<RecordingFrame>, ReplayError> {
    let mut frames = Vec::new();
    for session in store.list_sessions(tenant, job).await? {
        frames.extend(read_session_frames(store, tenant, job, &session).await?);
    }
    Ok(frames)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn trailing_zeros_are_not_read_as_frames() {
        let frame = RecordingFrame::RecordingStopped("a".into());
        let mut bytes = encode_frames(std::slice::from_ref(&frame)).unwrap();
        bytes.extend_from_slice(&[0; 64]);
        assert_eq!(decode_frames(&bytes).unwrap(), [frame]);
    }
}
