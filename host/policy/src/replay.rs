//! A job's recorded questions, put to components again.
//!
//! The order is that in which each component was asked, since a component may remember; between components no order is kept,
//! since they cannot hear of each other but through capabilities, whose answers are those that were recorded. Where a call is
//! missing in that order, its caller had gone away and the instance was thrown away with it; so it is here.
//!
//! What is compared is what the engine was told: of a component that failed and another that stood in, the answer of the latter.

use std::collections::VecDeque;
use std::io::ErrorKind;
use std::sync::Arc;

use async_trait::async_trait;
use serde::Serialize;
use weir_core::decision::{Reading, SummaryPlan, Verdict};
use weir_core::event::ErrorNote;
use weir_core::manifest::{Pipeline, Role};
use weir_core::ports::PolicyRequest;
use weir_core::replay::{Difference, Effect, ReplayError, ReplayReport, Replays};
use weir_core::{JobId, StorageError, TenantId};

use crate::failure::note;
use crate::gate::Empty;
use crate::heard::{Ear, Heard};
use crate::host::PolicyHost;
use crate::job::Job;
use crate::recording::{Call, Exchange, Frame, Opened, read_recording};
use crate::roles::{Decision, Observed, PageFound};

/// Differences that are told one by one.
const TOLD: usize = 200;
/// Characters of an answer that are told.
const CHARS: usize = 400;

#[async_trait]
impl Replays for PolicyHost {
    async fn replay(
        &self,
        tenant: &TenantId,
        job: &JobId,
        pipeline: &Pipeline,
    ) -> Result<ReplayReport, ReplayError> {
        let (folder, retention) = self.recordings().ok_or(ReplayError::NotRecorded(*job))?;
        self.flush_recordings().await;
        let path = folder.join(tenant.as_str()).join(format!("{job}.calls"));
        let read = tokio::task::spawn_blocking(move || {
            read_recording(&path).inspect_err(|error| {
                tracing::warn!(path = %path.display(), %error, "a recording cannot be read");
            })
        });
        let read = read.await;
        let frames = match read {
            Ok(Ok(frames)) => frames,
            Ok(Err(error)) if error.kind() == ErrorKind::NotFound => {
                return Err(match retention.outlived(job) {
                    Some(why) => ReplayError::NotKept(*job, why),
                    None => ReplayError::NotRecorded(*job),
                });
            }
            Ok(Err(error)) => return Err(ReplayError::Unreadable(error.to_string())),
            Err(died) => return Err(ReplayError::Unreadable(died.to_string())),
        };
        self.replay_frames(frames, pipeline).await
    }

    async fn remove_recordings(&self, tenant: &TenantId, jobs: &[JobId]) -> Result<(), StorageError> {
        self.remove_from_recordings(tenant, Some(jobs)).await
    }

    async fn clear_recordings(&self, tenant: &TenantId) -> Result<(), StorageError> {
        self.remove_from_recordings(tenant, None).await
    }
}

impl PolicyHost {
    /// Puts the questions of a recording to a pipeline's components.
    pub async fn replay_frames(
        &self,
        frames: Vec<Frame>,
        pipeline: &Pipeline,
    ) -> Result<ReplayReport, ReplayError> {
        let mut report = ReplayReport::default();
        let mut sitting: Option<Sitting> = None;
        for frame in frames {
            match frame {
                Frame::Opened(opened) => {
                    let before = sitting.replace(Sitting::new(*opened));
                    self.replay_sitting(before, pipeline, &mut report).await?;
                }
                Frame::Call(call) => match &mut sitting {
                    Some(sitting) => sitting.calls.push(*call),
                    None => report.incomplete = Some("its beginning is missing".into()),
                },
                Frame::Stopped(why) => {
                    if let Some(sitting) = &mut sitting {
                        sitting.is_closed = true;
                    }
                    report.incomplete = Some(why);
                }
                Frame::Ended { calls } => {
                    let found = sitting.as_mut().map_or(0, |sitting| {
                        sitting.is_closed = true;
                        sitting.calls.len() as u64
                    });
                    if found != calls {
                        report.incomplete = Some(format!("it has {found} calls of {calls}"));
                    }
                }
            }
        }
        self.replay_sitting(sitting, pipeline, &mut report).await?;
        Ok(report)
    }

