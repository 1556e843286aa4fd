//! Component state that lives as long as the process.

use std::collections::BTreeMap;

use async_trait::async_trait;
use parking_lot::Mutex;

use crate::component_state_limits::{StateChange, StateSizes};
use crate::error::ErrorInfo;
use crate::id::TenantId;
use crate::ports::ComponentStateStore;

/// The values of one pipeline by their keys.
type PipelineState = BTreeMap<String, Vec<u8>>;

/// Component state in memory, by tenant and pipeline.
#[derive(Debug, Default)]
pub struct MemoryComponentState {
    pipelines: Mutex<BTreeMap<(TenantId, String), PipelineState>>,
}

impl MemoryComponentState {
    /// Returns whether no pipeline has values.
    pub fn is_empty(&self) -> bool {
        self.pipelines.lock().values().all(BTreeMap::is_empty)
    }

    /// Deletes the values of all pipelines.
    pub fn clear_all_pipelines(&self) {
        self.pipelines.lock().clear();
    }
}

fn state_value_sizes(values: &PipelineState) -> StateSizes {
    values
        .iter()
        .map(|(key, value)| (key.clone(), value.len()))
        .collect()
}

#[async_trait]
impl ComponentStateStore for MemoryComponentState {
    async fn get_component_state_value(
        &self,
        tenant: &TenantId,
        pipeline: &str,
        key: &str,
    ) -> Result<Option<Vec<u8>>, ErrorInfo> {
        let pipelines = self.pipelines.lock();
        let values = pipelines.get(&(tenant.clone(), pipeline.to_owned()));
        Ok(values.and_then(|values| values.get(key).cloned()))
    }

    async fn list_component_state_value_sizes(
        &self,
        tenant: &TenantId,
        pipeline: &str,
    ) -> Result<StateSizes, ErrorInfo> {
        let pipelines = self.pipelines.lock();
        let values = pipelines.get(&(tenant.clone(), pipeline.to_owned()));
        Ok(values.map(state_value_sizes).unwrap_or_default())
    }

    async fn apply_component_state_changes(
        &self,
        tenant: &TenantId,
        pipeline: &str,
        changes: Vec<StateChange>,
    ) -> Result<(), ErrorInfo> {
        let mut pipelines = self.pipelines.lock();
        let values = pipelines
            .entry((tenant.clone(), pipeline.to_owned()))
            .or_default();
        state_value_sizes(values).check_and_apply_all_size_changes(&changes)?;
        for StateChange { key, value } in changes {
            match value {
                Some(value) => values.insert(key, value),
                None => values.remove(&key),
            };
        }
        Ok(())
    }
}
