//! Which document a file is.

use std::fs::File;
use std::io::{self, Read as _};
use std::path::Path;

use sha2::{Digest as _, Sha256};
use tokio_util::sync::CancellationToken;
use weir_core::{DocumentId, RasterError};

/// Bytes that are read at a time.
const BLOCK: usize = 1 << 18;

/// The id of a file, and its size in bytes. Read on a thread for blocking work, which ends early if nobody waits any more.
pub(crate) async fn identify(path: &Path) -> Result<(DocumentId, u64), RasterError> {
    let gone = CancellationToken::new();
    let _guard = gone.clone().drop_guard();
    let owned = path.to_owned();
    let hashed = match tokio::task::spawn_blocking(move || hash(&owned, &gone)).await {
        Ok(hashed) => hashed,
        Err(died) => Err(io::Error::other(died)),
    };
    hashed.map_err(|error| {
        tracing::warn!(path = %path.display(), %error, "a file cannot be read");
        RasterError::File {
            reason: error.to_string(),
        }
    })
}

fn hash(path: &Path, gone: &CancellationToken) -> io::Result<(DocumentId, u64)> {
    // A pipe may never answer and a device never end.
    if !std::fs::metadata(path)?.is_file() {
        return Err(io::Error::other("it is not a regular file"));
    }
    let mut file = File::open(path)?;
    let (mut hash, mut bytes) = (Sha256::new(), 0_u64);
    let mut block = vec![0; BLOCK];
    loop {
        let read = file.read(&mut block)?;
        if read == 0 || gone.is_cancelled() {
            return Ok((DocumentId::from_digest(hash.finalize().into()), bytes));
        }
        hash.update(block.get(..read).unwrap_or_default());
        bytes += read as u64;
    }
}
