//! The slot of a component's instance in a job: creates the instance, calls it and replaces it after a failure.
//!
//! A call takes the instance out of its slot and puts it back only when the call has returned. So a call that ends early leaves
//! the slot empty, be it by a trap, a timeout or a caller that drops the future. The interrupted instance is dropped, and the
//! next call creates a new one. No cleanup code is needed.
//!
//! The slot stays locked until the interrupted instance is dropped. For a call on the
//! [offload executor](crate::offload_executor) this can be shortly after its caller is gone.

use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use data_encoding::HEXLOWER;
use sha2::{Digest as _, Sha256};
use tokio::sync::{Mutex, OwnedMutexGuard};
use tokio::time::timeout;
use wasmtime::{PoolConcurrencyLimitError, Store};
use weir_core::PolicyError;
use weir_core::component_log::ComponentFailureReport;
use weir_core::component_state_limits::StateChange;
use weir_core::event::ErrorInfo;
use weir_core::manifest::{ResolvedComponentFile, Role};

use crate::capability_trace::{CapabilityTrace, RecordedResponse};
use crate::host::shared_state::OpenJobGuard;
use crate::instance::call_failure::{FailedCallContext, FailureExplanation, to_error_info};
use crate::instance::cpu_budget::CpuClock;
use crate::instance::instance_data::{
    CallLimits, ExportsByRole, HOST_CALL_TIMEOUT, InstanceData, LiveInstance, MAX_HANDLES, START_FUNCTION,
};
use crate::instance::job_context::JobContext;
use crate::linked_component::LinkedComponent;
use crate::recording::PolicyFunctionCall;
use crate::roles::GuestFunction;
use crate::stats::JobCounters;

/// The slot for the instance of one component in a job.
pub(crate) struct InstanceSlot {
    component_name: Arc<str>,
    /// SHA-256 of the component.
    digest: [u8; 32],
    component: Arc<LinkedComponent>,
    roles: Vec<Role>,
    limits: CallLimits,
    job_context: Arc<JobContext>,
    open_job: Arc<OpenJobGuard>,
    instance: Arc<Mutex<Option<Box<LiveInstance>>>>,
    next_sequence: AtomicU32,
}

/// A locked slot; held for the duration of a call.
type SlotGuard = OwnedMutexGuard<Option<Box<LiveInstance>>>;

/// The outcome of a policy call.
pub(crate) struct CallOutcome<A> {
    pub(crate) result: Result<A, PolicyError>,
    /// Elapsed time, including waits.
    pub(crate) elapsed: Duration,
    /// Number of the call among all calls of this slot, from 0, in the order in which they ran.
    pub(crate) sequence: u32,
    /// Responses of capabilities, if they are recorded.
    pub(crate) responses: Vec<RecordedResponse>,
    /// Host calls of a replayed call that had no recorded response.
    pub(crate) missing_responses: u32,
}

impl InstanceSlot {
    pub(crate) fn new(
        file: &ResolvedComponentFile,
        linked: Arc<LinkedComponent>,
        roles: Vec<Role>,
        limits: CallLimits,
        context: Arc<JobContext>,
        open: Arc<OpenJobGuard>,
    ) -> Self {
        Self {
            component_name: Arc::from(file.name.as_str()),
            digest: file.digest,
            component: linked,
            roles,
            limits,
            job_context: context,
            open_job: open,
            instance: Arc::default(),
            next_sequence: AtomicU32::new(0),
        }
    }

    /// Creates the instance before the first call, unless there is one.
    pub(crate) async fn ensure_instance(&self, counters: &JobCounters) -> Result<(), PolicyError> {
        let slot = self.lock_slot().await;
        if slot.is_none() {
            let (mut slot, created) = self.create_instance(slot, 0, counters).await;
            *slot = Some(created?);
        }
        Ok(())
    }

    async fn lock_slot(&self) -> SlotGuard {
        Arc::clone(&self.instance).lock_owned().await
    }

