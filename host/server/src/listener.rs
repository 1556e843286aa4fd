//! Accepts connections and serves HTTP on them.
//!
//! Clients on an open network may send one byte a minute, endless headers, or nothing at all. So one timeout covers the TLS handshake
//! together with the headers of the first request, and again each time between two requests. The size of headers is limited, and
//! [`ConnectionLimiter`] limits the number of connections. Request bodies have a read timeout and responses have a write timeout, each in its
//! own module.

use std::net::SocketAddr;
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

use crate::connections::{
    ConnectionHandle, ConnectionLimiter, ResponseBodyWithUseGuard, count_closed_connection,
};
use crate::tls::{ListenerSetupError, ReloadableTlsCertificate};
use crate::write_timeout::{WriteTimedOutFlag, WriteTimeoutStream};

/// Maximum size of the request line and headers.
const MAX_HEADER_BYTES: usize = 64 << 10;
/// Maximum number of headers of a request.
const MAX_HEADERS: usize = 100;
/// Connections that the system queues until they are accepted. If the queue is full, a client retries only after one second, so this
/// is the maximum that Linux allows by default.
const ACCEPT_BACKLOG: u32 = 4096;
/// Time that a connection gets to close gracefully after the idle timeout.
const GRACEFUL_CLOSE_TIMEOUT: Duration = Duration::from_secs(1);

/// A listener that is bound to an address.
pub struct Listener {
    tcp_listener: TcpListener,
    tls_certificate: Option<Arc<ReloadableTlsCertificate>>,
    connections: Arc<ConnectionLimiter>,
    idle_timeout: Duration,
    write_timeout: Duration,
    grace_period: Duration,
}

impl Listener {
    /// Binds `server.listen_address`.
    pub async fn bind(settings: &Settings) -> Result<Self, ListenerSetupError> {
        let tls = ReloadableTlsCertificate::load_certificate_from_settings(settings)?.map(Arc::new);
        let address = settings.server_listen_address;
        let tcp = bind_and_listen(address).map_err(|reason| ListenerSetupError::Bind { address, reason })?;
        let most = effective_max_connections(
            settings.server_max_connections as usize,
            getrlimit(Resource::Nofile).current,
        );
        Ok(Self {
            tcp_listener: tcp,
            tls_certificate: tls,
            connections: ConnectionLimiter::new(most, settings.server_max_connections_per_address as usize),
            idle_timeout: Duration::from_secs(settings.server_header_timeout_seconds.into()),
            write_timeout: Duration::from_secs(settings.server_transfer_idle_timeout_seconds.into()),
            grace_period: Duration::from_secs(settings.server_shutdown_grace_seconds.into()),
        })
    }

    /// The bound address. If port 0 was configured, it contains the port that the system chose.
    pub fn local_address(&self) -> std::io::Result<SocketAddr> {
        self.tcp_listener.local_addr()
    }

    /// Whether the listener uses TLS.
    pub const fn uses_tls(&self) -> bool {
        self.tls_certificate.is_some()
    }

    /// Serves until `stop` is cancelled, then waits up to the grace period for active requests. No connection is open when it returns.
    pub(crate) async fn serve_connections(self, router: Router, stop: CancellationToken) {
        let protocol = Arc::new(self.http_protocol_builder());
        let mut tasks = JoinSet::new();
        let mut reloading = JoinSet::new();
        if let Some(tls) = &self.tls_certificate {
            reloading.spawn(Arc::clone(tls).run_certificate_reload_loop());
        }
        loop {
            while tasks.try_join_next().is_some() {}
            let accepted = tokio::select! {
                biased;
                () = stop.cancelled() => break,
                accepted = self.tcp_listener.accept() => accepted,
            };
            let (stream, peer) = match accepted {
                Ok(accepted) => accepted,
                Err(error) => {
                    // The usual cause is a lack of file descriptors. Ending connections free them.
                    let made_room = self.connections.evict_to_free_descriptor();
                    tracing::warn!(%error, made_room, "cannot accept a connection");
                    sleep(Duration::from_millis(50)).await;
                    continue;
                }
            };
            let Some(connection) = self.connections.admit_connection(peer.ip()) else {
                tracing::debug!(%peer, "closed a new connection: all others are in use");
                continue;
            };
            let _ = stream.set_nodelay(true);
            let write_timed_out = WriteTimedOutFlag::default();
            let stream = WriteTimeoutStream::new(
                stream,
                self.write_timeout,
                write_timed_out.clone(),
                connection.clone(),
            );
            let service = ConnectionService {
                router: router.clone(),
                connection: connection.clone(),
                write_timed_out,
            };
            let ending = stop.child_token();
            let (protocol, tls) = (Arc::clone(&protocol), self.tls_certificate.clone());
            let serving = serve_requests(stream, tls, protocol, service, ending.clone(), peer);
            tasks.spawn(run_with_idle_timeout(
                connection,
                self.idle_timeout,
                ending,
                serving,
            ));
        }
        drop(self.tcp_listener);
        let ended = async { while tasks.join_next().await.is_some() {} };
        if tokio::time::timeout(self.grace_period, ended).await.is_err() {
            tracing::warn!(
                connections = tasks.len(),
                "closing connections that are still in use: the grace period is over"
            );
        }
        tasks.shutdown().await;
    }

