//! Redis, for what may be lost: messages between nodes, request rates and open streams of all nodes.
//!
//! After a call that did not succeed, all calls fail at once for a second, so that requests of clients do not wait for a server that is
//! away. The connection is made again by the library.

mod limits;
mod messages;

use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use redis::aio::{ConnectionManager, ConnectionManagerConfig};
use redis::{Client, ConnectionInfo, ErrorKind, IntoConnectionInfo as _, RedisError};
use tokio::time::Instant;
use weir_core::StorageError;
use weir_core::store_status::StoreStatus;

use crate::store_metrics::StoreMetrics;

/// The server in errors.
const SERVER_NAME: &str = "the Redis server";
/// Maximum time to connect.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(1);
/// Maximum time of a call.
const RESPONSE_TIMEOUT: Duration = Duration::from_millis(250);
/// Time for which no call is tried after a failure.
const FAILURE_PAUSE: Duration = Duration::from_secs(1);

/// Address of a Redis server.
#[derive(Clone)]
pub struct RedisConnection {
    /// URL such as `redis://redis:6379/0`. With `rediss` the certificate is verified.
    pub url: String,
    /// Password, if the server requires one.
    pub password: Option<String>,
    /// The first part of all keys and channels.
    pub key_prefix: String,
    /// The name of this process among those that send messages.
    pub node: String,
}

impl std::fmt::Debug for RedisConnection {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        // The password must not be logged.
        f.debug_struct("RedisConnection")
            .field("url", &self.url)
            .field("key_prefix", &self.key_prefix)
            .finish_non_exhaustive()
    }
}

/// Implements [`NodeMessenger`](weir_core::node_message::NodeMessenger) and
/// [`SharedLimitStore`](weir_core::shared_limits::SharedLimitStore) with a Redis server of version 5 or later, or Valkey.
pub struct RedisClient {
    client: Client,
    manager: ConnectionManager,
    key_prefix: String,
    node: String,
    paused_until: Mutex<Option<Instant>>,
    metrics: StoreMetrics,
}

impl RedisClient {
    /// Creates a client. It connects with the first call, and again after each failure.
    pub fn new(connection: &RedisConnection) -> Result<Self, StorageError> {
        // An error means that a provider is already installed. It is the same provider.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let failed = |error: RedisError| StorageError::Failed {
            what: SERVER_NAME.into(),
            reason: error.to_string(),
        };
        let client = Client::open(connection_info(connection).map_err(failed)?).map_err(failed)?;
        let config = ConnectionManagerConfig::new()
            .set_number_of_retries(0)
            .set_connection_timeout(Some(CONNECT_TIMEOUT))
            .set_response_timeout(Some(RESPONSE_TIMEOUT));
        Ok(Self {
            manager: ConnectionManager::new_lazy_with_config(client.clone(), config).map_err(failed)?,
            client,
            key_prefix: connection.key_prefix.clone(),
            node: connection.node.clone(),
            paused_until: Mutex::default(),
            metrics: StoreMetrics::new("redis"),
        })
    }

    /// Returns whether the latest call has succeeded.
    #[must_use]
    pub fn status(&self) -> Arc<StoreStatus> {
        self.metrics.status()
    }

    /// Checks that the server responds to this user.
    pub async fn check_access(&self) -> Result<(), StorageError> {
        self.call(|mut connection| async move { redis::cmd("PING").query_async::<()>(&mut connection).await })
            .await
    }

    fn key(&self, parts: &[&str]) -> String {
        format!("{}:{}", self.key_prefix, parts.join(":"))
    }

    /// Makes a call, unless the last one has just failed. After the pause, one call at a time shows whether the server is back.
    async fn call<T, F>(&self, call: impl FnOnce(ConnectionManager) -> F) -> Result<T, StorageError>
    where
        F: Future<Output = Result<T, RedisError>>,
    {
        let now = Instant::now();
        {
            let mut paused_until = self.paused_until.lock();
            match *paused_until {
                Some(until) if now < until => {
                    return Err(unavailable("the last call has just failed".into()));
                }
                Some(_) => *paused_until = Some(now + FAILURE_PAUSE),
                None => {}
            }
        }
        let call = call(self.manager.clone());
        let response = self
            .metrics
            .measure(async { call.await.map_err(|error| to_storage_error(&error)) })
            .await;
        let mut paused_until = self.paused_until.lock();
        match &response {
            Ok(_) => *paused_until = None,
            Err(error) => {
                if paused_until.is_none() {
                    tracing::warn!(%error, "each node applies its share of the limits, and looks for changes of others in the ledger");
                }
                *paused_until = Some(Instant::now() + FAILURE_PAUSE);
            }
        }
        response
    }
}

fn connection_info(connection: &RedisConnection) -> Result<ConnectionInfo, RedisError> {
    let info = connection.url.as_str().into_connection_info()?;
    Ok(match &connection.password {
        Some(password) => {
            let settings = info.redis_settings().clone().set_password(password);
            info.set_redis_settings(settings)
        }
        None => info,
    })
}

fn unavailable(reason: String) -> StorageError {
    StorageError::Unavailable {
        what: SERVER_NAME.into(),
        reason,
    }
}

/// Errors other than refused permissions pass by themselves: the server is away, is loading its data, has no memory, or is a replica.
fn to_storage_error(error: &RedisError) -> StorageError {
    let is_refused = error.kind() == ErrorKind::AuthenticationFailed
        || matches!(error.code(), Some("NOAUTH" | "WRONGPASS" | "NOPERM"));
    match is_refused {
        true => StorageError::PermissionDenied {
            what: SERVER_NAME.into(),
            reason: error.to_string(),
        },
        false => unavailable(error.to_string()),
    }
}
