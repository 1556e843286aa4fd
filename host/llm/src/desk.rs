//! A provider as the dispatcher sees it: whether it may be asked now, and what its calls taught.

use tokio::time::{Duration, Instant};
use weir_core::language::Fault;

use crate::backoff::Backoff;
use crate::breaker::{Breaker, BreakerState, Change, Pass};
use crate::course::{Verdict, overloaded, passes, verdict};
use crate::limit::{Epoch, Limit};
use crate::measures::ProviderMeasures;
use crate::pace::{Pace, PaceId};
use crate::provider::{Member, Reply, Terms};
use crate::router::RouterConfig;
use crate::stats::ProviderStats;

/// Longest time that a provider is believed when it asks to be left alone.
const LONGEST_REST: Duration = Duration::from_secs(86_400);

/// How much one call teaches of the tokens that the next will take.
const LEARNING: f64 = 0.2;

/// What a call that begins takes with it.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Ticket {
    pass: Pass,
    epoch: Epoch,
    pace: PaceId,
    /// What it was thought to take, before that was put right by what others took.
    tokens: u64,
    busy: u32,
    began: Instant,
}

/// How a call ended.
pub(crate) enum End<'a> {
    Answered(&'a Reply),
    Failed(&'a Fault),
    /// Nobody waits for it any more.
    Withdrawn,
}

/// Whether a provider may be asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Room {
    /// Now.
    Now,
    /// Not before this time.
    At(Instant),
    /// When one of its calls ends.
    Later,
}

pub(crate) struct Desk {
    terms: Terms,
    breaker: Breaker,
    limit: Limit,
    pace: Pace,
    /// Tokens that calls take, for each that was thought of.
    tokens_each: f64,
    measures: ProviderMeasures,
    /// Until when it asked to be left alone.
    rest: Option<Instant>,
    /// Times in a row that it said it is asked too often.
    rate_limited: u32,
    /// When the latest of the calls that were answered began.
    answered: Option<Instant>,
    /// Until when no request is sent after the latest denial; `None` if the latest call was not denied.
    denied_until: Option<Instant>,
    denied_pause: Duration,
    /// When the first call that failed since the last answer began.
    failing_since: Option<Instant>,
    busy: u32,
    /// Questions that pause before they are put to it again.
    pub(crate) pausing: u32,
    slow: Duration,
    pub(crate) stats: ProviderStats,
    pub(crate) last_fault: Option<Fault>,
}

impl Desk {
    pub(crate) fn new(member: &Member, config: &RouterConfig, now: Instant) -> Self {
        let (terms, breaker) = (member.terms, config.breaker);
        let desk = Self {
            terms,
            breaker: Breaker::new(breaker, now),
            limit: Limit::new(terms.concurrency, config.adaptive),
            pace: Pace::new(terms.requests_per_minute, terms.tokens_per_minute),
            tokens_each: 1.0,
            measures: ProviderMeasures::of(&member.name),
            rest: None,
            rate_limited: 0,
            answered: None,
            denied_until: None,
            denied_pause: config.denied_pause,
            failing_since: None,
            busy: 0,
            pausing: 0,
            slow: breaker.unwrap_or_default().p95,
            stats: ProviderStats {
                name: member.name.clone(),
                model: member.provider.model().to_owned(),
                ..ProviderStats::default()
            },
            last_fault: None,
        };
        desk.show();
        desk
    }

    /// Whether it is asked only in need.
    pub(crate) const fn spare(&self) -> bool {
        self.terms.spare
    }

    /// Whether it is neither left alone nor being tried, and did not deny the latest call.
    pub(crate) fn well(&self) -> bool {
        self.breaker.state() == BreakerState::Closed && self.denied_until.is_none()
    }

    /// Whether it has denied a call and is not asked for now.
    pub(crate) fn denies(&self, now: Instant) -> bool {
        self.denied_until.is_some_and(|until| now < until)
    }

    /// Whether it denied its latest call.
    pub(crate) const fn denied(&self) -> bool {
        self.denied_until.is_some()
    }

