//! Connects the engine's ports to their implementations.

use std::ffi::OsString;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, Result};
use weir_control::usage::UsageRecorder;
use weir_core::component::{ComponentStore, ComponentValidator};
use weir_core::id::TenantId;
use weir_core::llm::ResponseCache;
use weir_core::node::{NodeInfo, NodeRole};
use weir_core::ports::{BlobStore, ComponentStateStore, Ledger, VectorStore};
use weir_core::replay::JobReplayer;
use weir_core::settings::Settings;
use weir_core::store_status::StoreStatus;
use weir_core::uploads::UploadStore;
use weir_core::usage::{UsageMeter, UsageQuotaLimiter};
use weir_engine::{Engine, EngineConfig, PortImplementations};
use weir_inference::{InferenceConfig, InferenceHost, ModelKind};
use weir_llm::{CachedLanguageModel, SharedCallLimits, UsageAccounting};
use weir_policy::{PolicyHost, PolicyHostConfig, Retention};
use weir_raster::{RasterConfig, RasterPool};
use weir_storage::{ExternalStores, SqlLedger, SqliteResponseCache, Storage};

use crate::app_folders::AppFolders;
use crate::ledger_access::connect_postgres;
use crate::node_lease::{NodeLease, describe_node};
use crate::store_connections::{EMBEDDING_MODEL, connect_qdrant, connect_s3_bucket};

/// Hidden command that runs a PDF worker process.
pub(crate) const RASTER_WORKER_COMMAND: &str = "raster-worker";
/// Hidden command that runs a process that compiles one component.
pub(crate) const COMPILE_COMPONENT_COMMAND: &str = "compile-component";

/// Maximum time for storing the last recorded calls at the end.
const RECORDINGS_CLOSE_TIMEOUT: Duration = Duration::from_secs(10);

/// The engine and all services that a job needs, in one process.
pub(crate) struct HostServices {
    pub(crate) engine: Engine,
    engine_services: ServicesUsedByEngine,
}

/// The services that the engine uses. They are closed after the engine.
pub(crate) struct ServicesUsedByEngine {
    rasterizer: Arc<RasterPool>,
    /// Keeps the models loaded until the engine is closed.
    _inference: InferenceHost,
    policies: Arc<PolicyHost>,
    language_model: Arc<CachedLanguageModel>,
    response_cache: Option<Arc<SqliteResponseCache>>,
    /// The record of this process, unless a server renews it with its claims.
    node_lease: Option<NodeLease>,
    storage: Storage,
}

impl HostServices {
    /// Opens the data folder, the models and the worker pool. Fails before any work if a part is missing.
    pub(crate) async fn open(settings: &Settings, folders: &AppFolders) -> Result<Self> {
        let node = describe_node(settings, NodeRole::Worker);
        let mut host =
            Self::open_with_ledger_wrapper_and_usage(settings, folders, |ledger| ledger, None, &node).await?;
        if settings.shares_ledger() {
            let lease = NodeLease::start(host.sql_ledger(), node, settings).await?;
            host.engine_services.node_lease = Some(lease);
        }
        Ok(host)
    }

