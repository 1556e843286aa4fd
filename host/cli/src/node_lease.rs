//! The name of this process among those that share a ledger, and the record of `weir run`. `weir serve` renews its record together with its
//! claims.

use std::sync::Arc;
use std::time::Duration;

use anyhow::Result;
use rustix::system::uname;
use tokio::sync::oneshot;
use tokio::task::JoinHandle;
use tokio::time::{sleep, timeout};
use weir_control::{RENEWALS_PER_LEASE, remove_node_record};
use weir_core::node::{NodeInfo, NodeRegistry, NodeRole};
use weir_core::settings::Settings;

/// Describes this process. No other has its name.
pub(crate) fn describe_node(settings: &Settings, role: NodeRole) -> NodeInfo {
    match settings.cluster_node.as_str() {
        "" => NodeInfo::new_unique(&uname().nodename().to_string_lossy(), role),
        name => NodeInfo::new_unique(name, role),
    }
}

/// Renews the record of a node until it is ended.
pub(crate) struct NodeLease {
    stop: oneshot::Sender<()>,
    renewal: JoinHandle<()>,
}

impl NodeLease {
    /// Creates the record, and renews it in a task.
    pub(crate) async fn start(
        nodes: Arc<dyn NodeRegistry>,
        node: NodeInfo,
        settings: &Settings,
    ) -> Result<Self> {
        let lease = Duration::from_secs(settings.cluster_lease_seconds.into());
        nodes.renew_node(&node, lease).await?;
        let (stop, stopped) = oneshot::channel();
        let renewal = tokio::spawn(renew_until_stopped(nodes, node, lease, stopped));
        Ok(Self { stop, renewal })
    }

    /// Removes the record.
    pub(crate) async fn end(self) {
        drop(self.stop);
        if let Err(error) = self.renewal.await {
            tracing::warn!(%error, "the renewal of the node's record has failed");
        }
    }
}

async fn renew_until_stopped(
    nodes: Arc<dyn NodeRegistry>,
    node: NodeInfo,
    lease: Duration,
    mut stopped: oneshot::Receiver<()>,
) {
    let interval = lease / RENEWALS_PER_LEASE;
    loop {
        tokio::select! {
            _ = &mut stopped => break,
            () = sleep(interval) => {}
        }
        match timeout(interval, nodes.renew_node(&node, lease)).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => tracing::warn!(%error, "the node's record could not be renewed"),
            Err(_) => tracing::warn!("the renewal of the node's record takes too long"),
        }
    }
    remove_node_record(nodes.as_ref(), &node.id, interval).await;
}
