//! What is known of a document from before.
//!
//! The ledger says what was done, and the index what is there; a page counts as done only where the two agree. They can
//! differ: a job that does pages again (another revision, or by force) takes a page's old passages out of the index before it
//! puts the new ones in, and may be killed in between.

use std::collections::{HashMap, HashSet};

use weir_core::ledger::{PageRecord, PageState};
use weir_core::{DocumentId, PageNumber, StorageError};

use crate::job::Job;

/// A document's past.
pub(crate) struct History {
    /// The latest record of each page, whatever its revision: what was done last is what the index holds.
    pages: Vec<PageRecord>,
    /// Passages of each page in the index.
    indexed: HashMap<PageNumber, u32>,
}

impl History {
    /// Asks ledger and index.
    pub(crate) async fn of(job: &Job, document: &DocumentId) -> Result<Self, StorageError> {
        let ports = &job.host.ports;
        let (pages, indexed) = tokio::try_join!(
            ports.ledger.pages(&job.tenant, document, None),
            ports.vectors.pages(&job.tenant, document),
        )?;
        Ok(Self {
            pages,
            indexed: indexed.into_iter().collect(),
        })
    }

    /// Pages that are done under the job's revision, with the number of their passages. Of a job that is to do pages again, only
    /// those it has done itself before it was stopped or held.
    pub(crate) fn done(&self, job: &Job) -> impl Iterator<Item = (PageNumber, u32)> {
        let revision = job.pipeline.revision;
        self.pages.iter().filter_map(move |record| match record.state {
            PageState::Done { passages, .. }
                if record.revision == revision
                    && (!job.force || record.job == job.id)
                    && passages == self.passages(record.page) =>
            {
                Some((record.page, passages))
            }
            _ => None,
        })
    }

    fn passages(&self, page: PageNumber) -> u32 {
        self.indexed.get(&page).copied().unwrap_or(0)
    }

    /// The latest record of each page.
    pub(crate) fn pages(&self) -> &[PageRecord] {
        &self.pages
    }

    /// Whether no page has ended before.
    pub(crate) fn is_empty(&self) -> bool {
        self.pages.is_empty()
    }

    /// Whether pages were last done under another revision than the job's.
    pub(crate) fn has_other_revisions(&self, job: &Job) -> bool {
        let revision = job.pipeline.revision;
        self.pages.iter().any(|record| record.revision != revision)
    }

    /// Pages that the index knows.
    pub(crate) fn indexed(&self) -> HashSet<PageNumber> {
        self.indexed.keys().copied().collect()
    }

    /// Keys of the page images there are.
    pub(crate) fn images(&self) -> HashMap<PageNumber, String> {
        let image = |record: &PageRecord| match &record.state {
            PageState::Done { image: Some(key), .. } => Some((record.page, key.clone())),
            _ => None,
        };
        self.pages.iter().filter_map(image).collect()
    }
}
