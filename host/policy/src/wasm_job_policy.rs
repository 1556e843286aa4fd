//! Makes the policy calls of one job, with fallbacks and recording.

use std::ops::Range;
use std::sync::Arc;

use async_trait::async_trait;
use tracing::Instrument as _;
use weir_core::decision::{
    BatchContext, DocumentFacts, DocumentRoute, FailureAction, NextBatchPlan, ObservedEvent, PageRoute,
    PageStageFailure, PageTextToSplit, PageToRoute, ProgressUpdate, SectionToSummarize, SummaryPlan,
    TimedEvent,
};
use weir_core::manifest::Role;
use weir_core::page::PageFacts;
use weir_core::ports::{JobPolicy, PolicyCallAndFailureCounts};
use weir_core::{DocumentId, PolicyError};

use crate::capability_trace::CapabilityTrace;
use crate::host::shared_state::OpenJobGuard;
use crate::instance::call_failure::to_error_info;
use crate::instance::instance_slot::{CallOutcome, InstanceSlot};
use crate::instance::job_context::JobContext;
use crate::recording::{
    JobRecorder, PolicyFunctionCall, PolicyFunctionInvocation, RecordedCall, RecordedDecision, match_function,
};
use crate::roles::GuestFunction;
use crate::stats::{JobCounters, JobPolicyCallStats};

/// The instance slots of a role, as indexes into the slots of the job.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct PrimaryAndFallbackSlots {
    pub(crate) primary: Option<usize>,
    pub(crate) fallback: Option<usize>,
}

/// The component instances of one job.
///
/// The order of the fields matters, since they are dropped in this order: instances before their permits are released, and the
/// recorder before the job counts as closed.
pub struct WasmJobPolicy {
    pub(crate) slots: Vec<InstanceSlot>,
    pub(crate) role_slots: [PrimaryAndFallbackSlots; Role::ALL.len()],
    pub(crate) context: Arc<JobContext>,
    pub(crate) recorder: Option<JobRecorder>,
    pub(crate) counters: JobCounters,
    pub(crate) _open_job: Arc<OpenJobGuard>,
}

impl WasmJobPolicy {
    /// Returns counters of the job's policy calls so far.
    pub fn stats(&self) -> JobPolicyCallStats {
        self.counters.snapshot()
    }

    /// Makes a call, as the method of [`JobPolicy`] for its function does, and returns it with its decision or error.
    pub async fn execute_policy_request(&self, request: PolicyFunctionInvocation) -> RecordedDecision {
        match_function!(PolicyFunctionInvocation, request, input => self.call_and_return_recorded_decision(&input, || self.new_trace()).await.0)
    }

    /// Calls a function and returns the call with its decision or error. `new_trace` creates the capability trace of each call.
    /// Also returns the number of host calls that had no recorded response.
    pub(crate) async fn call_and_return_recorded_decision<D: GuestFunction>(
        &self,
        input: &D,
        new_trace: impl Fn() -> CapabilityTrace,
    ) -> (RecordedDecision, u32) {
        let (result, missing_responses) = self
            .request_decision_with_fallback(input.clone(), new_trace)
            .await;
        let call = PolicyFunctionCall {
            request: input.clone(),
            response: result.map_err(|error| to_error_info(&error)),
        };
        (D::RECORD(call), missing_responses)
    }

    fn new_trace(&self) -> CapabilityTrace {
        match self.recorder {
            Some(_) => CapabilityTrace::start_recording(),
            None => CapabilityTrace::Off,
        }
    }

    async fn request_decision<D: GuestFunction>(&self, input: D) -> Result<D::Decision, PolicyError> {
        self.request_decision_with_fallback(input, || self.new_trace())
            .await
            .0
    }

