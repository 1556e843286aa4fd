//! Messages and shared limits on a real Redis server, which is emptied, stopped and frozen.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "tests"
)]

use std::time::Duration;

use tokio::time::{Instant, sleep, timeout};
use weir_core::node_message::{NodeMessage, NodeMessenger as _};
use weir_core::shared_limits::{RateLimit, SharedLimitStore as _};
use weir_core::{JobId, StorageError, TenantId};
use weir_storage::{RedisClient, RedisConnection};
use weir_test_services::RedisServer;

const TIMEOUT: Duration = Duration::from_secs(20);
const LEASE: Duration = Duration::from_secs(600);
const LIMIT: RateLimit = RateLimit {
    per_second: 10,
    burst: 20,
};

fn connect(server: &RedisServer, node: &str) -> RedisClient {
    connect_with_prefix(server, node, "weir")
}

fn connect_with_prefix(server: &RedisServer, node: &str, prefix: &str) -> RedisClient {
    RedisClient::new(&RedisConnection {
        url: server.url(),
        password: None,
        key_prefix: prefix.into(),
        node: node.into(),
    })
    .unwrap()
}

/// Sends requests until one is refused. Returns how many passed, and the time to wait.
async fn send_requests(clients: &[&RedisClient], name: &str) -> (u32, Duration) {
    for passed in 0.. {
        let client = clients[passed as usize % clients.len()];
        if let Some(wait) = client.count_request(name, LIMIT).await.unwrap() {
            return (passed, wait);
        }
    }
    unreachable!()
}

/// Calls until the server responds again.
async fn wait_until_available(client: &RedisClient) {
    let check = async {
        while client.check_access().await.is_err() {
            sleep(Duration::from_millis(50)).await;
        }
    };
    timeout(TIMEOUT, check).await.unwrap();
}

#[tokio::test]
async fn requests_of_all_nodes_count_together() {
    let server = RedisServer::start();
    let (a, b) = (connect(&server, "a"), connect(&server, "b"));
    let began = Instant::now();
    let (passed, wait) = send_requests(&[&a, &b], "acme").await;
    // The burst, and what was refilled meanwhile.
    let most = 20 + began.elapsed().as_millis() / 100 + 1;
    assert!((20..=most).contains(&u128::from(passed)), "{passed}");
    assert!(
        wait > Duration::ZERO && wait <= Duration::from_millis(100),
        "{wait:?}"
    );
    assert!(a.count_request("other", LIMIT).await.unwrap().is_none());
    let other_cluster = connect_with_prefix(&server, "a", "other");
    assert!(
        other_cluster
            .count_request("acme", LIMIT)
            .await
            .unwrap()
            .is_none()
    );
    sleep(wait).await;
    assert!(b.count_request("acme", LIMIT).await.unwrap().is_none());
    server.command(&["FLUSHALL"]);
    assert!(a.count_request("acme", LIMIT).await.unwrap().is_none());
    // Nothing stays for tenants that send no requests.
    let keys = server.command(&["KEYS", "*"]);
    let expiry: i64 = server
        .command(&["PTTL", keys.lines().next().unwrap()])
        .parse()
        .unwrap();
    assert!((1..=200).contains(&expiry), "{keys}: {expiry}");
}

#[tokio::test]
async fn open_streams_of_all_nodes_count_together() {
    let server = RedisServer::start();
    let a = connect(&server, "a");
    let set = async |node: &str, open: u32, max: u32| {
        let set = a.try_set_open_streams("event:acme", node, open, max, LEASE);
        set.await.unwrap()
    };
    assert!(set("a", 2, 5).await);
    assert!(set("b", 3, 5).await);
    assert!(!set("b", 4, 5).await);
    assert!(!set("a", 3, 5).await);
    assert!(set("b", 3, 5).await, "a refused number changes nothing");
    assert!(set("a", 0, 5).await);
    assert!(set("b", 5, 5).await);
    // What a node has is reported also above the limit.
    assert!(set("a", 9, u32::MAX).await);
    assert!(!set("b", 5, 5).await);
    let short = a.try_set_open_streams("query:acme", "a", 1, 1, Duration::from_millis(20));
    assert!(short.await.unwrap());
    // The node has not reported its streams again.
    let until_forgotten = async {
        while !a
            .try_set_open_streams("query:acme", "b", 1, 1, LEASE)
            .await
            .unwrap()
        {
            sleep(Duration::from_millis(5)).await;
        }
    };
    timeout(TIMEOUT, until_forgotten).await.unwrap();
}