    /// Opens the services for a server: the engine writes to the ledger that `wrap` returns, and `usage` meters tenants and
    /// enforces their quotas. The caller renews the record of `node`.
    pub(crate) async fn open_with_ledger_wrapper_and_usage(
        settings: &Settings,
        folders: &AppFolders,
        wrap: impl FnOnce(Arc<dyn Ledger>) -> Arc<dyn Ledger>,
        usage: Option<Arc<UsageRecorder>>,
        node: &NodeInfo,
    ) -> Result<Self> {
        let meter = usage.clone().map(|usage| usage as Arc<dyn UsageMeter>);
        let quotas = usage.map(|usage| usage as Arc<dyn UsageQuotaLimiter>);
        let inference_config = InferenceConfig {
            usage_meter: meter.clone(),
            ..InferenceConfig::from_settings(settings, folders.assets.clone())
        };
        inference_config.check_model_files_exist(ModelKind::Embedding)?;
        let runs_jobs = node.role.runs_jobs();
        if runs_jobs {
            inference_config.check_model_files_exist(ModelKind::Ocr)?;
        }
        let inference = InferenceHost::load_runtime(inference_config)?;
        // Every page needs the model. It loads while the stores open.
        inference.open_models_in_background(ModelKind::Embedding)?;
        let embedder = inference.embedder();
        let dimensions = embedder.vector_dimensions();
        let external = connect_external_stores(settings, dimensions).await?;
        let opened = Storage::open_or_create_with_external_stores(
            &folders.data,
            dimensions,
            EMBEDDING_MODEL,
            external,
        )
        .await;
        let storage = opened.with_context(|| folders.data_folder_error_context())?;
        let rasterizer = Arc::new(RasterPool::new(raster_config(settings, folders)?)?);
        if runs_jobs {
            rasterizer.check_worker_starts().await?;
        }
        let policies = PolicyHost::new(PolicyHostConfig {
            recordings: Some(storage.recordings.clone()),
            record_calls: settings.policy_record_calls,
            usage_meter: meter.clone(),
            ..policy_config(settings, folders, storage.ledger.clone())?
        })?;
        let response_cache = match settings.llm_response_cache {
            true => Some(Arc::new(
                SqliteResponseCache::open_or_create(&folders.data, settings.llm_max_response_cache_bytes)
                    .await
                    .with_context(|| folders.data_folder_error_context())?,
            )),
            false => {
                SqliteResponseCache::delete_cache_of_data_folder(&folders.data).await?;
                None
            }
        };
        let cache_port = response_cache
            .clone()
            .map(|cache| cache as Arc<dyn ResponseCache>);
        let accounting = UsageAccounting {
            meter: meter.clone(),
            quotas: quotas.clone(),
        };
        let shared_limits = settings.shares_ledger().then(|| SharedCallLimits {
            store: storage.ledger.clone(),
            node: node.id.clone(),
        });
        let language_model = Arc::new(weir_llm::build_language_model(
            settings,
            &embedder,
            cache_port,
            accounting,
            shared_limits.as_ref(),
            |name| std::env::var(name).ok(),
        )?);
        let ports = PortImplementations {
            rasterizer: rasterizer.clone(),
            ocr_engine: Some(inference.ocr_engine()),
            embedder,
            blobs: storage.blobs.clone(),
            vectors: storage.vectors.clone(),
            ledger: wrap(storage.ledger.clone()),
            policies: policies.clone(),
            language_model: Some(language_model.clone()),
            meter,
            quotas,
        };
        let engine = Engine::new(ports, EngineConfig::from_settings(settings));
        Ok(Self {
            engine,
            engine_services: ServicesUsedByEngine {
                rasterizer,
                _inference: inference,
                policies,
                language_model,
                response_cache,
                node_lease: None,
                storage,
            },
        })
    }

    /// Whether a language model accepts images.
    pub(crate) fn language_model_supports_images(&self) -> bool {
        let model = &self.engine.port_implementations().language_model;
        model.as_ref().is_some_and(|model| model.supports_images())
    }

    /// The store of page images and text lines.
    pub(crate) fn blob_store(&self) -> Arc<dyn BlobStore> {
        self.engine_services.storage.blobs.clone()
    }

    /// The store of uploaded files.
    pub(crate) fn upload_store(&self) -> Arc<dyn UploadStore> {
        self.engine_services.storage.uploads.clone()
    }

    /// The store of components that tenants pushed.
    pub(crate) fn component_store(&self) -> Arc<dyn ComponentStore> {
        self.engine_services.storage.components.clone()
    }

    /// The validator of pushed components.
    pub(crate) fn component_validator(&self) -> Arc<dyn ComponentValidator> {
        self.engine_services.policies.clone()
    }

    /// The replayer of recorded jobs.
    pub(crate) fn job_replayer(&self) -> Arc<dyn JobReplayer> {
        self.engine_services.policies.clone()
    }

    /// The ledger as the port that the engine uses.
    pub(crate) fn ledger(&self) -> Arc<dyn Ledger> {
        self.engine_services.storage.ledger.clone()
    }

    /// Closes everything in the order that loses no data: the engine flushes its state, then the workers stop, then the stores
    /// close.
    pub(crate) async fn close(self) -> Result<()> {
        self.engine
            .cancel_jobs_and_shutdown(Duration::from_millis(500))
            .await?;
        self.engine_services.close().await
    }

    /// The ledger with its other ports: tenants, API keys, job requests and usage.
    pub(crate) fn sql_ledger(&self) -> Arc<SqlLedger> {
        self.engine_services.storage.ledger.clone()
    }

    /// Splits the host into the engine, which the caller shuts down, and the services to close after it.
    pub(crate) fn into_parts(self) -> (Engine, ServicesUsedByEngine) {
        (self.engine, self.engine_services)
    }
}

