//! The paths whose files change, with the bytes that the ledger does not have yet.
//!
//! The ledger has a row for each path: its bytes, and whether its files may have changed since. Before the first change of a path a
//! transaction marks the row as changing. The following transactions of the ledger add the bytes by which the files grew. A path that did
//! not change for [`SETTLE_DELAY`] is settled, which removes the mark. If the process is killed, the next start measures the marked paths,
//! which are those of the last seconds.

use std::collections::HashMap;
use std::io;
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use weir_core::TenantId;

/// Time without a change after which a path is settled. A document's pages are written at shorter intervals.
const SETTLE_DELAY: Duration = Duration::from_secs(30);

/// The paths that changed, of all tenants.
#[derive(Default)]
pub(crate) struct ChangedPaths(Mutex<ChangedPathsState>);

#[derive(Default)]
struct ChangedPathsState {
    paths: HashMap<TenantId, HashMap<String, PathState>>,
    is_closed: bool,
}

struct PathState {
    /// Bytes by which the files grew since the last transaction.
    unsaved_bytes: i64,
    /// The ledger has the path marked as changing.
    is_marked: bool,
    /// No file can be measured after a crash, so the row never has a mark.
    is_never_marked: bool,
    changed_at: Instant,
}

/// A change of a path's row that the next transaction writes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct PathRowUpdate {
    pub(crate) tenant: TenantId,
    pub(crate) path: String,
    /// Mark the path as changing.
    pub(crate) sets_changing_mark: bool,
    pub(crate) added_bytes: i64,
    /// Remove the mark.
    pub(crate) clears_changing_mark: bool,
}

impl ChangedPaths {
    /// Adds paths that are about to change. Returns whether the ledger has to mark any of them first.
    pub(crate) fn add_changing_paths(
        &self,
        tenant: &TenantId,
        paths: impl IntoIterator<Item = String>,
    ) -> bool {
        let mut state = self.0.lock();
        let known = state.paths.entry(tenant.clone()).or_default();
        let changed_at = Instant::now();
        paths.into_iter().fold(false, |needs_mark, path| {
            let state = known.entry(path).or_insert(PathState {
                unsaved_bytes: 0,
                is_marked: false,
                is_never_marked: false,
                changed_at,
            });
            state.changed_at = changed_at;
            needs_mark || !state.is_marked
        })
    }

    /// Adds to the bytes of a path that has no file on this machine. It needs no mark.
    pub(crate) fn add_bytes_without_mark(&self, tenant: &TenantId, path: &str, bytes: i64) {
        let mut state = self.0.lock();
        let paths = state.paths.entry(tenant.clone()).or_default();
        let changed_at = Instant::now();
        let path = paths.entry(path.to_owned()).or_insert(PathState {
            unsaved_bytes: 0,
            is_marked: true,
            is_never_marked: true,
            changed_at,
        });
        path.unsaved_bytes = path.unsaved_bytes.saturating_add(bytes);
        path.changed_at = changed_at;
    }

    /// Returns whether a path waits for its mark.
    pub(crate) fn has_unmarked_path(&self) -> bool {
        let state = self.0.lock();
        state
            .paths
            .values()
            .flat_map(HashMap::values)
            .any(|path| !path.is_marked)
    }

    /// Returns whether a transaction would write anything.
    pub(crate) fn has_pending_update(&self) -> bool {
        !self.0.lock().paths.is_empty()
    }

    /// Runs `change`, which changes files at one path and returns by how many bytes they grew. If it fails it must leave the files as
    /// they were. Returns `change` unused if the ledger has not marked the path.
    ///
    /// All changes of all paths exclude each other, so `change` must be as short as a rename.
    pub(crate) fn run_change_if_marked<F>(
        &self,
        tenant: &TenantId,
        path: &str,
        change: F,
    ) -> Result<io::Result<()>, F>
    where
        F: FnOnce() -> io::Result<i64>,
    {
        let mut state = self.0.lock();
        if state.is_closed {
            return Ok(Err(io::Error::other("the ledger is already closed")));
        }
        let known = state.paths.get_mut(tenant).and_then(|paths| paths.get_mut(path));
        let Some(path) = known.filter(|path| path.is_marked) else {
            return Err(change);
        };
        Ok(change().map(|grown| {
            path.unsaved_bytes = path.unsaved_bytes.saturating_add(grown);
            path.changed_at = Instant::now();
        }))
    }

