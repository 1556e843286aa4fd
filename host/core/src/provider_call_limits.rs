//! The limits of a language model provider that several nodes call, and the port that keeps them.
//!
//! A node asks the store before each call, and reports the end of the call. So the calls in flight and the calls and tokens of any minute
//! stay within the limits for all nodes together. The calls in flight of a node that is not alive (see [`node`](crate::node)) do not count
//! any more; they still count in the window of the rate limits. All times are those of the store's clock.
//!
//! Nodes that have to wait for a provider take turns: first the node with the fewest calls in flight, then the one with the fewest calls in
//! the window, then the one that has waited longest. Otherwise a node whose call has just ended would nearly always be faster than one that
//! waits.

use std::fmt;
use std::time::Duration;

use async_trait::async_trait;
use uuid::Uuid;

use crate::error::StorageError;
use crate::job_claim::NodeId;

/// How long a call counts in the rate limits: one minute, plus [`MAX_ADMISSION_AGE`], plus one second for differences in network latency.
pub const RATE_WINDOW: Duration = Duration::from_secs(62);
/// Time after the request for admission in which an admitted call must start. A node that was frozen in between must not make the call,
/// because the window may have passed.
pub const MAX_ADMISSION_AGE: Duration = Duration::from_secs(1);
/// Maximum time after which a node that waits must ask again.
pub const MAX_ASK_INTERVAL: Duration = Duration::from_secs(5);
/// How long a node keeps its turn after the time at which it should have asked again.
pub const TURN_GRACE: Duration = Duration::from_secs(2);

/// The id of a call, made by the node that asks for it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct ProviderCallId(Uuid);

impl ProviderCallId {
    /// Creates a new id.
    #[must_use]
    pub fn new_unique() -> Self {
        Self(Uuid::now_v7())
    }
}

impl fmt::Display for ProviderCallId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// The limits of a provider.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ProviderCallLimits {
    /// Maximum number of calls in flight, at least 1.
    pub max_concurrent: u32,
    /// Maximum number of calls in any minute; 0 means no limit.
    pub requests_per_minute: u32,
    /// Maximum number of tokens in any minute; 0 means no limit.
    pub tokens_per_minute: u64,
}

/// A call that a node wants to make.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ProviderCallRequest {
    /// The id of the call.
    pub call: ProviderCallId,
    /// The name of the provider, which is the same on all nodes.
    pub provider: String,
    /// The node.
    pub node: NodeId,
    /// The limits that must hold after the call has started.
    pub limits: ProviderCallLimits,
    /// Estimated tokens of the request and its response.
    pub estimated_tokens: u64,
}

/// The answer to a [`ProviderCallRequest`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CallAdmission {
    /// The call counts as in flight. It must start within [`MAX_ADMISSION_AGE`] or be withdrawn.
    Started,
    /// The calls of the last minute do not allow the call before this time has passed. The node has a turn.
    RetryAfter(Duration),
    /// The provider has its maximum of calls in flight, or so many nodes are to call it first. The node has a turn.
    Queued {
        /// Nodes that are to call the provider before this one.
        nodes_ahead: u32,
    },
    /// The node has no record, or its lease has ended. Its calls would not count.
    NodeNotAlive,
}

/// Counts the calls of all nodes to each provider.
#[async_trait]
pub trait ProviderCallStore: Send + Sync {
    /// Starts a call if the limits allow it. After an error it is unknown whether the call was started; then withdraw it.
    async fn begin_call(&self, request: &ProviderCallRequest) -> Result<CallAdmission, StorageError>;

    /// Ends a call. `used_tokens` replaces the estimate, if it is known. Does nothing if the call is unknown.
    async fn end_call(&self, call: ProviderCallId, used_tokens: Option<u64>) -> Result<(), StorageError>;

    /// Removes a call that was not made, so that it counts for nothing. No call with this id starts afterwards by an earlier
    /// [`begin_call`](Self::begin_call) of it. Does nothing if the call is unknown.
    async fn withdraw_call(&self, provider: &str, call: ProviderCallId) -> Result<(), StorageError>;

    /// Gives up the turn of a node that has no call to make any more.
    async fn give_up_turn(&self, provider: &str, node: &NodeId) -> Result<(), StorageError>;
}

/// The use of a provider by all nodes, from the view of one node.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct ProviderLoad {
    /// Calls in flight of nodes that are alive.
    pub calls_in_flight: u64,
    /// Calls in the window of the rate limits.
    pub calls_in_window: u64,
    /// Tokens of these calls.
    pub tokens_in_window: u64,
    /// Nodes that are to call the provider before this one.
    pub nodes_ahead: u64,
    /// Estimated tokens of the calls of these nodes.
    pub tokens_ahead: u64,
}

