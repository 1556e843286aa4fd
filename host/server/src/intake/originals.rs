//! The files that clients gave, as they gave them: `<originals>/<tenant>/<document>`.
//!
//! A file has three names in its life. While it comes in it is `.part-…`; whole and on the disk it is `.staged-<job>-<document>`;
//! once its job is in the ledger it gets its own name, over whatever had it, which is the same bytes. So a file under its own
//! name belongs to an order, nothing of a refused upload is ever mistaken for one, and a crash at any moment is put right
//! at the next start: parts go, and what was staged is kept if its job is known.

use std::io;
use std::path::{Path, PathBuf};

use sha2::{Digest as _, Sha256};
use tokio::fs::File;
use tokio::io::{AsyncWriteExt as _, BufWriter};
use uuid::Uuid;
use weir_core::order::Orders;
use weir_core::{DocumentId, JobId, StorageError, TenantId};

/// Bytes that are gathered before they are written.
const BLOCK: usize = 256 << 10;
const PART: &str = ".part-";
const STAGED: &str = ".staged-";

/// The folder of all tenants' files.
pub(crate) struct Originals(PathBuf);

impl Originals {
    pub(crate) const fn new(folder: PathBuf) -> Self {
        Self(folder)
    }

    /// A tenant's folder.
    pub(crate) fn of(&self, tenant: &TenantId) -> PathBuf {
        self.0.join(tenant.as_str())
    }

    /// Size of a file that is here; `None` if it is not.
    pub(crate) async fn size(&self, tenant: &TenantId, document: &DocumentId) -> Result<Option<u64>, StorageError> {
        let path = self.of(tenant).join(document.to_string());
        match tokio::fs::metadata(&path).await {
            Ok(metadata) => Ok(Some(metadata.len())),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(StorageError::io(path.display().to_string(), &error)),
        }
    }

    /// Begins a file that comes in for a job.
    pub(crate) async fn begin(&self, tenant: &TenantId, job: JobId) -> Result<Incoming, StorageError> {
        let folder = self.of(tenant);
        let path = folder.join(format!("{PART}{}", Uuid::now_v7()));
        let failed = |error: io::Error| StorageError::io(path.display().to_string(), &error);
        tokio::fs::create_dir_all(&folder).await.map_err(failed)?;
        // Named before the file exists, so that it is removed even if this is dropped right after it was made.
        let name = Name(Some(path.clone()));
        let file = File::create_new(&path).await.map_err(failed)?;
        Ok(Incoming {
            name,
            folder,
            job,
            file: BufWriter::with_capacity(BLOCK, file),
            hash: Sha256::new(),
            bytes: 0,
        })
    }

    /// Returns when the names of a tenant's files survive a power cut.
    pub(crate) async fn sync(&self, tenant: &TenantId) -> Result<(), StorageError> {
        let folder = self.of(tenant);
        let synced = async { File::open(&folder).await?.sync_all().await };
        synced.await.map_err(|error| StorageError::io(folder.display().to_string(), &error))
    }

    /// Removes all files of a tenant.
    pub(crate) async fn remove(&self, tenant: &TenantId) -> Result<(), StorageError> {
        let folder = self.of(tenant);
        match tokio::fs::remove_dir_all(&folder).await {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                Err(StorageError::io(folder.display().to_string(), &error))
            }
            _ => Ok(()),
        }
    }

    /// Puts right what the last process left when it ended: see the module.
    pub(crate) async fn recover(&self, orders: &dyn Orders) -> Result<(), StorageError> {
        let failed = |path: &Path, error: io::Error| StorageError::io(path.display().to_string(), &error);
        tokio::fs::create_dir_all(&self.0).await.map_err(|e| failed(&self.0, e))?;
        let mut tenants = tokio::fs::read_dir(&self.0).await.map_err(|e| failed(&self.0, e))?;
        while let Some(folder) = tenants.next_entry().await.map_err(|e| failed(&self.0, e))? {
            let Some(tenant) = folder.file_name().to_str().and_then(|name| name.parse::<TenantId>().ok()) else {
                continue;
            };
            let folder = folder.path();
            let mut files = tokio::fs::read_dir(&folder).await.map_err(|e| failed(&folder, e))?;
            while let Some(file) = files.next_entry().await.map_err(|e| failed(&folder, e))? {
                let (name, path) = (file.file_name(), file.path());
                let Some(name) = name.to_str() else { continue };
                if let Some((job, document)) = name.strip_prefix(STAGED).and_then(staged) {
                    let put_right = match orders.order(&tenant, &job).await? {
                        Some(_) => tokio::fs::rename(&path, folder.join(document.to_string())).await,
                        None => tokio::fs::remove_file(&path).await,
                    };
                    put_right.map_err(|e| failed(&path, e))?;
                } else if name.starts_with(PART) || name.starts_with(STAGED) {
                    tokio::fs::remove_file(&path).await.map_err(|e| failed(&path, e))?;
                }
            }
        }
        Ok(())
    }
}

/// `<job>-<document>`; neither part has a name of varying length.
fn staged(name: &str) -> Option<(JobId, DocumentId)> {
    let (job, document) = name.rsplit_once('-')?;
    Some((job.parse().ok()?, document.parse().ok()?))
}

