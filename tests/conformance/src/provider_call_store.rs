//! Conformance checks of the limits that all nodes share.

use std::time::Duration;

use weir_core::job_claim::NodeId;
use weir_core::node::{NodeInfo, NodeRegistry, NodeRole};
use weir_core::provider_call_limits::{
    CallAdmission, ProviderCallId, ProviderCallLimits, ProviderCallRequest, ProviderCallStore, RATE_WINDOW,
};

use crate::records::unique_tenant_id;

const LONG_LEASE: Duration = Duration::from_secs(36_000);
const MANY: ProviderCallLimits = ProviderCallLimits {
    max_concurrent: 1000,
    requests_per_minute: 0,
    tokens_per_minute: 0,
};

/// A provider of its own, and the nodes that call it.
struct Provider<'a, S> {
    store: &'a S,
    name: String,
    limits: ProviderCallLimits,
}

impl<'a, S: ProviderCallStore> Provider<'a, S> {
    fn new(store: &'a S, limits: ProviderCallLimits) -> Self {
        Self {
            store,
            name: unique_tenant_id("provider").to_string(),
            limits,
        }
    }

    async fn ask(&self, node: &NodeInfo, tokens: u64) -> (ProviderCallId, CallAdmission) {
        let call = ProviderCallId::new_unique();
        let request = ProviderCallRequest {
            call,
            provider: self.name.clone(),
            node: node.id.clone(),
            limits: self.limits,
            estimated_tokens: tokens,
        };
        (call, self.store.begin_call(&request).await.unwrap())
    }

    async fn begin(&self, node: &NodeInfo, tokens: u64) -> ProviderCallId {
        let (call, admission) = self.ask(node, tokens).await;
        assert_eq!(admission, CallAdmission::Started);
        call
    }

    async fn end(&self, call: ProviderCallId, used_tokens: Option<u64>) {
        self.store.end_call(call, used_tokens).await.unwrap();
    }

    async fn assert_queued(&self, node: &NodeInfo, nodes_ahead: u32) {
        let (_, admission) = self.ask(node, 1).await;
        assert_eq!(admission, CallAdmission::Queued { nodes_ahead });
    }

    async fn assert_over_rate(&self, node: &NodeInfo, tokens: u64) -> Duration {
        match self.ask(node, tokens).await.1 {
            CallAdmission::RetryAfter(wait) if wait <= RATE_WINDOW => wait,
            other => panic!("{other:?}"),
        }
    }
}

/// Checks a store of calls. `advance` lets time pass for the store: it moves the times of all rows back. Panics if the store breaks the
/// contract of its port.
pub async fn check_provider_call_store(
    store: &(impl ProviderCallStore + NodeRegistry),
    advance: impl AsyncFn(Duration),
) {
    let [a, b, c] = ["a", "b", "c"].map(|host| NodeInfo {
        id: NodeId::new_unique(host),
        role: NodeRole::Both,
        version: "1.2.3".into(),
    });
    let unknown = Provider::new(store, MANY).ask(&a, 1).await.1;
    assert_eq!(unknown, CallAdmission::NodeNotAlive);
    for node in [&a, &b, &c] {
        store.renew_node(node, LONG_LEASE).await.unwrap();
    }
    check_calls_in_flight(store, &a, &b).await;
    check_rate_limits(store, &a, &b, &advance).await;
    check_turns(store, [&a, &b, &c], &advance).await;
    check_lost_node(store, &a, &b).await;
}

async fn check_calls_in_flight(store: &impl ProviderCallStore, a: &NodeInfo, b: &NodeInfo) {
    let limits = ProviderCallLimits {
        max_concurrent: 2,
        ..MANY
    };
    let (provider, other) = (Provider::new(store, limits), Provider::new(store, limits));
    let first = provider.begin(a, 1).await;
    let second = provider.begin(b, 1).await;
    provider.assert_queued(a, 0).await;
    other.begin(a, 1).await;
    provider.end(first, None).await;
    provider.begin(a, 1).await;
    provider.assert_queued(a, 0).await;
    store.withdraw_call(&provider.name, second).await.unwrap();
    provider.begin(a, 1).await;
    // Calls that the store does not know.
    provider.end(ProviderCallId::new_unique(), Some(1)).await;
    store
        .withdraw_call(&provider.name, ProviderCallId::new_unique())
        .await
        .unwrap();
    provider.assert_queued(b, 0).await;
}

