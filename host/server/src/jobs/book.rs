//! The progress of jobs, kept between questions.
//!
//! The events of a job say everything and there may be a hundred thousand of them, so what they add up to is kept for the jobs
//! that were last asked about: the next question reads only what has been added since.

use std::collections::HashMap;
use std::sync::Arc;

use parking_lot::Mutex;
use weir_core::ports::Ledger;
use weir_core::{JobId, StorageError, TenantId};

use super::progress::Progress;

/// Jobs whose progress is kept.
const KEPT: usize = 256;
/// Events that are read at a time.
const READ: usize = 1000;

/// The progress of the jobs that were last asked about.
#[derive(Default)]
pub(crate) struct ProgressBook(Mutex<Kept>);

#[derive(Default)]
struct Kept {
    jobs: HashMap<JobId, (u64, Arc<tokio::sync::Mutex<Progress>>)>,
    clock: u64,
}

impl ProgressBook {
    /// How far a job has come.
    pub(crate) async fn of(
        &self,
        ledger: &dyn Ledger,
        tenant: &TenantId,
        job: &JobId,
    ) -> Result<Progress, StorageError> {
        let kept = self.entry(job);
        // Whoever asks about the same job meanwhile waits for this reading in place of reading too.
        let mut progress = kept.lock().await;
        while !progress.ended {
            let events = ledger.events(tenant, job, progress.seq, READ).await?;
            events.iter().for_each(|event| progress.apply(event));
            if events.len() < READ {
                break;
            }
        }
        Ok(progress.clone())
    }

    fn entry(&self, job: &JobId) -> Arc<tokio::sync::Mutex<Progress>> {
        let mut kept = self.0.lock();
        kept.clock += 1;
        let now = kept.clock;
        if kept.jobs.len() >= KEPT && !kept.jobs.contains_key(job) {
            let oldest = kept
                .jobs
                .iter()
                .min_by_key(|(_, (asked, _))| *asked)
                .map(|(job, _)| *job);
            oldest.map(|oldest| kept.jobs.remove(&oldest));
        }
        let (asked, progress) = kept.jobs.entry(*job).or_default();
        *asked = now;
        Arc::clone(progress)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn so_many_jobs_are_kept_and_no_more() {
        let book = ProgressBook::default();
        let first = JobId::new();
        let kept = book.entry(&first);
        for _ in 0..KEPT * 2 {
            book.entry(&JobId::new());
            book.entry(&first);
        }
        assert_eq!(book.0.lock().jobs.len(), KEPT);
        assert!(
            Arc::ptr_eq(&kept, &book.entry(&first)),
            "the one asked about most lately stays"
        );
    }
}
