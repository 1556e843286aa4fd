//! The bytes that each tenant stores in uploads, blobs and components.
//!
//! Quotas need the number before every upload, so every change of a file updates it. The ledger saves the numbers with its commits. A
//! killed process may have changed files since the last commit. So a saved number is exact at the next start only if the last process
//! closed the folder. Otherwise the tenant is recounted in the background, and the saved number applies until then.
//!
//! A recount goes unit by unit. A unit is an upload, the folder of a document's blobs, or a component. A lock excludes changes in a unit
//! while it is counted. A change in a counted unit is added to the new number. A change in a unit that is not counted yet is left to the
//! count, and the unit is remembered, because the folder listing may miss a new unit.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::fs;
use std::hash::{BuildHasher, RandomState};
use std::io::{self, ErrorKind};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};

use parking_lot::{Mutex, RwLock};
use weir_core::TenantId;

/// Locks that the units share.
const UNIT_LOCK_COUNT: usize = 64;

/// The bytes that all tenants store.
pub(crate) struct StorageUsage {
    tenants: Mutex<HashMap<TenantId, TenantUsage>>,
    unit_locks: [Mutex<()>; UNIT_LOCK_COUNT],
    hasher: RandomState,
    is_open: RwLock<bool>,
}

#[derive(Default)]
struct TenantUsage {
    bytes: i64,
    /// The number differs from the saved one.
    is_unsaved: bool,
    recount: Option<RecountProgress>,
}

#[derive(Default)]
struct RecountProgress {
    bytes: i64,
    /// Hashes of the counted units.
    counted_units: HashSet<u64>,
    /// Units that changed before they were counted.
    changed_units: HashSet<PathBuf>,
}

impl StorageUsage {
    /// Starts with the saved numbers.
    pub(crate) fn from_saved(written: impl IntoIterator<Item = (TenantId, u64)>) -> Self {
        let tallies = written.into_iter().map(|(tenant, bytes)| {
            let bytes = i64::try_from(bytes).unwrap_or(i64::MAX);
            (
                tenant,
                TenantUsage {
                    bytes,
                    ..TenantUsage::default()
                },
            )
        });
        Self {
            tenants: Mutex::new(tallies.collect()),
            unit_locks: std::array::from_fn(|_| Mutex::new(())),
            hasher: RandomState::new(),
            is_open: RwLock::new(true),
        }
    }

    /// Lists the tenants that have a number.
    pub(crate) fn list_tenants(&self) -> BTreeSet<TenantId> {
        self.tenants.lock().keys().cloned().collect()
    }

    /// Returns the bytes that a tenant stores.
    pub(crate) fn stored_bytes(&self, tenant: &TenantId) -> u64 {
        let bytes = self.tenants.lock().get(tenant).map_or(0, |tally| tally.bytes);
        u64::try_from(bytes).unwrap_or(0)
    }

    /// Runs `change`, which changes files of one unit and returns by how many bytes they grew. If it fails it must leave the files as
    /// they were.
    pub(crate) fn change_files(
        &self,
        tenant: &TenantId,
        unit: &Path,
        change: impl FnOnce() -> io::Result<i64>,
    ) -> io::Result<()> {
        let open = self.is_open.read();
        if !*open {
            return Err(io::Error::other("is closed"));
        }
        let hash = self.hasher.hash_one(unit);
        let _alone = self.unit_lock(hash).map(Mutex::lock);
        let grown = change()?;
        let mut tallies = self.tenants.lock();
        let tally = tallies.entry(tenant.clone()).or_default();
        tally.bytes = tally.bytes.saturating_add(grown);
        tally.is_unsaved |= grown != 0;
        if let Some(recount) = &mut tally.recount {
            if recount.counted_units.contains(&hash) {
                recount.bytes = recount.bytes.saturating_add(grown);
            } else {
                recount.changed_units.insert(unit.to_owned());
            }
        }
        Ok(())
    }

    /// Begins a tenant's recount. Until [`StorageUsage::run_recount`] has finished, the old number applies.
    pub(crate) fn begin_recount(&self, tenant: &TenantId) {
        let mut tallies = self.tenants.lock();
        tallies.entry(tenant.clone()).or_default().recount = Some(RecountProgress::default());
    }

