//! Replays the recorded policy calls of a job against other components.
//!
//! Calls of one component are replayed in their recorded order, because an instance may keep state in memory. The order between
//! components does not matter: they can affect each other only through capabilities, whose responses come from the recording.
//! A gap in the sequence of a component's calls means that a caller was dropped and its instance discarded; the replay then
//! discards the instance too.
//!
//! The replay compares the decisions that the engine received. If a component failed and the fallback was called, this is
//! the decision of the fallback.

use std::collections::VecDeque;
use std::sync::Arc;

use async_trait::async_trait;
use serde::Serialize;
use weir_core::decision::{FailureAction, ReadingMethod, SummaryPlan};
use weir_core::manifest::ResolvedPipeline;
use weir_core::memory_component_state::MemoryComponentState;
use weir_core::ports::OpenPolicyRequest;
use weir_core::replay::{
    DecidedActionCounts, DecisionDifference, JobReplayer, RecordingRemover, ReplayError, ReplayReport,
};
use weir_core::{JobId, StorageError, TenantId};

use crate::capability_trace::{CapabilityTrace, RecordedResponse};
use crate::host::PolicyHost;
use crate::recording::{
    PolicyFunctionCall, RecordedCall, RecordedDecision, RecordingFrame, SessionHeader, match_function,
    read_session_frames,
};
use crate::unavailable_capabilities::UnavailableCapabilities;

/// Differences that the report lists. All differences are counted.
const MAX_REPORTED_DIFFERENCES: usize = 200;
/// Characters of a decision in the report.
const MAX_DECISION_CHARS: usize = 400;

#[async_trait]
impl JobReplayer for PolicyHost {
    async fn replay_job(
        &self,
        tenant: &TenantId,
        job: &JobId,
        pipeline: &ResolvedPipeline,
    ) -> Result<ReplayReport, ReplayError> {
        let writer = self.recording_writer().ok_or(ReplayError::NotRecorded(*job))?;
        writer.flush(Some(*job)).await;
        let store = writer.store();
        let sessions = store.list_sessions(tenant, job).await?;
        if sessions.is_empty() {
            return Err(match writer.retention().explain_expiry(job) {
                Some(reason) => ReplayError::RecordingRemoved(*job, reason),
                None => ReplayError::NotRecorded(*job),
            });
        }
        let mut report = ReplayReport::default();
        // One at a time, because a session can take much memory.
        for session in sessions {
            let frames = read_session_frames(store, tenant, job, &session).await?;
            if frames.is_empty() {
                report.incomplete_reason =
                    Some("the beginning of a session is missing or was not stored completely".into());
            }
            self.add_frames_to_report(frames, pipeline, &mut report).await?;
        }
        Ok(report)
    }
}

#[async_trait]
impl RecordingRemover for PolicyHost {
    async fn remove_job_recordings(&self, tenant: &TenantId, jobs: &[JobId]) -> Result<(), StorageError> {
        self.remove_recordings(tenant, Some(jobs)).await
    }

    async fn remove_tenant_recordings(&self, tenant: &TenantId) -> Result<(), StorageError> {
        self.remove_recordings(tenant, None).await
    }
}

impl PolicyHost {
    /// Replays the calls of a recording against the components of a pipeline.
    ///
    /// # Errors
    /// [`ReplayError::Policy`] if a component cannot be opened.
    pub async fn replay_frames(
        &self,
        frames: Vec<RecordingFrame>,
        pipeline: &ResolvedPipeline,
    ) -> Result<ReplayReport, ReplayError> {
        let mut report = ReplayReport::default();
        self.add_frames_to_report(frames, pipeline, &mut report).await?;
        Ok(report)
    }

    /// Replays calls and adds their decisions to a report.
    async fn add_frames_to_report(
        &self,
        frames: Vec<RecordingFrame>,
        pipeline: &ResolvedPipeline,
        report: &mut ReplayReport,
    ) -> Result<(), ReplayError> {
        let mut session: Option<RecordedSession> = None;
        for frame in frames {
            match frame {
                RecordingFrame::SessionStarted(header) => {
                    let previous = session.replace(RecordedSession::new(*header));
                    self.replay_session(previous, pipeline, report).await?;
                }
                RecordingFrame::Call(call) => match &mut session {
                    Some(session) => session.calls.push(*call),
                    None => report.incomplete_reason = Some("its beginning is missing".into()),
                },
                RecordingFrame::RecordingStopped(reason) => {
                    if let Some(session) = &mut session {
                        session.has_ended = true;
                    }
                    report.incomplete_reason = Some(reason);
                }
                RecordingFrame::SessionEnded { calls } => {
                    let found = session.as_mut().map_or(0, |session| {
                        session.has_ended = true;
                        session.calls.len() as u64
                    });
                    if found != calls {
                        report.incomplete_reason = Some(format!("it has {found} calls of {calls}"));
                    }
                }
            }
        }
        self.replay_session(session, pipeline, report).await
    }

