//! `weir serve`: runs the HTTP server for many tenants.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use async_trait::async_trait;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use tokio::signal::unix::{SignalKind, signal};
use weir_control::pipelines::PipelineBuilder;
use weir_control::usage::UsageRecorder;
use weir_control::{CommitNotifier, Control, ControlParts, NodeClaims, NodeMessages};
use weir_core::TenantId;
use weir_core::manifest::{Manifest, ResolvedComponentFile, ResolvedPipeline, Role};
use weir_core::node::NodeRole;
use weir_core::settings::Settings;
use weir_core::tenancy::{KeyScope, TenantStore};
use weir_server::{Listener, Server, SigningKey};
use weir_storage::{LINK_KEY_BYTES, SqlLedger};

use crate::app_folders::AppFolders;
use crate::host_services::HostServices;
use crate::node_lease::describe_node;
use crate::store_connections::connect_redis;
use crate::terminal::out_line;
use crate::{pipeline_loader, tenant_and_key_commands};

/// Serves until SIGTERM or Ctrl-C. Prints the address to standard output and, only at the first start in a
/// data folder, the admin key.
pub(crate) async fn run(json: bool, settings: &Settings, folders: &AppFolders) -> Result<ExitCode> {
    check_role(settings)?;
    // First, so that an address in use is reported at once.
    let listener = Listener::bind(settings).await?;
    raise_open_file_limit();
    // Before any part that records metrics is created.
    weir_server::install_metrics_recorder();
    let mut notifier = None;
    let usage_recorder = UsageRecorder::new();
    let node = describe_node(settings, settings.cluster_role);
    let redis = connect_redis(settings, node.id.as_str())?;
    let node_messages = NodeMessages::new(redis.clone().map(|redis| redis as _));
    let new_notifier = |ledger| match settings.shares_ledger() {
        true => CommitNotifier::for_shared_ledger(ledger, Arc::clone(&node_messages)),
        false => CommitNotifier::new(ledger),
    };
    let wrap_ledger = |ledger| notifier.insert(new_notifier(ledger)).clone() as _;
    let host = HostServices::open_with_ledger_wrapper_and_usage(
        settings,
        folders,
        wrap_ledger,
        Some(usage_recorder.clone()),
        &node,
    )
    .await?;
    let ledger = notifier.context("the engine was created without a ledger")?;
    let store = host.sql_ledger();
    let key = create_first_tenant_and_key(store.as_ref()).await?;
    print_address_and_admin_key(json, &listener, key.as_deref())?;
    let (uploads, components) = (host.upload_store(), host.component_store());
    let (component_validator, job_replayer) = (host.component_validator(), host.job_replayer());
    let (engine, services) = host.into_parts();
    let link_key = load_or_create_link_key(&store, folders).await?;
    let control = Control::new(ControlParts {
        engine,
        ledger,
        tenant_store: store.clone(),
        job_requests: store.clone(),
        document_removals: store.clone(),
        retention_store: store.clone(),
        claims: Arc::new(NodeClaims::new(
            store.clone(),
            store.clone(),
            Arc::clone(&node_messages),
            node,
            Duration::from_secs(settings.cluster_lease_seconds.into()),
        )),
        node_messages: Arc::clone(&node_messages),
        store_statuses: {
            let redis_status = redis.as_ref().map(|redis| redis.status());
            services
                .store_statuses()
                .into_iter()
                .chain(redis_status)
                .collect()
        },
        shared_limit_store: redis.map(|redis| redis as _),
        usage_store: store.clone(),
        usage_recorder,
        pipelines: store.clone(),
        shadows: store,
        components,
        component_validator,
        job_replayer,
        pipeline_builder: Arc::new(DefaultComponentsPipelineBuilder(
            folders.default_components.clone(),
        )),
        upload_store: uploads,
        settings: settings.clone(),
    });
    let server = Server::new(control, SigningKey::from_bytes(link_key));
    let served = server.serve(listener, wait_for_stop_signal()).await;
    services.close().await?;
    served?;
    Ok(ExitCode::SUCCESS)
}