    /// For how long it has failed without an answer, with its last fault; `None` if its latest call was answered or denied.
    pub(crate) fn failing(&self, now: Instant) -> Option<(Duration, &Fault)> {
        Some((now.duration_since(self.failing_since?), self.last_fault.as_ref()?))
    }

    /// Whom to fill first: who must show that it is well again, who is usually asked, who is spare.
    pub(crate) fn rank(&self) -> u8 {
        match self.breaker.state() {
            BreakerState::HalfOpen => 0,
            _ if self.denied_until.is_some() => 0,
            _ if self.terms.spare => 2,
            _ => 1,
        }
    }

    /// Whether it is left alone.
    pub(crate) fn left_alone(&self, now: Instant) -> bool {
        self.breaker.state() == BreakerState::Open || self.denies(now)
    }

    /// Calls that may be under way.
    pub(crate) const fn limit(&self) -> u32 {
        self.limit.now()
    }

    /// Whether a call may begin, as far as that does not depend on its size.
    pub(crate) fn room(&mut self, now: Instant) -> Room {
        if let Some(change) = self.breaker.tick(now) {
            self.changed(&change);
        }
        if let Some(rest) = self.rest.filter(|rest| *rest > now) {
            return Room::At(rest);
        }
        if let Some(until) = self.breaker.until() {
            return Room::At(until);
        }
        match self.denied_until {
            Some(until) if now < until => return Room::At(until),
            // One call tells whether it still denies them.
            Some(_) if self.busy > 0 => return Room::Later,
            _ => {}
        }
        if !self.breaker.admits() || self.busy >= self.limit.now() {
            return Room::Later;
        }
        self.pace.wait(now, 0).map_or(Room::Now, Room::At)
    }

    /// When a call of so many tokens may begin; `None`: now.
    pub(crate) fn wait_for_tokens(&mut self, now: Instant, tokens: u64) -> Option<Instant> {
        let tokens = self.likely(tokens);
        self.pace.wait(now, tokens)
    }

    /// What a call is likely to take, by what others took.
    fn likely(&self, tokens: u64) -> u64 {
        (tokens as f64 * self.tokens_each) as u64
    }

    /// A call begins.
    pub(crate) fn begin(&mut self, now: Instant, tokens: u64) -> Ticket {
        self.busy += 1;
        self.stats.calls += 1;
        let likely = self.likely(tokens);
        let ticket = Ticket {
            pass: self.breaker.begin(),
            epoch: self.limit.epoch(),
            pace: self.pace.begin(now, likely),
            tokens,
            busy: self.busy,
            began: now,
        };
        self.show();
        ticket
    }

    /// A call ends. `others`: whether another provider is well.
    pub(crate) fn end(
        &mut self,
        now: Instant,
        ticket: Ticket,
        end: &End<'_>,
        others: bool,
        backoff: &Backoff,
    ) {
        self.busy = self.busy.saturating_sub(1);
        let took = now.duration_since(ticket.began);
        let verdict = match end {
            End::Answered(reply) => {
                self.answered(ticket, reply, took);
                Verdict::Good
            }
            End::Failed(fault) => {
                self.failed(now, ticket, fault, took, backoff);
                verdict(fault)
            }
            End::Withdrawn => {
                self.stats.withdrawn += 1;
                self.measures.withdrawn();
                // How long it would have taken is not known, but that it was slow is.
                if took > self.slow {
                    Verdict::Slow
                } else {
                    Verdict::Open
                }
            }
        };
        if let Some(change) = self.breaker.end(now, ticket.pass, verdict, took, others) {
            self.changed(&change);
        }
        self.show();
    }

    fn answered(&mut self, ticket: Ticket, reply: &Reply, took: Duration) {
        self.rate_limited = 0;
        self.responds();
        self.answered = self.answered.max(Some(ticket.began));
        self.limit.answered(ticket.epoch, ticket.busy, took);
        let prompt = u64::from(reply.prompt_tokens.unwrap_or(0));
        let answer = u64::from(reply.answer_tokens.unwrap_or(0));
        if prompt + answer > 0 {
            self.pace.correct(ticket.pace, prompt + answer);
            let each = (prompt + answer) as f64 / ticket.tokens.max(1) as f64;
            self.tokens_each += LEARNING * (each.clamp(0.05, 20.0) - self.tokens_each);
        }
        let cost = self.terms.cost_micros(prompt, answer);
        self.stats.answered += 1;
        self.stats.prompt_tokens += prompt;
        self.stats.answer_tokens += answer;
        self.stats.cost_micros += cost;
        self.measures.answered(took, prompt, answer, cost);
    }

