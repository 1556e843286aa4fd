//! The open connections, and which of them are closed to make room.
//!
//! A connection is in use while a request on it is being answered: until its response, however long, has been written to the socket.
//! Event streams, WebSockets and slow uploads are in use. Every other connection is idle: it was just accepted, is in a TLS handshake,
//! sends headers, or waits for the next request of its client.
//!
//! Accepting never stops. When the host or one address has as many connections as it may have, an idle one is closed, the longest
//! idle first. If none is idle, the oldest one that is used without a valid key is closed. If all are used with a key, the new
//! connection is closed.

mod body;

use std::collections::{BTreeSet, HashMap};
use std::net::{IpAddr, Ipv6Addr};
use std::sync::Arc;

use axum::http::request::Parts;
use metrics::{counter, gauge};
use parking_lot::Mutex;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

pub(crate) use body::TrackedBody;

/// The open connections of a listener.
pub(crate) struct Connections {
    most: usize,
    per_address: usize,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    next_id: u64,
    open: HashMap<u64, Entry>,
    /// The connections that may be closed, in the order in which they are.
    closable: BTreeSet<Rank>,
    addresses: HashMap<IpAddr, usize>,
}

struct Entry {
    address: IpAddr,
    /// When it became idle, or came into use.
    since: Instant,
    /// Requests and blocked writes.
    uses: usize,
    authenticated: bool,
    close: CancellationToken,
}

/// Idle connections come before those in use, and the longest idle first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Rank {
    in_use: bool,
    since: Instant,
    id: u64,
}

impl Entry {
    /// Where it stands among the connections that may be closed; `None` if it may not be.
    fn rank(&self, id: u64) -> Option<Rank> {
        let in_use = self.uses > 0;
        (!in_use || !self.authenticated).then_some(Rank {
            in_use,
            since: self.since,
            id,
        })
    }
}

impl State {
    fn change(&mut self, id: u64, change: impl FnOnce(&mut Entry)) {
        let Some(entry) = self.open.get_mut(&id) else {
            return;
        };
        if let Some(rank) = entry.rank(id) {
            self.closable.remove(&rank);
        }
        change(entry);
        self.closable.extend(entry.rank(id));
    }

    fn remove(&mut self, id: u64) -> Option<Entry> {
        let entry = self.open.remove(&id)?;
        if let Some(rank) = entry.rank(id) {
            self.closable.remove(&rank);
        }
        if let Some(count) = self.addresses.get_mut(&entry.address) {
            *count -= 1;
            if *count == 0 {
                self.addresses.remove(&entry.address);
            }
        }
        gauge!("weir_connections").set(self.open.len() as f64);
        Some(entry)
    }

    /// Closes the first connection that may be, of `address` if one is given; whether there was one.
    fn close_one(&mut self, address: Option<IpAddr>) -> bool {
        let found = self.closable.iter().find(|rank| {
            address.is_none_or(|address| {
                self.open
                    .get(&rank.id)
                    .is_some_and(|entry| entry.address == address)
            })
        });
        let Some(entry) = found.map(|rank| rank.id).and_then(|id| self.remove(id)) else {
            return false;
        };
        entry.close.cancel();
        count_closed(if entry.uses > 0 {
            "unauthenticated"
        } else {
            "pressure"
        });
        true
    }
}

/// Counts a connection that the host closes on its own account.
pub(crate) fn count_closed(reason: &'static str) {
    counter!("weir_connections_closed_total", "reason" => reason).increment(1);
}

impl Connections {
    /// At most `most` connections, and `per_address` of them from one address; 0: no limit for an address.
    pub(crate) fn new(most: usize, per_address: usize) -> Arc<Self> {
        Arc::new(Self {
            most,
            per_address: if per_address == 0 { usize::MAX } else { per_address },
            state: Mutex::default(),
        })
    }

    /// Adds a connection and closes another one where that makes room for it; `None` if there is no room.
    pub(crate) fn add(self: &Arc<Self>, peer: IpAddr) -> Option<Connection> {
        let address = counted(peer);
        let mut state = self.state.lock();
        let own = state.addresses.get(&address).copied().unwrap_or(0);
        let room = (own < self.per_address || state.close_one(Some(address)))
            && (state.open.len() < self.most || state.close_one(None));
        if !room {
            count_closed("refused");
            return None;
        }
        let id = state.next_id;
        state.next_id += 1;
        let close = CancellationToken::new();
        let entry = Entry {
            address,
            since: Instant::now(),
            uses: 0,
            authenticated: false,
            close: close.clone(),
        };
        state.closable.extend(entry.rank(id));
        state.open.insert(id, entry);
        *state.addresses.entry(address).or_default() += 1;
        gauge!("weir_connections").set(state.open.len() as f64);
        Some(Connection(Arc::new(Handle {
            connections: Arc::clone(self),
            id,
            close,
        })))
    }

    /// Closes one connection, because the process has no descriptor left for another; whether there was one to close.
    pub(crate) fn make_room(&self) -> bool {
        self.state.lock().close_one(None)
    }
}

/// The address that a peer is counted under: of IPv6 the network of 64 bits, which is what one customer is given.
fn counted(peer: IpAddr) -> IpAddr {
    match peer.to_canonical() {
        IpAddr::V6(address) => Ipv6Addr::from_bits(address.to_bits() >> 64 << 64).into(),
        address @ IpAddr::V4(_) => address,
    }
}

