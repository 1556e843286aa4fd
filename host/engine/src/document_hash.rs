//! Computes the id of a document from the bytes of its file.

use std::fs::File;
use std::io::{self, Read as _};
use std::path::Path;

use sha2::{Digest as _, Sha256};
use tokio_util::sync::CancellationToken;
use weir_core::{DocumentId, RasterError};

/// Bytes to read at a time.
const READ_BLOCK_BYTES: usize = 1 << 18;

/// Returns the id of a file and its size in bytes. The file is read on a blocking thread, which stops early if the future is
/// dropped.
pub(crate) async fn compute_document_id_and_size(path: &Path) -> Result<(DocumentId, u64), RasterError> {
    let cancelled = CancellationToken::new();
    let _guard = cancelled.clone().drop_guard();
    let owned = path.to_owned();
    let hashed =
        match tokio::task::spawn_blocking(move || compute_id_and_size_blocking(&owned, &cancelled)).await {
            Ok(hashed) => hashed,
            Err(join_error) => Err(io::Error::other(join_error)),
        };
    hashed.map_err(|error| {
        tracing::warn!(path = %path.display(), %error, "cannot read the file of a document");
        RasterError::FileUnreadable {
            reason: error.to_string(),
        }
    })
}

fn compute_id_and_size_blocking(path: &Path, cancelled: &CancellationToken) -> io::Result<(DocumentId, u64)> {
    // Reading a pipe may block forever, and a device may have no end.
    if !std::fs::metadata(path)?.is_file() {
        return Err(io::Error::other("it is not a regular file"));
    }
    let mut file = File::open(path)?;
    let (mut hash, mut bytes) = (Sha256::new(), 0_u64);
    let mut block = vec![0; READ_BLOCK_BYTES];
    loop {
        let read = file.read(&mut block)?;
        // After a cancellation the digest is incomplete, but the caller has dropped the future and never receives it.
        if read == 0 || cancelled.is_cancelled() {
            return Ok((DocumentId::from_digest(hash.finalize().into()), bytes));
        }
        hash.update(block.get(..read).unwrap_or_default());
        bytes += read as u64;
    }
}
