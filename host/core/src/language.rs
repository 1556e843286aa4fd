//! Questions to language models, their answers, and the port that is asked.
//!
//! A question keeps its prompt apart from the text it is about: a provider that quotes instead of writing must never quote
//! the prompt, and a cache can tell two texts under one prompt from two prompts about one text.
//!
//! An answer comes whole. Providers are listened to as they write, so that one that went silent is noticed, but what they
//! have written so far is handed to nobody: a second try, or another provider, would contradict it.

use std::fmt;
use std::ops::Range;
use std::time::Duration;

use async_trait::async_trait;
use serde::{Deserialize, Serialize};

use crate::error::StorageError;
use crate::id::TenantId;
use crate::page::EncodedImage;
use crate::ports::Account;

mod denial;
mod failing;

pub use denial::Denial;
pub use failing::FailingProvider;

/// What an answer is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum QuestionKind {
    /// Summary of a part of a section, or of a section in one piece.
    Map,
    /// Summary of summaries.
    Reduce,
    /// A title.
    Title,
    /// One or two sentences to show beside a title.
    Preview,
    /// The text of a page, from its image.
    Page,
    /// A component's own question.
    Component,
}

impl QuestionKind {
    /// Every kind.
    pub const ALL: [Self; 6] = [
        Self::Map,
        Self::Reduce,
        Self::Title,
        Self::Preview,
        Self::Page,
        Self::Component,
    ];

    /// The name in events and metrics.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Map => "map",
            Self::Reduce => "reduce",
            Self::Title => "title",
            Self::Preview => "preview",
            Self::Page => "page",
            Self::Component => "component",
        }
    }
}

impl fmt::Display for QuestionKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// A question. Its texts are the tenant's and stay out of what is logged.
#[derive(Clone)]
pub struct Question {
    /// On whose account. Its `linger` is not used.
    pub account: Account,
    /// What the answer is for.
    pub kind: QuestionKind,
    /// What the model is to be, if anything is said of it.
    pub system: Option<String>,
    /// What is asked; `{text}` stands for [`Self::text`].
    pub prompt: String,
    /// What it is asked about; empty where the prompt says all, or the image does.
    pub text: String,
    /// The image it is asked about. Only a provider that sees can answer then.
    pub image: Option<EncodedImage>,
    /// The longest answer, in tokens, at least 1.
    pub max_tokens: u32,
    /// How long the answer may take from being asked for, with all waiting and all tries.
    pub patience: Duration,
}

impl Question {
    /// The prompt with the text in its place. What looks like the place in the text itself is left as it is.
    pub fn rendered(&self) -> String {
        self.prompt.replace("{text}", &self.text)
    }
}

impl fmt::Debug for Question {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Question")
            .field("tenant", &self.account.tenant)
            .field("kind", &self.kind)
            .field("text_bytes", &self.text.len())
            .field("image", &self.image)
            .field("max_tokens", &self.max_tokens)
            .finish_non_exhaustive()
    }
}

/// A part of an answer that was taken from the question's text, word for word; only runs of white space are one space.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Quote {
    /// Bytes of the answer.
    pub answer: Range<u32>,
    /// Bytes of the question's text.
    pub source: Range<u32>,
}

/// An answer.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Answer {
    /// What was answered, without white space around it; never empty.
    pub text: String,
    /// Where it stands in the question's text, in order, if the provider quotes; empty if it writes.
    pub quotes: Vec<Quote>,
    /// Tokens of the question, where the provider says.
    pub prompt_tokens: Option<u32>,
    /// Tokens of the answer, where the provider says.
    pub answer_tokens: Option<u32>,
    /// Name of the provider, as in the settings.
    pub provider: String,
    /// The model that answered.
    pub model: String,
    /// Whether nobody was asked for it, because the same had been answered before or was just being asked.
    pub cached: bool,
    /// How long it waited for its turns and between tries.
    pub waited: Duration,
    /// How long providers worked on it, tries that failed included.
    pub spent: Duration,
}

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
            Self::Unavailable { .. } | Self::Deadline { .. } | Self::Full { .. } => false,
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
        }
    }
}

/// Asks language models. Dropping the future of a question withdraws it, wherever it is.
#[async_trait]
pub trait LanguageModel: Send + Sync {
    /// Answers a question, or says who failed at it and how.
    async fn ask(&self, question: Question) -> Result<Answer, LanguageError>;

    /// Whether there is a provider for questions about images.
    fn sees(&self) -> bool;

    /// The providers that requests wait for, where each that could answer has failed for some seconds; empty if one answers.
    /// `image`: of those that take images.
    fn failing(&self, image: bool) -> Vec<FailingProvider>;

    /// Questions that are worth having under way at once; it changes as providers come, go, and grow slow.
    fn workers(&self) -> u32;

    /// Forgets what was answered to a tenant, if anything is kept.
    async fn forget(&self, _tenant: &TenantId) -> Result<(), StorageError> {
        Ok(())
    }

    /// Returns when the tenant has fewer questions waiting than it should slow down at. Whoever asks many waits for it
    /// before each, and so neither fills the queue nor hears [`LanguageError::Full`].
    async fn room(&self, tenant: &TenantId);
}

/// SHA-256 of everything that an answer depends on, the tenant included.
pub type AnswerKey = [u8; 32];

/// Keeps answers, so that a job that is done again or resumed asks nothing twice.
#[async_trait]
pub trait AnswerCache: Send + Sync {
    /// An answer; `None` if it is not there or was dropped for room.
    async fn get(&self, tenant: &TenantId, key: &AnswerKey) -> Result<Option<Answer>, StorageError>;

    /// Keeps an answer, and may drop others for it.
    async fn put(&self, tenant: &TenantId, key: &AnswerKey, answer: &Answer) -> Result<(), StorageError>;

    /// Forgets a tenant's answers.
    async fn clear(&self, tenant: &TenantId) -> Result<(), StorageError>;
}

#[cfg(test)]
mod tests;
