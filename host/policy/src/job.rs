//! The decisions of one job: who is asked, who stands in, and what is written down.

use std::ops::Range;
use std::sync::Arc;

use async_trait::async_trait;
use tracing::Instrument as _;
use weir_core::decision::{
    BatchPlan, DocumentFacts, DocumentRoute, Failure, Observation, PageRoute, PassageSource, ProgressUpdate,
    Section, Situation, SummaryPlan, Verdict,
};
use weir_core::manifest::Role;
use weir_core::page::PageFacts;
use weir_core::ports::{JobPolicy, PolicyTally};
use weir_core::{DocumentId, PolicyError};

use crate::failure::note;
use crate::guest::JobContext;
use crate::heard::Ear;
use crate::house::OpenJob;
use crate::instance::{Asked, Seat};
use crate::recording::{Call, Recorder};
use crate::roles::{Decision, Observed, PageFound};
use crate::stats::{JobMeter, JobStats};

/// Who decides in a role: places among the job's seats.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Assigned {
    pub(crate) first: Option<usize>,
    pub(crate) stand_in: Option<usize>,
}

/// The components of one job. Fields are dropped in this order: the instances before their places are given back, and the
/// rest of the recording before the job counts as closed.
pub struct Job {
    pub(crate) seats: Vec<Seat>,
    pub(crate) roles: [Assigned; Role::ALL.len()],
    pub(crate) context: Arc<JobContext>,
    pub(crate) recorder: Option<Recorder>,
    pub(crate) meter: JobMeter,
    pub(crate) _open: Arc<OpenJob>,
}

impl Job {
    /// What its components have done so far.
    pub fn stats(&self) -> JobStats {
        self.meter.read()
    }

    async fn decide<D: Decision>(&self, question: D) -> Result<D::Answer, PolicyError> {
        let ear = || match self.recorder {
            Some(_) => Ear::listening(),
            None => Ear::Deaf,
        };
        self.decide_hearing(question, ear).await.0
    }

    /// The same; what capabilities answer goes to an `ear` of each call, or comes from there. Says how many of their answers
    /// were missed.
    pub(crate) async fn decide_hearing<D: Decision>(
        &self,
        question: D,
        ear: impl Fn() -> Ear,
    ) -> (Result<D::Answer, PolicyError>, u32) {
        let assigned = self.roles.get(D::ROLE as usize).copied().unwrap_or_default();
        let seat = |place: Option<usize>| place.and_then(|i| Some((i, self.seats.get(i)?)));
        let Some((asked, first)) = seat(assigned.first) else {
            let none = PolicyError::Unusable {
                component: D::ROLE.name().into(),
                reason: format!("the pipeline has no component for the role {}", D::ROLE.name()),
            };
            return (Err(none), 0);
        };
        let question = Arc::new(question);
        let said = self.ask(first, &question, ear()).await;
        let missed = said.missed;
        let error = match &said.answer {
            Ok(_) => {
                let answer = said.answer.clone();
                self.record(asked, said, question);
                return (answer, missed);
            }
            Err(error) => error.clone(),
        };
        let Some((instead, stand_in)) = seat(assigned.stand_in) else {
            self.record(asked, said, question);
            return (Err(error), missed);
        };
        self.record(asked, said, Arc::clone(&question));
        self.context.capabilities.policy_failed(&error);
        self.meter.stood_in();
        let said = self.ask(stand_in, &question, ear()).await;
        let (answer, missed) = (said.answer.clone(), missed + said.missed);
        self.record(instead, said, question);
        (answer, missed)
    }

    async fn ask<D: Decision>(&self, seat: &Seat, question: &Arc<D>, ear: Ear) -> Asked<D::Answer> {
        let span = tracing::info_span!("guest", function = D::FUNCTION);
        seat.ask(question, &self.meter, ear).instrument(span).await
    }

    /// Throws away the instance that decides in a role, as one is whose caller went away.
    pub(crate) async fn forget(&self, role: Role) {
        let assigned = self.roles.get(role as usize).copied().unwrap_or_default();
        if let Some(seat) = assigned.first.and_then(|place| self.seats.get(place)) {
            seat.forget().await;
        }
    }

    fn record<D: Decision>(&self, seat: usize, said: Asked<D::Answer>, question: Arc<D>) {
        if let Some(recorder) = &self.recorder {
            recorder.push(Call {
                component: u16::try_from(seat).unwrap_or(u16::MAX),
                turn: said.turn,
                micros: u32::try_from(said.took.as_micros()).unwrap_or(u32::MAX),
                heard: said.heard,
                exchange: Arc::unwrap_or_clone(question).exchange(said.answer.map_err(|error| note(&error))),
            });
        }
    }
}

impl Drop for Job {
    fn drop(&mut self) {
        let stats = self.stats();
        tracing::debug!(
            tenant = %self.context.tenant,
            job = %self.context.job,
            calls = stats.calls,
            traps = stats.traps,
            guest_micros = stats.guest_time.as_micros(),
            "the job's components are done",
        );
    }
}

#[async_trait]
impl JobPolicy for Job {
    fn tally(&self) -> PolicyTally {
        let stats = self.stats();
        PolicyTally {
            calls: stats.calls,
            traps: stats.traps.saturating_sub(stats.late) + stats.nonsense,
            timeouts: stats.late,
        }
    }

    async fn plan(&self, situation: Situation) -> Result<BatchPlan, PolicyError> {
        self.decide(situation).await
    }

    async fn route_document(&self, facts: DocumentFacts) -> Result<DocumentRoute, PolicyError> {
        self.decide(facts).await
    }

    async fn route_page(&self, document: &DocumentId, facts: PageFacts) -> Result<PageRoute, PolicyError> {
        self.decide(PageFound {
            document: *document,
            facts,
        })
        .await
    }

    async fn judge(&self, failure: Failure) -> Result<Verdict, PolicyError> {
        self.decide(failure).await
    }

    async fn passages(&self, source: PassageSource) -> Result<Vec<Range<u32>>, PolicyError> {
        self.decide(source).await
    }

    async fn summarize(&self, section: Section) -> Result<SummaryPlan, PolicyError> {
        self.decide(section).await
    }

    async fn observe(&self, at_millis: u64, what: Observation) -> Result<Vec<ProgressUpdate>, PolicyError> {
        self.decide(Observed { at_millis, what }).await
    }
}
