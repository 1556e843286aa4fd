//! Connections.
//!
//! A host on the open network meets clients that send one byte a minute, headers without end, or nothing at all. So headers
//! have a deadline and a size, and there are only so many connections: who comes later waits in the system's queue, where it
//! costs nothing. Bodies have deadlines of their own, where they are read; answers have one here, for clients that take nothing.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use axum::{Extension, Router};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto;
use hyper_util::server::graceful::GracefulShutdown;
use hyper_util::service::TowerToHyperService;
use rustls::ServerConfig;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;
use tower::Layer as _;
use weir_core::settings::Settings;

use crate::stalled::{GivenUp, Stalled};

/// Most bytes of a request's line and headers.
const HEADER_BYTES: usize = 64 << 10;
/// Most headers of a request.
const HEADERS: usize = 100;

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
    tls: Option<TlsAcceptor>,
    places: Arc<Semaphore>,
    header_deadline: Duration,
    stall: Duration,
    grace: Duration,
}

impl Listener {
    /// Binds `server.listen`.
    pub async fn bind(settings: &Settings) -> Result<Self, ListenError> {
        let (certificate, key) = (&settings.server_tls_certificate, &settings.server_tls_key);
        let tls = match (certificate.as_os_str().is_empty(), key.as_os_str().is_empty()) {
            (true, true) => None,
            (false, false) => Some(acceptor(certificate, key)?),
            _ => return Err(ListenError::HalfTls),
        };
        let address = settings.server_listen;
        let tcp = TcpListener::bind(address)
            .await
            .map_err(|reason| ListenError::Address { address, reason })?;
        Ok(Self {
            tcp,
            tls,
            places: Arc::new(Semaphore::new(settings.server_connections as usize)),
            header_deadline: Duration::from_secs(settings.server_header_seconds.into()),
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
        let mut server = auto::Builder::new(TokioExecutor::new());
        server
            .http1()
            .timer(TokioTimer::new())
            .header_read_timeout(self.header_deadline)
            .max_buf_size(HEADER_BYTES)
            .max_headers(HEADERS);
        server
            .http2()
            .timer(TokioTimer::new())
            .max_header_list_size(HEADER_BYTES as u32)
            .keep_alive_interval(self.header_deadline);
        let server = Arc::new(server);
        let graceful = GracefulShutdown::new();
        let mut connections = JoinSet::new();
        loop {
            while connections.try_join_next().is_some() {}
            let accepted = async {
                let place = Arc::clone(&self.places).acquire_owned().await;
                (place, self.tcp.accept().await)
            };
            let (place, accepted) = tokio::select! {
                biased;
                () = stop.cancelled() => break,
                accepted = accepted => accepted,
            };
            let (stream, peer) = match accepted {
                Ok(accepted) => accepted,
                Err(error) => {
                    // Out of descriptors, most likely: they come back when connections end.
                    tracing::warn!(%error, "a connection could not be accepted");
                    tokio::time::sleep(Duration::from_millis(50)).await;
                    continue;
                }
            };
            let _ = stream.set_nodelay(true);
            let (server, tls, router) = (Arc::clone(&server), self.tls.clone(), router.clone());
            let given_up = GivenUp::default();
            let stream = Stalled::new(stream, self.stall, given_up.clone());
            let (watcher, deadline) = (graceful.watcher(), self.header_deadline);
            connections.spawn(async move {
                let _place = place;
                match encrypted(stream, tls, deadline).await {
                    Ok(stream) => {
                        let service = TowerToHyperService::new(Extension(given_up).layer(router));
                        let connection = server.serve_connection_with_upgrades(TokioIo::new(stream), service);
                        if let Err(error) = watcher.watch(connection.into_owned()).await {
                            tracing::debug!(%peer, %error, "a connection broke off");
                        }
                    }
                    Err(error) => tracing::debug!(%peer, %error, "no TLS connection"),
                }
            });
        }
        drop(self.tcp);
        if tokio::time::timeout(self.grace, graceful.shutdown())
            .await
            .is_err()
        {
            tracing::warn!(
                connections = connections.len(),
                "connections are cut: the grace time is over"
            );
        }
        connections.shutdown().await;
    }
}

trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin> Stream for T {}

async fn encrypted(
    stream: Stalled<TcpStream>,
    tls: Option<TlsAcceptor>,
    deadline: Duration,
) -> std::io::Result<Box<dyn Stream>> {
    let Some(tls) = tls else {
        return Ok(Box::new(stream));
    };
    let stream = tokio::time::timeout(deadline, tls.accept(stream))
        .await
        .map_err(|_late| std::io::ErrorKind::TimedOut)??;
    Ok(Box::new(stream))
}

fn acceptor(certificate: &Path, key: &Path) -> Result<TlsAcceptor, ListenError> {
    let wrong = |file: &Path, reason: String| ListenError::Tls {
        file: file.to_owned(),
        reason,
    };
    let chain = CertificateDer::pem_file_iter(certificate)
        .and_then(Iterator::collect::<Result<Vec<_>, _>>)
        .map_err(|e| wrong(certificate, e.to_string()))?;
    let private = PrivateKeyDer::from_pem_file(key).map_err(|e| wrong(key, e.to_string()))?;
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let mut config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|e| wrong(certificate, e.to_string()))?
        .with_no_client_auth()
        .with_single_cert(chain, private)
        .map_err(|e| wrong(certificate, e.to_string()))?;
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    Ok(TlsAcceptor::from(Arc::new(config)))
}
