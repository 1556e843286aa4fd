//! The changes of the index: writes passages, and updates the indexes of words and of codes.

use std::collections::BTreeMap;
use std::sync::Arc;

use weir_core::{StorageError, TenantId};

use super::code_index::CodeIndex;
use super::hybrid_search::MAX_SCANNED_PASSAGES;
use super::passage_changes::PassageSelection;
use super::passage_database::{PassageDatabase, PassageNumber, TenantNumber};
use super::shared_index::{SharedIndex, TenantState};
use super::word_index::WordIndex;
use crate::vectors::passage_payload::PassagePoint;

/// Written passages after which the derived indexes are updated, if no search needs them earlier. This bounds the work that is repeated
/// after a killed process.
const MAX_UNINDEXED_PASSAGES: u64 = 4096;
/// Passages that are read at once for the index of words.
const WORD_BATCH: u32 = 1024;
/// Vectors that are added to the codes at once. Searches of the tenant wait meanwhile, some milliseconds.
const CODE_BATCH: usize = 256;

/// The only writer of an index.
pub(super) struct PassageWriter {
    shared: Arc<SharedIndex>,
    database: PassageDatabase,
    /// The number of passages that the derived indexes do not have, or still have.
    unindexed: u64,
    /// Files may have texts of removed passages, or an earlier process was killed during a compaction.
    needs_compaction: bool,
    /// The derived indexes have changes that are not committed, because an attempt to index changes failed.
    has_uncommitted_changes: bool,
}

impl PassageWriter {
    pub(super) const fn new(
        shared: Arc<SharedIndex>,
        database: PassageDatabase,
        unindexed: u64,
        was_killed: bool,
    ) -> Self {
        Self {
            shared,
            database,
            unindexed,
            needs_compaction: was_killed,
            has_uncommitted_changes: false,
        }
    }

    pub(super) fn words(&self) -> &WordIndex {
        &self.shared.words
    }

    /// Writes or replaces passages. The next search of the tenant finds them.
    pub(super) fn upsert_passages(
        &mut self,
        tenant: &TenantId,
        points: &[PassagePoint],
    ) -> Result<(), StorageError> {
        if points.is_empty() {
            return Ok(());
        }
        let number = match self.shared.find_tenant(tenant) {
            Some(state) => state.number,
            None => self.database.insert_or_find_tenant(tenant)?,
        };
        // Before the commit, so that no search sees the passages and not the mark.
        self.shared.change_tenant(tenant, number, |_| ());
        let added = self.database.upsert_passages(number, points)?;
        self.shared
            .change_tenant(tenant, number, |passages| *passages += added);
        self.needs_compaction |= added < points.len() as u64;
        self.unindexed += points.len() as u64;
        if self.unindexed >= MAX_UNINDEXED_PASSAGES
            && let Err(error) = self.index_changes()
        {
            // The passages are committed, and the next search repeats the attempt and gets the error.
            tracing::warn!(%error, "the indexes of words and codes could not be updated; the next search tries again");
        }
        Ok(())
    }

    /// Removes at most `limit` of the selected passages. Returns how many were removed.
    pub(super) fn remove_passages(
        &mut self,
        tenant: &TenantId,
        selection: &PassageSelection,
        limit: usize,
    ) -> Result<u64, StorageError> {
        let Some(TenantState { number, .. }) = self.shared.find_tenant(tenant) else {
            return Ok(0);
        };
        self.shared.change_tenant(tenant, number, |_| ());
        let removed = self.database.remove_passages(number, selection, limit)?;
        self.shared.change_tenant(tenant, number, |passages| {
            *passages = passages.saturating_sub(removed);
        });
        self.needs_compaction |= removed > 0;
        // The indexes are updated later, at once for all of a large document or tenant.
        self.unindexed += removed;
        Ok(removed)
    }

    /// Makes all changes durable.
    pub(super) fn sync(&mut self) -> Result<(), StorageError> {
        self.database.file.sync()
    }

    /// Makes everything ready for searches of a tenant. Without space on the disk, searches find what was indexed before.
    pub(super) fn prepare_search(&mut self, tenant: &TenantId) -> Result<(), StorageError> {
        match self.index_changes() {
            Err(error @ StorageError::NoSpace { .. }) => {
                tracing::warn!(%error, "searches do not find the latest passages");
                return Ok(());
            }
            indexed => indexed?,
        }
        match self.shared.find_tenant(tenant) {
            Some(state) if state.passages > MAX_SCANNED_PASSAGES => {
                self.open_or_build_codes(state.number, state.passages).map(drop)
            }
            _ => Ok(()),
        }
    }

