//! Files on their way to the disk.
//!
//! A file has three places in its life. While it comes in it is unfinished; whole and durable it is staged for its job; once
//! its job is in the ledger it is the document's original, in place of whatever was, which is the same bytes. So an original
//! belongs to an order, nothing of a refused upload is ever mistaken for one, and a crash at any moment is put right at the
//! next start: what was unfinished goes, and what was staged is kept if its job is known.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use sha2::{Digest as _, Sha256};
use tokio::fs::File;
use tokio::io::{AsyncWriteExt as _, BufWriter};
use weir_core::order::Orders;
use weir_core::original::{Originals, Staged};
use weir_core::{DocumentId, JobId, StorageError, TenantId};

/// Bytes that are gathered before they are written.
const BLOCK: usize = 256 << 10;

/// A file that goes when this is dropped, unless it is given up.
struct Loose(Option<PathBuf>);

impl Drop for Loose {
    fn drop(&mut self) {
        if let Some(path) = self.0.take() {
            // It may not have been made yet, or the next start removes it.
            let _ = std::fs::remove_file(path);
        }
    }
}

/// A file that comes in. It is gone when this is dropped.
pub(super) struct Incoming {
    /// `None` if only the hash is wanted.
    kept: Option<Unfinished>,
    hash: Sha256,
    bytes: u64,
}

struct Unfinished {
    originals: Arc<dyn Originals>,
    path: PathBuf,
    loose: Loose,
    file: BufWriter<File>,
}

impl Incoming {
    /// With nothing in it.
    pub(super) async fn begin(originals: &Arc<dyn Originals>) -> Result<Self, StorageError> {
        let path = originals.unfinished();
        // Before the file exists, so that it is removed even if this is dropped right after it was made.
        let loose = Loose(Some(path.clone()));
        let file = File::create_new(&path).await.map_err(|error| failed(&error))?;
        Ok(Self {
            kept: Some(Unfinished {
                originals: Arc::clone(originals),
                path,
                loose,
                file: BufWriter::with_capacity(BLOCK, file),
            }),
            ..Self::compared()
        })
    }

    /// With nothing in it, and not kept: it is only hashed, to be compared with an earlier one.
    pub(super) fn compared() -> Self {
        Self {
            kept: None,
            hash: Sha256::new(),
            bytes: 0,
        }
    }

    /// Takes the next bytes.
    pub(super) async fn write(&mut self, bytes: &[u8]) -> Result<(), StorageError> {
        self.hash.update(bytes);
        self.bytes += bytes.len() as u64;
        match &mut self.kept {
            Some(kept) => kept.file.write_all(bytes).await.map_err(|error| failed(&error)),
            None => Ok(()),
        }
    }

    /// The hash and size of the file, which is whole. If it is kept, it is staged for this job when this returns.
    pub(super) async fn finish(
        self,
        tenant: &TenantId,
        job: &JobId,
    ) -> Result<(DocumentId, u64, Option<Arrived>), StorageError> {
        let document = DocumentId::from_digest(self.hash.finalize().into());
        let Some(mut kept) = self.kept else {
            return Ok((document, self.bytes, None));
        };
        kept.file.flush().await.map_err(|error| failed(&error))?;
        // Through this descriptor, which is told of every page that could not be written; one opened later may not be.
        let synced = kept.file.get_ref().sync_all().await;
        synced.map_err(|error| failed(&error))?;
        let path = kept.originals.stage(tenant, &kept.path, job, &document).await?;
        kept.loose.0 = Some(path.clone());
        let staged = Staged {
            tenant: tenant.clone(),
            job: *job,
            document,
            path,
        };
        let arrived = Arrived {
            originals: kept.originals,
            loose: kept.loose,
            staged,
            bytes: self.bytes,
        };
        Ok((document, self.bytes, Some(arrived)))
    }
}

/// A file that is whole and durable. It is gone when this is dropped before it was kept.
pub(crate) struct Arrived {
    originals: Arc<dyn Originals>,
    loose: Loose,
    staged: Staged,
    /// Bytes that were received; 0 for a file that was kept already.
    pub(super) bytes: u64,
}

impl Arrived {
    /// A document's original, staged for this job, with its size; `None` if it is not kept. The job then has its file even if
    /// the document is removed before the job is written down.
    pub(crate) async fn again(
        originals: &Arc<dyn Originals>,
        tenant: &TenantId,
        job: &JobId,
        document: &DocumentId,
    ) -> Result<Option<(Self, u64)>, StorageError> {
        let Some(path) = originals.stage_kept(tenant, job, document).await? else {
            return Ok(None);
        };
        let arrived = Self {
            originals: Arc::clone(originals),
            loose: Loose(Some(path.clone())),
            staged: Staged {
                tenant: tenant.clone(),
                job: *job,
                document: *document,
                path: path.clone(),
            },
            bytes: 0,
        };
        let metadata = tokio::fs::metadata(&path).await.map_err(|error| failed(&error))?;
        Ok(Some((arrived, metadata.len())))
    }

