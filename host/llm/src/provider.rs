//! What stands behind the router: someone who can be asked once.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use weir_core::language::{Fault, Question, Quote};

/// Asks one model, once. It neither waits its turn nor tries again: the router does.
#[async_trait]
pub trait Provider: Send + Sync {
    /// The model's name.
    fn model(&self) -> &str;

    /// Whether it takes images.
    fn sees(&self) -> bool;

    /// What someone who sets it up should know of it, in a sentence without a full stop.
    fn remark(&self) -> Option<String> {
        None
    }

    /// Answers. The router ends a call that takes too long by dropping it.
    async fn ask(&self, question: &Question) -> Result<Reply, Fault>;
}

/// What a provider answered.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Reply {
    /// The answer.
    pub text: String,
    /// Where it stands in the question's text, if it was taken from there.
    pub quotes: Vec<Quote>,
    /// Tokens of the question, if it says.
    pub prompt_tokens: Option<u32>,
    /// Tokens of the answer, if it says.
    pub answer_tokens: Option<u32>,
}

/// On what terms a provider is asked.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Terms {
    /// Whether it is asked only while those that are not spare are left alone.
    pub spare: bool,
    /// Calls under way at once, at least 1.
    pub concurrency: u32,
    /// Calls in any minute; 0: no limit.
    pub requests_per_minute: u32,
    /// Tokens in any minute; 0: no limit.
    pub tokens_per_minute: u64,
    /// How long one call may take.
    pub timeout: Duration,
    /// Price of a million tokens of questions.
    pub prompt_price: f64,
    /// Price of a million tokens of answers.
    pub answer_price: f64,
    /// Whether its calls are metered as those of a language model; one that quotes with the host's own models is not.
    pub metered: bool,
}

impl Terms {
    /// Price of so many tokens, in millionths of the currency of the prices.
    pub(crate) fn cost_micros(&self, prompt: u64, answer: u64) -> u64 {
        // A price of a million tokens is the millionths of one token.
        let cost = prompt as f64 * self.prompt_price + answer as f64 * self.answer_price;
        cost.round() as u64
    }
}

impl Default for Terms {
    fn default() -> Self {
        Self {
            spare: false,
            concurrency: 4,
            requests_per_minute: 0,
            tokens_per_minute: 0,
            timeout: Duration::from_secs(120),
            prompt_price: 0.0,
            answer_price: 0.0,
            metered: true,
        }
    }
}

/// A provider of the router.
#[derive(Clone)]
pub struct Member {
    /// Its name in errors and measurements.
    pub name: String,
    /// Who is asked.
    pub provider: Arc<dyn Provider>,
    /// On what terms.
    pub terms: Terms,
}
