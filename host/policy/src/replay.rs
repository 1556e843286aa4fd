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
use std::io::ErrorKind;
use std::sync::Arc;

use async_trait::async_trait;
use serde::Serialize;
use weir_core::decision::{FailureAction, ReadingMethod, SummaryPlan};
use weir_core::event::ErrorInfo;
use weir_core::manifest::{Pipeline, Role};
use weir_core::ports::OpenPolicyRequest;
use weir_core::replay::{DecisionDifference, DecisionTotals, JobReplayer, ReplayError, ReplayReport};
use weir_core::{JobId, StorageError, TenantId};

use crate::call_failure::to_error_note;
use crate::capability_trace::{CapabilityTrace, RecordedResponse};
use crate::component_inspection::StubCapabilities;
use crate::policy_host::PolicyHost;
use crate::policy_job::PolicyJob;
use crate::recording::{RecordedCall, RecordedDecision, RecordingFrame, SessionHeader, read_recording};
use crate::roles::{PageToRoute, PolicyCall, TimedObservation};

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
        pipeline: &Pipeline,
    ) -> Result<ReplayReport, ReplayError> {
        let (folder, retention) = self
            .recording_folder_and_retention()
            .ok_or(ReplayError::NotRecorded(*job))?;
        self.flush_recordings().await;
        let path = folder.join(tenant.as_str()).join(format!("{job}.calls"));
        let read = tokio::task::spawn_blocking(move || {
            read_recording(&path).inspect_err(|error| {
                tracing::warn!(path = %path.display(), %error, "cannot read a recording");
            })
        });
        let read = read.await;
        let frames = match read {
            Ok(Ok(frames)) => frames,
            Ok(Err(error)) if error.kind() == ErrorKind::NotFound => {
                return Err(match retention.explain_expiry(job) {
                    Some(why) => ReplayError::RecordingRemoved(*job, why),
                    None => ReplayError::NotRecorded(*job),
                });
            }
            Ok(Err(error)) => return Err(ReplayError::Unreadable(error.to_string())),
            Err(died) => return Err(ReplayError::Unreadable(died.to_string())),
        };
        self.replay_frames(frames, pipeline).await
    }

    async fn remove_recordings(&self, tenant: &TenantId, jobs: &[JobId]) -> Result<(), StorageError> {
        self.remove_recording_files(tenant, Some(jobs)).await
    }

    async fn clear_recordings(&self, tenant: &TenantId) -> Result<(), StorageError> {
        self.remove_recording_files(tenant, None).await
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
        pipeline: &Pipeline,
    ) -> Result<ReplayReport, ReplayError> {
        let mut report = ReplayReport::default();
        let mut session: Option<RecordedSession> = None;
        for frame in frames {
            match frame {
                RecordingFrame::SessionStarted(header) => {
                    let previous = session.replace(RecordedSession::new(*header));
                    self.replay_session(previous, pipeline, &mut report).await?;
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
        self.replay_session(session, pipeline, &mut report).await?;
        Ok(report)
    }

    async fn replay_session(
        &self,
        session: Option<RecordedSession>,
        pipeline: &Pipeline,
        report: &mut ReplayReport,
    ) -> Result<(), ReplayError> {
        let Some(RecordedSession {
            header: opened,
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
        let empty = Arc::new(StubCapabilities::default());
        let request = OpenPolicyRequest {
            tenant: &opened.tenant,
            job: opened.job,
            pipeline,
            capabilities: Arc::clone(&empty) as _,
        };
        let job = self.open_job_with(request, empty, None).await?;
        let mut next_sequences = vec![0; opened.components.len()];
        for call in order_calls(&opened, calls) {
            let role = role_of_decision(&call.decision);
            if let Some(expected) = next_sequences.get_mut(usize::from(call.component_index)) {
                if call.sequence != *expected {
                    job.discard_instance(role).await;
                }
                *expected = call.sequence.saturating_add(1);
            }
            let (replayed, missing_responses) = replay_call(&job, &call.decision, &call.responses).await;
            report.missing_capability_responses += u64::from(missing_responses);
            report.decisions += 1;
            add_to_effect(&mut report.before, &call.decision);
            add_to_effect(&mut report.after, &replayed);
            if encode_for_comparison(&call.decision) == encode_for_comparison(&replayed) {
                continue;
            }
            report.differing += 1;
            if report.differences.len() < MAX_REPORTED_DIFFERENCES {
                let (function, about) = describe_input(&replayed);
                report.differences.push(DecisionDifference {
                    function: function.into(),
                    subject: about,
                    before: describe_result(&call.decision),
                    after: describe_result(&replayed),
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
    const fn new(opened: SessionHeader) -> Self {
        Self {
            header: opened,
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
fn order_calls(header: &SessionHeader, mut calls: Vec<RecordedCall>) -> Vec<ReplayCall> {
    calls.sort_by_key(|call| (call.component_index, call.sequence));
    let is_fallback = |call: &RecordedCall| {
        let role = role_of_decision(&call.decision);
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
        if has_failed(&merged.decision)
            && let Some(index) = fallback_calls
                .iter()
                .position(|other| has_same_input(&other.decision, &merged.decision))
            && let Some(fallback) = fallback_calls.remove(index)
        {
            merged.responses.extend(fallback.responses);
            merged.decision = fallback.decision;
        }
        ordered.push(merged);
    }
    ordered
}

async fn replay_call(
    job: &PolicyJob,
    recorded: &RecordedDecision,
    responses: &[RecordedResponse],
) -> (RecordedDecision, u32) {
    match recorded {
        RecordedDecision::Plan(situation, _) => replay_decision(job, situation.clone(), responses).await,
        RecordedDecision::Document(facts, _) => replay_decision(job, facts.clone(), responses).await,
        RecordedDecision::Page(document, facts, _) => {
            let page = PageToRoute {
                document: *document,
                facts: *facts,
            };
            replay_decision(job, page, responses).await
        }
        RecordedDecision::Failed(failure, _) => replay_decision(job, failure.clone(), responses).await,
        RecordedDecision::Passages(source, _) => replay_decision(job, source.clone(), responses).await,
        RecordedDecision::Summarize(section, _) => replay_decision(job, section.clone(), responses).await,
        RecordedDecision::Observe(at_millis, observation, _) => {
            let observation = TimedObservation {
                at_millis: *at_millis,
                observation: observation.clone(),
            };
            replay_decision(job, observation, responses).await
        }
    }
}

async fn replay_decision<D: PolicyCall>(
    job: &PolicyJob,
    input: D,
    responses: &[RecordedResponse],
) -> (RecordedDecision, u32) {
    let new_trace = || CapabilityTrace::start_replay(responses.to_vec());
    let (result, missing_responses) = job.request_decision_with_trace(input.clone(), new_trace).await;
    let decision = input.into_recorded_decision(result.map_err(|error| to_error_note(&error)));
    (decision, missing_responses)
}

const fn role_of_decision(exchange: &RecordedDecision) -> Role {
    match exchange {
        RecordedDecision::Plan(..) => Role::Batching,
        RecordedDecision::Document(..) | RecordedDecision::Page(..) | RecordedDecision::Failed(..) => {
            Role::Routing
        }
        RecordedDecision::Passages(..) | RecordedDecision::Summarize(..) => Role::Chunking,
        RecordedDecision::Observe(..) => Role::Progress,
    }
}

const fn has_failed(exchange: &RecordedDecision) -> bool {
    match exchange {
        RecordedDecision::Plan(_, answer) => answer.is_err(),
        RecordedDecision::Document(_, answer) => answer.is_err(),
        RecordedDecision::Page(_, _, answer) => answer.is_err(),
        RecordedDecision::Failed(_, answer) => answer.is_err(),
        RecordedDecision::Passages(_, answer) => answer.is_err(),
        RecordedDecision::Summarize(_, answer) => answer.is_err(),
        RecordedDecision::Observe(_, _, answer) => answer.is_err(),
    }
}

fn has_same_input(a: &RecordedDecision, b: &RecordedDecision) -> bool {
    match (a, b) {
        (RecordedDecision::Plan(a, _), RecordedDecision::Plan(b, _)) => a == b,
        (RecordedDecision::Document(a, _), RecordedDecision::Document(b, _)) => a == b,
        (RecordedDecision::Page(a, of_a, _), RecordedDecision::Page(b, of_b, _)) => (a, of_a) == (b, of_b),
        (RecordedDecision::Failed(a, _), RecordedDecision::Failed(b, _)) => a == b,
        (RecordedDecision::Passages(a, _), RecordedDecision::Passages(b, _)) => a == b,
        (RecordedDecision::Summarize(a, _), RecordedDecision::Summarize(b, _)) => a == b,
        (RecordedDecision::Observe(a, of_a, _), RecordedDecision::Observe(b, of_b, _)) => {
            (a, of_a) == (b, of_b)
        }
        _ => false,
    }
}

/// Encodes a value to compare it. Bytes are compared because NaN is not equal to itself.
fn encode_for_comparison(value: &impl Serialize) -> Vec<u8> {
    postcard::to_stdvec(value).unwrap_or_default()
}

/// Returns the name of the function and a short description of the input.
fn describe_input(exchange: &RecordedDecision) -> (&'static str, String) {
    match exchange {
        RecordedDecision::Plan(situation, _) => {
            let next = situation.next_pages.first().map_or(0, |facts| facts.number);
            ("batching.plan", format!("the batch from page {next}"))
        }
        RecordedDecision::Document(facts, _) => ("routing.document", facts.name.clone()),
        RecordedDecision::Page(_, facts, _) => ("routing.page", format!("page {}", facts.number)),
        RecordedDecision::Failed(failure, _) => {
            let (page, stage) = (failure.page, failure.stage);
            (
                "routing.failed",
                format!("page {page}, {stage}, attempt {}", failure.attempt),
            )
        }
        RecordedDecision::Passages(source, _) => ("chunking.passages", format!("page {}", source.page)),
        RecordedDecision::Summarize(section, _) => ("chunking.summarize", section.title.clone()),
        RecordedDecision::Observe(at, _, _) => ("progress.observe", format!("{at} ms")),
    }
}

fn describe_result(exchange: &RecordedDecision) -> String {
    fn format_result<T: std::fmt::Debug>(answer: &Result<T, ErrorInfo>) -> String {
        let text = match answer {
            Ok(answer) => format!("{answer:?}"),
            Err(error) => format!("{}: {}", error.kind, error.message),
        };
        text.chars().take(MAX_DECISION_CHARS).collect()
    }
    match exchange {
        RecordedDecision::Plan(_, answer) => format_result(answer),
        RecordedDecision::Document(_, answer) => format_result(answer),
        RecordedDecision::Page(_, _, answer) => format_result(answer),
        RecordedDecision::Failed(_, answer) => format_result(answer),
        RecordedDecision::Passages(_, answer) => format_result(answer),
        RecordedDecision::Summarize(_, answer) => format_result(answer),
        RecordedDecision::Observe(_, _, answer) => format_result(answer),
    }
}

/// Adds a decision to the totals.
fn add_to_effect(effect: &mut DecisionTotals, exchange: &RecordedDecision) {
    match exchange {
        RecordedDecision::Plan(_, Ok(plan)) => {
            effect.batches += 1;
            effect.batch_pages += u64::from(plan.pages);
        }
        RecordedDecision::Page(_, _, Ok(route)) => match route.reading_method {
            ReadingMethod::TextLayer => effect.text_layer += 1,
            ReadingMethod::Ocr => effect.ocr += 1,
            ReadingMethod::VisionModel => effect.vision_model += 1,
            ReadingMethod::Nothing => effect.not_read += 1,
        },
        RecordedDecision::Failed(_, Ok(FailureAction::RetryAfter(_))) => effect.retries += 1,
        RecordedDecision::Failed(_, Ok(FailureAction::SkipPage | FailureAction::FailDocument)) => {
            effect.given_up += 1
        }
        RecordedDecision::Passages(_, Ok(ranges)) => effect.passages += ranges.len() as u64,
        RecordedDecision::Summarize(_, Ok(plan)) => {
            effect.model_calls += match plan {
                SummaryPlan::None => 0,
                SummaryPlan::Single(_) => 1,
                SummaryPlan::MapReduce { ranges, .. } => ranges.len() as u64 + 1,
            };
        }
        RecordedDecision::Observe(_, _, Ok(updates)) => effect.updates += updates.len() as u64,
        RecordedDecision::Document(_, Ok(_)) => {}
        _ => effect.errors += 1,
    }
}
