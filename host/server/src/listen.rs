//! Listening.
//!
//! A host on the open network meets clients that send one byte a minute, headers without end, or nothing at all. So a connection has a
//! deadline for its TLS handshake and the headers of its first request together, and the same time between two requests; headers have a
//! size; and `connections` bounds how many connections there are. Bodies have deadlines of their own, where they are read; responses
//! have one in `stalled`, for clients that take nothing.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::http::{Request, Response, StatusCode};
use futures::future::BoxFuture;
use hyper::body::Incoming;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto;
use rustix::process::{Resource, getrlimit};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep};
use tokio_util::sync::CancellationToken;
use tower::ServiceExt as _;
use weir_core::settings::Settings;

use crate::connections::{Connection, Connections, TrackedBody, count_closed};
use crate::stalled::{GivenUp, Stalled};
use crate::tls::Tls;

/// Most bytes of a request's line and headers.
const HEADER_BYTES: usize = 64 << 10;
/// Most headers of a request.
const HEADERS: usize = 100;
/// Connections that the system keeps until they are accepted. Where they are too many, the client that comes next waits for a second
/// before it tries again, so this is as many as Linux allows by default.
const BACKLOG: u32 = 4096;
/// How long a connection that has been idle for too long may take to end by itself.
const LINGER: Duration = Duration::from_secs(1);

/// A listener that cannot be had.
#[derive(Debug, thiserror::Error)]
pub enum ListenError {
    /// The address cannot be listened on.
    #[error("cannot listen on {address}: {reason}")]
    Address {
        /// The address.
        address: SocketAddr,
        /// What the system said.
        reason: std::io::Error,
    },
    /// Certificate or key cannot be used.
    #[error("cannot use {file} for TLS: {reason}")]
    Tls {
        /// The file.
        file: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// One of the two without the other.
    #[error("TLS needs both server.tls_certificate and server.tls_key")]
    HalfTls,
}

/// A bound address.
pub struct Listener {
    tcp: TcpListener,
    tls: Option<Arc<Tls>>,
    connections: Arc<Connections>,
    idle: Duration,
    stall: Duration,
    grace: Duration,
}

impl Listener {
    /// Binds `server.listen`.
    pub async fn bind(settings: &Settings) -> Result<Self, ListenError> {
        let tls = Tls::from_settings(settings)?.map(Arc::new);
        let address = settings.server_listen;
        let tcp = listen(address).map_err(|reason| ListenError::Address { address, reason })?;
        let most = most_connections(
            settings.server_connections as usize,
            getrlimit(Resource::Nofile).current,
        );
        Ok(Self {
            tcp,
            tls,
            connections: Connections::new(most, settings.server_address_connections as usize),
            idle: Duration::from_secs(settings.server_header_seconds.into()),
            stall: Duration::from_secs(settings.server_stall_seconds.into()),
            grace: Duration::from_secs(settings.server_grace_seconds.into()),
        })
    }

    /// The address that was bound; the port is the one the system chose if 0 was asked for.
    pub fn address(&self) -> std::io::Result<SocketAddr> {
        self.tcp.local_addr()
    }

    /// Whether connections are encrypted.
    pub const fn is_encrypted(&self) -> bool {
        self.tls.is_some()
    }

    /// Serves until `stop`, then lets requests under way end within the grace time. No connection is open when it returns.
    pub(crate) async fn serve(self, router: Router, stop: CancellationToken) {
        let protocol = Arc::new(self.protocol());
        let mut tasks = JoinSet::new();
        let mut reloading = JoinSet::new();
        if let Some(tls) = &self.tls {
            reloading.spawn(Arc::clone(tls).reload_on_change());
        }
        loop {
            while tasks.try_join_next().is_some() {}
            let accepted = tokio::select! {
                biased;
                () = stop.cancelled() => break,
                accepted = self.tcp.accept() => accepted,
            };
            let (stream, peer) = match accepted {
                Ok(accepted) => accepted,
                Err(error) => {
                    // Out of descriptors, most likely: they come back when connections end.
                    let made_room = self.connections.make_room();
                    tracing::warn!(%error, made_room, "a connection could not be accepted");
                    sleep(Duration::from_millis(50)).await;
                    continue;
                }
            };
            let Some(connection) = self.connections.add(peer.ip()) else {
                tracing::debug!(%peer, "a connection was closed: all are in use");
                continue;
            };
            let _ = stream.set_nodelay(true);
            let given_up = GivenUp::default();
            let stream = Stalled::new(stream, self.stall, given_up.clone(), connection.clone());
            let service = Service {
                router: router.clone(),
                connection: connection.clone(),
                given_up,
            };
            let ending = stop.child_token();
            let (protocol, tls) = (Arc::clone(&protocol), self.tls.clone());
            let serving = serve_requests(stream, tls, protocol, service, ending.clone(), peer);
            tasks.spawn(supervise(connection, self.idle, ending, serving));
        }
        drop(self.tcp);
        let ended = async { while tasks.join_next().await.is_some() {} };
        if tokio::time::timeout(self.grace, ended).await.is_err() {
            tracing::warn!(
                connections = tasks.len(),
                "connections are cut: the grace time is over"
            );
        }
        tasks.shutdown().await;
    }

