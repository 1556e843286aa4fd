//! How many bytes each tenant keeps in originals, blobs and components.
//!
//! Quotas ask for it before every upload, so it is a number that every change of a file corrects, and no walk through the
//! files. The number is written down with the ledger's commits, which would be made anyway. A process that is killed may
//! have changed files since the last of them. So a number is only believed at the next start if its holder closed the
//! folder; otherwise the old one stands in while the tenant is recounted in the background, beside all other work.
//!
//! A recount goes unit by unit, a unit being a document's original, the folder of its blobs or a component. Changes in one unit and its
//! count exclude each other, those of different units do not. A change in a unit that has been counted is added to the new
//! number. One that comes before its unit's turn is left to the count; the unit is remembered then, for a unit made while
//! the folder is being read may not be listed.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::fs;
use std::hash::{BuildHasher, RandomState};
use std::io::{self, ErrorKind};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};

use parking_lot::{Mutex, RwLock};
use weir_core::TenantId;

/// Units changed at once; two that share a lock wait for each other without need.
const LOCKS: usize = 64;

/// What all tenants keep.
pub(crate) struct Kept {
    tallies: Mutex<HashMap<TenantId, Tally>>,
    units: [Mutex<()>; LOCKS],
    hasher: RandomState,
    open: RwLock<bool>,
}

#[derive(Default)]
struct Tally {
    bytes: i64,
    /// It differs from what is written down.
    unwritten: bool,
    recount: Option<Recount>,
}

#[derive(Default)]
struct Recount {
    bytes: i64,
    /// Hashes of the units that are counted.
    counted: HashSet<u64>,
    /// Units that were changed before their turn.
    changed: HashSet<PathBuf>,
}

impl Kept {
    /// With what was written down.
    pub(crate) fn new(written: impl IntoIterator<Item = (TenantId, u64)>) -> Self {
        let tallies = written.into_iter().map(|(tenant, bytes)| {
            let bytes = i64::try_from(bytes).unwrap_or(i64::MAX);
            (
                tenant,
                Tally {
                    bytes,
                    ..Tally::default()
                },
            )
        });
        Self {
            tallies: Mutex::new(tallies.collect()),
            units: std::array::from_fn(|_| Mutex::new(())),
            hasher: RandomState::new(),
            open: RwLock::new(true),
        }
    }

    /// All tenants that have a number.
    pub(crate) fn tenants(&self) -> BTreeSet<TenantId> {
        self.tallies.lock().keys().cloned().collect()
    }

    /// Bytes a tenant keeps.
    pub(crate) fn bytes(&self, tenant: &TenantId) -> u64 {
        let bytes = self.tallies.lock().get(tenant).map_or(0, |tally| tally.bytes);
        u64::try_from(bytes).unwrap_or(0)
    }

    /// Has `change` done to files of one unit. It says by how many bytes they grew; if it fails they must be as before.
    pub(crate) fn change(
        &self,
        tenant: &TenantId,
        unit: &Path,
        change: impl FnOnce() -> io::Result<i64>,
    ) -> io::Result<()> {
        let open = self.open.read();
        if !*open {
            return Err(io::Error::other("is closed"));
        }
        let hash = self.hasher.hash_one(unit);
        let _alone = self.unit(hash).map(Mutex::lock);
        let grown = change()?;
        let mut tallies = self.tallies.lock();
        let tally = tallies.entry(tenant.clone()).or_default();
        tally.bytes = tally.bytes.saturating_add(grown);
        tally.unwritten |= grown != 0;
        if let Some(recount) = &mut tally.recount {
            if recount.counted.contains(&hash) {
                recount.bytes = recount.bytes.saturating_add(grown);
            } else {
                recount.changed.insert(unit.to_owned());
            }
        }
        Ok(())
    }

    /// Begins a tenant's recount. Until [`Kept::recount`] has ended it, the old number stands.
    pub(crate) fn doubt(&self, tenant: &TenantId) {
        let mut tallies = self.tallies.lock();
        tallies.entry(tenant.clone()).or_default().recount = Some(Recount::default());
    }

