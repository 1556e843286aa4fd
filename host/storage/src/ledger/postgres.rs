//! The ledger's database on a PostgreSQL server, which several nodes share.
//!
//! A transaction that changes rows of a tenant first locks the tenant (an advisory lock that ends with the transaction). So a
//! function that reads rows and then changes them needs no further lock: no other transaction of any node changes the tenant meanwhile. In
//! SQLite this holds because the file has one writer. The position of an event comes from a sequence. It is taken under the tenant's lock, and
//! PostgreSQL releases the lock after the transaction is visible, so a reader of one tenant's events never skips one. The price is that
//! the commits of one tenant follow one another, as they do in SQLite. Those of different tenants run at the same time.
//!
//! A connection whose transaction did not commit is closed, which rolls the transaction back. The server closes it, and so releases the
//! locks, if a node stops in the middle of a transaction ([`BEGIN`]).
//!
//! Statements are prepared once for each connection. A pooler in transaction mode must know prepared statements (PgBouncer from 1.21).

pub(super) mod connection;
mod errors;
mod migrations;

use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::Arc;
use std::time::{Duration, Instant};

use deadpool_postgres::{
    ClientWrapper, Manager, ManagerConfig, Object, Pool, RecyclingMethod, Runtime, Timeouts,
};
use rustls::ClientConfig;
use rustls_platform_verifier::BuilderVerifierExt;
use tokio::runtime::Handle;
use tokio::sync::{Mutex, MutexGuard};
use tokio_postgres::config::{Host, SslMode};
use tokio_postgres::{Config, NoTls};
use tokio_postgres_rustls::MakeRustlsConnect;
use weir_core::StorageError;

use self::connection::PostgresConnection;
use self::errors::{from_pool_error, to_storage_error};
use super::ledger_name::LEDGER_NAME;
use super::locked_tenants::LockedTenants;
use super::sql_connection::{SqlConnection, SqlResult};
use super::sql_values::params;
use super::storage_usage;
use crate::changed_paths::ChangedPaths;

/// Time to connect to the server.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// Time without traffic after which the system checks that the server is still there.
const KEEPALIVE_IDLE: Duration = Duration::from_secs(30);
/// Time without an acknowledgment after which a connection is closed.
const TCP_USER_TIMEOUT: Duration = Duration::from_secs(20);
/// Time that a call waits for a free connection.
const POOL_WAIT_TIMEOUT: Duration = Duration::from_secs(10);
/// Time after which the server stops a statement, in milliseconds.
const STATEMENT_TIMEOUT: &str = "30000";
/// Begins a transaction that the server ends if its client sends nothing for 5 s. This is shorter than a job's lease, so that a node that
/// takes over a job does not wait for the locks of the node that lost it. It is not a parameter of the connection, because a pooler would
/// not pass it on.
const BEGIN: &str = "BEGIN; SET LOCAL idle_in_transaction_session_timeout = 5000";
/// Further connections of this process.
const CONNECTIONS_WITHOUT_TENANTS: u32 = 2;
/// Minimum time between two transactions that save the sizes of stored files.
const SIZES_SAVE_INTERVAL: Duration = Duration::from_secs(1);

/// Address of a PostgreSQL server.
#[derive(Clone)]
pub struct PostgresConnectionSettings {
    /// URL such as `postgres://weir@db:5432/weir?sslmode=require`. With TLS the certificate is verified.
    pub url: String,
    /// Password, if the server requires one.
    pub password: Option<String>,
    /// Maximum number of connections of this process, at least 1.
    pub max_connections: u32,
}

impl PostgresConnectionSettings {
    /// Returns the servers and the database without user and password, such as `db:5432/weir`.
    pub(crate) fn address(&self) -> Result<String, StorageError> {
        let config = self.parse_url()?;
        let ports = config.get_ports().iter().chain(std::iter::repeat(&5432));
        let servers: Vec<String> = config
            .get_hosts()
            .iter()
            .zip(ports)
            .map(|(host, port)| match host {
                Host::Tcp(name) => format!("{name}:{port}"),
                Host::Unix(path) => path.display().to_string(),
            })
            .collect();
        Ok(format!(
            "{}/{}",
            servers.join(","),
            config.get_dbname().unwrap_or_default()
        ))
    }

    fn parse_url(&self) -> Result<Config, StorageError> {
        self.url
            .parse()
            .map_err(|error: tokio_postgres::Error| StorageError::Failed {
                what: LEDGER_NAME.into(),
                reason: format!("invalid URL: {error}"),
            })
    }
}

