//! Ports of loopback for servers.

use std::net::{Ipv4Addr, TcpListener};

/// Ports below those that the system gives to clients (`ip_local_port_range`). So no connection of a client takes the port of a server
/// while the server is stopped.
const FIRST_PORT: u16 = 15_000;
const PORTS: u16 = 17_000;

/// Returns a port of loopback on which nothing listens.
#[must_use]
pub fn find_free_port() -> u16 {
    // The system chooses the port of this listener at random.
    let random = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))
        .unwrap()
        .local_addr()
        .unwrap()
        .port();
    (0..PORTS)
        .map(|offset| FIRST_PORT + random.wrapping_add(offset) % PORTS)
        .find(|port| TcpListener::bind((Ipv4Addr::LOCALHOST, *port)).is_ok())
        .unwrap_or_else(|| panic!("no port from {FIRST_PORT} to {} is free", FIRST_PORT + PORTS))
}
