//! The policy host: opens the components of a job.

mod component_assignment;
pub(crate) mod shared_state;

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use tokio::sync::Semaphore;
use weir_core::manifest::ResolvedComponentFile;
use weir_core::ports::{ComponentStateStore, JobPolicy, OpenPolicyRequest, PolicyFactory};
use weir_core::{JobId, PolicyError, StorageError, TenantId};

use crate::compiler::{ComponentCompiler, component_unusable_error};
use crate::config::PolicyHostConfig;
use crate::epoch_ticker::EpochTicker;
use crate::host::component_assignment::{assign_components, recording_session_header};
use crate::host::shared_state::{HostSharedState, OpenJobGuard};
use crate::instance::instance_data::CallLimits;
use crate::instance::instance_slot::InstanceSlot;
use crate::instance::job_context::JobContext;
use crate::linked_component::{GrantedCapabilities, LinkedComponent};
use crate::linked_component_cache::LinkedComponentCache;
use crate::offload_executor::OffloadExecutor;
use crate::recording::{JobRecorder, RecordingWriter};
use crate::stats::{HostCounters, HostStats, JobCounters};
use crate::wasm_engine;
use crate::wasm_job_policy::WasmJobPolicy;

/// A manifest may raise the call timeout to this multiple of the host's.
const MAX_CALL_TIMEOUT_FACTOR: u32 = 20;

/// Runs tenants' components; implements the port [`PolicyFactory`]. A process needs one only: it owns the instance pool.
pub struct PolicyHost {
    shared: Arc<HostSharedState>,
}

impl PolicyHost {
    /// Reserves the address space of the instance pool, makes the folders private and starts the threads.
    ///
    /// The metrics of policy calls are registered here, so install the metrics recorder first.
    ///
    /// # Errors
    /// [`PolicyError::NoInstanceAvailable`] if the pool or a thread cannot be created, or if there is a store of recordings and no
    /// runtime;
    /// [`PolicyError::Unusable`] if the folder of compiled components cannot be used.
    pub fn new(config: PolicyHostConfig) -> Result<Arc<Self>, PolicyError> {
        let exhausted = |what: &str, reason: &dyn std::fmt::Display| PolicyError::NoInstanceAvailable {
            reason: format!("{what}: {reason}"),
        };
        let engine = wasm_engine::new_pooling_engine(config.max_instances).map_err(|e| {
            exhausted(
                "cannot reserve the instance pool of the size in policy.max_component_instances",
                &format!("{e:#}"),
            )
        })?;
        let host_counters = Arc::new(HostCounters::new());
        let compiler = ComponentCompiler::new(&config, engine.clone(), Arc::clone(&host_counters))?;
        let start_error = |what, e: std::io::Error| exhausted(what, &e);
        Ok(Arc::new(Self {
            shared: Arc::new(HostSharedState {
                component_cache: LinkedComponentCache::new(
                    engine.clone(),
                    compiler,
                    config.max_loaded_components,
                ),
                instance_permits: Arc::new(Semaphore::new(config.max_instances as usize)),
                max_instances: config.max_instances,
                default_limits: CallLimits {
                    timeout_millis: config.call_timeout_millis,
                    max_memory_bytes: clamp_memory_bytes(config.max_memory_bytes),
                    max_output_bytes: usize::try_from(config.max_output_bytes).unwrap_or(usize::MAX),
                },
                component_state_store: config.state,
                counters: host_counters,
                usage_meter: config.usage_meter,
                epoch_ticker: EpochTicker::start(engine)
                    .map_err(|e| start_error("cannot start the epoch thread", e))?,
                offload_executor: OffloadExecutor::start()
                    .map_err(|e| start_error("cannot start the threads for long calls", e))?,
                recording_writer: match config.recordings {
                    Some(store) => Some(
                        RecordingWriter::start(store, config.retention)
                            .map_err(|e| start_error("cannot start recording calls", e))?,
                    ),
                    None => None,
                },
                record_calls: config.record_calls,
            }),
        }))
    }

    /// Compiles and links a component with these capabilities. The CPU time is charged to the tenant.
    pub(crate) async fn compile_and_link_component(
        &self,
        file: &ResolvedComponentFile,
        granted: GrantedCapabilities,
        payer: &TenantId,
    ) -> Result<Arc<LinkedComponent>, PolicyError> {
        self.shared
            .component_cache
            .get_or_compile_and_link(file, granted, Some(payer))
            .await
    }

    /// Returns counters of the work done since the start.
    pub fn stats(&self) -> HostStats {
        self.shared.counters.snapshot(
            self.shared.instance_permits.available_permits(),
            self.shared.component_cache.len(),
        )
    }

    /// Returns the writer of recordings, which also has their store; `None` if there is no store.
    pub(crate) fn recording_writer(&self) -> Option<&RecordingWriter> {
        self.shared.recording_writer.as_ref()
    }

    /// Waits until the calls of all dropped jobs are stored in their recordings.
    pub async fn flush_recordings(&self) {
        if let Some(writer) = &self.shared.recording_writer {
            writer.flush(None).await;
        }
    }