    /// Runs `work` under the lock that every change of stored files takes.
    pub(crate) fn run_while_no_file_changes<R>(&self, work: impl FnOnce() -> R) -> R {
        let _state = self.0.lock();
        work()
    }

    /// Returns the bytes of a tenant that the ledger does not have yet. Removed bytes count until the ledger has their removal.
    pub(crate) fn count_unsaved_bytes(&self, tenant: &TenantId) -> u64 {
        let state = self.0.lock();
        let paths = state.paths.get(tenant).into_iter().flat_map(HashMap::values);
        paths
            .map(|path| u64::try_from(path.unsaved_bytes).unwrap_or(0))
            .fold(0, u64::saturating_add)
    }

    /// Returns the updates for a transaction that begins now. Paths that it settles are removed, so their next change marks
    /// them again.
    pub(crate) fn take_pending_updates(&self) -> Vec<PathRowUpdate> {
        self.take_pending_updates_at_time(Instant::now())
    }

    fn take_pending_updates_at_time(&self, now: Instant) -> Vec<PathRowUpdate> {
        let mut state = self.0.lock();
        let is_closed = state.is_closed;
        let mut updates = Vec::new();
        state.paths.retain(|tenant, paths| {
            paths.retain(|path, state| {
                let is_unchanged = state.unsaved_bytes == 0
                    && now.saturating_duration_since(state.changed_at) >= SETTLE_DELAY;
                let is_settled = is_closed || is_unchanged;
                if is_settled || !state.is_marked || state.unsaved_bytes != 0 {
                    updates.push(PathRowUpdate {
                        tenant: tenant.clone(),
                        path: path.clone(),
                        sets_changing_mark: !state.is_marked,
                        added_bytes: state.unsaved_bytes,
                        clears_changing_mark: is_settled || state.is_never_marked,
                    });
                }
                !is_settled
            });
            !paths.is_empty()
        });
        updates
    }

    /// Records that a transaction has written these updates. No other transaction may have run since they were taken.
    pub(crate) fn mark_updates_saved(&self, updates: &[PathRowUpdate]) {
        let mut state = self.0.lock();
        for update in updates {
            let paths = state.paths.get_mut(&update.tenant);
            if let Some(path) = paths.and_then(|paths| paths.get_mut(&update.path)) {
                path.unsaved_bytes = path.unsaved_bytes.saturating_sub(update.added_bytes);
                path.is_marked = true;
            }
        }
    }

