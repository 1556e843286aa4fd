//! Messages between the nodes that share a ledger.
//!
//! A message only makes another node look at the ledger earlier than it would by itself. So it may be lost, doubled or late, and it carries
//! no data that the ledger does not have.

use async_trait::async_trait;
use serde::{Deserialize, Serialize};

use crate::error::StorageError;
use crate::id::{JobId, TenantId};

/// An announcement of changes in the ledger.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct NodeMessage {
    /// Tenants with new events.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub tenants_with_events: Vec<TenantId>,
    /// New jobs that any node can claim.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub claimable_jobs: Vec<(TenantId, JobId)>,
    /// Whether claimed jobs are to be canceled, or claims were released.
    #[serde(default)]
    pub claims_changed: bool,
}

/// Sends messages to the other nodes, and receives theirs.
#[async_trait]
pub trait NodeMessenger: Send + Sync {
    /// Sends a message to all other nodes.
    async fn send_message(&self, message: &NodeMessage) -> Result<(), StorageError>;

    /// Begins to receive the messages of other nodes.
    async fn subscribe(&self) -> Result<Box<dyn NodeMessageReceiver>, StorageError>;
}

/// Receives messages.
#[async_trait]
pub trait NodeMessageReceiver: Send {
    /// Returns the next message of another node; `None` if the connection is lost.
    async fn next_message(&mut self) -> Option<NodeMessage>;
}
