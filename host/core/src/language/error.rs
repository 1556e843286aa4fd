//! The errors of providers and of requests to them.

use std::time::Duration;

use super::Denial;
use crate::usage::{QuotaExhausted, ReserveError};

/// What a provider did instead of answering.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Fault {
    /// No connection, or it broke before the answer began.
    #[error("cannot be reached: {0}")]
    Unreachable(String),
    /// It was asked too often.
    #[error("says it is asked too often{}", after.map(|t| format!(", again in {} s", t.as_secs())).unwrap_or_default())]
    RateLimited {
        /// When it may be asked again, from now, if it says so.
        after: Option<Duration>,
    },
    /// It failed, by its own word.
    #[error("failed with status {status}: {reason}")]
    Server {
        /// HTTP status, 500 to 599.
        status: u16,
        /// What it said.
        reason: String,
        /// When it may be asked again, from now, if it says so.
        after: Option<Duration>,
    },
    /// It answers no request until its settings or its account change.
    #[error("{denial} ({status}): {reason}")]
    Denied {
        /// HTTP status.
        status: u16,
        /// Why.
        denial: Denial,
        /// The provider's own explanation, without the key.
        reason: String,
    },
    /// It does not take this question.
    #[error("does not take the question, with status {status}: {reason}")]
    Refused {
        /// HTTP status.
        status: u16,
        /// What it said.
        reason: String,
    },
    /// The question and its answer are longer than it can hold at once.
    #[error(
        "holds {room} tokens, and the question with its answer takes {needed} or more: ask about less text, or raise its context"
    )]
    TooLong {
        /// Tokens that it takes, at least.
        needed: usize,
        /// Tokens that there is room for.
        room: usize,
    },
    /// It quotes sentences, and the text has none: a table of contents, a list of addresses.
    #[error("found no sentence to quote")]
    NothingToQuote,
    /// What it answered cannot be understood.
    #[error("answered what cannot be understood: {0}")]
    Unintelligible(String),
    /// The answer ended in the middle.
    #[error("broke off in the middle of its answer")]
    BrokenOff,
    /// It answered with nothing.
    #[error("answered with nothing")]
    Empty,
    /// It has no words for this question, now or later.
    #[error("has no words for this")]
    NoAnswer,
    /// The answer was longer than it may be.
    #[error("did not end its answer within the tokens it has")]
    CutShort,
    /// Its filter kept the answer back.
    #[error("kept its answer back by a content filter")]
    Filtered,
    /// It said, in words, that it will not.
    #[error("declined to answer")]
    Declined,
    /// It repeated what it was told to do.
    #[error(
        "repeated its instructions instead of following them: ask a larger model, or let a spare one of kind extractive answer"
    )]
    Parroted,
    /// It said the same again and again.
    #[error(
        "went round in circles instead of answering: ask a larger model, or let a spare one of kind extractive answer"
    )]
    Looped,
    /// It went silent.
    #[error("went silent for {seconds} s")]
    Stalled {
        /// How long nothing came.
        seconds: u64,
    },
    /// It took too long.
    #[error("did not answer within {seconds} s")]
    Late {
        /// How long it had.
        seconds: u64,
    },
    /// It failed on this machine.
    #[error("failed: {0}")]
    Failed(String),
}

impl Fault {
    /// The fault of the provider of this name, in one line, with the setting to look at where there is one.
    pub fn describe(&self, provider: &str) -> String {
        match self.remedy(provider) {
            Some(remedy) => format!("{provider}: {self}; {remedy}"),
            None => format!("{provider} {self}"),
        }
    }

    /// What the operator of the provider of this name can do about it, if that is known.
    pub fn remedy(&self, provider: &str) -> Option<String> {
        match self {
            Self::Denied { denial, .. } => Some(denial.remedy(provider)),
            _ => None,
        }
    }

    /// Whether the provider denies every request; see [`Denial`].
    pub const fn is_denial(&self) -> bool {
        matches!(self, Self::Denied { .. })
    }

