//! The open connections and their limits.
//!
//! A connection is in use from the headers of a request until the complete response has been written to the socket. Event streams,
//! WebSockets and slow uploads are in use. Every other connection is idle: it was just accepted, is in a TLS handshake, receives
//! headers, or waits for the next request.
//!
//! The listener always accepts. If the number of connections of the host or of one address is at its limit, the connection that has
//! been idle longest is closed. If none is idle, the connection that has been in use longest without a valid key is closed. If all
//! are in use with a valid key, the new connection is closed.

mod response_body_with_use_guard;

use std::collections::{BTreeSet, HashMap};
use std::net::{IpAddr, Ipv6Addr};
use std::sync::Arc;

use axum::http::request::Parts;
use metrics::{counter, gauge};
use parking_lot::Mutex;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

pub(crate) use response_body_with_use_guard::ResponseBodyWithUseGuard;

/// The open connections of a listener.
pub(crate) struct ConnectionLimiter {
    max_connections: usize,
    max_per_address: usize,
    state: Mutex<ConnectionTable>,
}

#[derive(Default)]
struct ConnectionTable {
    next_id: u64,
    entries: HashMap<u64, ConnectionEntry>,
    /// The connections that may be closed, in the order in which they are closed.
    closable: BTreeSet<EvictionSortKey>,
    connections_per_address: HashMap<IpAddr, usize>,
}

struct ConnectionEntry {
    address: IpAddr,
    /// When it last changed between idle and in use.
    last_state_change: Instant,
    /// Number of active requests and blocked writes.
    active_uses: usize,
    is_authenticated: bool,
    close_signal: CancellationToken,
}

/// Order in which connections are closed: idle ones first, then by the time of the last change, the earliest first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct EvictionSortKey {
    is_in_use: bool,
    last_state_change: Instant,
    id: u64,
}

impl ConnectionEntry {
    /// Its position among the connections that may be closed. `None` if it is in use with a valid key.
    fn eviction_sort_key(&self, id: u64) -> Option<EvictionSortKey> {
        let in_use = self.active_uses > 0;
        (!in_use || !self.is_authenticated).then_some(EvictionSortKey {
            is_in_use: in_use,
            last_state_change: self.last_state_change,
            id,
        })
    }
}

impl ConnectionTable {
    fn update_entry(&mut self, id: u64, change: impl FnOnce(&mut ConnectionEntry)) {
        let Some(entry) = self.entries.get_mut(&id) else {
            return;
        };
        if let Some(order) = entry.eviction_sort_key(id) {
            self.closable.remove(&order);
        }
        change(entry);
        self.closable.extend(entry.eviction_sort_key(id));
    }

    fn remove_connection(&mut self, id: u64) -> Option<ConnectionEntry> {
        let entry = self.entries.remove(&id)?;
        if let Some(order) = entry.eviction_sort_key(id) {
            self.closable.remove(&order);
        }
        if let Some(count) = self.connections_per_address.get_mut(&entry.address) {
            *count -= 1;
            if *count == 0 {
                self.connections_per_address.remove(&entry.address);
            }
        }
        gauge!("weir_http_connections").set(self.entries.len() as f64);
        Some(entry)
    }

    /// Closes the first connection that may be closed, only of `address` if given. Returns whether there was one.
    fn evict_one_connection(&mut self, address: Option<IpAddr>) -> bool {
        let found = self.closable.iter().find(|order| {
            address.is_none_or(|address| {
                self.entries
                    .get(&order.id)
                    .is_some_and(|entry| entry.address == address)
            })
        });
        let Some(entry) = found
            .map(|order| order.id)
            .and_then(|id| self.remove_connection(id))
        else {
            return false;
        };
        entry.close_signal.cancel();
        count_closed_connection(if entry.active_uses > 0 {
            "evicted-unauthenticated"
        } else {
            "evicted-idle"
        });
        true
    }
}

/// Counts a connection that the host closes.
pub(crate) fn count_closed_connection(reason: &'static str) {
    counter!("weir_http_connections_closed_total", "reason" => reason).increment(1);
}

