//! Flushing: every blob that was put survives a power cut, or the flush fails.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File};
use std::hash::RandomState;
use std::io;
use std::path::{Path, PathBuf};
use std::thread;

use parking_lot::Mutex;
use weir_core::{StorageError, TenantId};

use super::unsynced::Written;
use super::{Inner, is_no_blob, located};

/// Files synced at once.
const SYNCS: usize = 8;

impl Inner {
    pub(super) fn flush(&self) -> Result<(), StorageError> {
        let _alone = self.flushing.lock();
        let mut files = std::mem::take(&mut self.unsynced.lock().files);
        if files.is_empty() {
            return Ok(());
        }
        let synced = self.sync(&mut files);
        if synced.is_err() {
            // The next flush owes these still, but for those that were put again meanwhile.
            let mut unsynced = self.unsynced.lock();
            for (path, written) in files {
                unsynced.files.entry(path).or_insert(written);
            }
        }
        synced
    }

    fn sync(&self, files: &mut BTreeMap<PathBuf, Written>) -> Result<(), StorageError> {
        let hasher = self.unsynced.lock().hasher();
        let mut owed: Vec<(&PathBuf, &mut Written)> = files.iter_mut().collect();
        side_by_side(&mut owed, |(path, written)| {
            let Err(error) = written.sync(&*self.sync) else {
                return Ok(());
            };
            let location = located(&self.root, path);
            tracing::warn!(path = %path.display(), %error, "a blob could not be synced and is written again");
            self.write_again(path, written, &hasher)
                .map_err(|e| location.io(&e))
        })?;
        let folders: BTreeSet<PathBuf> = files
            .keys()
            .flat_map(|path| {
                let above = path.ancestors().skip(1);
                above.take_while(|folder| folder.starts_with(&self.root))
            })
            .map(Path::to_owned)
            .collect();
        let (mut folders, damaged) = (Vec::from_iter(folders), Mutex::new(Vec::new()));
        let synced = side_by_side(&mut folders, |folder| {
            match File::open(&*folder).and_then(|opened| (self.sync)(&opened)) {
                // Deleted since.
                Err(e) if !is_no_blob(&e) => {
                    damaged.lock().push(folder.clone());
                    Err(located(&self.root, folder).io(&e))
                }
                _ => Ok(()),
            }
        });
        // An entry that was lost with its folder is made anew when its file is written again.
        for folder in damaged.into_inner() {
            let below = files.iter_mut().filter(|(path, _)| path.starts_with(&folder));
            below.for_each(|(_, written)| written.is_damaged = true);
        }
        synced
    }

    /// Writes a blob whose sync failed to another file, and syncs that; one that was replaced or deleted since is left as it is.
    fn write_again(&self, path: &Path, written: &mut Written, hasher: &RandomState) -> io::Result<()> {
        let Some((tenant, unit)) = self.owner(path) else {
            return Ok(());
        };
        if !written.is_at(path)? {
            return Ok(());
        }
        let (unfinished, file) = self.write(&written.bytes(hasher)?)?;
        let replaced = (self.sync)(&file).and_then(|()| {
            // Puts and deletes of this blob wait.
            self.kept.change(&tenant, &unit, || {
                if written.is_at(path)? {
                    fs::rename(&unfinished, path)?;
                }
                Ok(0)
            })
        });
        // It is not there any more if it was renamed.
        let _ = fs::remove_file(&unfinished);
        replaced.map(|()| written.replace(file))
    }

    /// Whose blob a path is, and the unit that it is counted in.
    fn owner(&self, path: &Path) -> Option<(TenantId, PathBuf)> {
        let mut parts = path.strip_prefix(&self.root).ok()?.components();
        let tenant: TenantId = parts.next()?.as_os_str().to_str()?.parse().ok()?;
        let unit = self.tenant(&tenant).join(parts.next()?);
        Some((tenant, unit))
    }
}

/// Does the work for several at once: the file system's journal writes what waits for it in one go. All are tried, and the first
/// error is the answer.
fn side_by_side<T: Send>(
    all: &mut [T],
    work: impl Fn(&mut T) -> Result<(), StorageError> + Sync,
) -> Result<(), StorageError> {
    let work_all = |some: &mut [T]| {
        let mut outcome = Ok(());
        for one in some {
            outcome = outcome.and(work(one));
        }
        outcome
    };
    thread::scope(|scope| {
        let share = all.len().div_ceil(SYNCS).max(1);
        let work_all = &work_all;
        let working: Vec<_> = all
            .chunks_mut(share)
            .map(|some| thread::Builder::new().spawn_scoped(scope, move || work_all(some)))
            .collect();
        working.into_iter().try_for_each(|thread| {
            let thread = thread.map_err(|e| StorageError::io("flushing blobs", &e))?;
            thread.join().unwrap_or_else(|_| {
                Err(StorageError::Failed {
                    what: "flushing blobs".into(),
                    reason: "a thread panicked".into(),
                })
            })
        })
    })
}