    async fn replay_session(
        &self,
        session: Option<RecordedSession>,
        pipeline: &ResolvedPipeline,
        report: &mut ReplayReport,
    ) -> Result<(), ReplayError> {
        let Some(RecordedSession {
            header: session_header,
            calls,
            has_ended: is_closed,
        }) = session
        else {
            return Ok(());
        };
        if !is_closed {
            report.incomplete_reason.get_or_insert_with(|| {
                "it was cut short: the host stopped during the job, or the job is still running".into()
            });
        }
        let request = OpenPolicyRequest {
            tenant: &session_header.tenant,
            job: session_header.job,
            pipeline,
            capabilities: Arc::new(UnavailableCapabilities::default()),
        };
        let state = Arc::new(MemoryComponentState::default());
        let job = self.open_job_with_state_and_writer(request, state, None).await?;
        let mut next_sequences = vec![0; session_header.components.len()];
        for call in order_calls_and_merge_fallbacks(&session_header, calls) {
            if let Some(expected) = next_sequences.get_mut(usize::from(call.component_index)) {
                if call.sequence != *expected {
                    job.discard_primary_instance(call.decision.role()).await;
                }
                *expected = call.sequence.saturating_add(1);
            }
            let new_trace = || CapabilityTrace::start_replay(call.responses.clone());
            let (replayed, missing_responses) = match_function!(
                RecordedDecision, &call.decision, recorded => job.call_and_return_recorded_decision(&recorded.request, new_trace).await
            );
            report.missing_capability_responses += u64::from(missing_responses);
            report.decisions += 1;
            add_decision_to_totals(&mut report.before, &call.decision);
            add_decision_to_totals(&mut report.after, &replayed);
            if encode_for_comparison(&call.decision) == encode_for_comparison(&replayed) {
                continue;
            }
            report.differing += 1;
            if report.differences.len() < MAX_REPORTED_DIFFERENCES {
                report.differences.push(DecisionDifference {
                    function: replayed.function_name().into(),
                    subject: replayed.describe_subject(),
                    before: describe_response(&call.decision),
                    after: describe_response(&replayed),
                });
            }
        }
        Ok(())
    }
}

/// The calls of a job between opening and closing its components. A resumed job has several sessions.
struct RecordedSession {
    header: SessionHeader,
    calls: Vec<RecordedCall>,
    /// Whether the recording has the end of the session.
    has_ended: bool,
}

impl RecordedSession {
    const fn new(session_header: SessionHeader) -> Self {
        Self {
            header: session_header,
            calls: Vec::new(),
            has_ended: false,
        }
    }
}

/// A recorded call as the engine saw it: the result is that of the fallback if the primary component failed.
struct ReplayCall {
    component_index: u16,
    sequence: u32,
    responses: Vec<RecordedResponse>,
    decision: RecordedDecision,
}

/// Orders the calls of a session by component and sequence, and merges each fallback call into the failed call before it.
fn order_calls_and_merge_fallbacks(header: &SessionHeader, mut calls: Vec<RecordedCall>) -> Vec<ReplayCall> {
    calls.sort_by_key(|call| (call.component_index, call.sequence));
    let is_fallback = |call: &RecordedCall| {
        let role = call.decision.role();
        let assigned = header
            .role_assignments
            .iter()
            .find(|assigned| assigned.role == role);
        assigned
            .is_some_and(|a| a.primary != call.component_index && a.fallback == Some(call.component_index))
    };
    let (fallback_calls, primary_calls): (Vec<_>, Vec<_>) = calls.into_iter().partition(is_fallback);
    let mut fallback_calls: VecDeque<RecordedCall> = fallback_calls.into();
    let mut ordered = Vec::with_capacity(primary_calls.len());
    for call in primary_calls {
        let mut merged = ReplayCall {
            component_index: call.component_index,
            sequence: call.sequence,
            responses: call.responses,
            decision: call.decision,
        };
        if merged.decision.error().is_some()
            && let Some(index) = fallback_calls
                .iter()
                .position(|other| other.decision.has_same_request(&merged.decision))
            && let Some(fallback) = fallback_calls.remove(index)
        {
            merged.responses.extend(fallback.responses);
            merged.decision = fallback.decision;
        }
        ordered.push(merged);
    }
    ordered
}

/// Encodes a value to compare it. Bytes are compared because NaN is not equal to itself.
fn encode_for_comparison(value: &impl Serialize) -> Vec<u8> {
    postcard::to_stdvec(value).unwrap_or_default()
}

/// Returns the decision or the error of a call for the report.
fn describe_response(decision: &RecordedDecision) -> String {
    decision
        .format_response()
        .chars()
        .take(MAX_DECISION_CHARS)
        .collect()
}

fn add_decision_to_totals(totals: &mut DecidedActionCounts, decision: &RecordedDecision) {
    use RecordedDecision as D;
    match decision {
        D::Plan(PolicyFunctionCall {
            response: Ok(plan), ..
        }) => {
            totals.batches += 1;
            totals.batch_pages += u64::from(plan.pages);
        }
        D::Document(PolicyFunctionCall { response: Ok(_), .. }) => {}
        D::Page(PolicyFunctionCall {
            response: Ok(route), ..
        }) => match route.reading_method {
            ReadingMethod::TextLayer => totals.text_layer += 1,
            ReadingMethod::Ocr => totals.ocr += 1,
            ReadingMethod::VisionModel => totals.vision_model += 1,
            ReadingMethod::Nothing => totals.not_read += 1,
        },
        D::Failed(PolicyFunctionCall {
            response: Ok(action), ..
        }) => match action {
            FailureAction::RetryAfter(_) => totals.retries += 1,
            FailureAction::SkipPage | FailureAction::FailDocument => totals.given_up += 1,
        },
        D::Passages(PolicyFunctionCall {
            response: Ok(ranges), ..
        }) => totals.passages += ranges.len() as u64,
        D::Summarize(PolicyFunctionCall {
            response: Ok(plan), ..
        }) => {
            totals.model_calls += match plan {
                SummaryPlan::None => 0,
                SummaryPlan::Single(_) => 1,
                SummaryPlan::MapReduce { ranges, .. } => ranges.len() as u64 + 1,
            };
        }
        D::Observe(PolicyFunctionCall {
            response: Ok(updates),
            ..
        }) => totals.updates += updates.len() as u64,
        _ => totals.errors += 1,
    }
}
