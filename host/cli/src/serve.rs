//! `weir serve`: many tenants over HTTP.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;

use anyhow::{Context as _, Result};
use async_trait::async_trait;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use tokio::signal::unix::{SignalKind, signal};
use weir_core::TenantId;
use weir_core::manifest::{ComponentFile, Manifest, Pipeline, Role};
use weir_core::settings::Settings;
use weir_core::tenancy::{Registry, Scope};
use weir_server::{Announced, Defaults, Listener, Metering, Server, ServerParts, SigningKey};

use crate::host::Host;
use crate::places::Places;
use crate::terminal::out_line;
use crate::{pipeline, tenants};

/// Serves until SIGTERM or Ctrl-C. Standard output has the address and, at the first start, the admin key; both once.
pub(crate) async fn run(json: bool, settings: &Settings, places: &Places) -> Result<ExitCode> {
    // Before anything is opened, so that an address in use is said at once.
    let listener = Listener::bind(settings).await?;
    allow_descriptors();
    // Before anything that records is made.
    weir_server::measure();
    let mut announced = None;
    let metering = Metering::new();
    let announce = |ledger| announced.insert(Announced::new(ledger)).clone() as _;
    let host = Host::open_with(settings, places, announce, Some(metering.clone())).await?;
    let ledger = announced.context("the engine was given no ledger")?;
    let store = host.store();
    let key = first_key(store.as_ref()).await?;
    say(json, &listener, key.as_deref())?;
    let (originals, components) = (host.originals(), host.components());
    let (gate, replays) = (host.gate(), host.replays());
    let (engine, below) = host.split();
    let server = Server::new(ServerParts {
        engine,
        ledger,
        registry: store.clone(),
        orders: store.clone(),
        removals: store.clone(),
        usage: store.clone(),
        metering,
        pipelines: store.clone(),
        shadows: store,
        components,
        gate,
        replays,
        defaults: Arc::new(Shipped(places.components.clone())),
        originals,
        signing: SigningKey::open(&places.data).with_context(|| places.opening())?,
        settings: settings.clone(),
    });
    let served = server.serve(listener, told_to_stop()).await;
    below.close().await?;
    served?;
    Ok(ExitCode::SUCCESS)
}

/// A connection is a descriptor, and the usual 1,024 of a process are a limit for programs that use `select`. What the machine
/// allows at most stays the limit.
fn allow_descriptors() {
    let limit = getrlimit(Resource::Nofile);
    let raised = Rlimit {
        current: limit.maximum,
        maximum: limit.maximum,
    };
    if let Err(error) = setrlimit(Resource::Nofile, raised) {
        tracing::warn!(%error, "the number of open files cannot be raised");
    }
}

/// The components that come with Weir.
struct Shipped(PathBuf);

#[async_trait]
impl Defaults for Shipped {
    async fn pipeline(
        &self,
        manifest: Manifest,
        components: BTreeMap<Role, ComponentFile>,
    ) -> Result<Arc<Pipeline>, String> {
        let folder = self.0.clone();
        let built =
            tokio::task::spawn_blocking(move || pipeline::with_defaults(manifest, components, &folder));
        match built.await {
            Ok(built) => built.map(Arc::new).map_err(|error| {
                // A tenant reads the outermost reason; those below it name paths.
                tracing::warn!(error = format!("{error:#}"), "a pipeline cannot be built");
                error.to_string()
            }),
            Err(died) => Err(died.to_string()),
        }
    }
}

/// On a host without tenants: makes the first, with a key that may do everything, and answers with the key.
async fn first_key(registry: &dyn Registry) -> Result<Option<String>> {
    if !registry.tenants().await?.is_empty() {
        return Ok(None);
    }
    let tenant = TenantId::single();
    registry.create_tenant(&tenants::fresh(&tenant)).await?;
    let key = tenants::mint_key(registry, &tenant, Scope::ALL.to_vec(), "first key", None).await?;
    Ok(Some(key.text))
}

fn say(json: bool, listener: &Listener, key: Option<&str>) -> Result<()> {
    let scheme = if listener.is_encrypted() { "https" } else { "http" };
    let address = format!("{scheme}://{}", listener.address()?);
    let text = match (json, key) {
        (true, _) => serde_json::json!({ "address": address, "admin_key": key }).to_string(),
        (false, None) => format!("weir listens on {address}"),
        (false, Some(key)) => format!("weir listens on {address}\nadmin key, shown this once: {key}"),
    };
    Ok(out_line!("{text}")?)
}

async fn told_to_stop() {
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