    /// Counts the units in `folders`, which are all folders of the tenant. Returns early once `stop` is set; the number is not exact
    /// then.
    pub(crate) fn run_recount(
        &self,
        tenant: &TenantId,
        folders: &[PathBuf],
        stop: &AtomicBool,
    ) -> io::Result<()> {
        for folder in folders {
            let units = match fs::read_dir(folder) {
                Err(e) if e.kind() == ErrorKind::NotFound => continue,
                units => units?,
            };
            for unit in units {
                if stop.load(Ordering::Relaxed) {
                    return Ok(());
                }
                self.count_unit(tenant, &unit?.path())?;
            }
        }
        // Wait for changes under way. A unit whose removal is under way is no longer listed. If its removal were reported after the
        // recount, it would be subtracted a second time.
        self.unit_locks.iter().for_each(|unit| drop(unit.lock()));
        while let Some(unit) = self.next_changed_unit_or_finish(tenant) {
            self.count_unit(tenant, &unit)?;
        }
        Ok(())
    }

    fn count_unit(&self, tenant: &TenantId, unit: &Path) -> io::Result<()> {
        let hash = self.hasher.hash_one(unit);
        let _alone = self.unit_lock(hash).map(Mutex::lock);
        let bytes = size_on_disk(unit)?;
        let mut tallies = self.tenants.lock();
        if let Some(recount) = tallies.get_mut(tenant).and_then(|tally| tally.recount.as_mut()) {
            recount.changed_units.remove(unit);
            if recount.counted_units.insert(hash) {
                recount.bytes = recount.bytes.saturating_add(bytes);
            }
        }
        Ok(())
    }

    /// Returns a unit that still has to be counted. If there is none, finishes the recount and applies its number.
    fn next_changed_unit_or_finish(&self, tenant: &TenantId) -> Option<PathBuf> {
        let mut tallies = self.tenants.lock();
        let tally = tallies.get_mut(tenant)?;
        let recount = tally.recount.take()?;
        if let Some(left) = recount.changed_units.iter().next().cloned() {
            tally.recount = Some(recount);
            return Some(left);
        }
        tally.is_unsaved |= tally.bytes != recount.bytes;
        tally.bytes = recount.bytes;
        None
    }

    /// Takes the numbers that changed since the last call. The caller saves them, or returns them with
    /// [`StorageUsage::mark_unsaved`].
    pub(crate) fn take_unsaved(&self) -> Vec<(TenantId, u64)> {
        let mut tallies = self.tenants.lock();
        let unwritten = tallies.iter_mut().filter_map(|(tenant, tally)| {
            let bytes = u64::try_from(tally.bytes).unwrap_or(0);
            std::mem::take(&mut tally.is_unsaved).then(|| (tenant.clone(), bytes))
        });
        unwritten.collect()
    }

    /// Marks the numbers of these tenants as not saved.
    pub(crate) fn mark_unsaved(&self, tenants: &[(TenantId, u64)]) {
        let mut tallies = self.tenants.lock();
        for (tenant, _) in tenants {
            if let Some(tally) = tallies.get_mut(tenant) {
                tally.is_unsaved = true;
            }
        }
    }

    /// Waits for changes under way and refuses later ones. Returns the last numbers, each with whether it is exact.
    pub(crate) fn close(&self) -> Vec<(TenantId, u64, bool)> {
        *self.is_open.write() = false;
        let tallies = self.tenants.lock();
        let last = tallies.iter().map(|(tenant, tally)| {
            let bytes = u64::try_from(tally.bytes).unwrap_or(0);
            (tenant.clone(), bytes, tally.recount.is_none())
        });
        last.collect()
    }

    fn unit_lock(&self, hash: u64) -> Option<&Mutex<()>> {
        self.unit_locks
            .get(usize::try_from(hash).unwrap_or(0) % UNIT_LOCK_COUNT)
    }
}

/// Returns the bytes of a file, or of all files below a folder; 0 if it does not exist.
pub(crate) fn size_on_disk(path: &Path) -> io::Result<i64> {
    let data = match fs::symlink_metadata(path) {
        Err(e) if matches!(e.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory) => return Ok(0),
        data => data?,
    };
    if !data.is_dir() {
        return Ok(i64::try_from(data.len()).unwrap_or(i64::MAX));
    }
    let mut bytes = 0_i64;
    for entry in fs::read_dir(path)? {
        bytes = bytes.saturating_add(size_on_disk(&entry?.path())?);
    }
    Ok(bytes)
}

#[cfg(test)]
mod tests;