impl std::fmt::Debug for PostgresConnectionSettings {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        // The password must not be logged.
        f.debug_struct("PostgresConnectionSettings")
            .field("url", &self.url)
            .finish_non_exhaustive()
    }
}

/// A pool of connections to the server.
pub(crate) struct PostgresDatabase {
    pool: Pool,
    /// For transactions without a tenant, such as the renewal of claims. They must not wait behind those that wait for a tenant.
    pool_without_tenants: Pool,
    runtime: Handle,
    /// Stored files of this process that changed.
    changed_paths: Arc<ChangedPaths>,
    /// Held while sizes are saved. The time of the last save.
    sizes_saved_at: Mutex<Option<Instant>>,
}

impl PostgresDatabase {
    /// Connects to the server and upgrades the schema. Returns [`StorageError::Unavailable`] if the server does not respond.
    pub(super) async fn connect_and_upgrade(
        settings: &PostgresConnectionSettings,
        changed_paths: Arc<ChangedPaths>,
    ) -> Result<Self, StorageError> {
        let database = Self {
            pool: create_pool(settings, settings.max_connections)?,
            pool_without_tenants: create_pool(settings, CONNECTIONS_WITHOUT_TENANTS)?,
            runtime: Handle::current(),
            changed_paths,
            sizes_saved_at: Mutex::default(),
        };
        database
            .run_transaction(
                vec![migrations::MIGRATION_LOCK.into()],
                migrations::upgrade_schema,
            )
            .await??;
        Ok(database)
    }

    /// Runs `work`, which only reads, without a transaction.
    pub(super) async fn run_query<R: Send + 'static>(
        &self,
        work: impl FnOnce(&SqlConnection<'_>) -> SqlResult<R> + Send + 'static,
    ) -> Result<R, StorageError> {
        let client = self.pool.get().await.map_err(|e| from_pool_error(&e))?;
        let runtime = self.runtime.clone();
        run_on_blocking_thread(move || {
            let connection = SqlConnection::Postgres(PostgresConnection::new(&client, runtime));
            work(&connection)
        })
        .await
    }

    /// Runs `work` in a transaction that holds the tenants' locks. The changes are durable when the call returns.
    pub(super) async fn run_write_transaction<R: Send + 'static>(
        &self,
        tenants: LockedTenants,
        work: impl FnOnce(&SqlConnection<'_>) -> SqlResult<R> + Send + 'static,
    ) -> Result<R, StorageError> {
        let result = self.run_transaction(tenants.to_lock_names(), work).await?;
        if self.changed_paths.has_pending_update() {
            self.save_file_sizes_if_due().await;
        }
        Ok(result)
    }

    /// Runs `work` in a transaction that holds the advisory locks of these names.
    async fn run_transaction<R: Send + 'static>(
        &self,
        locks: Vec<String>,
        work: impl FnOnce(&SqlConnection<'_>) -> SqlResult<R> + Send + 'static,
    ) -> Result<R, StorageError> {
        let pool = match locks.is_empty() {
            true => &self.pool_without_tenants,
            false => &self.pool,
        };
        let client = pool.get().await.map_err(|e| from_pool_error(&e))?;
        let runtime = self.runtime.clone();
        run_on_blocking_thread(move || {
            let done = catch_unwind(AssertUnwindSafe(|| {
                run_in_transaction(&client, runtime, &locks, work)
            }));
            if !matches!(done, Ok(Ok(_))) {
                drop(Object::take(client));
            }
            done.unwrap_or_else(|panic| resume_unwind(panic))
        })
        .await
    }

    /// Marks the paths that are about to change, if an earlier transaction has not done it. Blocks the calling thread, which must not run
    /// async code.
    pub(super) fn mark_changing_paths(&self) -> Result<(), StorageError> {
        match self.changed_paths.has_unmarked_path() {
            true => self.save_changed_file_sizes(),
            false => Ok(()),
        }
    }

    /// Saves the sizes of changed files. Blocks the calling thread, which must not run async code.
    pub(super) fn save_changed_file_sizes(&self) -> Result<(), StorageError> {
        self.runtime
            .clone()
            .block_on(self.save_changed_file_sizes_async())
    }

    pub(super) async fn save_changed_file_sizes_async(&self) -> Result<(), StorageError> {
        let saved_at = self.sizes_saved_at.lock().await;
        self.save_file_sizes(saved_at).await
    }