    /// HTTP/1 and HTTP/2 with their limits.
    fn protocol(&self) -> auto::Builder<TokioExecutor> {
        let mut protocol = auto::Builder::new(TokioExecutor::new());
        protocol
            .http1()
            .timer(TokioTimer::new())
            // The deadline of the connection is the one for its headers.
            .header_read_timeout(None)
            .max_buf_size(HEADER_BYTES)
            .max_headers(HEADERS);
        protocol
            .http2()
            .timer(TokioTimer::new())
            .max_header_list_size(HEADER_BYTES as u32)
            .keep_alive_interval(self.idle);
        protocol
    }
}

fn listen(address: SocketAddr) -> std::io::Result<TcpListener> {
    let socket = match address {
        SocketAddr::V4(_) => TcpSocket::new_v4(),
        SocketAddr::V6(_) => TcpSocket::new_v6(),
    }?;
    socket.set_reuseaddr(true)?;
    socket.bind(address)?;
    socket.listen(BACKLOG)
}

/// Connections that may be open: `wanted`, or half of the descriptors of the process if that is less, since requests and jobs need some
/// as well.
fn most_connections(wanted: usize, descriptors: Option<u64>) -> usize {
    let half = descriptors.map_or(usize::MAX, |limit| {
        usize::try_from(limit / 2).unwrap_or(usize::MAX)
    });
    if half < wanted {
        tracing::warn!(
            "server.connections is {wanted}, but half of the descriptors of this process are {half}: raise the limit of open files \
             (ulimit -n) or lower the setting"
        );
    }
    wanted.min(half).max(1)
}

/// Serves a connection until it ends, is idle for longer than `idle`, or is closed to make room.
async fn supervise(
    connection: Connection,
    idle: Duration,
    ending: CancellationToken,
    serving: impl Future<Output = ()>,
) {
    let mut serving = std::pin::pin!(serving);
    let mut check = std::pin::pin!(sleep(idle));
    loop {
        tokio::select! {
            () = connection.closed() => return,
            () = &mut serving => return,
            () = &mut check => {}
        }
        let now = Instant::now();
        match connection.idle_since().map(|since| since + idle) {
            None => check.as_mut().reset(now + idle),
            Some(deadline) if now < deadline => check.as_mut().reset(deadline),
            Some(_) if ending.is_cancelled() => return,
            Some(_) => {
                // A client of HTTP/2 is told, so that it sends nothing more.
                count_closed("idle");
                ending.cancel();
                check.as_mut().reset(now + LINGER);
            }
        }
    }
}

/// Answers the requests of a connection until it ends, or those under way once `ending` is cancelled.
async fn serve_requests(
    stream: Stalled<TcpStream>,
    tls: Option<Arc<Tls>>,
    protocol: Arc<auto::Builder<TokioExecutor>>,
    service: Service,
    ending: CancellationToken,
    peer: SocketAddr,
) {
    let stream: Box<dyn Stream> = match tls {
        None => Box::new(stream),
        Some(tls) => match ending.run_until_cancelled(tls.accept(stream)).await {
            Some(Ok(stream)) => Box::new(stream),
            Some(Err(error)) => return tracing::debug!(%peer, %error, "no TLS connection"),
            None => return,
        },
    };
    let connection = protocol.serve_connection_with_upgrades(TokioIo::new(stream), service);
    let mut connection = std::pin::pin!(connection);
    let ended = tokio::select! {
        ended = connection.as_mut() => ended,
        () = ending.cancelled() => {
            connection.as_mut().graceful_shutdown();
            connection.await
        }
    };
    if let Err(error) = ended {
        tracing::debug!(%peer, %error, "a connection broke off");
    }
}

trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin> Stream for T {}

/// Answers the requests of one connection, which is in use meanwhile.
struct Service {
    router: Router,
    connection: Connection,
    given_up: GivenUp,
}

impl hyper::service::Service<Request<Incoming>> for Service {
    type Response = Response<TrackedBody>;
    type Error = std::convert::Infallible;
    type Future = BoxFuture<'static, Result<Self::Response, Self::Error>>;

    fn call(&self, mut request: Request<Incoming>) -> Self::Future {
        let in_use = self.connection.begin_use();
        request.extensions_mut().insert(self.connection.clone());
        request.extensions_mut().insert(self.given_up.clone());
        let (router, connection) = (self.router.clone(), self.connection.clone());
        Box::pin(async move {
            let response = router.oneshot(request).await?;
            if response.status() == StatusCode::SWITCHING_PROTOCOLS {
                connection.use_to_the_end();
            }
            Ok(response.map(|body| TrackedBody::new(body, in_use)))
        })
    }
}

#[cfg(test)]
mod tests;
