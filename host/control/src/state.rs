//! The state that all operations on jobs and pipelines share.

use std::sync::Arc;

use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::Instrument as _;
use weir_core::component::{ComponentStore, ComponentValidator};
use weir_core::document_removal::DocumentRemovalStore;
use weir_core::job_request::JobRequestStore;
use weir_core::replay::JobReplayer;
use weir_core::retention::RetentionStore;
use weir_core::revision::PipelineStore;
use weir_core::settings::Settings;
use weir_core::shadow::ShadowStore;
use weir_core::shared_limits::SharedLimitStore;
use weir_core::store_status::StoreStatus;
use weir_core::tenancy::TenantStore;
use weir_core::uploads::UploadStore;
use weir_core::usage::UsageStore;
use weir_engine::Engine;

use crate::admission::Admission;
use crate::commit_notifier::CommitNotifier;
use crate::events::TenantEventFeeds;
use crate::job_claims::NodeClaims;
use crate::jobs::ProgressCache;
use crate::node_messages::NodeMessages;
use crate::pipelines::{PipelineBuilder, TenantPipelineService};
use crate::quota_limiter::QuotaLimiter;
use crate::shared_limits::SharedLimits;
use crate::tenant_metric_labels::TenantMetricLabels;
use crate::upload_reservations::UploadReservations;
use crate::usage::{HostQuotas, QuotaSources, UsageRecorder};

/// The stores and services that [`Control`] is built from.
pub struct ControlParts {
    /// Runs the jobs. It uses `ledger`.
    pub engine: Engine,
    /// The engine's ledger.
    pub ledger: Arc<CommitNotifier>,
    /// Tenants and keys.
    pub tenant_store: Arc<dyn TenantStore>,
    /// Job requests of clients.
    pub job_requests: Arc<dyn JobRequestStore>,
    /// Document removals that have begun and not ended.
    pub document_removals: Arc<dyn DocumentRemovalStore>,
    /// Removes expired records.
    pub retention_store: Arc<dyn RetentionStore>,
    /// The claims of this node.
    pub claims: Arc<NodeClaims>,
    /// Announces changes of the ledger to other nodes.
    pub node_messages: Arc<NodeMessages>,
    /// Counts for all nodes together; `None` if there are none, or each applies its share of a limit.
    pub shared_limit_store: Option<Arc<dyn SharedLimitStore>>,
    /// Whether the latest calls of the stores have succeeded.
    pub store_statuses: Vec<Arc<StoreStatus>>,
    /// Recorded usage of tenants.
    pub usage_store: Arc<dyn UsageStore>,
    /// Collects the usage that the host causes on behalf of tenants.
    pub usage_recorder: Arc<UsageRecorder>,
    /// Pipelines of tenants and their revisions.
    pub pipelines: Arc<dyn PipelineStore>,
    /// Results of shadow revisions.
    pub shadows: Arc<dyn ShadowStore>,
    /// Component binaries.
    pub components: Arc<dyn ComponentStore>,
    /// Validates a component before it is stored.
    pub component_validator: Arc<dyn ComponentValidator>,
    /// Replays a job's decisions.
    pub job_replayer: Arc<dyn JobReplayer>,
    /// The default components of the host.
    pub pipeline_builder: Arc<dyn PipelineBuilder>,
    /// Uploaded files.
    pub upload_store: Arc<dyn UploadStore>,
    /// The host's settings.
    pub settings: Settings,
}

