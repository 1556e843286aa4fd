//! A load balancer.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use tokio::io::copy_bidirectional;
use tokio::net::{TcpListener, TcpStream};

use crate::server_thread::ServerThread;

/// A load balancer for TCP: it connects each client to the next server that accepts a connection.
pub struct RoundRobin(ServerThread);

impl RoundRobin {
    /// Starts a load balancer in front of these servers.
    #[must_use]
    pub fn start(servers: Vec<SocketAddr>) -> Self {
        let (servers, next) = (Arc::<[SocketAddr]>::from(servers), Arc::<AtomicUsize>::default());
        Self(ServerThread::start(move |listener| {
            accept_clients(listener, Arc::clone(&servers), Arc::clone(&next))
        }))
    }

    /// Returns the address at which it listens.
    #[must_use]
    pub const fn address(&self) -> SocketAddr {
        self.0.address()
    }
}

async fn accept_clients(listener: TcpListener, servers: Arc<[SocketAddr]>, next: Arc<AtomicUsize>) {
    loop {
        let (client, _) = listener.accept().await.unwrap();
        let first = next.fetch_add(1, Ordering::Relaxed);
        tokio::spawn(forward_connection(client, Arc::clone(&servers), first));
    }
}

/// Forwards a connection to the server with this number, or to the next ones if it does not accept connections.
async fn forward_connection(mut client: TcpStream, servers: Arc<[SocketAddr]>, first: usize) {
    for address in servers
        .iter()
        .cycle()
        .skip(first % servers.len())
        .take(servers.len())
    {
        if let Ok(mut server) = TcpStream::connect(address).await {
            // One of the two has closed the connection.
            let _ = copy_bidirectional(&mut client, &mut server).await;
            return;
        }
    }
}
