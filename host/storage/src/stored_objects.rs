//! Uploads, components, blobs and recordings as objects with keys, the same in a data folder and in a bucket, for migrations.

mod small_blobs;

use std::fs::{self, File};
use std::io::{self, ErrorKind, Read as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use sha2::{Digest as _, Sha256};
use tokio::sync::mpsc;
use weir_core::StorageError;

use self::small_blobs::MigratedSmallBlobs;
use crate::blob_file_path::{blob_file_path, key_of_file_name};
use crate::data_folder::{create_private_folder, sync_tree};
use crate::path_with_public_name::PathWithPublicName;
use crate::recording_keys::RECORDINGS;
use crate::s3::S3Bucket;
use crate::tenant_files::remove_file_if_exists;

/// The kinds of objects, which are the first parts of keys.
pub(crate) const OBJECT_KINDS: [&str; 5] = ["uploads", "staged", "components", BLOBS, RECORDINGS];
/// The folders of the data folder that have objects.
const FOLDERS: [&str; 4] = ["uploads", "components", BLOBS, RECORDINGS];
/// The kind of the objects that can be in the database of small blobs.
const BLOBS: &str = "blobs";
/// The folder of staged uploads. Their names have dots where keys have slashes.
const STAGING_FOLDER: &str = "uploads/.staged";
/// The folder of files that are being copied.
const UNFINISHED_FOLDER: &str = "migration.unfinished";
/// Objects of one batch of a listing.
const BATCH_OBJECTS: usize = 1000;

/// A listed object.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct StoredObject {
    /// The key without the prefix of the bucket, such as `blobs/acme/…`.
    pub(crate) key: String,
    pub(crate) bytes: u64,
}

/// A part of a listing.
pub(crate) type ObjectBatch = Result<Vec<StoredObject>, StorageError>;

/// The objects in a data folder, which the caller has locked.
#[derive(Clone)]
pub(crate) struct ObjectFolder {
    data: PathBuf,
    small_blobs: MigratedSmallBlobs,
}

/// Where objects are.
#[derive(Clone)]
pub(crate) enum StoredObjects {
    Folder(ObjectFolder),
    Bucket(Arc<S3Bucket>),
}

impl StoredObjects {
    pub(crate) fn in_folder(data: &Path) -> Self {
        Self::Folder(ObjectFolder {
            data: data.to_owned(),
            small_blobs: MigratedSmallBlobs::in_folder(data),
        })
    }

    /// Lists the objects of a kind, in any order.
    pub(crate) fn list(&self, kind: &'static str) -> mpsc::Receiver<ObjectBatch> {
        match self {
            Self::Folder(folder) => folder.list_in_background(kind),
            Self::Bucket(bucket) => bucket.list_in_background(&format!("{kind}/")),
        }
    }

    /// Returns the key of an object; `None` if there are no objects.
    pub(crate) async fn find_any(&self) -> Result<Option<String>, StorageError> {
        for kind in OBJECT_KINDS {
            let mut listing = self.list(kind);
            while let Some(batch) = listing.recv().await {
                if let Some(object) = batch?.first() {
                    return Ok(Some(object.key.clone()));
                }
            }
        }
        Ok(None)
    }

    /// Returns the size of an object; `None` if it does not exist.
    pub(crate) async fn find_size(&self, key: &str) -> Result<Option<u64>, StorageError> {
        match self {
            Self::Folder(folder) => folder.find_size(key),
            Self::Bucket(bucket) => bucket.find_size(key).await,
        }
    }

    /// Returns the size of an object and the SHA-256 of its bytes; `None` if it does not exist.
    pub(crate) async fn hash_object(&self, key: &str) -> Result<Option<(u64, [u8; 32])>, StorageError> {
        match self {
            Self::Folder(folder) => {
                let (folder, key) = (folder.clone(), key.to_owned());
                run_blocking(move || folder.hash_object(&key)).await
            }
            Self::Bucket(bucket) => bucket.hash_object(key).await,
        }
    }