    /// Counts the units in `folders`, which are all that the tenant has; gives up, still in doubt, once `stop` is set.
    pub(crate) fn recount(
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
                self.count(tenant, &unit?.path())?;
            }
        }
        // A unit that was just being removed is not listed any more, and its removal may not have been told yet: told after the
        // end it would be taken off a second time.
        self.units.iter().for_each(|unit| drop(unit.lock()));
        while let Some(unit) = self.left_or_end(tenant) {
            self.count(tenant, &unit)?;
        }
        Ok(())
    }

    fn count(&self, tenant: &TenantId, unit: &Path) -> io::Result<()> {
        let hash = self.hasher.hash_one(unit);
        let _alone = self.unit(hash).map(Mutex::lock);
        let bytes = size(unit)?;
        let mut tallies = self.tallies.lock();
        if let Some(recount) = tallies.get_mut(tenant).and_then(|tally| tally.recount.as_mut()) {
            recount.changed.remove(unit);
            if recount.counted.insert(hash) {
                recount.bytes = recount.bytes.saturating_add(bytes);
            }
        }
        Ok(())
    }

    /// A unit that is still to be counted; if there is none, the recount has ended and its number counts.
    fn left_or_end(&self, tenant: &TenantId) -> Option<PathBuf> {
        let mut tallies = self.tallies.lock();
        let tally = tallies.get_mut(tenant)?;
        let recount = tally.recount.take()?;
        if let Some(left) = recount.changed.iter().next().cloned() {
            tally.recount = Some(recount);
            return Some(left);
        }
        tally.unwritten |= tally.bytes != recount.bytes;
        tally.bytes = recount.bytes;
        None
    }

    /// The numbers that have changed since they were last taken. They are to be written down, or handed back by
    /// [`Kept::owe`].
    pub(crate) fn take_unwritten(&self) -> Vec<(TenantId, u64)> {
        let mut tallies = self.tallies.lock();
        let unwritten = tallies.iter_mut().filter_map(|(tenant, tally)| {
            let bytes = u64::try_from(tally.bytes).unwrap_or(0);
            std::mem::take(&mut tally.unwritten).then(|| (tenant.clone(), bytes))
        });
        unwritten.collect()
    }

    /// These have not been written down after all.
    pub(crate) fn owe(&self, tenants: &[(TenantId, u64)]) {
        let mut tallies = self.tallies.lock();
        for (tenant, _) in tenants {
            if let Some(tally) = tallies.get_mut(tenant) {
                tally.unwritten = true;
            }
        }
    }

    /// Ends all changes, waiting for those under way. The last numbers, each with whether it is beyond doubt.
    pub(crate) fn close(&self) -> Vec<(TenantId, u64, bool)> {
        *self.open.write() = false;
        let tallies = self.tallies.lock();
        let last = tallies.iter().map(|(tenant, tally)| {
            let bytes = u64::try_from(tally.bytes).unwrap_or(0);
            (tenant.clone(), bytes, tally.recount.is_none())
        });
        last.collect()
    }

    fn unit(&self, hash: u64) -> Option<&Mutex<()>> {
        self.units.get(usize::try_from(hash).unwrap_or(0) % LOCKS)
    }
}

/// Bytes of a file, or of all files below a folder; 0 if it is not there.
pub(crate) fn size(path: &Path) -> io::Result<i64> {
    let data = match fs::symlink_metadata(path) {
        Err(e) if matches!(e.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory) => return Ok(0),
        data => data?,
    };
    if !data.is_dir() {
        return Ok(i64::try_from(data.len()).unwrap_or(i64::MAX));
    }
    let mut bytes = 0_i64;
    for entry in fs::read_dir(path)? {
        bytes = bytes.saturating_add(size(&entry?.path())?);
    }
    Ok(bytes)
}

#[cfg(test)]
mod tests;
