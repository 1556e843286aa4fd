//! Nodes: the processes that share a ledger, and the port that lists them.
//!
//! Each node renews its record together with its claims. A node whose record has not been renewed for a lease is not alive: it was killed,
//! is cut off from the ledger, or is frozen. All times are those of the ledger's clock.

use std::time::Duration;

use async_trait::async_trait;
use serde::{Deserialize, Serialize};

use crate::error::StorageError;
use crate::job_claim::{JobClaim, NodeId};

/// The role of a node.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum NodeRole {
    /// Serves the API and runs no jobs.
    Api,
    /// Runs jobs, and serves only health probes and metrics.
    Worker,
    /// Serves the API and runs jobs.
    #[default]
    Both,
}

impl NodeRole {
    /// All roles.
    pub const ALL: [Self; 3] = [Self::Api, Self::Worker, Self::Both];

    /// Returns the name of the role in settings.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Api => "api",
            Self::Worker => "worker",
            Self::Both => "both",
        }
    }

    /// Whether nodes of this role run jobs.
    #[must_use]
    pub const fn runs_jobs(self) -> bool {
        matches!(self, Self::Worker | Self::Both)
    }

    /// Whether nodes of this role serve the API.
    #[must_use]
    pub const fn serves_api(self) -> bool {
        matches!(self, Self::Api | Self::Both)
    }
}

impl std::str::FromStr for NodeRole {
    type Err = UnknownNodeRoleError;

    fn from_str(name: &str) -> Result<Self, Self::Err> {
        let role = Self::ALL.into_iter().find(|role| role.name() == name);
        role.ok_or(UnknownNodeRoleError)
    }
}

/// No role has this name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the roles are api, worker and both")]
pub struct UnknownNodeRoleError;

/// A process, as it describes itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NodeInfo {
    /// Its name, which no other process has.
    pub id: NodeId,
    /// What it does.
    pub role: NodeRole,
    /// Its version of weir.
    pub version: String,
}

impl NodeInfo {
    /// Describes this process. `host` is the first part of its name.
    #[must_use]
    pub fn new_unique(host: &str, role: NodeRole) -> Self {
        Self {
            id: NodeId::new_unique(host),
            role,
            version: env!("CARGO_PKG_VERSION").into(),
        }
    }
}

/// The record of a node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NodeRecord {
    /// The node.
    pub node: NodeInfo,
    /// When the record was created, in milliseconds since 1970.
    pub started_millis: u64,
    /// Time since the record was created.
    pub uptime: Duration,
    /// Time since the record was renewed.
    pub last_renewal_age: Duration,
    /// Whether the lease of the record is running.
    pub is_alive: bool,
    /// Its claims, by tenant and job.
    pub claims: Vec<JobClaim>,
}

/// Stores the records of nodes.
#[async_trait]
pub trait NodeRegistry: Send + Sync {
    /// Creates or renews the record of a node, and deletes those whose lease ended [`LOST_NODE_RETENTION`] ago.
    async fn renew_node(&self, node: &NodeInfo, lease: Duration) -> Result<(), StorageError>;

    /// Deletes the record of a node that stops.
    async fn remove_node(&self, node: &NodeId) -> Result<(), StorageError>;

    /// Returns the records of all nodes, sorted by name.
    async fn list_nodes(&self) -> Result<Vec<NodeRecord>, StorageError>;
}

/// How long a node that has stopped without deleting its record stays in the list.
pub const LOST_NODE_RETENTION: Duration = Duration::from_secs(60 * 60);