/// Checks that nodes with other roles can use the stores of this node.
fn check_role(settings: &Settings) -> Result<()> {
    let own_stores = [
        ("storage.ledger", &settings.storage_ledger),
        ("storage.vectors", &settings.storage_vectors),
        ("storage.blobs", &settings.storage_blobs),
    ];
    if !settings.cluster_redis.is_empty() && !settings.shares_ledger() {
        bail!("cluster.redis is for nodes that share a ledger: set storage.ledger too, or leave it out");
    }
    let role = settings.cluster_role;
    match own_stores.iter().find(|(_, location)| location.is_empty()) {
        Some((setting, _)) if role != NodeRole::Both => bail!(
            "the role {} needs nodes with the other role, which cannot use the data folder of this node: set {setting}, or use the role both",
            role.name()
        ),
        _ => Ok(()),
    }
}

/// Raises the limit of open files to the maximum that the machine allows. Each connection needs a file descriptor, and the
/// default limit of 1,024 exists for programs that use `select`.
fn raise_open_file_limit() {
    let limit = getrlimit(Resource::Nofile);
    let raised = Rlimit {
        current: limit.maximum,
        maximum: limit.maximum,
    };
    if let Err(error) = setrlimit(Resource::Nofile, raised) {
        tracing::warn!(%error, "cannot raise the limit of open files");
    }
}

/// Builds pipelines with the default components of the installation.
struct DefaultComponentsPipelineBuilder(PathBuf);

#[async_trait]
impl PipelineBuilder for DefaultComponentsPipelineBuilder {
    async fn build_pipeline(
        &self,
        manifest: Manifest,
        components: BTreeMap<Role, ResolvedComponentFile>,
    ) -> Result<Arc<ResolvedPipeline>, String> {
        let folder = self.0.clone();
        let built = tokio::task::spawn_blocking(move || {
            pipeline_loader::build_pipeline_filling_missing_roles(manifest, components, &folder)
        });
        match built.await {
            Ok(built) => built.map(Arc::new).map_err(|error| {
                // The tenant gets only the outermost error, because its causes contain paths of the host.
                tracing::warn!(error = format!("{error:#}"), "cannot build a pipeline");
                error.to_string()
            }),
            Err(join_error) => Err(join_error.to_string()),
        }
    }
}

/// If there are no tenants, creates the first one and an API key with all scopes, and returns the key.
async fn create_first_tenant_and_key(registry: &dyn TenantStore) -> Result<Option<String>> {
    if !registry.list_tenants().await?.is_empty() {
        return Ok(None);
    }
    let tenant = TenantId::default_tenant();
    let record = tenant_and_key_commands::new_tenant_record(&tenant);
    if !registry.create_tenant(&record).await? {
        // Another node has just done it.
        return Ok(None);
    }
    let key =
        tenant_and_key_commands::create_api_key(registry, &tenant, KeyScope::ALL.to_vec(), "first key", None)
            .await?;
    Ok(Some(key.full_key))
}

/// Returns the key of signed links. A ledger without a key gets that of the data folder, where earlier versions kept it, or a new one.
async fn load_or_create_link_key(ledger: &SqlLedger, folders: &AppFolders) -> Result<[u8; LINK_KEY_BYTES]> {
    let file = folders.data.join("links.key");
    let key_of_folder = std::fs::read(&file)
        .ok()
        .and_then(|bytes| bytes.first_chunk().copied());
    let new_key = match key_of_folder {
        Some(key) => key,
        None => SigningKey::generate()?.to_bytes(),
    };
    let key = ledger.load_or_set_link_key(new_key).await?;
    // On several nodes, a file that is mounted cannot be removed.
    if let Err(error) = std::fs::remove_file(&file)
        && error.kind() != std::io::ErrorKind::NotFound
    {
        tracing::warn!(%error, "links.key in the data folder is not used any more and could not be removed");
    }
    Ok(key)
}

fn print_address_and_admin_key(json: bool, listener: &Listener, key: Option<&str>) -> Result<()> {
    let scheme = if listener.uses_tls() { "https" } else { "http" };
    let address = format!("{scheme}://{}", listener.local_address()?);
    let text = match (json, key) {
        (true, _) => serde_json::json!({ "address": address, "admin_key": key }).to_string(),
        (false, None) => format!("weir listens on {address}"),
        (false, Some(key)) => format!("weir listens on {address}\nadmin key, printed only once: {key}"),
    };
    Ok(out_line!("{text}")?)
}

async fn wait_for_stop_signal() {
    let (Ok(mut interrupt), Ok(mut terminate)) =
        (signal(SignalKind::interrupt()), signal(SignalKind::terminate()))
    else {
        return std::future::pending().await;
    };
    tokio::select! {
        _ = interrupt.recv() => {}
        _ = terminate.recv() => {}
    }
}