    /// Waits until the calls of all dropped jobs are stored, at most for `limit`. Returns whether the store has responded in this
    /// time. Dropping the host waits no longer than the rest of it.
    pub async fn close_recordings(&self, limit: Duration) -> bool {
        match &self.shared.recording_writer {
            Some(writer) => writer.close(limit).await,
            None => true,
        }
    }

    /// Removes the recordings of these jobs; all recordings of the tenant if `jobs` is `None`.
    pub(crate) async fn remove_recordings(
        &self,
        tenant: &TenantId,
        jobs: Option<&[JobId]>,
    ) -> Result<(), StorageError> {
        match &self.shared.recording_writer {
            Some(writer) => writer.remove_recordings(tenant, jobs).await,
            None => Ok(()),
        }
    }

    /// Opens the components of one job. Like [`PolicyFactory::open_job_policy`], but returns the concrete type, which has
    /// [`stats`](WasmJobPolicy::stats).
    ///
    /// # Errors
    /// [`PolicyError`] if a component cannot be loaded, its instance cannot be created, or the job needs more instances than
    /// the host allows.
    pub async fn open_job(&self, request: OpenPolicyRequest<'_>) -> Result<Arc<WasmJobPolicy>, PolicyError> {
        let state = Arc::clone(&self.shared.component_state_store);
        let writer = self
            .shared
            .recording_writer
            .as_ref()
            .filter(|_| self.shared.record_calls);
        self.open_job_with_state_and_writer(request, state, writer).await
    }

    /// Opens a job with another component state, and records it only if there is a `writer`.
    pub(crate) async fn open_job_with_state_and_writer(
        &self,
        request: OpenPolicyRequest<'_>,
        state: Arc<dyn ComponentStateStore>,
        writer: Option<&RecordingWriter>,
    ) -> Result<Arc<WasmJobPolicy>, PolicyError> {
        let shared = &self.shared;
        let manifest = &request.pipeline.manifest;
        let granted = GrantedCapabilities::new(&manifest.capabilities.grant);
        let (required, roles) = assign_components(&request);

        // Components first, permits second, so that a job holds no permit while a component compiles.
        let mut linked_components = Vec::with_capacity(required.len());
        for component in &required {
            let linked = shared
                .component_cache
                .get_or_compile_and_link(component.file, granted, None)
                .await?;
            for role in &component.roles {
                linked
                    .require_role(*role)
                    .map_err(|reason| component_unusable_error(component.file, reason))?;
            }
            linked_components.push(linked);
        }
        // Acquires all permits at once: two jobs that each held a part of theirs could block each other.
        let count = u32::try_from(required.len()).unwrap_or(u32::MAX);
        if count > shared.max_instances {
            return Err(PolicyError::NoInstanceAvailable {
                reason: format!(
                    "the job needs {count} instances, and policy.max_component_instances allows {} on the whole host",
                    shared.max_instances
                ),
            });
        }
        let permits = Arc::clone(&shared.instance_permits)
            .acquire_many_owned(count)
            .await
            .map_err(|e| PolicyError::NoInstanceAvailable {
                reason: e.to_string(),
            })?;
        let open_job = Arc::new(OpenJobGuard::new(shared, permits));

        let context = Arc::new(JobContext::new(
            request.tenant.clone(),
            request.job,
            manifest.clone(),
            request.capabilities.clone(),
            state,
        ));
        let limits = CallLimits {
            timeout_millis: manifest.limits.call_timeout_millis.map_or(
                shared.default_limits.timeout_millis,
                |millis| {
                    millis.min(
                        shared
                            .default_limits
                            .timeout_millis
                            .saturating_mul(MAX_CALL_TIMEOUT_FACTOR),
                    )
                },
            ),
            max_memory_bytes: manifest
                .limits
                .max_memory_bytes
                .map_or(shared.default_limits.max_memory_bytes, clamp_memory_bytes),
            ..shared.default_limits
        };
        let recorder = writer
            .map(|writer| JobRecorder::new(writer, recording_session_header(&request, &required, &roles)));
        let counters = JobCounters::new(request.tenant.clone(), shared.usage_meter.clone());
        let mut slots = Vec::with_capacity(required.len());
        for (component, linked) in required.iter().zip(linked_components) {
            let slot = InstanceSlot::new(
                component.file,
                linked,
                component.roles.clone(),
                limits,
                Arc::clone(&context),
                Arc::clone(&open_job),
            );
            if !component.is_fallback {
                slot.ensure_instance(&counters).await?;
            }
            slots.push(slot);
        }
        Ok(Arc::new(WasmJobPolicy {
            slots,
            role_slots: roles,
            context,
            recorder,
            counters,
            _open_job: open_job,
        }))
    }
}

fn clamp_memory_bytes(bytes: u64) -> usize {
    usize::try_from(bytes).map_or(wasm_engine::MAX_MEMORY_BYTES, |b| {
        b.min(wasm_engine::MAX_MEMORY_BYTES)
    })
}

#[async_trait]
impl PolicyFactory for PolicyHost {
    async fn open_job_policy(
        &self,
        request: OpenPolicyRequest<'_>,
    ) -> Result<Arc<dyn JobPolicy>, PolicyError> {
        let job = self.open_job(request).await?;
        Ok(job)
    }
}
