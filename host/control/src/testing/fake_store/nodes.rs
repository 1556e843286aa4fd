//! Records of nodes.

use std::time::Duration;

use async_trait::async_trait;
use tokio::time::Instant;
use weir_core::StorageError;
use weir_core::clock::unix_time_millis;
use weir_core::job_claim::NodeId;
use weir_core::node::{LOST_NODE_RETENTION, NodeInfo, NodeRecord, NodeRegistry};

use super::FakeStore;
use crate::testing::fake_node::FakeNode;

#[async_trait]
impl NodeRegistry for FakeStore {
    async fn renew_node(&self, node: &NodeInfo, lease: Duration) -> Result<(), StorageError> {
        let now = Instant::now();
        let nodes = &mut self.0.lock().nodes;
        nodes.retain(|record| record.lease_until + LOST_NODE_RETENTION >= now);
        let earlier = nodes.iter().position(|record| record.node.id == node.id);
        let started_millis = match earlier {
            Some(index) => nodes.swap_remove(index).started_millis,
            None => unix_time_millis(),
        };
        nodes.push(FakeNode {
            node: node.clone(),
            started_millis,
            renewed_at: now,
            lease_until: now + lease,
        });
        Ok(())
    }

    async fn remove_node(&self, node: &NodeId) -> Result<(), StorageError> {
        self.0.lock().nodes.retain(|record| record.node.id != *node);
        Ok(())
    }

    async fn list_nodes(&self) -> Result<Vec<NodeRecord>, StorageError> {
        let tables = self.0.lock();
        let now = Instant::now();
        let claims_of = |node: &NodeId| {
            let own = tables.claims.iter().filter(|(_, claim)| {
                let owner = claim.owner.as_ref();
                owner.is_some_and(|(owner, _)| owner == node)
            });
            let mut claims: Vec<_> = own
                .filter_map(|(job, claim)| tables.claim_of(*job, claim.epoch))
                .collect();
            claims.sort_by(|a, b| (&a.tenant, a.job).cmp(&(&b.tenant, b.job)));
            claims
        };
        let mut records: Vec<_> = tables
            .nodes
            .iter()
            .map(|record| NodeRecord {
                node: record.node.clone(),
                started_millis: record.started_millis,
                uptime: Duration::from_millis(unix_time_millis().saturating_sub(record.started_millis)),
                last_renewal_age: now.duration_since(record.renewed_at),
                is_alive: record.lease_until >= now,
                claims: claims_of(&record.node.id),
            })
            .collect();
        records.sort_by(|a, b| a.node.id.as_str().cmp(b.node.id.as_str()));
        Ok(records)
    }
}
