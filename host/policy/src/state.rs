//! What a call writes to the state, until it has returned.
//!
//! A call may write a thousand times, and a write that survives a power cut waits for the disk. So the writes of a call are
//! kept here, where the call reads them back, and go to the store as one change when the call has answered sensibly. Of a
//! call that traps, is late or answers nonsense nothing is kept.

use std::collections::BTreeMap;

use weir_core::event::ErrorNote;
use weir_core::state::{StateChange, StateSizes};

use crate::guest::JobContext;

/// The writes of a call.
#[derive(Debug, Default)]
pub(crate) struct PendingState {
    /// Read when the call writes for the first time.
    sizes: Option<StateSizes>,
    changes: BTreeMap<String, Option<Vec<u8>>>,
}

impl PendingState {
    /// A value as the call sees it.
    pub(crate) async fn get(&self, job: &JobContext, key: &str) -> Result<Option<Vec<u8>>, ErrorNote> {
        match self.changes.get(key) {
            Some(value) => Ok(value.clone()),
            None => job.state.get(&job.tenant, &job.manifest.name, key).await,
        }
    }

    /// Adds a change, unless it goes beyond what may be remembered.
    pub(crate) async fn change(&mut self, job: &JobContext, change: StateChange) -> Result<(), ErrorNote> {
        let sizes = match &mut self.sizes {
            Some(sizes) => sizes,
            None => {
                let sizes = job.state.sizes(&job.tenant, &job.manifest.name).await?;
                self.sizes.insert(sizes)
            }
        };
        sizes.change(&change)?;
        self.changes.insert(change.key, change.value);
        Ok(())
    }

    /// The changes, which are no longer here.
    pub(crate) fn take(&mut self) -> Vec<StateChange> {
        let changes = std::mem::take(self).changes.into_iter();
        changes.map(|(key, value)| StateChange { key, value }).collect()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use weir_core::manifest::Manifest;
    use weir_core::ports::PolicyState as _;
    use weir_core::{JobId, TenantId};

    use super::*;
    use crate::bindings::state::Host as _;
    use crate::gate::Empty;
    use crate::guest::{Guest, QUESTIONS};

    fn guest(state: &Arc<Empty>) -> Guest {
        let (tenant, manifest) = (TenantId::single(), Manifest::embedded());
        let job = JobContext::new(tenant, JobId::new(), manifest, state.clone(), state.clone());
        let mut guest = Guest::new(Arc::new(job), "test".into(), 0);
        guest.begin("test", 1000);
        guest
    }

    #[tokio::test]
    async fn a_call_reads_its_writes_before_they_are_applied() {
        let state = Arc::new(Empty::default());
        let mut guest = guest(&state);
        guest.set("a".into(), vec![1]).await.unwrap().unwrap();
        guest.set("a".into(), vec![2]).await.unwrap().unwrap();
        guest.set("b".into(), vec![3]).await.unwrap().unwrap();
        guest.delete("b".into()).await.unwrap().unwrap();
        assert_eq!(guest.get("a".into()).await.unwrap().unwrap(), Some(vec![2]));
        assert_eq!(guest.get("b".into()).await.unwrap().unwrap(), None);
        let tenant = TenantId::single();
        assert_eq!(state.get(&tenant, "default", "a").await.unwrap(), None);
        let changes = guest.pending_state.lock().await.take();
        state.apply(&tenant, "default", changes).await.unwrap();
        assert_eq!(guest.get("a".into()).await.unwrap().unwrap(), Some(vec![2]));
        assert!(guest.pending_state.lock().await.take().is_empty());
    }

    #[tokio::test]
    async fn a_thousand_writes_are_one_group_within_the_quota() {
        let state = Arc::new(Empty::default());
        let mut guest = guest(&state);
        let mut refused = 0;
        for number in 0..QUESTIONS {
            let written = guest
                .set((number % 20).to_string(), vec![0; 64 << 10])
                .await
                .unwrap();
            refused += usize::from(written.is_err());
        }
        // Fifteen values of 64 KiB and their keys fit.
        assert_eq!(refused, QUESTIONS as usize / 4);
        assert_eq!(guest.pending_state.lock().await.take().len(), 15);
    }
}