/// The stores, limits and queues of a host.
pub struct Control {
    /// Runs the jobs.
    pub engine: Engine,
    /// The engine's ledger.
    pub ledger: Arc<CommitNotifier>,
    /// Tenants and keys.
    pub tenant_store: Arc<dyn TenantStore>,
    /// Job requests of clients.
    pub job_requests: Arc<dyn JobRequestStore>,
    /// Document removals that have begun and not ended.
    pub document_removals: Arc<dyn DocumentRemovalStore>,
    /// Removes expired records.
    pub retention_store: Arc<dyn RetentionStore>,
    /// The claims of this node.
    pub claims: Arc<NodeClaims>,
    /// Announces changes of the ledger to other nodes.
    pub(crate) node_messages: Arc<NodeMessages>,
    /// Wakes the search for jobs of other nodes.
    pub(crate) takeover_wakeup: Notify,
    /// Limits of all nodes together.
    pub shared_limits: Arc<SharedLimits>,
    /// Whether the latest calls of the stores have succeeded.
    pub store_statuses: Vec<Arc<StoreStatus>>,
    /// Recorded usage of tenants.
    pub usage_store: Arc<dyn UsageStore>,
    /// Collects the usage that the host causes on behalf of tenants.
    pub usage_recorder: Arc<UsageRecorder>,
    /// Pipelines, components and shadows of tenants.
    pub tenant_pipelines: TenantPipelineService,
    /// Uploaded files.
    pub upload_store: Arc<dyn UploadStore>,
    /// The bytes of uploads in progress.
    pub upload_reservations: Arc<UploadReservations>,
    /// The host's settings.
    pub settings: Settings,
    /// Checks quotas.
    pub quota_limiter: Arc<QuotaLimiter>,
    /// The queued and the running jobs.
    pub admission: Arc<Admission>,
    /// The progress of jobs.
    pub progress_cache: ProgressCache,
    /// The recent events of tenants.
    pub event_feeds: TenantEventFeeds,
    /// Held while a tenant's keys are counted and a key is added, so that the limit of keys holds.
    pub key_creation_lock: tokio::sync::Mutex<()>,
    /// Tasks that run to completion even if their client disconnects.
    pub background_tasks: TaskTracker,
    /// Canceled when the host begins to stop. It accepts no new work from then on.
    pub stop_signal: CancellationToken,
}

/// A task of the host panicked.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("a task of the host panicked: {0}")]
pub struct TaskPanicked(String);

impl Control {
    /// Whether other nodes can have the same ledger.
    pub(crate) fn shares_ledger(&self) -> bool {
        self.settings.shares_ledger()
    }

    /// Creates the state of a host without jobs.
    pub fn new(parts: ControlParts) -> Arc<Self> {
        let settings = parts.settings;
        let tenant_labels = Arc::new(TenantMetricLabels::new(
            settings.metrics_max_tenant_series as usize,
        ));
        parts.usage_recorder.set_quota_sources(QuotaSources {
            tenants: Arc::clone(&parts.tenant_store),
            usage_store: Arc::clone(&parts.usage_store),
            host_quotas: HostQuotas::new(&settings),
            tenant_labels: Arc::clone(&tenant_labels),
        });
        let shared_limits = SharedLimits::new(parts.shared_limit_store, Arc::clone(&parts.claims));
        let quota_limiter = Arc::new(QuotaLimiter::new(
            &settings,
            Arc::clone(&shared_limits),
            Arc::clone(&parts.usage_recorder),
            Arc::clone(&parts.usage_store),
            tenant_labels,
        ));
        Arc::new(Self {
            event_feeds: TenantEventFeeds::new(Arc::clone(&parts.ledger)),
            engine: parts.engine,
            ledger: parts.ledger,
            tenant_store: parts.tenant_store,
            job_requests: parts.job_requests,
            document_removals: parts.document_removals,
            retention_store: parts.retention_store,
            claims: parts.claims,
            node_messages: parts.node_messages,
            takeover_wakeup: Notify::new(),
            shared_limits,
            store_statuses: parts.store_statuses,
            usage_store: parts.usage_store,
            usage_recorder: parts.usage_recorder,
            tenant_pipelines: TenantPipelineService::new(
                parts.pipelines,
                parts.components,
                parts.component_validator,
                parts.job_replayer,
                parts.shadows,
                parts.pipeline_builder,
            ),
            upload_reservations: UploadReservations::new(
                &settings,
                Arc::clone(&parts.upload_store),
                Arc::clone(&quota_limiter),
            ),
            upload_store: parts.upload_store,
            quota_limiter,
            admission: Admission::new(&settings),
            progress_cache: ProgressCache::default(),
            key_creation_lock: tokio::sync::Mutex::default(),
            background_tasks: TaskTracker::new(),
            settings,
            stop_signal: CancellationToken::new(),
        })
    }

    /// Runs `work` to completion even if the caller is dropped, and returns its result.
    pub async fn run_to_completion<T, E>(
        &self,
        work: impl Future<Output = Result<T, E>> + Send + 'static,
    ) -> Result<T, E>
    where
        T: Send + 'static,
        E: From<TaskPanicked> + Send + 'static,
    {
        let joined = self.background_tasks.spawn(work.in_current_span()).await;
        joined.unwrap_or_else(|join_error| Err(TaskPanicked(join_error.to_string()).into()))
    }
}