    /// Saves the sizes of changed files unless this has happened just now.
    async fn save_file_sizes_if_due(&self) {
        let Ok(saved_at) = self.sizes_saved_at.try_lock() else {
            return;
        };
        if saved_at.is_none_or(|at| at.elapsed() >= SIZES_SAVE_INTERVAL)
            && let Err(error) = self.save_file_sizes(saved_at).await
        {
            tracing::warn!(%error, "the sizes of changed files could not be saved: the next change tries again");
        }
    }

    async fn save_file_sizes(
        &self,
        mut saved_at: MutexGuard<'_, Option<Instant>>,
    ) -> Result<(), StorageError> {
        let updates = Arc::new(self.changed_paths.take_pending_updates());
        if updates.is_empty() {
            return Ok(());
        }
        let tenants = LockedTenants::many(updates.iter().map(|update| &update.tenant));
        let locks = tenants.to_lock_names();
        let written = Arc::clone(&updates);
        self.run_transaction(locks, move |t| storage_usage::write_path_updates(t, &written))
            .await?;
        self.changed_paths.mark_updates_saved(&updates);
        *saved_at = Some(Instant::now());
        Ok(())
    }

    /// Saves the last sizes, refuses later changes of files and closes all connections.
    pub(super) async fn close(&self) {
        self.changed_paths.refuse_later_changes();
        let saved_at = self.sizes_saved_at.lock().await;
        if let Err(error) = self.save_file_sizes(saved_at).await {
            tracing::warn!(%error, "the sizes of the last changed files could not be saved");
        }
        self.pool.close();
        self.pool_without_tenants.close();
    }
}

fn create_pool(settings: &PostgresConnectionSettings, max_connections: u32) -> Result<Pool, StorageError> {
    let failed = |reason: String| StorageError::Failed {
        what: LEDGER_NAME.into(),
        reason,
    };
    let mut config = settings.parse_url()?;
    if let Some(password) = &settings.password {
        config.password(password);
    }
    let options = format!(
        "{} -c statement_timeout={STATEMENT_TIMEOUT}",
        config.get_options().unwrap_or_default()
    );
    config
        .options(options)
        .application_name("weir")
        .connect_timeout(CONNECT_TIMEOUT)
        .keepalives_idle(KEEPALIVE_IDLE)
        .tcp_user_timeout(TCP_USER_TIMEOUT);
    let manager_config = ManagerConfig {
        recycling_method: RecyclingMethod::Fast,
    };
    let manager = match config.get_ssl_mode() {
        SslMode::Disable => Manager::from_config(config, NoTls, manager_config),
        _ => {
            let provider = Arc::new(rustls::crypto::ring::default_provider());
            let tls = ClientConfig::builder_with_provider(provider)
                .with_safe_default_protocol_versions()
                .and_then(BuilderVerifierExt::with_platform_verifier)
                .map_err(|error| failed(error.to_string()))?
                .with_no_client_auth();
            Manager::from_config(config, MakeRustlsConnect::new(tls), manager_config)
        }
    };
    Pool::builder(manager)
        .max_size(usize::try_from(max_connections).unwrap_or(usize::MAX))
        .runtime(Runtime::Tokio1)
        .timeouts(Timeouts {
            wait: Some(POOL_WAIT_TIMEOUT),
            create: Some(CONNECT_TIMEOUT),
            recycle: Some(CONNECT_TIMEOUT),
        })
        .build()
        .map_err(|error| failed(error.to_string()))
}

/// Runs `work` in a transaction and commits it. After an error the transaction is still open.
fn run_in_transaction<R>(
    client: &ClientWrapper,
    runtime: Handle,
    locks: &[String],
    work: impl FnOnce(&SqlConnection<'_>) -> SqlResult<R>,
) -> SqlResult<R> {
    let connection = SqlConnection::Postgres(PostgresConnection::new(client, runtime));
    connection.execute_batch(BEGIN)?;
    for lock in locks {
        connection.execute(
            "SELECT pg_advisory_xact_lock(hashtextextended(?1, 0))",
            params![lock],
        )?;
    }
    let result = work(&connection)?;
    connection.execute_batch("COMMIT")?;
    connection.finish_queued()?;
    Ok(result)
}

/// Runs `work` on a thread that may block.
async fn run_on_blocking_thread<R: Send + 'static>(
    work: impl FnOnce() -> SqlResult<R> + Send + 'static,
) -> Result<R, StorageError> {
    let done = tokio::task::spawn_blocking(work).await;
    done.map_err(|error| StorageError::Failed {
        what: LEDGER_NAME.into(),
        reason: error.to_string(),
    })?
    .map_err(|error| to_storage_error(&error))
}