/// Whether a call can start.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LoadDecision {
    /// It can start.
    Start,
    /// It waits for the end of another call, or for the nodes ahead.
    WaitForTurn,
    /// It waits until this many calls, with at least this many tokens, have left the window.
    WaitForWindow {
        /// Calls, of which there are as many in the window.
        calls: u64,
        /// Tokens, of which there are as many in the window.
        tokens: u64,
    },
}

impl ProviderLoad {
    /// Decides about a call of this many tokens. A call that alone exceeds the limit of tokens starts when the window is empty.
    #[must_use]
    pub fn decide_start(&self, limits: &ProviderCallLimits, tokens: u64) -> LoadDecision {
        if self.calls_in_flight + self.nodes_ahead >= u64::from(limits.max_concurrent.max(1)) {
            return LoadDecision::WaitForTurn;
        }
        let excess = |used: u64, limit: u64| match limit {
            0 => 0,
            limit => used.saturating_sub(limit),
        };
        let calls = self.calls_in_window + self.nodes_ahead + 1;
        let over_calls = excess(calls, limits.requests_per_minute.into());
        let used_tokens = self.tokens_in_window.saturating_add(self.tokens_ahead);
        let over_tokens = excess(used_tokens.saturating_add(tokens), limits.tokens_per_minute);
        if over_calls == 0 && over_tokens == 0 {
            return LoadDecision::Start;
        }
        match (self.calls_in_window, self.nodes_ahead) {
            (0, 0) => LoadDecision::Start,
            (0, _) => LoadDecision::WaitForTurn,
            _ => LoadDecision::WaitForWindow {
                calls: over_calls.min(self.calls_in_window),
                tokens: over_tokens.min(self.tokens_in_window),
            },
        }
    }
}

/// The order in which waiting nodes call a provider.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct TurnOrder<T> {
    /// Calls in flight of the node.
    pub calls_in_flight: u64,
    /// Calls of the node in the window of the rate limits.
    pub calls_in_window: u64,
    /// Since when it waits.
    pub waiting_since: T,
    /// The node, so that no two are equal.
    pub node: String,
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMITS: ProviderCallLimits = ProviderCallLimits {
        max_concurrent: 4,
        requests_per_minute: 10,
        tokens_per_minute: 1000,
    };

    #[test]
    fn call_starts_within_all_limits_only() {
        let load = ProviderLoad {
            calls_in_flight: 3,
            calls_in_window: 9,
            tokens_in_window: 900,
            ..ProviderLoad::default()
        };
        assert_eq!(load.decide_start(&LIMITS, 100), LoadDecision::Start);
        let wait = |calls, tokens| LoadDecision::WaitForWindow { calls, tokens };
        assert_eq!(load.decide_start(&LIMITS, 101), wait(0, 1));
        let full = ProviderLoad {
            calls_in_window: 10,
            ..load
        };
        assert_eq!(full.decide_start(&LIMITS, 1), wait(1, 0));
        let busy = ProviderLoad {
            calls_in_flight: 4,
            ..load
        };
        assert_eq!(busy.decide_start(&LIMITS, 1), LoadDecision::WaitForTurn);
        let unlimited = ProviderCallLimits {
            requests_per_minute: 0,
            tokens_per_minute: 0,
            ..LIMITS
        };
        assert_eq!(full.decide_start(&unlimited, u64::MAX), LoadDecision::Start);
    }

    #[test]
    fn nodes_ahead_take_a_call_and_its_tokens() {
        let load = ProviderLoad {
            calls_in_flight: 2,
            calls_in_window: 8,
            tokens_in_window: 500,
            nodes_ahead: 1,
            tokens_ahead: 400,
        };
        assert_eq!(load.decide_start(&LIMITS, 100), LoadDecision::Start);
        let wait = |calls, tokens| LoadDecision::WaitForWindow { calls, tokens };
        assert_eq!(load.decide_start(&LIMITS, 700), wait(0, 500));
        let two_ahead = ProviderLoad {
            nodes_ahead: 2,
            ..load
        };
        assert_eq!(two_ahead.decide_start(&LIMITS, 1), LoadDecision::WaitForTurn);
    }

    #[test]
    fn call_above_the_token_limit_starts_in_an_empty_window() {
        let empty = ProviderLoad::default();
        assert_eq!(empty.decide_start(&LIMITS, 5000), LoadDecision::Start);
        let behind = ProviderLoad {
            nodes_ahead: 1,
            ..empty
        };
        assert_eq!(behind.decide_start(&LIMITS, 5000), LoadDecision::WaitForTurn);
    }
}