impl ConnectionLimiter {
    /// Allows `max_connections` connections in total and `per_address` from one address. 0 means no limit per address.
    pub(crate) fn new(max_connections: usize, per_address: usize) -> Arc<Self> {
        Arc::new(Self {
            max_connections,
            max_per_address: if per_address == 0 { usize::MAX } else { per_address },
            state: Mutex::default(),
        })
    }

    /// Adds a connection. At a limit it closes another connection first, and returns `None` if none may be closed.
    pub(crate) fn admit_connection(self: &Arc<Self>, peer: IpAddr) -> Option<ConnectionHandle> {
        let address = address_for_connection_limit(peer);
        let mut state = self.state.lock();
        let own = state.connections_per_address.get(&address).copied().unwrap_or(0);
        let has_room = (own < self.max_per_address || state.evict_one_connection(Some(address)))
            && (state.entries.len() < self.max_connections || state.evict_one_connection(None));
        if !has_room {
            count_closed_connection("refused");
            return None;
        }
        let id = state.next_id;
        state.next_id += 1;
        let close = CancellationToken::new();
        let entry = ConnectionEntry {
            address,
            last_state_change: Instant::now(),
            active_uses: 0,
            is_authenticated: false,
            close_signal: close.clone(),
        };
        state.closable.extend(entry.eviction_sort_key(id));
        state.entries.insert(id, entry);
        *state.connections_per_address.entry(address).or_default() += 1;
        gauge!("weir_http_connections").set(state.entries.len() as f64);
        Some(ConnectionHandle(Arc::new(ConnectionRegistration {
            connections: Arc::clone(self),
            id,
            close_signal: close,
        })))
    }

    /// Closes one connection to free a file descriptor. Returns whether there was one that may be closed.
    pub(crate) fn evict_to_free_descriptor(&self) -> bool {
        self.state.lock().evict_one_connection(None)
    }
}

/// Returns the address that the limit per address applies to. For IPv6 it is the /64 network, since a customer usually gets one.
fn address_for_connection_limit(peer: IpAddr) -> IpAddr {
    match peer.to_canonical() {
        IpAddr::V6(address) => Ipv6Addr::from_bits(address.to_bits() >> 64 << 64).into(),
        address @ IpAddr::V4(_) => address,
    }
}

/// A handle to an open connection. The connection counts as open until the last clone is dropped.
#[derive(Clone)]
pub(crate) struct ConnectionHandle(Arc<ConnectionRegistration>);

struct ConnectionRegistration {
    connections: Arc<ConnectionLimiter>,
    id: u64,
    close_signal: CancellationToken,
}

impl Drop for ConnectionRegistration {
    fn drop(&mut self) {
        self.connections.state.lock().remove_connection(self.id);
    }
}

impl ConnectionHandle {
    /// Completes when the connection must be closed because of a limit.
    pub(crate) async fn wait_for_eviction(&self) {
        self.0.close_signal.cancelled().await;
    }

    /// The time at which the connection became idle. `None` while it is in use.
    pub(crate) fn idle_since(&self) -> Option<Instant> {
        let state = self.0.connections.state.lock();
        let entry = state.entries.get(&self.0.id)?;
        (entry.active_uses == 0).then_some(entry.last_state_change)
    }

    /// Marks the connection as in use until the guard is dropped.
    pub(crate) fn mark_in_use(&self) -> ConnectionUseGuard {
        self.update_entry(|entry| {
            if entry.active_uses == 0 {
                entry.last_state_change = Instant::now();
            }
            entry.active_uses += 1;
        });
        ConnectionUseGuard(self.clone())
    }

    /// Marks the connection as in use until it ends. Needed after a protocol upgrade, when it carries no more requests.
    pub(crate) fn mark_in_use_until_closed(&self) {
        self.update_entry(|entry| entry.active_uses += 1);
    }

    /// Records that a request on the connection had a valid key.
    pub(crate) fn mark_authenticated(&self) {
        self.update_entry(|entry| entry.is_authenticated = true);
    }

    fn update_entry(&self, change: impl FnOnce(&mut ConnectionEntry)) {
        self.0.connections.state.lock().update_entry(self.0.id, change);
    }
}