    /// Makes a policy call. Responses of capabilities are recorded to `trace` or replayed from it.
    pub(crate) async fn call_component<D: GuestFunction>(
        &self,
        input: &Arc<D>,
        counters: &JobCounters,
        trace: CapabilityTrace,
    ) -> CallOutcome<D::Decision> {
        let metrics = &self.open_job.host_counters().call_metrics;
        let mut slot = self.lock_slot().await;
        let sequence = self.next_sequence.fetch_add(1, Ordering::Relaxed);
        let (slot, live) = match slot.take() {
            Some(live) => (slot, Ok(live)),
            None => self.create_instance(slot, sequence, counters).await,
        };
        let mut live = match live {
            Ok(live) => live,
            Err(error) => {
                metrics.count_failure_by_kind(D::ROLE, &error);
                return CallOutcome {
                    result: Err(error),
                    elapsed: Duration::ZERO,
                    sequence,
                    responses: Vec::new(),
                    missing_responses: 0,
                };
            }
        };
        live.store
            .data_mut()
            .reset_for_call(D::NAME, self.limits.timeout_millis);
        live.store.data_mut().trace = trace;
        live.store.set_epoch_deadline(1);
        let started = Instant::now();
        let clock = live.store.data().cpu_budget.shared_clock();
        let call_input = Arc::clone(input);
        let call = self.run_call_with_locked_slot(slot, clock, async move {
            let returned = call_input.call_guest_function(&mut live).await;
            live.store.data_mut().cpu_budget.pause_counting();
            (live, returned)
        });
        let (mut slot, (mut live, returned)) = call.await;
        let elapsed = started.elapsed();
        let (ran, waited) = live.store.data().run_and_wait_time(elapsed);
        let (responses, missing_responses) = live.store.data_mut().trace.take_responses_and_missing_count();
        counters.count_call_and_time(ran, waited);
        metrics.record_call_duration(D::ROLE, ran.as_secs_f64());
        let result = match returned {
            Ok(raw_decision) => {
                let pending = Arc::clone(&live.store.data().pending_state);
                let changes = pending.lock().await.take_changes();
                let checked = match input.validate_decision(raw_decision) {
                    // Committed before the slot is unlocked, because the next call must see these changes.
                    Ok(decision) => {
                        let committed = self.write_state_changes_to_store(D::NAME, changes).await;
                        committed
                            .map(|()| decision)
                            .inspect_err(|error| counters.count_failed_call(error))
                    }
                    Err(reason) => {
                        counters.count_invalid_decision();
                        Err(PolicyError::InvalidDecision {
                            component: self.component_name.to_string(),
                            function: D::NAME,
                            reason,
                        })
                    }
                };
                *slot = Some(live);
                drop(slot);
                checked.map_err(FailureExplanation::from_error_without_details)
            }
            Err(error) => {
                let explained = self.explain_error(D::NAME, &error, live.store.data_mut());
                counters.count_failed_call(&explained.error);
                Err(explained)
            }
        };
        let result = result.map_err(|explained| {
            metrics.count_failure_by_kind(D::ROLE, &explained.error);
            self.report_failure_and_return_error(D::NAME, sequence, || hash_call_input(&**input), explained)
        });
        CallOutcome {
            result,
            elapsed,
            sequence,
            responses,
            missing_responses,
        }
    }

    /// Commits the state changes of a call as one group. If this fails the call fails, because the component was told that the
    /// changes had succeeded.
    async fn write_state_changes_to_store(
        &self,
        function: &'static str,
        changes: Vec<StateChange>,
    ) -> Result<(), PolicyError> {
        if changes.is_empty() {
            return Ok(());
        }
        let (context, component) = (&self.job_context, self.component_name.to_string());
        let applied =
            context
                .state
                .apply_component_state_changes(&context.tenant, &context.manifest.name, changes);
        match timeout(HOST_CALL_TIMEOUT, applied).await {
            Ok(Ok(())) => Ok(()),
            Ok(Err(error)) => Err(PolicyError::Trap {
                component,
                function,
                reason: format!("cannot write its state: {}", error.message),
            }),
            Err(_) => Err(PolicyError::CallTimeout {
                component,
                function,
                millis: u64::try_from(HOST_CALL_TIMEOUT.as_millis()).unwrap_or(u64::MAX),
            }),
        }
    }

    pub(crate) async fn discard_instance(&self) {
        *self.instance.lock().await = None;
    }