    /// Updates the indexes of words and of codes by the changes of the passages. After an error they are as before or newer, and the next
    /// attempt repeats the changes.
    pub(super) fn index_changes(&mut self) -> Result<(), StorageError> {
        if self.unindexed > 0 {
            if self.has_uncommitted_changes {
                self.shared.words.roll_back();
                self.shared.codes.close_all();
            }
            self.has_uncommitted_changes = true;
            // First, because numbers that a power failure takes back would be used again, and the other indexes would have them already.
            self.sync()?;
            let last_number = self.database.last_number()?;
            let removals = self.database.list_removals()?;
            self.index_words(last_number, &removals)?;
            self.update_codes(&removals)?;
            self.database.set_indexed_up_to(last_number)?;
            self.unindexed = 0;
            self.has_uncommitted_changes = false;
        }
        self.shared.mark_all_tenants_indexed();
        Ok(())
    }

    fn index_words(
        &self,
        last_number: PassageNumber,
        removals: &[(PassageNumber, TenantNumber)],
    ) -> Result<(), StorageError> {
        let words = &self.shared.words;
        let mut indexed = words.last_number()?;
        if indexed == last_number && removals.is_empty() {
            return words.reload();
        }
        loop {
            let batch = self.database.list_passages_after(indexed, WORD_BATCH)?;
            let Some(last) = batch.last() else { break };
            indexed = last.number;
            for passage in &batch {
                words.add_passage(passage, self.shared.splitter.split(&passage.payload.text))?;
            }
        }
        for (number, _) in removals {
            words.remove_passage(*number)?;
        }
        words.commit(last_number, self.database.file.count_syncs()?)
    }

    fn update_codes(&self, removals: &[(PassageNumber, TenantNumber)]) -> Result<(), StorageError> {
        let mut changes: BTreeMap<TenantNumber, (Vec<PassageNumber>, Vec<PassageNumber>)> = BTreeMap::new();
        let coded = self.database.last_coded_number()?;
        for (number, tenant) in self.database.list_numbers_after(coded)? {
            changes.entry(tenant).or_default().0.push(number);
        }
        for (number, tenant) in removals {
            changes.entry(*tenant).or_default().1.push(*number);
        }
        for (tenant, (added, removed)) in changes {
            let passages = self.database.count_passages_of_tenant(tenant)?;
            if passages <= MAX_SCANNED_PASSAGES {
                self.shared.codes.remove(tenant)?;
                continue;
            }
            let Some(codes) = self.shared.codes.open(tenant) else {
                self.build_codes(tenant)?;
                continue;
            };
            for numbers in added.chunks(CODE_BATCH) {
                let mut vectors = Vec::with_capacity(numbers.len());
                self.database.read_vectors(tenant, numbers, |number, vector| {
                    vectors.push((number, vector.to_vec()));
                })?;
                codes.add(&vectors)?;
            }
            codes.remove(&removed);
            match codes.count() as u64 == passages {
                true => codes.save()?,
                false => self.build_codes(tenant).map(drop)?,
            }
        }
        Ok(())
    }

    fn open_or_build_codes(
        &self,
        tenant: TenantNumber,
        passages: u64,
    ) -> Result<Arc<CodeIndex>, StorageError> {
        match self.shared.codes.open(tenant) {
            Some(codes) if codes.count() as u64 == passages => Ok(codes),
            _ => self.build_codes(tenant),
        }
    }

    /// Computes the codes of a tenant from all of its vectors.
    fn build_codes(&self, tenant: TenantNumber) -> Result<Arc<CodeIndex>, StorageError> {
        let codes = self.shared.codes.create(tenant)?;
        let mut batch = Vec::with_capacity(CODE_BATCH);
        self.database.read_all_vectors(tenant, |number, vector| {
            batch.push((number, vector.to_vec()));
            if batch.len() == CODE_BATCH {
                codes.add(&batch)?;
                batch.clear();
            }
            Ok(())
        })?;
        codes.add(&batch)?;
        codes.save()?;
        Ok(self.shared.codes.insert(tenant, codes))
    }

    /// Removes tenants without passages, after the derived indexes were updated.
    pub(super) fn delete_empty_tenants(&mut self) -> Result<(), StorageError> {
        self.index_changes()?;
        for (tenant, number) in self.shared.list_empty_tenants() {
            self.database.delete_tenant(number)?;
            self.shared.tenants.lock().remove(&tenant);
        }
        Ok(())
    }

    /// Returns whether removed passages may still be in the files.
    pub(super) fn needs_compaction(&self) -> Result<bool, StorageError> {
        Ok(self.needs_compaction
            || self.database.file.has_unused_pages()?
            || self.shared.words.has_removed_passages()?)
    }

    /// Gives some unused pages back to the file system. Returns whether there are more.
    pub(super) fn shrink_file(&mut self) -> Result<bool, StorageError> {
        self.database.file.shrink()
    }

    /// Truncates the log, the last step of a compaction. Returns `false` if a search needs the log.
    pub(super) fn truncate_log(&mut self) -> Result<bool, StorageError> {
        let truncated = self.database.file.truncate_log()?;
        self.needs_compaction = !truncated;
        Ok(truncated)
    }
}