    /// Waits for the change under way and refuses later ones. The next updates settle all paths.
    pub(crate) fn refuse_later_changes(&self) {
        self.0.lock().is_closed = true;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn update(path: &str, is_mark: bool, added_bytes: i64, is_settled: bool) -> PathRowUpdate {
        PathRowUpdate {
            tenant: TenantId::default_tenant(),
            path: path.into(),
            sets_changing_mark: is_mark,
            added_bytes,
            clears_changing_mark: is_settled,
        }
    }

    /// Returns paths of which the ledger has marked `marked`.
    fn paths_with_mark(marked: &str) -> ChangedPaths {
        let paths = ChangedPaths::default();
        assert!(paths.add_changing_paths(&TenantId::default_tenant(), [marked.to_owned()]));
        let updates = paths.take_pending_updates();
        assert_eq!(updates, [update(marked, true, 0, false)]);
        paths.mark_updates_saved(&updates);
        paths
    }

    fn grow(paths: &ChangedPaths, path: &str, bytes: i64) {
        let changed = paths.run_change_if_marked(&TenantId::default_tenant(), path, || Ok(bytes));
        changed.ok().unwrap().unwrap();
    }

    #[test]
    fn change_needs_a_mark_in_the_ledger() {
        let (paths, t) = (ChangedPaths::default(), TenantId::default_tenant());
        assert!(
            paths
                .run_change_if_marked(&t, "a", || panic!("not marked"))
                .is_err()
        );
        paths.add_changing_paths(&t, ["a".to_owned()]);
        assert!(paths.has_unmarked_path());
        assert!(
            paths
                .run_change_if_marked(&t, "a", || panic!("not marked"))
                .is_err()
        );
        // The transaction failed, so nothing is marked.
        paths.take_pending_updates();
        assert!(
            paths
                .run_change_if_marked(&t, "a", || panic!("not marked"))
                .is_err()
        );
        paths.mark_updates_saved(&paths.take_pending_updates());
        assert!(!paths.has_unmarked_path());
        grow(&paths, "a", 3);
    }

    #[test]
    fn bytes_stay_unsaved_until_a_transaction_has_them() {
        let (paths, t) = (paths_with_mark("a"), TenantId::default_tenant());
        grow(&paths, "a", 3);
        let updates = paths.take_pending_updates();
        assert_eq!(updates, [update("a", false, 3, false)]);
        assert_eq!(paths.count_unsaved_bytes(&t), 3);
        // Another change during the transaction.
        grow(&paths, "a", 4);
        paths.mark_updates_saved(&updates);
        assert_eq!(paths.count_unsaved_bytes(&t), 4);
        grow(&paths, "a", -10);
        assert_eq!(paths.count_unsaved_bytes(&t), 0);
        assert_eq!(paths.take_pending_updates(), [update("a", false, -6, false)]);
    }

    #[test]
    fn unchanged_path_is_settled_and_needs_a_new_mark() {
        let (paths, t) = (paths_with_mark("a"), TenantId::default_tenant());
        grow(&paths, "a", 3);
        let later = Instant::now() + SETTLE_DELAY;
        let updates = paths.take_pending_updates_at_time(later);
        assert_eq!(updates, [update("a", false, 3, false)]);
        paths.mark_updates_saved(&updates);
        assert_eq!(paths.take_pending_updates(), []);
        assert_eq!(
            paths.take_pending_updates_at_time(later),
            [update("a", false, 0, true)]
        );
        assert!(
            paths
                .run_change_if_marked(&t, "a", || panic!("not marked"))
                .is_err()
        );
        assert!(paths.add_changing_paths(&t, ["a".to_owned()]));
    }

    #[test]
    fn bytes_without_a_file_never_have_a_mark() {
        let (paths, t) = (ChangedPaths::default(), TenantId::default_tenant());
        for bytes in [3, 4] {
            paths.add_bytes_without_mark(&t, "a", bytes);
        }
        assert!(!paths.has_unmarked_path());
        assert_eq!(paths.count_unsaved_bytes(&t), 7);
        let updates = paths.take_pending_updates();
        assert_eq!(updates, [update("a", false, 7, true)]);
        paths.mark_updates_saved(&updates);
        assert_eq!(paths.take_pending_updates(), []);
        paths.add_bytes_without_mark(&t, "a", -7);
        assert_eq!(paths.take_pending_updates(), [update("a", false, -7, true)]);
    }

    #[test]
    fn change_after_close_fails() {
        let (paths, t) = (paths_with_mark("a"), TenantId::default_tenant());
        grow(&paths, "a", 3);
        paths.refuse_later_changes();
        let refused = paths.run_change_if_marked(&t, "a", || panic!("the change ran after close"));
        assert_eq!(
            refused.ok().unwrap().unwrap_err().to_string(),
            "the ledger is already closed"
        );
        assert_eq!(paths.take_pending_updates(), [update("a", false, 3, true)]);
        assert_eq!(paths.take_pending_updates(), []);
    }
}