    /// A stable word for programs.
    pub const fn kind(&self) -> &'static str {
        match self {
            Self::Unreachable(_) => "unreachable",
            Self::RateLimited { .. } => "rate-limited",
            Self::Server { .. } => "server-error",
            Self::Denied { .. } => "denied",
            Self::Refused { .. } => "refused",
            Self::TooLong { .. } => "too-long",
            Self::NothingToQuote => "nothing-to-quote",
            Self::Unintelligible(_) => "unintelligible",
            Self::BrokenOff => "broken-off",
            Self::Empty => "empty",
            Self::NoAnswer => "no-answer",
            Self::CutShort => "cut-short",
            Self::Filtered => "filtered",
            Self::Declined => "declined",
            Self::Parroted => "parroted",
            Self::Looped => "looped",
            Self::Stalled { .. } => "stalled",
            Self::Late { .. } => "late",
            Self::Failed(_) => "failed",
        }
    }
}

/// A question that was not answered.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum LanguageError {
    /// No provider of the settings can answer it.
    #[error("no language model is set up for {what}: {remedy}")]
    Unavailable {
        /// What it would have to do.
        what: String,
        /// What to do about it.
        remedy: String,
    },
    /// The question would be answered by nobody.
    #[error("{}", .fault.describe(.provider))]
    Provider {
        /// The provider whose fault it is.
        provider: String,
        /// What it did.
        fault: Fault,
    },
    /// Every provider that could have answered was tried, or is left alone for now.
    #[error("no language model answers: {}", listed(.0))]
    AllDown(Vec<(String, Fault)>),
    /// Time ran out.
    #[error("no answer within {seconds} s: {}", if .faults.is_empty() { "every language model was busy".into() } else { listed(.faults) })]
    Deadline {
        /// How long it had.
        seconds: u64,
        /// The last fault of each provider that was tried.
        faults: Vec<(String, Fault)>,
    },
    /// A quota of the tenant allows no further call.
    #[error(transparent)]
    Quota(#[from] ReserveError),
    /// The tenant has as many questions waiting as it may.
    #[error("{waiting} questions of this tenant wait for a language model already")]
    Full {
        /// Questions waiting.
        waiting: usize,
    },
}

fn listed(faults: &[(String, Fault)]) -> String {
    let each: Vec<String> = faults
        .iter()
        .map(|(provider, fault)| fault.describe(provider))
        .collect();
    each.join("; ")
}

impl LanguageError {
    /// Whether there is nothing in the text to answer with, which is no trouble of theirs who were asked: one has looked for a
    /// sentence to quote, and the others had none of their own either.
    pub fn is_nothing_to_quote(&self) -> bool {
        match self {
            Self::AllDown(faults) => {
                let quotes = |fault: &Fault| *fault == Fault::NothingToQuote;
                let nothing =
                    |fault: &Fault| matches!(fault, Fault::Declined | Fault::Parroted | Fault::Looped);
                faults.iter().any(|(_, fault)| quotes(fault))
                    && faults.iter().all(|(_, fault)| quotes(fault) || nothing(fault))
            }
            Self::Provider { fault, .. } => *fault == Fault::NothingToQuote,
            Self::Unavailable { .. } | Self::Deadline { .. } | Self::Full { .. } | Self::Quota(_) => false,
        }
    }

    /// Whether every provider that could have answered denies all requests, so that a further try fails, too.
    pub fn is_denied(&self) -> bool {
        matches!(self, Self::AllDown(faults) if !faults.is_empty() && faults.iter().all(|(_, fault)| fault.is_denial()))
    }

    /// A stable word for programs.
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Unavailable { .. } => "language-unavailable",
            Self::Provider { .. } => "language-failed",
            Self::AllDown(_) if self.is_denied() => "language-denied",
            Self::AllDown(_) => "language-down",
            Self::Deadline { .. } => "language-deadline",
            Self::Full { .. } => "language-queue-full",
            Self::Quota(ReserveError::Exhausted(_)) => QuotaExhausted::KIND,
            Self::Quota(ReserveError::Storage(error)) => error.kind(),
        }
    }
}
