//! A store of shared limits in memory and in virtual time.

use std::collections::HashMap;
use std::sync::Arc;

use async_trait::async_trait;
use parking_lot::Mutex;
use tokio::time::{Duration, Instant, advance, sleep};
use weir_core::StorageError;
use weir_core::job_claim::NodeId;
use weir_core::node::{NodeInfo, NodeRecord, NodeRegistry, NodeRole};
use weir_core::provider_call_limits::{
    CallAdmission, LoadDecision, MAX_ADMISSION_AGE, MAX_ASK_INTERVAL, ProviderCallId, ProviderCallRequest,
    ProviderCallStore, ProviderLoad, RATE_WINDOW, TURN_GRACE, TurnOrder,
};
use weir_llm::SharedCallLimits;

/// Time of a call of the store.
const LATENCY: Duration = Duration::from_millis(3);

struct Call {
    id: ProviderCallId,
    provider: String,
    node: NodeId,
    started_at: Instant,
    tokens: u64,
    in_flight: bool,
}

struct Turn {
    since: Instant,
    expires_at: Instant,
    tokens: u64,
}

#[derive(Default)]
struct State {
    leases: HashMap<String, (NodeInfo, Instant)>,
    calls: Vec<Call>,
    turns: HashMap<(String, String), Turn>,
    is_down: bool,
    lost_responses: u32,
    response_delay: Duration,
    asked: u32,
}

/// Keeps the limits of providers in memory.
#[derive(Default)]
pub(crate) struct FakeCallStore(Mutex<State>);

impl FakeCallStore {
    /// Adds a node whose lease lasts this long, and returns its shared limits.
    pub(crate) async fn add_node(self: &Arc<Self>, lease: Duration) -> SharedCallLimits {
        let node = NodeInfo::new_unique("node", NodeRole::Both);
        self.renew_node(&node, lease).await.unwrap();
        SharedCallLimits {
            store: Arc::<Self>::clone(self),
            node: node.id,
        }
    }

    /// Sets whether every call fails.
    pub(crate) fn set_down(&self, is_down: bool) {
        self.0.lock().is_down = is_down;
    }

    /// Lets the next calls fail after they have had their effect.
    pub(crate) fn lose_responses(&self, count: u32) {
        self.0.lock().lost_responses = count;
    }

    /// Delays the responses to requests for admission.
    pub(crate) fn set_response_delay(&self, delay: Duration) {
        self.0.lock().response_delay = delay;
    }

    /// Number of calls in flight.
    pub(crate) fn in_flight(&self) -> usize {
        let state = self.0.lock();
        state.calls.iter().filter(|call| call.in_flight).count()
    }

    /// Number of calls in the window.
    pub(crate) fn in_window(&self) -> usize {
        self.0.lock().calls.len()
    }

    /// How often a node has asked for a call.
    pub(crate) fn asked(&self) -> u32 {
        self.0.lock().asked
    }

    fn unavailable() -> StorageError {
        StorageError::Unavailable {
            what: "the ledger".into(),
            reason: "it is down".into(),
        }
    }

    /// Returns whether the store works, after the time of a call.
    async fn respond<T>(&self, act: impl FnOnce(&mut State) -> T) -> Result<T, StorageError> {
        sleep(LATENCY).await;
        let mut state = self.0.lock();
        if state.is_down {
            return Err(Self::unavailable());
        }
        let result = act(&mut state);
        if state.lost_responses > 0 {
            state.lost_responses -= 1;
            return Err(Self::unavailable());
        }
        Ok(result)
    }
}

impl State {
    fn is_alive(&self, node: &str, now: Instant) -> bool {
        self.leases.get(node).is_some_and(|(_, until)| *until >= now)
    }

    fn calls_in_flight(&self, provider: &str, node: &str, now: Instant) -> u64 {
        let of_node = self.calls.iter().filter(|call| {
            call.in_flight
                && call.provider == provider
                && call.node.as_str() == node
                && self.is_alive(node, now)
        });
        of_node.count() as u64
    }