async fn check_rate_limits(
    store: &impl ProviderCallStore,
    a: &NodeInfo,
    b: &NodeInfo,
    advance: &impl AsyncFn(Duration),
) {
    let per_minute = Provider::new(
        store,
        ProviderCallLimits {
            requests_per_minute: 2,
            ..MANY
        },
    );
    let withdrawn = per_minute.begin(a, 1).await;
    per_minute.begin(b, 1).await;
    per_minute.assert_over_rate(a, 1).await;
    store.withdraw_call(&per_minute.name, withdrawn).await.unwrap();
    let call = per_minute.begin(a, 1).await;
    per_minute.end(call, None).await;
    assert!(per_minute.assert_over_rate(a, 1).await > Duration::from_secs(30));
    // The second node waits behind the first, for the call after the first that leaves the window.
    per_minute.assert_over_rate(b, 1).await;
    advance(RATE_WINDOW / 2).await;
    assert!(per_minute.assert_over_rate(a, 1).await <= RATE_WINDOW / 2);
    advance(RATE_WINDOW / 2).await;
    per_minute.begin(a, 1).await;
    per_minute.begin(b, 1).await;
    per_minute.assert_over_rate(b, 1).await;

    let tokens = Provider::new(
        store,
        ProviderCallLimits {
            tokens_per_minute: 1000,
            ..MANY
        },
    );
    let call = tokens.begin(a, 900).await;
    tokens.assert_over_rate(b, 101).await;
    store.give_up_turn(&tokens.name, &b.id).await.unwrap();
    tokens.end(call, Some(100)).await;
    tokens.begin(a, 900).await;
    tokens.assert_over_rate(a, 1).await;
    store.give_up_turn(&tokens.name, &a.id).await.unwrap();
    advance(RATE_WINDOW).await;
    // More than the limit, in an empty window.
    tokens.begin(b, 5000).await;
    tokens.assert_over_rate(a, 1).await;
}

async fn check_turns(
    store: &impl ProviderCallStore,
    [a, b, c]: [&NodeInfo; 3],
    advance: &impl AsyncFn(Duration),
) {
    let one = Provider::new(
        store,
        ProviderCallLimits {
            max_concurrent: 1,
            ..MANY
        },
    );
    let call = one.begin(a, 1).await;
    // Times have milliseconds: the next node must come later.
    one.assert_queued(b, 0).await;
    advance(Duration::from_millis(5)).await;
    one.assert_queued(c, 1).await;
    one.end(call, None).await;
    advance(Duration::from_millis(5)).await;
    one.assert_queued(a, 2).await;
    one.assert_queued(c, 1).await;
    let call = one.begin(b, 1).await;
    store.give_up_turn(&one.name, &c.id).await.unwrap();
    one.end(call, None).await;
    advance(Duration::from_millis(5)).await;
    one.assert_queued(b, 1).await;
    let call = one.begin(a, 1).await;
    // A node that does not ask again loses its turn.
    one.end(call, None).await;
    one.assert_queued(a, 1).await;
    advance(Duration::from_secs(3)).await;
    one.begin(a, 1).await;

    // A node with fewer calls in flight goes first, even if it has waited less.
    let two = Provider::new(
        store,
        ProviderCallLimits {
            max_concurrent: 3,
            ..MANY
        },
    );
    let calls = [
        two.begin(a, 1).await,
        two.begin(a, 1).await,
        two.begin(a, 1).await,
    ];
    two.assert_queued(a, 0).await;
    advance(Duration::from_millis(5)).await;
    two.assert_queued(b, 0).await;
    two.end(calls[0], None).await;
    two.assert_queued(a, 1).await;
    two.begin(b, 1).await;
    // A node that has waited keeps its turn for its next call, for a moment.
    two.end(calls[1], None).await;
    two.assert_queued(a, 1).await;
    advance(Duration::from_millis(1500)).await;
    two.begin(a, 1).await;
}

/// The calls of a node whose lease has ended are not in flight, but stay in the window. The first node loses its lease.
async fn check_lost_node(store: &(impl ProviderCallStore + NodeRegistry), lost: &NodeInfo, node: &NodeInfo) {
    let provider = Provider::new(
        store,
        ProviderCallLimits {
            max_concurrent: 2,
            requests_per_minute: 3,
            tokens_per_minute: 0,
        },
    );
    provider.begin(lost, 1).await;
    provider.begin(lost, 1).await;
    provider.assert_queued(node, 0).await;
    store.renew_node(lost, Duration::ZERO).await.unwrap();
    let is_alive = async || {
        let nodes = store.list_nodes().await.unwrap();
        nodes
            .iter()
            .any(|record| record.node.id == lost.id && record.is_alive)
    };
    while is_alive().await {}
    provider.begin(node, 1).await;
    let refused = provider.ask(lost, 1).await.1;
    assert_eq!(refused, CallAdmission::NodeNotAlive);
    provider.assert_over_rate(node, 1).await;
    // A node that was frozen counts again.
    store.renew_node(lost, LONG_LEASE).await.unwrap();
    provider.assert_queued(node, 0).await;
    store.remove_node(&lost.id).await.unwrap();
    provider.assert_over_rate(node, 1).await;
}