    async fn replay_sitting(
        &self,
        sitting: Option<Sitting>,
        pipeline: &Pipeline,
        report: &mut ReplayReport,
    ) -> Result<(), ReplayError> {
        let Some(Sitting {
            opened,
            calls,
            is_closed,
        }) = sitting
        else {
            return Ok(());
        };
        if !is_closed {
            let reason = || {
                "it was cut short: the host was ended in the middle of the job, or the job still runs".into()
            };
            report.incomplete.get_or_insert_with(reason);
        }
        let empty = Arc::new(Empty::default());
        let request = PolicyRequest {
            tenant: &opened.tenant,
            job: opened.job,
            pipeline,
            capabilities: Arc::clone(&empty) as _,
        };
        let job = self.open_with(request, empty, None).await?;
        let mut next_turns = vec![0; opened.components.len()];
        for asked in questions(&opened, calls) {
            let role = role(&asked.exchange);
            if let Some(expected) = next_turns.get_mut(usize::from(asked.component)) {
                if asked.turn != *expected {
                    job.forget(role).await;
                }
                *expected = asked.turn.saturating_add(1);
            }
            let (now, missed) = again(&job, &asked.exchange, &asked.heard).await;
            report.missed += u64::from(missed);
            report.decisions += 1;
            count(&mut report.before, &asked.exchange);
            count(&mut report.after, &now);
            if bytes(&asked.exchange) == bytes(&now) {
                continue;
            }
            report.differing += 1;
            if report.differences.len() < TOLD {
                let (function, about) = about(&now);
                report.differences.push(Difference {
                    function: function.into(),
                    about,
                    before: answer(&asked.exchange),
                    after: answer(&now),
                });
            }
        }
        Ok(())
    }
}

/// The calls of a job from one opening of its components to their end.
struct Sitting {
    opened: Opened,
    calls: Vec<Call>,
    /// Whether the recording says how it ended.
    is_closed: bool,
}

impl Sitting {
    const fn new(opened: Opened) -> Self {
        Self {
            opened,
            calls: Vec::new(),
            is_closed: false,
        }
    }
}

/// A question as the engine put it, and what it was told.
struct Asked {
    component: u16,
    turn: u32,
    heard: Vec<Heard>,
    exchange: Exchange,
}

/// The questions of a sitting, in the order in which each component was asked.
fn questions(opened: &Opened, mut calls: Vec<Call>) -> Vec<Asked> {
    calls.sort_by_key(|call| (call.component, call.turn));
    let stands_in = |call: &Call| {
        let role = role(&call.exchange);
        let assigned = opened.assigned.iter().find(|assigned| assigned.role == role);
        assigned.is_some_and(|a| a.first != call.component && a.stand_in == Some(call.component))
    };
    let (stand_ins, first): (Vec<_>, Vec<_>) = calls.into_iter().partition(stands_in);
    let mut stand_ins: VecDeque<Call> = stand_ins.into();
    let mut questions = Vec::with_capacity(first.len());
    for call in first {
        let mut asked = Asked {
            component: call.component,
            turn: call.turn,
            heard: call.heard,
            exchange: call.exchange,
        };
        if failed(&asked.exchange)
            && let Some(place) = stand_ins
                .iter()
                .position(|other| same_question(&other.exchange, &asked.exchange))
            && let Some(instead) = stand_ins.remove(place)
        {
            asked.heard.extend(instead.heard);
            asked.exchange = instead.exchange;
        }
        questions.push(asked);
    }
    questions
}

async fn again(job: &Job, exchange: &Exchange, heard: &[Heard]) -> (Exchange, u32) {
    match exchange {
        Exchange::Plan(situation, _) => ask(job, situation.clone(), heard).await,
        Exchange::Document(facts, _) => ask(job, facts.clone(), heard).await,
        Exchange::Page(document, facts, _) => {
            let found = PageFound {
                document: *document,
                facts: *facts,
            };
            ask(job, found, heard).await
        }
        Exchange::Failed(failure, _) => ask(job, failure.clone(), heard).await,
        Exchange::Passages(source, _) => ask(job, source.clone(), heard).await,
        Exchange::Summarize(section, _) => ask(job, section.clone(), heard).await,
        Exchange::Observe(at_millis, what, _) => {
            let observed = Observed {
                at_millis: *at_millis,
                what: what.clone(),
            };
            ask(job, observed, heard).await
        }
    }
}

async fn ask<D: Decision>(job: &Job, question: D, heard: &[Heard]) -> (Exchange, u32) {
    let ear = || Ear::remembering(heard.to_vec());
    let (answer, missed) = job.decide_hearing(question.clone(), ear).await;
    (question.exchange(answer.map_err(|error| note(&error))), missed)
}

const fn role(exchange: &Exchange) -> Role {
    match exchange {
        Exchange::Plan(..) => Role::Batching,
        Exchange::Document(..) | Exchange::Page(..) | Exchange::Failed(..) => Role::Routing,
        Exchange::Passages(..) | Exchange::Summarize(..) => Role::Chunking,
        Exchange::Observe(..) => Role::Progress,
    }
}

