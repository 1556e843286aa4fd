//! Buffers the writes of a policy call to the component state until the call has returned.
//!
//! A call may write a thousand times, and each durable write waits for the disk. So the writes of a call stay here, where
//! the call can read them back. They go to the store as one group when the call returns a valid decision. If the call traps,
//! exceeds its call timeout or returns an invalid decision, its writes are dropped.

use std::collections::BTreeMap;

use weir_core::component_state_limits::{StateChange, StateSizes};
use weir_core::event::ErrorInfo;

use crate::instance::job_context::JobContext;

/// The uncommitted writes of one policy call.
#[derive(Debug, Default)]
pub(crate) struct PendingStateChanges {
    /// Read from the store at the first write of the call.
    sizes: Option<StateSizes>,
    changes: BTreeMap<String, Option<Vec<u8>>>,
}

impl PendingStateChanges {
    /// Returns the value of a key, including uncommitted writes.
    pub(crate) async fn get(&self, job: &JobContext, key: &str) -> Result<Option<Vec<u8>>, ErrorInfo> {
        match self.changes.get(key) {
            Some(value) => Ok(value.clone()),
            None => {
                job.state
                    .get_component_state_value(&job.tenant, &job.manifest.name, key)
                    .await
            }
        }
    }

    /// Adds a change. Fails if the state would exceed its quota.
    pub(crate) async fn add_change(
        &mut self,
        job: &JobContext,
        change: StateChange,
    ) -> Result<(), ErrorInfo> {
        let sizes = match &mut self.sizes {
            Some(sizes) => sizes,
            None => {
                let sizes = job
                    .state
                    .list_component_state_value_sizes(&job.tenant, &job.manifest.name)
                    .await?;
                self.sizes.insert(sizes)
            }
        };
        sizes.check_and_apply_size_change(&change)?;
        self.changes.insert(change.key, change.value);
        Ok(())
    }

    /// Removes and returns all changes.
    pub(crate) fn take_changes(&mut self) -> Vec<StateChange> {
        let changes = std::mem::take(self).changes.into_iter();
        changes.map(|(key, value)| StateChange { key, value }).collect()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use weir_core::manifest::Manifest;
    use weir_core::memory_component_state::MemoryComponentState;
    use weir_core::ports::ComponentStateStore as _;
    use weir_core::{JobId, TenantId};

    use super::*;
    use crate::bindings::state::Host as _;
    use crate::instance::instance_data::{InstanceData, MAX_HOST_CALLS};
    use crate::unavailable_capabilities::UnavailableCapabilities;

    fn new_instance_data(state: &Arc<MemoryComponentState>) -> InstanceData {
        let (tenant, manifest) = (TenantId::default_tenant(), Manifest::default_pipeline_manifest());
        let capabilities = Arc::new(UnavailableCapabilities::default());
        let job = JobContext::new(tenant, JobId::new(), manifest, capabilities, state.clone());
        let mut guest = InstanceData::new(Arc::new(job), "test".into(), 0);
        guest.reset_for_call("test", 1000);
        guest
    }

    #[tokio::test]
    async fn memory_component_state_passes_the_conformance_suite() {
        weir_conformance::check_component_state(&MemoryComponentState::default()).await;
    }

    #[tokio::test]
    async fn a_call_reads_its_writes_before_they_are_applied() {
        let state = Arc::new(MemoryComponentState::default());
        let mut guest = new_instance_data(&state);
        guest.set("a".into(), vec![1]).await.unwrap().unwrap();
        guest.set("a".into(), vec![2]).await.unwrap().unwrap();
        guest.set("b".into(), vec![3]).await.unwrap().unwrap();
        guest.delete("b".into()).await.unwrap().unwrap();
        assert_eq!(guest.get("a".into()).await.unwrap().unwrap(), Some(vec![2]));
        assert_eq!(guest.get("b".into()).await.unwrap().unwrap(), None);
        let tenant = TenantId::default_tenant();
        assert_eq!(
            state
                .get_component_state_value(&tenant, "default", "a")
                .await
                .unwrap(),
            None
        );
        let changes = guest.pending_state.lock().await.take_changes();
        state
            .apply_component_state_changes(&tenant, "default", changes)
            .await
            .unwrap();
        assert_eq!(guest.get("a".into()).await.unwrap().unwrap(), Some(vec![2]));
        assert!(guest.pending_state.lock().await.take_changes().is_empty());
    }

    #[tokio::test]
    async fn a_thousand_writes_are_one_group_within_the_quota() {
        let state = Arc::new(MemoryComponentState::default());
        let mut guest = new_instance_data(&state);
        let mut refused = 0;
        for number in 0..MAX_HOST_CALLS {
            let written = guest
                .set((number % 20).to_string(), vec![0; 64 << 10])
                .await
                .unwrap();
            refused += usize::from(written.is_err());
        }
        // Fifteen values of 64 KiB and their keys fit.
        assert_eq!(refused, MAX_HOST_CALLS as usize / 4);
        assert_eq!(guest.pending_state.lock().await.take_changes().len(), 15);
    }
}