    /// Keeps the file for good. Its job is in the ledger, so the next start would do the same.
    pub(super) async fn keep(mut self) -> Result<(), StorageError> {
        self.loose.0 = None;
        keep(self.originals.as_ref(), &self.staged).await
    }
}

async fn keep(originals: &dyn Originals, staged: &Staged) -> Result<(), StorageError> {
    originals
        .commit(&staged.tenant, &staged.path, &staged.document)
        .await
}

/// Puts right what the last process left when it ended: keeps what belongs to a job, removes the rest.
pub(crate) async fn recover(originals: &dyn Originals, orders: &dyn Orders) -> Result<(), StorageError> {
    for staged in originals.staged().await? {
        match orders.order(&staged.tenant, &staged.job).await? {
            Some(_) => keep(originals, &staged).await?,
            None => {
                let removed = tokio::fs::remove_file(&staged.path).await;
                removed.map_err(|error| {
                    failed_at(
                        &staged.path,
                        format!("upload of document {}", staged.document),
                        &error,
                    )
                })?;
            }
        }
    }
    Ok(())
}

fn failed(error: &io::Error) -> StorageError {
    StorageError::io("the upload", error)
}

/// The path goes to the log, since a tenant may read the error.
fn failed_at(path: &Path, name: String, error: &io::Error) -> StorageError {
    tracing::warn!(path = %path.display(), %error, "a file cannot be used");
    StorageError::io(name, error)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fakes::{Files, Host};

    async fn arrive(
        originals: &Arc<dyn Originals>,
        tenant: &TenantId,
        job: JobId,
        content: &[u8],
    ) -> Arrived {
        let mut incoming = Incoming::begin(originals).await.unwrap();
        for bytes in content.chunks(3) {
            incoming.write(bytes).await.unwrap();
        }
        incoming.finish(tenant, &job).await.unwrap().2.unwrap()
    }

    #[tokio::test]
    async fn a_file_is_an_original_only_when_it_is_kept() {
        let folder = tempfile::tempdir().unwrap();
        let files = Files::new(folder.path(), Arc::default());
        let (originals, tenant, job): (Arc<dyn Originals>, _, _) =
            (files.clone(), TenantId::single(), JobId::new());
        let arrived = arrive(&originals, &tenant, job, b"content").await;
        let document = DocumentId::of(b"content");
        let size = async || {
            let again = Arrived::again(&originals, &tenant, &job, &document)
                .await
                .unwrap();
            again.map(|(_, bytes)| bytes)
        };
        assert_eq!((arrived.staged.document, arrived.bytes), (document, 7));
        assert_eq!(size().await, None);
        arrived.keep().await.unwrap();
        assert_eq!(size().await, Some(7));
        // The same file again, refused, and one that breaks off: the one that is there stays, and nothing else.
        drop(arrive(&originals, &tenant, JobId::new(), b"content").await);
        let mut broken = Incoming::begin(&originals).await.unwrap();
        broken.write(b"cont").await.unwrap();
        drop(broken);
        assert_eq!(files.names(), [format!("{tenant}-{document}")]);
    }

    #[tokio::test]
    async fn compared_file_is_hashed_and_not_written() {
        let mut incoming = Incoming::compared();
        incoming.write(b"con").await.unwrap();
        incoming.write(b"tent").await.unwrap();
        let finished = incoming.finish(&TenantId::single(), &JobId::new()).await;
        let (document, bytes, arrived) = finished.unwrap();
        assert_eq!((document, bytes), (DocumentId::of(b"content"), 7));
        assert!(arrived.is_none());
    }

    #[tokio::test]
    async fn the_next_start_puts_a_crash_right() {
        let host = Host::new();
        let (tenant, originals) = (TenantId::single(), Arc::clone(&host.app.originals));
        let (known, unknown) = (JobId::new(), JobId::new());
        host.order(&tenant, known, DocumentId::of(b"accepted")).await;
        let leak = |arrived: Arrived| std::mem::forget(arrived);
        leak(arrive(&originals, &tenant, known, b"accepted").await);
        leak(arrive(&originals, &tenant, unknown, b"not accepted").await);
        assert_eq!(originals.staged().await.unwrap().len(), 2);
        recover(&*originals, &*host.memory).await.unwrap();
        assert_eq!(originals.staged().await.unwrap(), []);
        assert_eq!(
            originals.list(&tenant).await.unwrap(),
            [DocumentId::of(b"accepted")]
        );
    }
}