#[tokio::test]
async fn other_nodes_receive_messages_also_after_an_outage() {
    let mut server = RedisServer::start();
    let (a, b) = (connect(&server, "a"), connect(&server, "b"));
    let other_cluster = connect_with_prefix(&server, "x", "other");
    let tenant: TenantId = "acme".parse().unwrap();
    let message = NodeMessage {
        tenants_with_events: vec![tenant.clone()],
        claimable_jobs: vec![(tenant, JobId::new())],
        claims_changed: true,
    };
    for outage in [false, true] {
        if outage {
            server.start_again();
            wait_until_available(&a).await;
            wait_until_available(&b).await;
            wait_until_available(&other_cluster).await;
        }
        let mut receiver = b.subscribe().await.unwrap();
        // Its own messages and those of other clusters do not arrive.
        b.send_message(&NodeMessage::default()).await.unwrap();
        other_cluster.send_message(&NodeMessage::default()).await.unwrap();
        server.command(&["PUBLISH", "weir:messages", "no message of a node"]);
        a.send_message(&message).await.unwrap();
        let received = timeout(TIMEOUT, receiver.next_message()).await.unwrap();
        assert_eq!(received, Some(message.clone()));
        server.stop();
        assert_eq!(timeout(TIMEOUT, receiver.next_message()).await.unwrap(), None);
        assert!(b.subscribe().await.is_err());
    }
}

#[tokio::test]
async fn calls_fail_fast_while_the_server_is_frozen() {
    let server = RedisServer::start();
    let a = connect(&server, "a");
    let mut receiver = a.subscribe().await.unwrap();
    a.check_access().await.unwrap();
    assert_eq!(a.status().failing_since_millis(), None);
    server.freeze();
    let failed = a.count_request("acme", LIMIT).await.unwrap_err();
    assert!(matches!(failed, StorageError::Unavailable { .. }), "{failed}");
    assert!(a.status().failing_since_millis().is_some());
    // The next calls do not wait for a response.
    let began = Instant::now();
    for _ in 0..100 {
        a.count_request("acme", LIMIT).await.unwrap_err();
    }
    assert!(
        began.elapsed() < Duration::from_millis(200),
        "{:?}",
        began.elapsed()
    );
    assert_eq!(timeout(TIMEOUT, receiver.next_message()).await.unwrap(), None);
    server.unfreeze();
    wait_until_available(&a).await;
    assert_eq!(a.status().failing_since_millis(), None);
}

#[tokio::test]
async fn invalid_address_and_wrong_password_are_errors() {
    let server = RedisServer::start();
    let connection = |url: &str, password: Option<&str>| RedisConnection {
        url: url.into(),
        password: password.map(str::to_owned),
        key_prefix: "weir".into(),
        node: "a".into(),
    };
    let invalid = RedisClient::new(&connection("redis://host:port:7", None))
        .err()
        .unwrap();
    assert!(invalid.to_string().contains("the Redis server"), "{invalid}");
    server.command(&["CONFIG", "SET", "requirepass", "secret"]);
    for password in [None, Some("wrong")] {
        let client = RedisClient::new(&connection(&server.url(), password)).unwrap();
        let refused = client.check_access().await.unwrap_err();
        assert!(!refused.to_string().contains("wrong "), "{refused}");
        assert!(
            matches!(refused, StorageError::PermissionDenied { .. }),
            "{refused:?}"
        );
    }
    let client = RedisClient::new(&connection(&server.url(), Some("secret"))).unwrap();
    client.check_access().await.unwrap();
    let text = format!("{:?}", connection(&server.url(), Some("secret")));
    assert!(!text.contains("secret"), "{text}");
}
