//! What the router has done and how its providers are, for whoever asks.

use serde::{Deserialize, Serialize};

/// A provider, as it is now.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct ProviderStats {
    /// Its name.
    pub name: String,
    /// Its model.
    pub model: String,
    /// `asked`, `tried`, `left-alone`, or `denied` if it denied its latest call.
    pub state: String,
    /// Calls under way.
    pub busy: u32,
    /// Calls that may be, as things are.
    pub limit: u32,
    /// Calls made.
    pub calls: u64,
    /// Calls that were answered.
    pub answered: u64,
    /// Calls that failed.
    pub failed: u64,
    /// Calls that nobody waited for any more.
    pub withdrawn: u64,
    /// Of those that failed, the ones that were late or silent.
    pub timeouts: u64,
    /// How often it began to be left alone.
    pub opened: u64,
    /// Tokens of questions, as far as it said.
    pub prompt_tokens: u64,
    /// Tokens of answers, as far as it said.
    pub answer_tokens: u64,
    /// What that cost, in millionths of the currency of its prices.
    pub cost_micros: u64,
    /// What it did last when it failed.
    pub last_fault: Option<String>,
}

/// The router, as it is now.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct RouterStats {
    /// Questions waiting for a turn.
    pub waiting: usize,
    /// The providers, in the order in which they are preferred.
    pub providers: Vec<ProviderStats>,
}