    /// Copies an object between a folder and a bucket. `number` is unique among the copies that run.
    pub(crate) async fn copy_object_to(
        &self,
        target: &Self,
        key: &str,
        number: u64,
    ) -> Result<(), StorageError> {
        match (self, target) {
            (Self::Folder(folder), Self::Bucket(bucket)) => {
                let (small_blobs, name) = (folder.small_blobs.clone(), key.to_owned());
                let find = move || small_blobs.find_bytes(&name);
                match folder.find_file_size(key)? {
                    Some(_) => bucket.put_from_file(key, &folder.path_of_key(key)).await,
                    None => match run_blocking(find).await? {
                        Some(bytes) => bucket.put_object(key, &bytes).await,
                        None => Err(not_found_error(key)),
                    },
                }
            }
            (Self::Bucket(bucket), Self::Folder(folder)) => {
                let unfinished = folder.data.join(UNFINISHED_FOLDER).join(number.to_string());
                if !bucket.get_to_file(key, &unfinished).await? {
                    return Err(not_found_error(key));
                }
                let (folder, key) = (folder.clone(), key.to_owned());
                run_blocking(move || folder.move_into_place(&unfinished, &key)).await
            }
            _ => Err(StorageError::Failed {
                what: format!("copying object {key}"),
                reason: "both sides are of the same kind".into(),
            }),
        }
    }

    /// Prepares the target of copies.
    pub(crate) fn begin_copies(&self) -> Result<(), StorageError> {
        match self {
            Self::Folder(folder) => {
                folder.remove_unfinished()?;
                create_private_folder(&folder.data.join(UNFINISHED_FOLDER))
            }
            Self::Bucket(_) => Ok(()),
        }
    }

    /// Makes all copies durable.
    pub(crate) async fn finish_copies(&self) -> Result<(), StorageError> {
        match self {
            Self::Folder(folder) => {
                let folder = folder.clone();
                run_blocking(move || folder.finish_copies()).await
            }
            Self::Bucket(_) => Ok(()),
        }
    }
}

impl ObjectFolder {
    fn path_of_key(&self, key: &str) -> PathBuf {
        match key.strip_prefix("staged/") {
            Some(staged) => self.data.join(STAGING_FOLDER).join(staged.replace('/', ".")),
            None => match split_blob(key) {
                Some((tenant, blob)) => {
                    let (folder, nested) = (self.data.join(BLOBS).join(tenant), self.data.join(key));
                    let path = blob_file_path(&folder, blob);
                    if !path.exists() && nested.is_file() {
                        nested
                    } else {
                        path
                    }
                }
                None => self.data.join(key),
            },
        }
    }

    fn named(&self, path: &Path) -> PathWithPublicName {
        PathWithPublicName::from_path_below_root(&self.data, "stored file", path)
    }

    fn list_in_background(&self, kind: &'static str) -> mpsc::Receiver<ObjectBatch> {
        let (sender, receiver) = mpsc::channel(1);
        let folder = self.clone();
        tokio::task::spawn_blocking(move || {
            let root = match kind {
                "staged" => folder.data.join(STAGING_FOLDER),
                kind => folder.data.join(kind),
            };
            let mut batch = Vec::new();
            let listed = folder
                .walk(kind, &root, kind, &mut batch, &sender)
                .and_then(|()| folder.list_small_blobs(kind, &mut batch, &sender));
            let last = match listed {
                Ok(()) => Ok(batch),
                Err(error) => Err(error),
            };
            // The receiver is gone if the migration has failed.
            let _ = sender.blocking_send(last);
        });
        receiver
    }

    /// Sends the objects below a folder, whose key is `key`, in full batches. The rest stays in `batch`.
    fn walk(
        &self,
        kind: &str,
        folder: &Path,
        key: &str,
        batch: &mut Vec<StoredObject>,
        sender: &mpsc::Sender<ObjectBatch>,
    ) -> Result<(), StorageError> {
        let io = |error: io::Error| self.named(folder).io_error(&error);
        let entries = match fs::read_dir(folder) {
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(()),
            entries => entries.map_err(io)?,
        };
        for entry in entries {
            let entry = entry.map_err(io)?;
            let Ok(name) = entry.file_name().into_string() else {
                continue;
            };
            // Folders of unfinished and of staged files.
            if key == kind && name.starts_with('.') {
                continue;
            }
            let metadata = entry.metadata().map_err(io)?;
            let name = match kind {
                "staged" => name.replace('.', "/"),
                BLOBS => key_of_file_name(&name),
                _ => name,
            };
            let key = format!("{key}/{name}");
            // A file of an earlier version does not count beside the one that replaced it.
            if kind == BLOBS && !metadata.is_dir() && self.path_of_key(&key) != entry.path() {
                continue;
            }
            if metadata.is_dir() {
                self.walk(kind, &entry.path(), &key, batch, sender)?;
                continue;
            }
            batch.push(StoredObject {
                key,
                bytes: metadata.len(),
            });
            if batch.len() >= BATCH_OBJECTS && sender.blocking_send(Ok(std::mem::take(batch))).is_err() {
                return Ok(());
            }
        }
        Ok(())
    }