const fn failed(exchange: &Exchange) -> bool {
    match exchange {
        Exchange::Plan(_, answer) => answer.is_err(),
        Exchange::Document(_, answer) => answer.is_err(),
        Exchange::Page(_, _, answer) => answer.is_err(),
        Exchange::Failed(_, answer) => answer.is_err(),
        Exchange::Passages(_, answer) => answer.is_err(),
        Exchange::Summarize(_, answer) => answer.is_err(),
        Exchange::Observe(_, _, answer) => answer.is_err(),
    }
}

fn same_question(a: &Exchange, b: &Exchange) -> bool {
    match (a, b) {
        (Exchange::Plan(a, _), Exchange::Plan(b, _)) => a == b,
        (Exchange::Document(a, _), Exchange::Document(b, _)) => a == b,
        (Exchange::Page(a, of_a, _), Exchange::Page(b, of_b, _)) => (a, of_a) == (b, of_b),
        (Exchange::Failed(a, _), Exchange::Failed(b, _)) => a == b,
        (Exchange::Passages(a, _), Exchange::Passages(b, _)) => a == b,
        (Exchange::Summarize(a, _), Exchange::Summarize(b, _)) => a == b,
        (Exchange::Observe(a, of_a, _), Exchange::Observe(b, of_b, _)) => (a, of_a) == (b, of_b),
        _ => false,
    }
}

/// Compared as bytes: a number that is none is not equal to itself.
fn bytes(value: &impl Serialize) -> Vec<u8> {
    postcard::to_stdvec(value).unwrap_or_default()
}

/// Function, and what it was asked about.
fn about(exchange: &Exchange) -> (&'static str, String) {
    match exchange {
        Exchange::Plan(situation, _) => {
            let next = situation.next.first().map_or(0, |facts| facts.number);
            ("batching.plan", format!("the batch from page {next}"))
        }
        Exchange::Document(facts, _) => ("routing.document", facts.name.clone()),
        Exchange::Page(_, facts, _) => ("routing.page", format!("page {}", facts.number)),
        Exchange::Failed(failure, _) => {
            let (page, stage) = (failure.page, failure.stage);
            (
                "routing.failed",
                format!("page {page}, {stage}, try {}", failure.attempt),
            )
        }
        Exchange::Passages(source, _) => ("chunking.passages", format!("page {}", source.page)),
        Exchange::Summarize(section, _) => ("chunking.summarize", section.title.clone()),
        Exchange::Observe(at, _, _) => ("progress.observe", format!("{at} ms")),
    }
}

fn answer(exchange: &Exchange) -> String {
    fn told<T: std::fmt::Debug>(answer: &Result<T, ErrorNote>) -> String {
        let text = match answer {
            Ok(answer) => format!("{answer:?}"),
            Err(error) => format!("{}: {}", error.kind, error.message),
        };
        text.chars().take(CHARS).collect()
    }
    match exchange {
        Exchange::Plan(_, answer) => told(answer),
        Exchange::Document(_, answer) => told(answer),
        Exchange::Page(_, _, answer) => told(answer),
        Exchange::Failed(_, answer) => told(answer),
        Exchange::Passages(_, answer) => told(answer),
        Exchange::Summarize(_, answer) => told(answer),
        Exchange::Observe(_, _, answer) => told(answer),
    }
}

/// Adds what a decision comes to.
fn count(effect: &mut Effect, exchange: &Exchange) {
    match exchange {
        Exchange::Plan(_, Ok(plan)) => {
            effect.batches += 1;
            effect.batch_pages += u64::from(plan.pages);
        }
        Exchange::Page(_, _, Ok(route)) => match route.reading {
            Reading::TextLayer => effect.text_layer += 1,
            Reading::Ocr => effect.ocr += 1,
            Reading::VisionModel => effect.vision_model += 1,
            Reading::Nothing => effect.not_read += 1,
        },
        Exchange::Failed(_, Ok(Verdict::RetryAfter(_))) => effect.retries += 1,
        Exchange::Failed(_, Ok(Verdict::SkipPage | Verdict::FailDocument)) => effect.given_up += 1,
        Exchange::Passages(_, Ok(ranges)) => effect.passages += ranges.len() as u64,
        Exchange::Summarize(_, Ok(plan)) => {
            effect.model_calls += match plan {
                SummaryPlan::None => 0,
                SummaryPlan::Single(_) => 1,
                SummaryPlan::MapReduce { ranges, .. } => ranges.len() as u64 + 1,
            };
        }
        Exchange::Observe(_, _, Ok(updates)) => effect.updates += updates.len() as u64,
        Exchange::Document(_, Ok(_)) => {}
        _ => effect.errors += 1,
    }
}