/// Records on the connection of a request that the request had a valid key.
pub(crate) fn mark_connection_authenticated(parts: &Parts) {
    if let Some(connection) = parts.extensions.get::<ConnectionHandle>() {
        connection.mark_authenticated();
    }
}

/// Marks a connection as in use until dropped.
pub(crate) struct ConnectionUseGuard(ConnectionHandle);

impl Drop for ConnectionUseGuard {
    fn drop(&mut self) {
        self.0.update_entry(|entry| {
            entry.active_uses = entry.active_uses.saturating_sub(1);
            if entry.active_uses == 0 {
                entry.last_state_change = Instant::now();
            }
        });
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn test_address(last: u8) -> IpAddr {
        [10, 0, 0, last].into()
    }

    async fn advance_clock() {
        tokio::time::advance(Duration::from_millis(1)).await;
    }

    fn is_closed(connection: &ConnectionHandle) -> bool {
        connection.0.close_signal.is_cancelled()
    }

    #[tokio::test(start_paused = true)]
    async fn full_host_closes_the_longest_idle_connection() {
        let connections = ConnectionLimiter::new(3, 0);
        let first = connections.admit_connection(test_address(1)).unwrap();
        advance_clock().await;
        let second = connections.admit_connection(test_address(2)).unwrap();
        advance_clock().await;
        let third = connections.admit_connection(test_address(3)).unwrap();
        // The first served a request meanwhile, so the second has been idle longest.
        advance_clock().await;
        drop(first.mark_in_use());
        let fourth = connections.admit_connection(test_address(4)).unwrap();
        assert_eq!(
            [&first, &second, &third, &fourth].map(is_closed),
            [false, true, false, false]
        );
        // A closed connection does not count, even while its task has not ended.
        drop((second, third));
        let _fifth = connections.admit_connection(test_address(5)).unwrap();
        assert!(!is_closed(&first));
    }

    #[tokio::test(start_paused = true)]
    async fn unauthenticated_connection_is_evicted_if_none_is_idle() {
        let connections = ConnectionLimiter::new(2, 0);
        let (with_key, without) = (
            connections.admit_connection(test_address(1)).unwrap(),
            connections.admit_connection(test_address(1)).unwrap(),
        );
        let _uses = (with_key.mark_in_use(), without.mark_in_use());
        with_key.mark_authenticated();
        let third = connections.admit_connection(test_address(2)).unwrap();
        assert_eq!([&with_key, &without].map(is_closed), [false, true]);
        let _use = third.mark_in_use();
        third.mark_authenticated();
        assert!(
            connections.admit_connection(test_address(3)).is_none(),
            "all are in use with a key, so the new one is closed"
        );
        assert!(!connections.evict_to_free_descriptor());
        assert_eq!([&with_key, &third].map(is_closed), [false, false]);
    }

    #[tokio::test(start_paused = true)]
    async fn full_address_closes_its_own_connections_only() {
        let connections = ConnectionLimiter::new(10, 2);
        let other = connections.admit_connection(test_address(9)).unwrap();
        advance_clock().await;
        let own: Vec<_> = (0..4)
            .map(|_| connections.admit_connection(test_address(1)).unwrap())
            .collect();
        assert!(!is_closed(&other));
        assert_eq!(
            own.iter().map(is_closed).collect::<Vec<_>>(),
            [true, true, false, false]
        );
        own.iter().for_each(ConnectionHandle::mark_authenticated);
        let _uses: Vec<_> = own.iter().map(ConnectionHandle::mark_in_use).collect();
        assert!(connections.admit_connection(test_address(1)).is_none());
        assert!(connections.admit_connection(test_address(2)).is_some());
        drop((own, _uses));
        assert_eq!(
            connections.state.lock().connections_per_address,
            HashMap::from([(test_address(9), 1)])
        );
    }

    #[test]
    fn peers_of_one_ipv6_network_share_a_limit() {
        let counted = |text: &str| address_for_connection_limit(text.parse().unwrap());
        assert_eq!(counted("2001:db8:1:2::1"), counted("2001:db8:1:2:ffff::9"));
        assert_ne!(counted("2001:db8:1:2::1"), counted("2001:db8:1:3::1"));
        assert_eq!(counted("::ffff:10.0.0.1"), test_address(1));
    }
}