/// One open connection. It counts as open until the last clone is dropped.
#[derive(Clone)]
pub(crate) struct Connection(Arc<Handle>);

struct Handle {
    connections: Arc<Connections>,
    id: u64,
    close: CancellationToken,
}

impl Drop for Handle {
    fn drop(&mut self) {
        self.connections.state.lock().remove(self.id);
    }
}

impl Connection {
    /// Returns when the connection is to be closed to make room.
    pub(crate) async fn closed(&self) {
        self.0.close.cancelled().await;
    }

    /// Since when the connection is idle; `None` while it is in use.
    pub(crate) fn idle_since(&self) -> Option<Instant> {
        let state = self.0.connections.state.lock();
        let entry = state.open.get(&self.0.id)?;
        (entry.uses == 0).then_some(entry.since)
    }

    /// Marks the connection as in use until the guard is dropped.
    pub(crate) fn begin_use(&self) -> InUse {
        self.change(|entry| {
            if entry.uses == 0 {
                entry.since = Instant::now();
            }
            entry.uses += 1;
        });
        InUse(self.clone())
    }

    /// Marks the connection as in use until it ends: it was upgraded and carries no more requests.
    pub(crate) fn use_to_the_end(&self) {
        self.change(|entry| entry.uses += 1);
    }

    /// A request on the connection had a valid key.
    pub(crate) fn authenticate(&self) {
        self.change(|entry| entry.authenticated = true);
    }

    fn change(&self, change: impl FnOnce(&mut Entry)) {
        self.0.connections.state.lock().change(self.0.id, change);
    }
}

/// Marks the connection of a request as one that is used with a valid key.
pub(crate) fn authenticate(parts: &Parts) {
    if let Some(connection) = parts.extensions.get::<Connection>() {
        connection.authenticate();
    }
}

/// One use of a connection, over when this is dropped.
pub(crate) struct InUse(Connection);

impl Drop for InUse {
    fn drop(&mut self) {
        self.0.change(|entry| {
            entry.uses = entry.uses.saturating_sub(1);
            if entry.uses == 0 {
                entry.since = Instant::now();
            }
        });
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn peer(last: u8) -> IpAddr {
        [10, 0, 0, last].into()
    }

    async fn pause() {
        tokio::time::advance(Duration::from_millis(1)).await;
    }

    fn is_closed(connection: &Connection) -> bool {
        connection.0.close.is_cancelled()
    }

    #[tokio::test(start_paused = true)]
    async fn full_host_closes_the_longest_idle_connection() {
        let connections = Connections::new(3, 0);
        let first = connections.add(peer(1)).unwrap();
        pause().await;
        let second = connections.add(peer(2)).unwrap();
        pause().await;
        let third = connections.add(peer(3)).unwrap();
        // The first has had a request since, so the second is the longest idle.
        pause().await;
        drop(first.begin_use());
        let fourth = connections.add(peer(4)).unwrap();
        assert_eq!(
            [&first, &second, &third, &fourth].map(is_closed),
            [false, true, false, false]
        );
        // It counts no more, though its task has not ended yet.
        drop((second, third));
        let _fifth = connections.add(peer(5)).unwrap();
        assert!(!is_closed(&first));
    }

    #[tokio::test(start_paused = true)]
    async fn use_without_a_key_gives_way_after_idle_ones() {
        let connections = Connections::new(2, 0);
        let (with_key, without) = (
            connections.add(peer(1)).unwrap(),
            connections.add(peer(1)).unwrap(),
        );
        let _uses = (with_key.begin_use(), without.begin_use());
        with_key.authenticate();
        let third = connections.add(peer(2)).unwrap();
        assert_eq!([&with_key, &without].map(is_closed), [false, true]);
        let _use = third.begin_use();
        third.authenticate();
        assert!(
            connections.add(peer(3)).is_none(),
            "all are used with a key: the new one is closed"
        );
        assert!(!connections.make_room());
        assert_eq!([&with_key, &third].map(is_closed), [false, false]);
    }

    #[tokio::test(start_paused = true)]
    async fn full_address_closes_its_own_connections_only() {
        let connections = Connections::new(10, 2);
        let other = connections.add(peer(9)).unwrap();
        pause().await;
        let own: Vec<_> = (0..4).map(|_| connections.add(peer(1)).unwrap()).collect();
        assert!(!is_closed(&other));
        assert_eq!(
            own.iter().map(is_closed).collect::<Vec<_>>(),
            [true, true, false, false]
        );
        own.iter().for_each(Connection::authenticate);
        let _uses: Vec<_> = own.iter().map(Connection::begin_use).collect();
        assert!(connections.add(peer(1)).is_none());
        assert!(connections.add(peer(2)).is_some());
        drop((own, _uses));
        assert_eq!(connections.state.lock().addresses, HashMap::from([(peer(9), 1)]));
    }

    #[test]
    fn peers_of_one_ipv6_network_are_one_address() {
        let counted = |text: &str| counted(text.parse().unwrap());
        assert_eq!(counted("2001:db8:1:2::1"), counted("2001:db8:1:2:ffff::9"));
        assert_ne!(counted("2001:db8:1:2::1"), counted("2001:db8:1:3::1"));
        assert_eq!(counted("::ffff:10.0.0.1"), peer(1));
    }
}