    fn begin(&mut self, request: &ProviderCallRequest) -> CallAdmission {
        let (now, provider, node) = (Instant::now(), request.provider.as_str(), request.node.as_str());
        self.asked += 1;
        if !self.is_alive(node, now) {
            return CallAdmission::NodeNotAlive;
        }
        let alive: Vec<String> = self.leases.keys().cloned().collect();
        let alive: Vec<String> = alive
            .into_iter()
            .filter(|node| self.is_alive(node, now))
            .collect();
        self.turns
            .retain(|(_, node), turn| turn.expires_at >= now && alive.contains(node));
        let in_window = |call: &Call| call.started_at + RATE_WINDOW > now;
        self.calls.retain(|call| {
            in_window(call) || (call.in_flight && alive.contains(&call.node.as_str().to_owned()))
        });
        let window: Vec<&Call> = self
            .calls
            .iter()
            .filter(|call| call.provider == provider && in_window(call))
            .collect();
        let order = |node: &str, since: Instant| TurnOrder {
            calls_in_flight: self.calls_in_flight(provider, node, now),
            calls_in_window: window.iter().filter(|call| call.node.as_str() == node).count() as u64,
            waiting_since: since,
            node: node.to_owned(),
        };
        let key = (provider.to_owned(), node.to_owned());
        let own = order(node, self.turns.get(&key).map_or(now, |turn| turn.since));
        let ahead: Vec<&Turn> = self
            .turns
            .iter()
            .filter(|((of_provider, waiting), turn)| {
                of_provider == provider && order(waiting, turn.since) < own
            })
            .map(|(_, turn)| turn)
            .collect();
        let load = ProviderLoad {
            calls_in_flight: alive
                .iter()
                .map(|node| self.calls_in_flight(provider, node, now))
                .sum(),
            calls_in_window: window.len() as u64,
            tokens_in_window: window.iter().map(|call| call.tokens).sum(),
            nodes_ahead: ahead.len() as u64,
            tokens_ahead: ahead.iter().map(|turn| turn.tokens).sum(),
        };
        let (wait, admission) = match load.decide_start(&request.limits, request.estimated_tokens) {
            LoadDecision::Start => {
                if let Some(turn) = self.turns.get_mut(&key) {
                    (turn.since, turn.expires_at) = (now, now + MAX_ADMISSION_AGE);
                }
                self.calls.push(Call {
                    id: request.call,
                    provider: provider.to_owned(),
                    node: request.node.clone(),
                    started_at: now,
                    tokens: request.estimated_tokens,
                    in_flight: true,
                });
                return CallAdmission::Started;
            }
            LoadDecision::WaitForTurn => {
                let nodes_ahead = load.nodes_ahead as u32;
                (Duration::ZERO, CallAdmission::Queued { nodes_ahead })
            }
            LoadDecision::WaitForWindow { calls, tokens } => {
                let (mut count, mut freed) = (0, 0);
                let last = window.iter().find(|call| {
                    (count, freed) = (count + 1, freed + call.tokens);
                    count >= calls && freed >= tokens
                });
                let wait = last.unwrap().started_at + RATE_WINDOW - now;
                (wait, CallAdmission::RetryAfter(wait))
            }
        };
        let turn = self.turns.entry(key).or_insert(Turn {
            since: now,
            expires_at: now,
            tokens: 0,
        });
        turn.expires_at = now + wait.min(MAX_ASK_INTERVAL) + TURN_GRACE;
        turn.tokens = request.estimated_tokens;
        admission
    }
}

#[async_trait]
impl ProviderCallStore for FakeCallStore {
    async fn begin_call(&self, request: &ProviderCallRequest) -> Result<CallAdmission, StorageError> {
        let admission = self.respond(|state| state.begin(request)).await;
        let delay = self.0.lock().response_delay;
        sleep(delay).await;
        admission
    }

    async fn end_call(&self, id: ProviderCallId, used_tokens: Option<u64>) -> Result<(), StorageError> {
        let end = |state: &mut State| {
            if let Some(call) = state.calls.iter_mut().find(|call| call.id == id) {
                call.in_flight = false;
                call.tokens = used_tokens.unwrap_or(call.tokens);
            }
        };
        self.respond(end).await
    }

    async fn withdraw_call(&self, _: &str, id: ProviderCallId) -> Result<(), StorageError> {
        self.respond(|state| state.calls.retain(|call| call.id != id))
            .await
    }

    async fn give_up_turn(&self, provider: &str, node: &NodeId) -> Result<(), StorageError> {
        let key = (provider.to_owned(), node.as_str().to_owned());
        let remove = |state: &mut State| {
            state.turns.remove(&key);
        };
        self.respond(remove).await
    }
}

#[async_trait]
impl NodeRegistry for FakeCallStore {
    async fn renew_node(&self, node: &NodeInfo, lease: Duration) -> Result<(), StorageError> {
        let record = (node.clone(), Instant::now() + lease);
        self.0.lock().leases.insert(node.id.as_str().to_owned(), record);
        Ok(())
    }

    async fn remove_node(&self, node: &NodeId) -> Result<(), StorageError> {
        self.0.lock().leases.remove(node.as_str());
        Ok(())
    }

    async fn list_nodes(&self) -> Result<Vec<NodeRecord>, StorageError> {
        sleep(LATENCY).await;
        let state = self.0.lock();
        let nodes = state.leases.values().map(|(node, until)| NodeRecord {
            node: node.clone(),
            started_millis: 0,
            uptime: Duration::ZERO,
            last_renewal_age: Duration::ZERO,
            is_alive: *until >= Instant::now(),
            claims: Vec::new(),
        });
        Ok(nodes.collect())
    }
}

#[tokio::test(start_paused = true)]
async fn fake_call_store_passes_the_conformance_suite() {
    weir_conformance::check_provider_call_store(&FakeCallStore::default(), advance).await;
}