    /// Calls the component of a role, and the fallback if that call fails. `new_trace` creates the capability trace of each call.
    /// Also returns the number of host calls that had no recorded response.
    async fn request_decision_with_fallback<D: GuestFunction>(
        &self,
        input: D,
        new_trace: impl Fn() -> CapabilityTrace,
    ) -> (Result<D::Decision, PolicyError>, u32) {
        let assigned = self.role_slots.get(D::ROLE as usize).copied().unwrap_or_default();
        let slot_at = |index: Option<usize>| index.and_then(|i| Some((i, self.slots.get(i)?)));
        let Some((primary_index, primary)) = slot_at(assigned.primary) else {
            let error = PolicyError::Unusable {
                component: D::ROLE.name().into(),
                reason: format!("the pipeline has no component for the role {}", D::ROLE.name()),
            };
            return (Err(error), 0);
        };
        let input = Arc::new(input);
        let outcome = self.call_slot(primary, &input, new_trace()).await;
        let missing_responses = outcome.missing_responses;
        let error = match &outcome.result {
            Ok(_) => {
                let result = outcome.result.clone();
                self.record_call(primary_index, outcome, input);
                return (result, missing_responses);
            }
            Err(error) => error.clone(),
        };
        let Some((fallback_index, fallback)) = slot_at(assigned.fallback) else {
            self.record_call(primary_index, outcome, input);
            return (Err(error), missing_responses);
        };
        self.record_call(primary_index, outcome, Arc::clone(&input));
        self.context.capabilities.report_policy_fallback(&error);
        self.counters.count_fallback_call();
        let outcome = self.call_slot(fallback, &input, new_trace()).await;
        let (result, all_missing_responses) = (
            outcome.result.clone(),
            missing_responses + outcome.missing_responses,
        );
        self.record_call(fallback_index, outcome, input);
        (result, all_missing_responses)
    }

    async fn call_slot<D: GuestFunction>(
        &self,
        slot: &InstanceSlot,
        input: &Arc<D>,
        trace: CapabilityTrace,
    ) -> CallOutcome<D::Decision> {
        let span = tracing::info_span!("policy_call", function = D::NAME);
        slot.call_component(input, &self.counters, trace)
            .instrument(span)
            .await
    }

    /// Discards the primary instance of a role, as happens to an instance whose caller is dropped.
    pub(crate) async fn discard_primary_instance(&self, role: Role) {
        let assigned = self.role_slots.get(role as usize).copied().unwrap_or_default();
        if let Some(slot) = assigned.primary.and_then(|index| self.slots.get(index)) {
            slot.discard_instance().await;
        }
    }

    fn record_call<D: GuestFunction>(
        &self,
        slot_index: usize,
        outcome: CallOutcome<D::Decision>,
        input: Arc<D>,
    ) {
        if let Some(recorder) = &self.recorder {
            recorder.push_call(RecordedCall {
                component_index: u16::try_from(slot_index).unwrap_or(u16::MAX),
                sequence: outcome.sequence,
                elapsed_micros: u32::try_from(outcome.elapsed.as_micros()).unwrap_or(u32::MAX),
                responses: outcome.responses,
                decision: D::RECORD(PolicyFunctionCall {
                    request: Arc::unwrap_or_clone(input),
                    response: outcome.result.map_err(|error| to_error_info(&error)),
                }),
            });
        }
    }
}

impl Drop for WasmJobPolicy {
    fn drop(&mut self) {
        let stats = self.stats();
        tracing::debug!(
            tenant = %self.context.tenant,
            job = %self.context.job,
            calls = stats.calls,
            failed_calls = stats.failed_calls,
            guest_micros = stats.guest_time.as_micros(),
            "closed the components of a job",
        );
    }
}

#[async_trait]
impl JobPolicy for WasmJobPolicy {
    fn call_and_failure_counts(&self) -> PolicyCallAndFailureCounts {
        let stats = self.stats();
        PolicyCallAndFailureCounts {
            calls: stats.calls,
            traps: stats.failed_calls.saturating_sub(stats.timeouts) + stats.invalid_decisions,
            timeouts: stats.timeouts,
        }
    }

    async fn plan_batch(&self, situation: BatchContext) -> Result<NextBatchPlan, PolicyError> {
        self.request_decision(situation).await
    }

    async fn route_document(&self, facts: DocumentFacts) -> Result<DocumentRoute, PolicyError> {
        self.request_decision(facts).await
    }

    async fn route_page(&self, document: &DocumentId, facts: PageFacts) -> Result<PageRoute, PolicyError> {
        self.request_decision(PageToRoute {
            document: *document,
            facts,
        })
        .await
    }

    async fn choose_failure_action(&self, failure: PageStageFailure) -> Result<FailureAction, PolicyError> {
        self.request_decision(failure).await
    }

    async fn split_passages(&self, source: PageTextToSplit) -> Result<Vec<Range<u32>>, PolicyError> {
        self.request_decision(source).await
    }

    async fn plan_summary(&self, section: SectionToSummarize) -> Result<SummaryPlan, PolicyError> {
        self.request_decision(section).await
    }

    async fn decide_progress_updates(
        &self,
        at_millis: u64,
        event: ObservedEvent,
    ) -> Result<Vec<ProgressUpdate>, PolicyError> {
        self.request_decision(TimedEvent { at_millis, event }).await
    }
}
