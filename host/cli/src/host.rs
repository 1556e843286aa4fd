//! Joins the engine's ports to what implements them.

use std::ffi::OsString;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, Result};
use weir_core::StorageError;
use weir_core::component::{ComponentStore, Gate};
use weir_core::id::TenantId;
use weir_core::language::AnswerCache;
use weir_core::original::Originals;
use weir_core::page::Lane;
use weir_core::ports::{Account, BlobStore, Ledger, PolicyState};
use weir_core::replay::Replays;
use weir_core::search::{Hit, Query};
use weir_core::settings::Settings;
use weir_core::usage::{Meter, UsageQuotas};
use weir_engine::{Engine, EngineConfig, Ports, SearchRequest};
use weir_inference::{Capability, Inference, InferenceConfig};
use weir_llm::Accounts;
use weir_policy::{PolicyConfig, PolicyHost, Retention};
use weir_raster::{RasterConfig, RasterPool};
use weir_server::Metering;
use weir_storage::{LedgerReader, SqliteAnswers, SqliteLedger, Storage};

use crate::places::Places;
use crate::{COMPILE_COMPONENT, RASTER_WORKER};

/// Everything a job needs, in one process.
pub(crate) struct Host {
    pub(crate) engine: Engine,
    below: Below,
}

/// What the engine stands on; it ends after the engine.
pub(crate) struct Below {
    rasterizer: Arc<RasterPool>,
    /// Held so that models end after the engine that uses them.
    _inference: Inference,
    policies: Arc<PolicyHost>,
    answers: Option<Arc<SqliteAnswers>>,
    storage: Storage,
}

impl Host {
    /// Opens the data folder, the models and the worker pool. What is missing is said here, before any work.
    pub(crate) async fn open(settings: &Settings, places: &Places) -> Result<Self> {
        Self::open_with(settings, places, |ledger| ledger, None).await
    }

    /// The same, with the engine's ledger behind another, and with tenants metered and kept within their quotas.
    pub(crate) async fn open_with(
        settings: &Settings,
        places: &Places,
        wrap: impl FnOnce(Arc<dyn Ledger>) -> Arc<dyn Ledger>,
        usage: Option<Arc<Metering>>,
    ) -> Result<Self> {
        let meter = usage.clone().map(|usage| usage as Arc<dyn Meter>);
        let quotas = usage.map(|usage| usage as Arc<dyn UsageQuotas>);
        let inference_config = InferenceConfig {
            meter: meter.clone(),
            ..InferenceConfig::from_settings(settings, places.assets.clone())
        };
        inference_config.check(Capability::Embed)?;
        inference_config.check(Capability::Read)?;
        let inference = Inference::load(inference_config)?;
        // Every page needs it, and it opens while the stores do.
        inference.warm(Capability::Embed)?;
        let embedder = inference.embedder();
        let storage = Storage::open(&places.data, embedder.dimensions(), EMBEDDING)
            .await
            .with_context(|| places.opening())?;
        let rasterizer = Arc::new(RasterPool::new(raster_config(settings, places)?)?);
        rasterizer.check().await?;
        let policies = PolicyHost::new(PolicyConfig {
            recordings: Some(places.data.join("recordings")),
            record: settings.policy_record,
            meter: meter.clone(),
            ..policy_config(settings, places, storage.ledger.clone())?
        })?;
        let answers = match settings.llm_cache {
            true => Some(Arc::new(
                SqliteAnswers::open(&places.data, settings.llm_cache_bytes)
                    .await
                    .with_context(|| places.opening())?,
            )),
            false => {
                SqliteAnswers::discard(&places.data).await?;
                None
            }
        };
        let kept = answers.clone().map(|answers| answers as Arc<dyn AnswerCache>);
        let accounts = Accounts {
            meter: meter.clone(),
            quotas: quotas.clone(),
        };
        let language_model = Arc::new(weir_llm::from_settings(
            settings,
            &embedder,
            kept,
            accounts,
            |name| std::env::var(name).ok(),
        )?);
        let ports = Ports {
            rasterizer: rasterizer.clone(),
            reader: Some(inference.reader()),
            embedder,
            blobs: storage.blobs.clone(),
            vectors: storage.vectors.clone(),
            ledger: wrap(storage.ledger.clone()),
            policies: policies.clone(),
            language_model: Some(language_model),
            meter,
            quotas,
        };
        let engine = Engine::new(ports, EngineConfig::from_settings(settings));
        Ok(Self {
            engine,
            below: Below {
                rasterizer,
                _inference: inference,
                policies,
                answers,
                storage,
            },
        })
    }

    /// Whether a language model takes images.
    pub(crate) fn sees(&self) -> bool {
        let model = &self.engine.ports().language_model;
        model.as_ref().is_some_and(|model| model.sees())
    }

    /// Where page images and lines are kept.
    pub(crate) fn blobs(&self) -> Arc<dyn BlobStore> {
        self.below.storage.blobs.clone()
    }

    /// What clients sent.
    pub(crate) fn originals(&self) -> Arc<dyn Originals> {
        self.below.storage.originals.clone()
    }

