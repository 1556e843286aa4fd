//! The parts of an open index that its writer and its searches share.

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::Arc;

use parking_lot::Mutex;
use weir_core::search::{SearchHit, SearchQuery};
use weir_core::{StorageError, TenantId};

use super::code_index::CodeIndexes;
use super::hybrid_search::{MAX_SCANNED_PASSAGES, SearchedIndex};
use super::passage_database::{Format, PassageDatabase, TenantNumber};
use super::word_index::WordIndex;
use crate::data_folder::FolderLock;
use crate::sqlite_file::IdleReaders;
use crate::vectors::passage_filter::PassageFilter;
use crate::vectors::words::WordSplitter;

/// An open index.
pub(super) struct SharedIndex {
    pub(super) folder: PathBuf,
    pub(super) format: Format,
    pub(super) words: WordIndex,
    pub(super) codes: CodeIndexes,
    pub(super) splitter: WordSplitter,
    pub(super) tenants: Mutex<HashMap<TenantId, TenantState>>,
    pub(super) idle_readers: IdleReaders<PassageDatabase>,
    pub(super) _lock: Arc<FolderLock>,
}

/// A tenant in the index.
#[derive(Debug, Clone, Copy)]
pub(super) struct TenantState {
    pub(super) number: TenantNumber,
    pub(super) passages: u64,
    /// The derived indexes do not have all changes of the tenant.
    pub(super) has_unindexed_changes: bool,
}

impl SharedIndex {
    pub(super) fn find_tenant(&self, tenant: &TenantId) -> Option<TenantState> {
        self.tenants.lock().get(tenant).copied()
    }

    /// Returns whether a search of the tenant needs nothing of the writer.
    pub(super) fn is_ready_for_search(&self, tenant: &TenantId) -> bool {
        self.find_tenant(tenant).is_none_or(|state| {
            !state.has_unindexed_changes
                && (state.passages <= MAX_SCANNED_PASSAGES || self.codes.find_open(state.number).is_some())
        })
    }

    /// Changes the number of a tenant's passages and marks the tenant as changed.
    pub(super) fn change_tenant(
        &self,
        tenant: &TenantId,
        number: TenantNumber,
        change: impl FnOnce(&mut u64),
    ) {
        let mut tenants = self.tenants.lock();
        let state = tenants.entry(tenant.clone()).or_insert(TenantState {
            number,
            passages: 0,
            has_unindexed_changes: true,
        });
        state.has_unindexed_changes = true;
        change(&mut state.passages);
    }

    pub(super) fn mark_all_tenants_indexed(&self) {
        for state in self.tenants.lock().values_mut() {
            state.has_unindexed_changes = false;
        }
    }

    /// Returns the tenants without passages.
    pub(super) fn list_empty_tenants(&self) -> Vec<(TenantId, TenantNumber)> {
        let tenants = self.tenants.lock();
        let empty = tenants.iter().filter(|(_, state)| state.passages == 0);
        empty
            .map(|(tenant, state)| (tenant.clone(), state.number))
            .collect()
    }

    /// Runs `work` with a connection for reading. Blocks on the disk.
    pub(super) fn read<R>(
        &self,
        work: impl FnOnce(&PassageDatabase) -> Result<R, StorageError>,
    ) -> Result<R, StorageError> {
        let open = || PassageDatabase::open_for_reading(&self.folder);
        self.idle_readers.run(open, work)
    }

    /// Returns the hits, best first. Blocks on the disk.
    pub(super) fn search(
        &self,
        tenant: &TenantId,
        query: &SearchQuery,
    ) -> Result<Vec<SearchHit>, StorageError> {
        let Some(state) = self.find_tenant(tenant) else {
            return Ok(Vec::new());
        };
        let codes = (state.passages > MAX_SCANNED_PASSAGES)
            .then(|| self.codes.find_open(state.number))
            .flatten();
        self.read(|database| {
            let index = SearchedIndex {
                database,
                words: &self.words,
                codes: codes.as_deref(),
                splitter: &self.splitter,
                tenant: state.number,
                passages: state.passages,
            };
            index.search(query, &PassageFilter::of_query(tenant, query))
        })
    }
}
