//! What the router tells whoever watches the host. The instruments are taken from the recorder once, when it is made; only those
//! whose labels are not known before, such as how a call failed, when they are needed.

use metrics::{Counter, Gauge, Histogram};
use tokio::time::Duration;
use weir_core::language::{Fault, QuestionKind};

use crate::breaker::{BreakerState, Change};

/// Instruments of a provider.
pub(crate) struct ProviderMeasures {
    name: String,
    answered: Counter,
    seconds: Histogram,
    retries: Counter,
    timeouts: Counter,
    prompt_tokens: Counter,
    answer_tokens: Counter,
    cost: Counter,
    state: Gauge,
    denied: Gauge,
    limit: Gauge,
    busy: Gauge,
}

impl ProviderMeasures {
    pub(crate) fn of(name: &str) -> Self {
        let label = name.to_owned();
        Self {
            answered: metrics::counter!("weir_llm_calls_total", "provider" => label.clone(), "outcome" => "answered"),
            seconds: metrics::histogram!("weir_llm_call_seconds", "provider" => label.clone()),
            retries: metrics::counter!("weir_llm_retries_total", "provider" => label.clone()),
            timeouts: metrics::counter!("weir_llm_timeouts_total", "provider" => label.clone()),
            prompt_tokens: metrics::counter!("weir_llm_tokens_total", "provider" => label.clone(), "of" => "prompt"),
            answer_tokens: metrics::counter!("weir_llm_tokens_total", "provider" => label.clone(), "of" => "answer"),
            cost: metrics::counter!("weir_llm_cost_micros_total", "provider" => label.clone()),
            state: metrics::gauge!("weir_llm_breaker_state", "provider" => label.clone()),
            denied: metrics::gauge!("weir_llm_denied", "provider" => label.clone()),
            limit: metrics::gauge!("weir_llm_limit", "provider" => label.clone()),
            busy: metrics::gauge!("weir_llm_calls_under_way", "provider" => label),
            name: name.to_owned(),
        }
    }

    pub(crate) fn answered(&self, took: Duration, prompt: u64, answer: u64, cost_micros: u64) {
        self.answered.increment(1);
        self.seconds.record(took.as_secs_f64());
        self.prompt_tokens.increment(prompt);
        self.answer_tokens.increment(answer);
        self.cost.increment(cost_micros);
    }

    pub(crate) fn failed(&self, fault: &Fault, took: Duration) {
        metrics::counter!("weir_llm_calls_total", "provider" => self.name.clone(), "outcome" => fault.kind())
            .increment(1);
        self.seconds.record(took.as_secs_f64());
        if matches!(fault, Fault::Late { .. } | Fault::Stalled { .. }) {
            self.timeouts.increment(1);
        }
    }

    pub(crate) fn withdrawn(&self) {
        metrics::counter!("weir_llm_calls_total", "provider" => self.name.clone(), "outcome" => "withdrawn")
            .increment(1);
    }

    pub(crate) fn tried_again(&self) {
        self.retries.increment(1);
    }

    pub(crate) fn changed(&self, change: &Change) {
        let event = match change {
            Change::Opened(_) => "opened",
            Change::HalfOpened => "half-opened",
            Change::Closed => "closed",
        };
        metrics::counter!("weir_llm_breaker_events_total", "provider" => self.name.clone(), "event" => event)
            .increment(1);
    }

    /// Whether the provider denied its latest call.
    pub(crate) fn denies(&self, denies: bool) {
        self.denied.set(f64::from(u8::from(denies)));
    }

    pub(crate) fn now(&self, state: BreakerState, limit: u32, busy: u32) {
        self.state.set(match state {
            BreakerState::Closed => 0.0,
            BreakerState::HalfOpen => 1.0,
            BreakerState::Open => 2.0,
        });
        self.limit.set(limit);
        self.busy.set(busy);
    }
}

/// Instruments of the queue.
pub(crate) struct QueueMeasures {
    pub(crate) depth: Gauge,
    pub(crate) elsewhere: Counter,
    seconds: [Histogram; QuestionKind::ALL.len()],
    waited: Histogram,
}

impl QueueMeasures {
    pub(crate) fn new(capacity: usize) -> Self {
        metrics::gauge!("weir_llm_queue_capacity").set(capacity as f64);
        Self {
            depth: metrics::gauge!("weir_llm_queue_depth"),
            elsewhere: metrics::counter!("weir_llm_failovers_total"),
            seconds: QuestionKind::ALL
                .map(|kind| metrics::histogram!("weir_llm_question_seconds", "kind" => kind.name())),
            waited: metrics::histogram!("weir_llm_wait_seconds"),
        }
    }

    pub(crate) fn ended(&self, kind: QuestionKind, waited: Duration, spent: Duration) {
        if let Some(seconds) = self.seconds.get(kind as usize) {
            seconds.record((waited + spent).as_secs_f64());
        }
        self.waited.record(waited.as_secs_f64());
    }
}

/// Instruments of the answers that are kept.
pub(crate) struct AnswerMeasures {
    pub(crate) hits: Counter,
    pub(crate) shared: Counter,
    pub(crate) misses: Counter,
}

impl AnswerMeasures {
    pub(crate) fn new() -> Self {
        let of = |outcome| metrics::counter!("weir_llm_answers_total", "outcome" => outcome);
        Self {
            hits: of("kept"),
            shared: of("shared"),
            misses: of("asked"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kinds_are_numbered_as_they_are_listed() {
        for (place, kind) in QuestionKind::ALL.into_iter().enumerate() {
            assert_eq!(kind as usize, place);
        }
    }
}
