//! The pages of a document that earlier runs have processed.
//!
//! The ledger records which pages are done, and the index holds their passages. A page counts as done only where both agree.
//! They can differ: a job that processes a page again (for another revision, or with `force`) removes the old passages from the
//! index before it inserts the new ones, and it may be killed in between.

use std::collections::{HashMap, HashSet};

use weir_core::event::ErrorInfo;
use weir_core::ledger::{FinalPageState, LedgerEntry, PageRecord};
use weir_core::{DocumentId, PageNumber, StorageError};

use crate::job_and_document_context::JobContext;
use crate::store_retry::retry_while_unavailable;

/// The pages of one document in the ledger and in the index.
pub(crate) struct PagesOfEarlierRuns {
    /// The latest record of each page under any revision, since the index holds the passages of the latest run.
    records: Vec<PageRecord>,
    /// The number of passages of each page in the index.
    passage_counts: HashMap<PageNumber, u32>,
}

impl PagesOfEarlierRuns {
    /// Loads the pages from the ledger and the index.
    pub(crate) async fn load_from_ledger_and_index(
        job: &JobContext,
        document: &DocumentId,
    ) -> Result<Self, StorageError> {
        let ports = &job.engine.ports;
        let (pages, indexed) = tokio::try_join!(
            retry_while_unavailable(|| ports.ledger.list_pages(&job.tenant, document, None)),
            retry_while_unavailable(|| ports.vectors.count_passages_by_page(&job.tenant, document)),
        )?;
        Ok(Self {
            records: pages,
            passage_counts: indexed.into_iter().collect(),
        })
    }

    /// Returns the pages that are done under the job's revision, with the number of their passages. For a job with `force`, only
    /// the pages count that the job itself has done before it was stopped or held.
    pub(crate) fn completed_pages(&self, job: &JobContext) -> impl Iterator<Item = (PageNumber, u32)> {
        let revision = job.pipeline.revision;
        self.records.iter().filter_map(move |record| match record.state {
            FinalPageState::Done { passages, .. }
                if record.revision == revision
                    && (!job.force || record.job == job.id)
                    && passages == self.indexed_passage_count_of_page(record.page) =>
            {
                Some((record.page, passages))
            }
            _ => None,
        })
    }

    fn indexed_passage_count_of_page(&self, page: PageNumber) -> u32 {
        self.passage_counts.get(&page).copied().unwrap_or(0)
    }

    /// Returns the latest record of each page.
    pub(crate) fn latest_page_records(&self) -> &[PageRecord] {
        &self.records
    }

    /// Whether no page has been processed before.
    pub(crate) fn is_empty(&self) -> bool {
        self.records.is_empty()
    }

    /// Whether any page was last processed under another revision than the job's.
    pub(crate) fn has_pages_of_other_revision(&self, job: &JobContext) -> bool {
        let revision = job.pipeline.revision;
        self.records.iter().any(|record| record.revision != revision)
    }

    /// Returns the pages that have passages in the index.
    pub(crate) fn indexed_pages(&self) -> HashSet<PageNumber> {
        self.passage_counts.keys().copied().collect()
    }

    /// Returns the keys of the stored page images.
    pub(crate) fn image_keys(&self) -> HashMap<PageNumber, String> {
        let image = |record: &PageRecord| match &record.state {
            FinalPageState::Done { image: Some(key), .. } => Some((record.page, key.clone())),
            _ => None,
        };
        self.records.iter().filter_map(image).collect()
    }
}

/// Turns the record of a done page into one of a failed page; `None` if the page was not done.
pub(crate) fn build_done_page_revocation(record: PageRecord, reason: &ErrorInfo) -> Option<LedgerEntry> {
    let FinalPageState::Done { .. } = record.state else {
        return None;
    };
    let state = FinalPageState::Failed {
        error: reason.clone(),
    };
    Some(LedgerEntry::Page(PageRecord { state, ..record }))
}
