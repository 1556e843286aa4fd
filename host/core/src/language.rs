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
use crate::id::{DocumentId, TenantId};
use crate::page::EncodedImage;
use crate::ports::Account;

mod denial;
mod error;
mod failing;

pub use denial::Denial;
pub use error::{Fault, LanguageError};
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
    /// The document it is about; `None` if that is not known. No part of what the answer depends on.
    pub document: Option<DocumentId>,
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
    async fn forget(&self, tenant: &TenantId) -> Result<(), StorageError>;

    /// Forgets what was answered about a document of a tenant, or about no known document, if anything is kept.
    async fn forget_document(&self, tenant: &TenantId, document: &DocumentId) -> Result<(), StorageError>;

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

    /// Keeps an answer with the document that it was made from, and may drop others for it.
    async fn put(
        &self,
        tenant: &TenantId,
        key: &AnswerKey,
        document: Option<&DocumentId>,
        answer: &Answer,
    ) -> Result<(), StorageError>;

    /// Removes a tenant's answers that were made from a document, and those of which no document is known; nothing of them is
    /// left on the disk when it returns.
    async fn remove(&self, tenant: &TenantId, document: &DocumentId) -> Result<(), StorageError>;

    /// Forgets a tenant's answers.
    async fn clear(&self, tenant: &TenantId) -> Result<(), StorageError>;
}

#[cfg(test)]
mod tests;