    /// What tenants pushed.
    pub(crate) fn components(&self) -> Arc<dyn ComponentStore> {
        self.below.storage.components.clone()
    }

    /// What components have to pass.
    pub(crate) fn gate(&self) -> Arc<dyn Gate> {
        self.below.policies.clone()
    }

    /// Who has decisions again.
    pub(crate) fn replays(&self) -> Arc<dyn Replays> {
        self.below.policies.clone()
    }

    /// What is written down.
    pub(crate) fn ledger(&self) -> Arc<dyn Ledger> {
        self.below.storage.ledger.clone()
    }

    /// Ends in the order that loses nothing: the engine writes what it knows, then the workers go, then the stores close.
    pub(crate) async fn close(self) -> Result<()> {
        self.engine.shutdown(Duration::from_millis(500)).await?;
        self.below.close().await
    }

    /// Tenants, keys, orders and usage.
    pub(crate) fn store(&self) -> Arc<SqliteLedger> {
        self.below.storage.ledger.clone()
    }

    /// The engine, for someone else to shut down, and what is to be closed after it.
    pub(crate) fn split(self) -> (Engine, Below) {
        (self.engine, self.below)
    }
}

impl Below {
    /// The workers go, then the stores close.
    pub(crate) async fn close(self) -> Result<()> {
        self.rasterizer.close().await;
        if let Some(answers) = &self.answers {
            answers.close().await;
        }
        self.storage.close().await?;
        Ok(())
    }
}

/// Removes a tenant with all it has. Needs the data folder to itself.
pub(crate) async fn delete_tenant(places: &Places, tenant: &TenantId) -> Result<()> {
    weir_storage::remove_tenant(&places.data, tenant)
        .await
        .with_context(|| places.opening())?;
    Ok(())
}

/// Name of the text embedding model, kept with the vectors so that another model's are not mixed in.
const EMBEDDING: &str = "all-MiniLM-L6-v2";

/// The rasterizer that the settings describe.
pub(crate) fn raster_config(settings: &Settings, places: &Places) -> Result<RasterConfig> {
    Ok(RasterConfig::new(
        settings,
        this_binary(RASTER_WORKER)?,
        places.assets.join("lib/libpdfium.so"),
    ))
}

/// The sandbox that the settings describe, which records nothing and tells nobody.
pub(crate) fn policy_config(
    settings: &Settings,
    places: &Places,
    state: Arc<dyn PolicyState>,
) -> Result<PolicyConfig> {
    Ok(PolicyConfig {
        instances: settings.policy_instances,
        call_millis: settings.policy_call_millis,
        memory_bytes: settings.policy_memory_bytes,
        output_bytes: settings.policy_output_bytes,
        compile_seconds: settings.policy_compile_seconds,
        compile_bytes: settings.policy_compile_bytes,
        compile_command: this_binary(COMPILE_COMPONENT)?,
        cache: places.cache.join("components"),
        cache_bytes: settings.policy_cache_bytes,
        loaded_components: settings.policy_loaded_components,
        recordings: None,
        record: false,
        retention: retention(settings),
        state,
        meter: None,
    })
}

/// How long the calls of jobs are kept.
pub(crate) const fn retention(settings: &Settings) -> Retention {
    Retention {
        days: settings.policy_record_days,
        bytes: settings.policy_record_bytes,
    }
}

/// This program under a hidden name.
pub(crate) fn this_binary(name: &str) -> Result<Vec<OsString>> {
    let binary: PathBuf = std::env::current_exe().context("cannot find the weir binary itself")?;
    Ok(vec![binary.into(), name.into()])
}

/// The ledger, to be read beside a run; `None` if nothing has been ingested into the data folder.
pub(crate) fn read_ledger(places: &Places) -> Result<Option<LedgerReader>> {
    match LedgerReader::open(&places.data) {
        Ok(ledger) => Ok(Some(ledger)),
        Err(StorageError::Missing { .. }) => Ok(None),
        Err(error) => Err(error).with_context(|| places.opening()),
    }
}

/// Finds passages without opening anything for writing, so that it works beside a run.
pub(crate) async fn search(settings: &Settings, places: &Places, request: SearchRequest) -> Result<Vec<Hit>> {
    let inference = Inference::load(InferenceConfig::from_settings(settings, places.assets.clone()))?;
    let account = Account {
        tenant: request.tenant.clone(),
        lane: Lane::Interactive,
        linger: Duration::ZERO,
        weight: 1.0,
    };
    let dense = inference
        .embedder()
        .embed(&account, vec![request.text.clone()])
        .await?
        .pop()
        .unwrap_or_default();
    let query = Query {
        text: request.text,
        dense,
        top_k: request.top_k,
        documents: request.documents,
        collection: request.collection,
        labels: request.labels,
    };
    weir_storage::search(&places.data, EMBEDDING, &request.tenant, &query)
        .await
        .with_context(|| places.opening())
}

/// Labels as they are given: `team=north, year=2024`.
pub(crate) fn label_list<'a>(labels: impl Iterator<Item = (&'a String, &'a String)>) -> String {
    let labels: Vec<_> = labels.map(|(name, value)| format!("{name}={value}")).collect();
    labels.join(", ")
}