impl ServicesUsedByEngine {
    /// Returns whether the latest calls of the stores have succeeded.
    pub(crate) fn store_statuses(&self) -> Vec<Arc<StoreStatus>> {
        self.storage.store_statuses.clone()
    }

    /// Stops the raster workers, then closes the stores. Call it after the engine is shut down.
    pub(crate) async fn close(self) -> Result<()> {
        self.rasterizer.close().await;
        self.language_model.close().await;
        if let Some(lease) = self.node_lease {
            lease.end().await;
        }
        if let Some(response_cache) = &self.response_cache {
            response_cache.close().await;
        }
        // A recording whose end is not stored is reported as incomplete.
        if !self.policies.close_recordings(RECORDINGS_CLOSE_TIMEOUT).await {
            tracing::warn!(
                "the store of recordings does not respond: the last calls of recent jobs are not recorded"
            );
        }
        self.storage.close().await?;
        Ok(())
    }
}

/// Connects to the stores of the settings that are not in the data folder.
pub(crate) async fn connect_external_stores(
    settings: &Settings,
    dimensions: usize,
) -> Result<ExternalStores> {
    let qdrant = connect_qdrant(settings, dimensions).await?;
    Ok(ExternalStores {
        ledger: connect_postgres(settings).await?,
        vectors: qdrant.map(|qdrant| Arc::new(qdrant) as Arc<dyn VectorStore>),
        bucket: connect_s3_bucket(settings).await?,
    })
}

/// Removes a tenant with all its data. Fails if another process uses the data folder.
pub(crate) async fn remove_tenant(
    settings: &Settings,
    folders: &AppFolders,
    tenant: &TenantId,
) -> Result<()> {
    let external = connect_external_stores(settings, weir_inference::EMBEDDING_DIMENSIONS).await?;
    weir_storage::remove_tenant_with_all_data(&folders.data, tenant, external)
        .await
        .with_context(|| folders.data_folder_error_context())?;
    Ok(())
}

/// Returns the configuration of the rasterizer by the settings.
pub(crate) fn raster_config(settings: &Settings, folders: &AppFolders) -> Result<RasterConfig> {
    Ok(RasterConfig::from_settings(
        settings,
        hidden_command_line(RASTER_WORKER_COMMAND)?,
        folders.assets.join("lib/libpdfium.so"),
    ))
}

/// Returns the configuration of the component host from the settings, without recording and without a usage meter.
pub(crate) fn policy_config(
    settings: &Settings,
    folders: &AppFolders,
    state: Arc<dyn ComponentStateStore>,
) -> Result<PolicyHostConfig> {
    Ok(PolicyHostConfig {
        max_instances: settings.policy_max_component_instances,
        call_timeout_millis: settings.policy_call_timeout_millis,
        max_memory_bytes: settings.policy_default_instance_memory_bytes,
        max_output_bytes: settings.policy_max_call_output_bytes,
        max_compile_cpu_seconds: settings.policy_max_compile_cpu_seconds,
        max_compile_memory_bytes: settings.policy_max_compile_memory_bytes,
        compile_command: hidden_command_line(COMPILE_COMPONENT_COMMAND)?,
        cache_folder: folders.cache.join("components"),
        max_cache_bytes: settings.policy_max_compiled_cache_bytes,
        max_loaded_components: settings.policy_max_loaded_components,
        recordings: None,
        record_calls: false,
        retention: recording_retention(settings),
        state,
        usage_meter: None,
    })
}

/// Returns the retention limits of recordings.
pub(crate) const fn recording_retention(settings: &Settings) -> Retention {
    Retention {
        max_days: settings.policy_recording_retention_days,
        max_bytes: settings.policy_max_recording_bytes,
    }
}

/// Returns the command line that starts this binary with a hidden command.
pub(crate) fn hidden_command_line(name: &str) -> Result<Vec<OsString>> {
    let binary: PathBuf = std::env::current_exe().context("cannot find the weir binary itself")?;
    Ok(vec![binary.into(), name.into()])
}

/// Formats labels in the format of the command line: `team=north, year=2024`.
pub(crate) fn format_labels<'a>(labels: impl Iterator<Item = (&'a String, &'a String)>) -> String {
    let labels: Vec<_> = labels.map(|(name, value)| format!("{name}={value}")).collect();
    labels.join(", ")
}