    /// Configures HTTP/1 and HTTP/2 with their limits.
    fn http_protocol_builder(&self) -> auto::Builder<TokioExecutor> {
        let mut protocol = auto::Builder::new(TokioExecutor::new());
        protocol
            .http1()
            .timer(TokioTimer::new())
            // `run_with_idle_timeout` applies the header timeout together with the idle timeout.
            .header_read_timeout(None)
            .max_buf_size(MAX_HEADER_BYTES)
            .max_headers(MAX_HEADERS);
        protocol
            .http2()
            .timer(TokioTimer::new())
            .max_header_list_size(MAX_HEADER_BYTES as u32)
            .keep_alive_interval(self.idle_timeout);
        protocol
    }
}

fn bind_and_listen(address: SocketAddr) -> std::io::Result<TcpListener> {
    let socket = match address {
        SocketAddr::V4(_) => TcpSocket::new_v4(),
        SocketAddr::V6(_) => TcpSocket::new_v6(),
    }?;
    socket.set_reuseaddr(true)?;
    socket.bind(address)?;
    socket.listen(ACCEPT_BACKLOG)
}

/// Returns the maximum number of connections: `wanted`, but at most half of the file descriptors of the process, since requests and
/// jobs need descriptors too.
fn effective_max_connections(wanted: usize, descriptors: Option<u64>) -> usize {
    let half = descriptors.map_or(usize::MAX, |limit| {
        usize::try_from(limit / 2).unwrap_or(usize::MAX)
    });
    if half < wanted {
        tracing::warn!(
            "server.max_connections is {wanted}, but this process may use only {half} file descriptors for connections: raise the limit of \
             open files (ulimit -n) or lower the setting"
        );
    }
    wanted.min(half).max(1)
}

/// Serves a connection until it ends, exceeds the idle timeout, or is closed because of a limit.
async fn run_with_idle_timeout(
    connection: ConnectionHandle,
    idle: Duration,
    ending: CancellationToken,
    serving: impl Future<Output = ()>,
) {
    let mut serving = std::pin::pin!(serving);
    let mut check = std::pin::pin!(sleep(idle));
    loop {
        tokio::select! {
            () = connection.wait_for_eviction() => return,
            () = &mut serving => return,
            () = &mut check => {}
        }
        let now = Instant::now();
        match connection.idle_since().map(|since| since + idle) {
            None => check.as_mut().reset(now + idle),
            Some(deadline) if now < deadline => check.as_mut().reset(deadline),
            Some(_) if ending.is_cancelled() => return,
            Some(_) => {
                // A graceful shutdown tells an HTTP/2 client to send no more requests.
                count_closed_connection("idle-timeout");
                ending.cancel();
                check.as_mut().reset(now + GRACEFUL_CLOSE_TIMEOUT);
            }
        }
    }
}

/// Serves the requests of a connection until it ends. After `ending` is cancelled, it only completes active requests.
async fn serve_requests(
    stream: WriteTimeoutStream<TcpStream>,
    tls: Option<Arc<ReloadableTlsCertificate>>,
    protocol: Arc<auto::Builder<TokioExecutor>>,
    service: ConnectionService,
    ending: CancellationToken,
    peer: SocketAddr,
) {
    let stream: Box<dyn AsyncReadWrite> = match tls {
        None => Box::new(stream),
        Some(tls) => match ending.run_until_cancelled(tls.accept_handshake(stream)).await {
            Some(Ok(stream)) => Box::new(stream),
            Some(Err(error)) => return tracing::debug!(%peer, %error, "a TLS handshake failed"),
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
        tracing::debug!(%peer, %error, "a connection ended with an error");
    }
}

trait AsyncReadWrite: AsyncRead + AsyncWrite + Send + Unpin {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin> AsyncReadWrite for T {}

/// Handles the requests of one connection and marks the connection as in use meanwhile.
struct ConnectionService {
    router: Router,
    connection: ConnectionHandle,
    write_timed_out: WriteTimedOutFlag,
}

impl hyper::service::Service<Request<Incoming>> for ConnectionService {
    type Response = Response<ResponseBodyWithUseGuard>;
    type Error = std::convert::Infallible;
    type Future = BoxFuture<'static, Result<Self::Response, Self::Error>>;

    fn call(&self, mut request: Request<Incoming>) -> Self::Future {
        let in_use = self.connection.mark_in_use();
        request.extensions_mut().insert(self.connection.clone());
        request.extensions_mut().insert(self.write_timed_out.clone());
        let (router, connection) = (self.router.clone(), self.connection.clone());
        Box::pin(async move {
            let response = router.oneshot(request).await?;
            if response.status() == StatusCode::SWITCHING_PROTOCOLS {
                connection.mark_in_use_until_closed();
            }
            Ok(response.map(|body| ResponseBodyWithUseGuard::new(body, in_use)))
        })
    }
}

#[cfg(test)]
mod tests;