    /// Runs a call to its end. Until then the slot stays locked and the job counts as open, even if the caller is gone: without
    /// an open job there are no epoch ticks, which interrupt the call.
    async fn run_call_with_locked_slot<T: Send + 'static>(
        &self,
        slot: SlotGuard,
        clock: Arc<CpuClock>,
        call: impl Future<Output = T> + Send + 'static,
    ) -> (SlotGuard, T) {
        let open_job = Arc::clone(&self.open_job);
        let call = async move {
            let output = call.await;
            drop(open_job);
            (slot, output)
        };
        self.open_job
            .offload_executor()
            .run_call_and_offload_if_long(clock, call)
            .await
    }

    /// Reports a failed call to the tenant and returns its error.
    fn report_failure_and_return_error(
        &self,
        function: &'static str,
        sequence: u32,
        input_hash: impl FnOnce() -> Option<String>,
        explained: FailureExplanation,
    ) -> PolicyError {
        let FailureExplanation {
            error,
            guest_message: message,
            backtrace,
        } = explained;
        self.job_context
            .report_failed_call(&self.component_name, function, || ComponentFailureReport {
                error: to_error_info(&error),
                component_digest: HEXLOWER.encode(&self.digest),
                call_index: sequence,
                request_digest: input_hash(),
                limit: error.exceeded_limit(),
                guest_message: message,
                backtrace,
            });
        error
    }

    async fn create_instance(
        &self,
        slot: SlotGuard,
        sequence: u32,
        counters: &JobCounters,
    ) -> (SlotGuard, Result<Box<LiveInstance>, PolicyError>) {
        let guest = InstanceData::new(
            Arc::clone(&self.job_context),
            Arc::clone(&self.component_name),
            self.limits.max_memory_bytes,
        );
        let linked = Arc::clone(&self.component);
        let mut store = Store::new(linked.instance_pre.engine(), guest);
        store.limiter(|guest| guest);
        store.set_hostcall_fuel(self.limits.max_output_bytes);
        store.set_max_component_handles(MAX_HANDLES);
        store.epoch_deadline_callback(|mut context| Ok(context.data_mut().on_epoch_tick()));
        store
            .data_mut()
            .reset_for_call(START_FUNCTION, self.limits.timeout_millis);
        store.set_epoch_deadline(1);
        let began = Instant::now();
        let (clock, roles) = (store.data().cpu_budget.shared_clock(), self.roles.clone());
        let call = self.run_call_with_locked_slot(slot, clock, async move {
            let started = instantiate_component(&linked, &roles, &mut store).await;
            store.data_mut().cpu_budget.pause_counting();
            (store, started)
        });
        let (slot, (store, started)) = call.await;
        // The start function of a component can run for long, so its time counts too.
        let (ran, waited) = store.data().run_and_wait_time(began.elapsed());
        counters.add_run_and_wait_time(ran, waited);
        (slot, self.convert_instantiation_result(store, started, sequence))
    }

    fn convert_instantiation_result(
        &self,
        mut store: Store<InstanceData>,
        started: wasmtime::Result<ExportsByRole>,
        sequence: u32,
    ) -> Result<Box<LiveInstance>, PolicyError> {
        match started {
            Ok(roles) => {
                self.open_job.host_counters().count_created_instance();
                Ok(Box::new(LiveInstance {
                    store,
                    exports: roles,
                }))
            }
            Err(error) if error.is::<PoolConcurrencyLimitError>() => Err(PolicyError::NoInstanceAvailable {
                reason: error.root_cause().to_string(),
            }),
            // Neither a trap nor an exceeded limit: the component does not match its types or is too large for the pool.
            Err(error) if !error.is::<wasmtime::Trap>() && !store.data().was_denied_memory() => {
                Err(PolicyError::Unusable {
                    component: self.component_name.to_string(),
                    reason: format!("{error:#}").replace('\n', " "),
                })
            }
            Err(error) => {
                let explained = self.explain_error(START_FUNCTION, &error, store.data_mut());
                Err(self.report_failure_and_return_error(START_FUNCTION, sequence, || None, explained))
            }
        }
    }

    fn explain_error(
        &self,
        function: &'static str,
        error: &wasmtime::Error,
        guest: &mut InstanceData,
    ) -> FailureExplanation {
        FailedCallContext {
            function,
            timeout_millis: self.limits.timeout_millis,
            max_output_bytes: self.limits.max_output_bytes,
        }
        .explain_error(error, guest)
    }
}

/// Returns the SHA-256 of a call's input in hexadecimal. The hash covers the recorded form, with a fixed error as the result, so
/// equal inputs have equal hashes.
fn hash_call_input<F: GuestFunction>(input: &F) -> Option<String> {
    let fixed_error = ErrorInfo {
        kind: String::new(),
        message: String::new(),
    };
    let call = F::RECORD(PolicyFunctionCall {
        request: input.clone(),
        response: Err(fixed_error),
    });
    let bytes = postcard::to_stdvec(&call).ok()?;
    Some(HEXLOWER.encode(&Sha256::digest(bytes)))
}

/// Creates an instance and looks up the exported functions of its roles.
async fn instantiate_component(
    linked: &LinkedComponent,
    roles: &[Role],
    store: &mut Store<InstanceData>,
) -> wasmtime::Result<ExportsByRole> {
    let instance = linked.instance_pre.instantiate_async(&mut *store).await?;
    let has = |role| roles.contains(&role);
    Ok(ExportsByRole {
        batching: match &linked.batching {
            Some(role) if has(Role::Batching) => Some(role.load(&mut *store, &instance)?),
            _ => None,
        },
        routing: match &linked.routing {
            Some(role) if has(Role::Routing) => Some(role.load(&mut *store, &instance)?),
            _ => None,
        },
        chunking: match &linked.chunking {
            Some(role) if has(Role::Chunking) => Some(role.load(&mut *store, &instance)?),
            _ => None,
        },
        progress: match &linked.progress {
            Some(role) if has(Role::Progress) => Some(role.load(&mut *store, &instance)?),
            _ => None,
        },
    })
}