    /// Adds the blobs that are in the database and not in files.
    fn list_small_blobs(
        &self,
        kind: &str,
        batch: &mut Vec<StoredObject>,
        sender: &mpsc::Sender<ObjectBatch>,
    ) -> Result<(), StorageError> {
        if kind != BLOBS {
            return Ok(());
        }
        let mut last = (String::new(), String::new());
        loop {
            let found = self.small_blobs.list_after(&last)?;
            let Some((tenant, key, _)) = found.last() else {
                return Ok(());
            };
            last = (tenant.clone(), key.clone());
            for (tenant, key, bytes) in found {
                let key = format!("{BLOBS}/{tenant}/{key}");
                if self.find_file_size(&key)?.is_none() {
                    batch.push(StoredObject { key, bytes });
                }
            }
            if batch.len() >= BATCH_OBJECTS && sender.blocking_send(Ok(std::mem::take(batch))).is_err() {
                return Ok(());
            }
        }
    }

    fn find_size(&self, key: &str) -> Result<Option<u64>, StorageError> {
        match self.find_file_size(key)? {
            None => self.small_blobs.find_size(key),
            size => Ok(size),
        }
    }

    fn find_file_size(&self, key: &str) -> Result<Option<u64>, StorageError> {
        let path = self.path_of_key(key);
        match fs::metadata(&path) {
            Ok(metadata) => Ok(Some(metadata.len())),
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
            Err(error) => Err(self.named(&path).io_error(&error)),
        }
    }

    fn hash_object(&self, key: &str) -> Result<Option<(u64, [u8; 32])>, StorageError> {
        let path = self.path_of_key(key);
        let mut file = match File::open(&path) {
            Err(error) if error.kind() == ErrorKind::NotFound => {
                let bytes = self.small_blobs.find_bytes(key)?;
                return Ok(bytes.map(|bytes| (bytes.len() as u64, Sha256::digest(&bytes).into())));
            }
            file => file.map_err(|error| self.named(&path).io_error(&error))?,
        };
        let (mut hash, mut bytes, mut buffer) = (Sha256::new(), 0_u64, vec![0_u8; 64 << 10]);
        loop {
            let read = file
                .read(&mut buffer)
                .map_err(|error| self.named(&path).io_error(&error))?;
            if read == 0 {
                return Ok(Some((bytes, hash.finalize().into())));
            }
            bytes += read as u64;
            hash.update(buffer.get(..read).unwrap_or_default());
        }
    }

    fn move_into_place(&self, unfinished: &Path, key: &str) -> Result<(), StorageError> {
        if self.small_blobs.put_file_if_small(key, unfinished)? {
            return remove_file_if_exists(unfinished)
                .map_err(|error| self.named(unfinished).io_error(&error));
        }
        let path = self.path_of_key(key);
        if let Some(folder) = path.parent() {
            create_private_folder(folder)?;
        }
        fs::rename(unfinished, &path)
            .inspect_err(|_| drop(remove_file_if_exists(unfinished)))
            .map_err(|error| self.named(&path).io_error(&error))
    }

    fn remove_unfinished(&self) -> Result<(), StorageError> {
        let unfinished = self.data.join(UNFINISHED_FOLDER);
        match fs::remove_dir_all(&unfinished) {
            Err(error) if error.kind() != ErrorKind::NotFound => {
                Err(self.named(&unfinished).io_error(&error))
            }
            _ => Ok(()),
        }
    }

    fn finish_copies(&self) -> Result<(), StorageError> {
        self.remove_unfinished()?;
        for folder in FOLDERS {
            let folder = self.data.join(folder);
            if folder.exists() {
                sync_tree(&folder).map_err(|error| self.named(&folder).io_error(&error))?;
            }
        }
        self.small_blobs.flush()
    }
}

/// Returns the tenant and the key of the blob; `None` if the object is no blob.
fn split_blob(object: &str) -> Option<(&str, &str)> {
    object.strip_prefix("blobs/")?.split_once('/')
}

fn not_found_error(key: &str) -> StorageError {
    StorageError::NotFound {
        what: format!("object {key}"),
    }
}

async fn run_blocking<R: Send + 'static>(
    work: impl FnOnce() -> Result<R, StorageError> + Send + 'static,
) -> Result<R, StorageError> {
    let done = tokio::task::spawn_blocking(work).await;
    done.map_err(|error| StorageError::Failed {
        what: "copying stored files".into(),
        reason: error.to_string(),
    })?
}