/// A file that goes when this is dropped, unless it has got a name of its own.
struct Name(Option<PathBuf>);

impl Drop for Name {
    fn drop(&mut self) {
        if let Some(path) = self.0.take() {
            // It may not have been made yet, or the next start removes it.
            let _ = std::fs::remove_file(path);
        }
    }
}

impl Name {
    /// Gives the file another name.
    async fn change(&mut self, to: PathBuf) -> Result<(), StorageError> {
        let Some(from) = &self.0 else {
            return Ok(());
        };
        tokio::fs::rename(from, &to)
            .await
            .map_err(|error| StorageError::io(to.display().to_string(), &error))?;
        self.0 = Some(to);
        Ok(())
    }
}

/// A file that comes in. It is gone when this is dropped.
pub(crate) struct Incoming {
    name: Name,
    folder: PathBuf,
    job: JobId,
    file: BufWriter<File>,
    hash: Sha256,
    bytes: u64,
}

impl Incoming {
    /// Takes the next bytes.
    pub(crate) async fn write(&mut self, bytes: &[u8]) -> Result<(), StorageError> {
        self.hash.update(bytes);
        self.bytes += bytes.len() as u64;
        self.file.write_all(bytes).await.map_err(|error| self.failed(&error))
    }

    /// The file is whole. It is on the disk when this returns.
    pub(crate) async fn finish(mut self) -> Result<Arrived, StorageError> {
        let written = async {
            self.file.flush().await?;
            self.file.get_ref().sync_all().await
        };
        written.await.map_err(|error| self.failed(&error))?;
        let document = DocumentId::from_digest(self.hash.finalize().into());
        self.name.change(self.folder.join(format!("{STAGED}{}-{document}", self.job))).await?;
        Ok(Arrived {
            name: self.name,
            folder: self.folder,
            document,
            bytes: self.bytes,
        })
    }

    fn failed(&self, error: &io::Error) -> StorageError {
        StorageError::io("the upload", error)
    }
}

/// A file that is whole and on the disk. It is gone when this is dropped before it was kept.
pub(crate) struct Arrived {
    name: Name,
    folder: PathBuf,
    pub(crate) document: DocumentId,
    pub(crate) bytes: u64,
}

impl Arrived {
    /// Keeps the file for good. Its job is in the ledger, so the next start would do the same.
    pub(crate) async fn keep(mut self) -> Result<(), StorageError> {
        let to = self.folder.join(self.document.to_string());
        let kept = self.name.change(to).await;
        // Whatever happened, it is not removed any more.
        self.name.0 = None;
        kept
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fakes::Shelf;

    fn names(originals: &Originals, tenant: &TenantId) -> Vec<String> {
        let files = std::fs::read_dir(originals.of(tenant)).unwrap();
        let mut names: Vec<_> = files.map(|f| f.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    }

    async fn arrive(originals: &Originals, tenant: &TenantId, job: JobId, content: &[u8]) -> Arrived {
        let mut incoming = originals.begin(tenant, job).await.unwrap();
        for bytes in content.chunks(3) {
            incoming.write(bytes).await.unwrap();
        }
        incoming.finish().await.unwrap()
    }

    #[tokio::test]
    async fn a_file_gets_its_name_only_when_it_is_kept() {
        let folder = tempfile::tempdir().unwrap();
        let (originals, tenant, job) = (Originals::new(folder.path().into()), TenantId::single(), JobId::new());
        let arrived = arrive(&originals, &tenant, job, b"content").await;
        let document = DocumentId::of(b"content");
        assert_eq!((arrived.document, arrived.bytes), (document, 7));
        assert_eq!(originals.size(&tenant, &document).await.unwrap(), None);
        arrived.keep().await.unwrap();
        assert_eq!(originals.size(&tenant, &document).await.unwrap(), Some(7));
        assert_eq!(names(&originals, &tenant), [document.to_string()]);
        // The same file again, refused: the one that is there stays.
        drop(arrive(&originals, &tenant, JobId::new(), b"content").await);
        let mut broken = originals.begin(&tenant, job).await.unwrap();
        broken.write(b"cont").await.unwrap();
        drop(broken);
        assert_eq!(names(&originals, &tenant), [document.to_string()]);
        originals.sync(&tenant).await.unwrap();
        originals.remove(&tenant).await.unwrap();
        originals.remove(&tenant).await.unwrap();
    }

    #[tokio::test]
    async fn the_next_start_puts_a_crash_right() {
        let folder = tempfile::tempdir().unwrap();
        let (originals, tenant, shelf) = (Originals::new(folder.path().into()), TenantId::single(), Shelf::new());
        let (known, unknown) = (JobId::new(), JobId::new());
        shelf.put_order(&tenant, known).await;
        let leak = |arrived: Arrived| std::mem::forget(arrived);
        leak(arrive(&originals, &tenant, known, b"accepted").await);
        leak(arrive(&originals, &tenant, unknown, b"not accepted").await);
        std::mem::forget(originals.begin(&tenant, known).await.unwrap());
        std::fs::write(originals.of(&tenant).join(".staged-x"), b"").unwrap();
        assert_eq!(names(&originals, &tenant).len(), 4);
        originals.recover(&*shelf).await.unwrap();
        assert_eq!(names(&originals, &tenant), [DocumentId::of(b"accepted").to_string()]);
    }
}
