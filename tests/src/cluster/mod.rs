//! Several nodes on shared stores, with the real binary.

mod book_jobs;
mod checks;
mod claim_log;
mod node;
mod resuming_reader;

use std::sync::{Arc, OnceLock};

use weir_qdrant_protocol::QdrantProtocolServer;
use weir_s3_server::{ACCESS_KEY, BUCKET, S3TestServer, SECRET_KEY};
use weir_test_services::{PostgresServer, RedisServer};

pub use book_jobs::{BookJob, BookJobs};
pub use checks::{assert_events_are_complete, assert_job_is_complete};
pub use claim_log::{ClaimLog, LoggedClaim, database_time};
pub use node::{Node, NodeSettings, SharedStores};
pub use resuming_reader::read_events_across_interruptions;

/// A PostgreSQL server, an S3 server, a server of Qdrant's protocol and, if it is set, a Redis server, which nodes share.
pub struct Cluster {
    pub postgres: PostgresServer,
    pub s3: S3TestServer,
    pub qdrant: QdrantProtocolServer,
    pub redis: Option<RedisServer>,
    settings: NodeSettings,
    admin_key: Arc<OnceLock<String>>,
}

impl Cluster {
    /// Starts the stores for nodes with these settings, without Redis.
    pub fn start(settings: NodeSettings) -> Self {
        Self {
            postgres: PostgresServer::start(),
            s3: S3TestServer::start(),
            qdrant: QdrantProtocolServer::start(),
            redis: None,
            settings,
            admin_key: Arc::default(),
        }
    }

    /// Starts the stores for nodes with these settings.
    pub fn start_with_redis(settings: NodeSettings) -> Self {
        let mut cluster = Self::start(settings);
        cluster.redis = Some(RedisServer::start());
        cluster
    }

    /// Returns the addresses of the stores.
    pub fn stores(&self) -> SharedStores {
        SharedStores {
            ledger: self.postgres.url(),
            vectors: self.qdrant.url(),
            bucket: BUCKET.to_owned(),
            s3_endpoint: self.s3.url(),
            s3_access_key: ACCESS_KEY.to_owned(),
            s3_secret_key: SECRET_KEY.to_owned(),
            redis: self.redis.as_ref().map(RedisServer::url),
        }
    }

    /// Starts a node with an empty data folder.
    pub fn start_node(&self, name: &str) -> Node {
        self.start_node_with_settings(name, &self.settings)
    }

    /// Starts a node with other settings than the others have.
    pub fn start_node_with_settings(&self, name: &str, settings: &NodeSettings) -> Node {
        Node::start(name, &self.stores(), settings, &self.admin_key)
    }

    /// Starts nodes at once, named `node-1`, `node-2` and so on.
    pub fn start_nodes(&self, count: usize) -> Vec<Node> {
        std::thread::scope(|scope| {
            let starting: Vec<_> = (1..=count)
                .map(|number| scope.spawn(move || self.start_node(&format!("node-{number}"))))
                .collect();
            starting.into_iter().map(|node| node.join().unwrap()).collect()
        })
    }

    /// Returns the lease of a claim in seconds.
    pub fn lease_seconds(&self) -> u32 {
        self.settings.lease_seconds
    }
}