    /// It takes requests: it answers them, or refuses one for its content.
    fn responds(&mut self) {
        self.failing_since = None;
        if self.denied_until.take().is_some() {
            tracing::info!(
                provider = self.stats.name,
                "the language model provider accepts requests again"
            );
        }
    }

    /// It denies every request until its settings or its account change.
    fn denies_requests(&mut self, now: Instant, fault: &Fault) {
        self.failing_since = None;
        let until = now + self.denied_pause;
        if self.denied_until.replace(until).is_none() {
            tracing::warn!(
                provider = self.stats.name,
                error = fault.describe(&self.stats.name),
                pause_seconds = self.denied_pause.as_secs(),
                "the language model provider denies requests"
            );
        }
    }

    fn failed(&mut self, now: Instant, ticket: Ticket, fault: &Fault, took: Duration, backoff: &Backoff) {
        tracing::debug!(provider = %self.stats.name, %fault, ?took, "a language model failed at a question");
        if fault.is_denial() {
            self.denies_requests(now, fault);
        } else if passes(fault) {
            self.denied_until = None;
            self.failing_since.get_or_insert(ticket.began);
        } else {
            self.responds();
        }
        self.stats.failed += 1;
        if matches!(fault, Fault::Late { .. } | Fault::Stalled { .. }) {
            self.stats.timeouts += 1;
        }
        self.measures.failed(fault, took);
        if overloaded(fault) {
            let others = self.answered.is_some_and(|began| began > ticket.began);
            self.limit.overloaded(ticket.epoch, others);
        }
        let rest = match fault {
            Fault::RateLimited { after } => {
                self.rate_limited = self.rate_limited.saturating_add(1);
                Some(after.unwrap_or_else(|| backoff.after(self.rate_limited)))
            }
            Fault::Server { after, .. } => *after,
            _ => None,
        };
        if let Some(rest) = rest {
            let until = now + rest.min(LONGEST_REST);
            self.rest = Some(self.rest.map_or(until, |known| known.max(until)));
        }
        self.stats.last_fault = Some(fault.to_string());
        self.last_fault = Some(fault.clone());
    }

    /// A question pauses before it is put to it again. `others`: whether another provider is well.
    pub(crate) fn pause(&mut self, now: Instant, others: bool) {
        self.pausing += 1;
        self.measures.tried_again();
        if let Some(change) = self.breaker.crowded(now, self.pausing, others) {
            self.changed(&change);
        }
    }

    fn changed(&mut self, change: &Change) {
        let name = self.stats.name.as_str();
        match change {
            Change::Opened(reason) => {
                tracing::warn!(
                    provider = name,
                    reason,
                    "a language model is left alone for a while"
                );
                self.stats.opened += 1;
            }
            Change::HalfOpened => tracing::info!(provider = name, "a language model is tried again"),
            Change::Closed => {
                tracing::info!(provider = name, "a language model is well again");
                self.limit.recovered();
            }
        }
        self.measures.changed(change);
        self.show();
    }

    fn show(&self) {
        self.measures
            .now(self.breaker.state(), self.limit.now(), self.busy);
        self.measures.denies(self.denied_until.is_some());
    }

    pub(crate) fn stats(&self) -> ProviderStats {
        let state = match self.breaker.state() {
            _ if self.denied_until.is_some() => "denied",
            BreakerState::Closed => "asked",
            BreakerState::HalfOpen => "tried",
            BreakerState::Open => "left-alone",
        };
        ProviderStats {
            state: state.into(),
            busy: self.busy,
            limit: self.limit.now(),
            ..self.stats.clone()
        }
    }
}
