//! The certificate that connections are encrypted with, read again when its files change.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use metrics::{counter, gauge};
use parking_lot::Mutex;
use rustls::ServerConfig;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use sha2::{Digest as _, Sha256};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::time::sleep;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;
use weir_core::settings::Settings;

use crate::listen::ListenError;

/// How often the files are compared with what is in use.
const CHECK_INTERVAL: Duration = Duration::from_secs(10);

/// Certificate and key of the listener.
pub(crate) struct Tls {
    files: TlsFiles,
    state: Mutex<State>,
}

struct State {
    config: Arc<ServerConfig>,
    /// Hash of the files as they were last read, whether or not they could be used.
    digest: [u8; 32],
}

#[derive(Clone)]
struct TlsFiles {
    certificate: PathBuf,
    key: PathBuf,
}

impl Tls {
    /// Reads the files of the settings; `None` if there are none.
    pub(crate) fn from_settings(settings: &Settings) -> Result<Option<Self>, ListenError> {
        let files = TlsFiles {
            certificate: settings.server_tls_certificate.clone(),
            key: settings.server_tls_key.clone(),
        };
        match (
            files.certificate.as_os_str().is_empty(),
            files.key.as_os_str().is_empty(),
        ) {
            (true, true) => return Ok(None),
            (false, false) => {}
            _ => return Err(ListenError::HalfTls),
        }
        let (digest, config) = files.read();
        let config = Arc::new(config?);
        gauge!("weir_tls_certificate_stale").set(0.0);
        Ok(Some(Self {
            files,
            state: Mutex::new(State { config, digest }),
        }))
    }

    /// The handshake of a connection, with the certificate that is in use now.
    pub(crate) async fn accept<S: AsyncRead + AsyncWrite + Unpin>(
        &self,
        stream: S,
    ) -> std::io::Result<TlsStream<S>> {
        let config = Arc::clone(&self.state.lock().config);
        TlsAcceptor::from(config).accept(stream).await
    }

    /// Reads the files again whenever they change, without end.
    pub(crate) async fn reload_on_change(self: Arc<Self>) {
        loop {
            sleep(CHECK_INTERVAL).await;
            self.reload().await;
        }
    }

    /// Uses the files as they are now, if they differ from what was read before. Files that cannot be used change nothing: the
    /// certificate in use is kept.
    async fn reload(&self) {
        let files = self.files.clone();
        let Ok((digest, config)) = tokio::task::spawn_blocking(move || files.read()).await else {
            return;
        };
        {
            let mut state = self.state.lock();
            if std::mem::replace(&mut state.digest, digest) == digest {
                return;
            }
            if let Ok(config) = &config {
                state.config = Arc::new(config.clone());
            }
        }
        let failed = config.as_ref().err();
        let outcome = if failed.is_some() { "failed" } else { "loaded" };
        counter!("weir_tls_reloads_total", "outcome" => outcome).increment(1);
        gauge!("weir_tls_certificate_stale").set(f64::from(u8::from(failed.is_some())));
        match failed {
            None => tracing::info!("the TLS certificate has changed and is in use for new connections"),
            Some(error) => {
                tracing::error!(%error, "the changed TLS certificate cannot be used: the one in use is kept")
            }
        }
    }
}

impl TlsFiles {
    /// Reads the files: a hash of what was found, and what it makes.
    fn read(&self) -> ([u8; 32], Result<ServerConfig, ListenError>) {
        let read = |file: &Path| std::fs::read(file).map_err(|error| unusable(file, &error));
        match read(&self.certificate).and_then(|certificate| Ok((certificate, read(&self.key)?))) {
            Ok((certificate, key)) => {
                let hash = |bytes: &[u8]| Sha256::digest(bytes);
                let both = [hash(&certificate), hash(&key)].concat();
                (hash(&both).into(), self.config(&certificate, &key))
            }
            Err(error) => (Sha256::digest(error.to_string()).into(), Err(error)),
        }
    }

    fn config(&self, certificate: &[u8], key: &[u8]) -> Result<ServerConfig, ListenError> {
        let chain = CertificateDer::pem_slice_iter(certificate)
            .collect::<Result<Vec<_>, _>>()
            .map_err(|error| unusable(&self.certificate, &error))?;
        if chain.is_empty() {
            return Err(unusable(&self.certificate, &"there is no certificate in it"));
        }
        let key = PrivateKeyDer::from_pem_slice(key).map_err(|error| unusable(&self.key, &error))?;
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let mut config = ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .map_err(|error| unusable(&self.certificate, &error))?
            .with_no_client_auth()
            .with_single_cert(chain, key)
            .map_err(|error| unusable(&self.certificate, &error))?;
        config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
        Ok(config)
    }
}

fn unusable(file: &Path, reason: &dyn std::fmt::Display) -> ListenError {
    ListenError::Tls {
        file: file.to_owned(),
        reason: reason.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use rustls::pki_types::ServerName;
    use rustls::{ClientConfig, RootCertStore};
    use tokio::io::duplex;
    use tokio_rustls::TlsConnector;

    use super::*;

    const FIRST: [&str; 2] = [
        include_str!("../../../tests/src/tls/first.pem"),
        include_str!("../../../tests/src/tls/first.key.pem"),
    ];
    const SECOND: [&str; 2] = [
        include_str!("../../../tests/src/tls/second.pem"),
        include_str!("../../../tests/src/tls/second.key.pem"),
    ];

    fn der(pem: &str) -> CertificateDer<'static> {
        CertificateDer::from_pem_slice(pem.as_bytes()).unwrap()
    }

    fn write(folder: &Path, [chain, key]: [&str; 2]) {
        std::fs::write(folder.join("chain.pem"), chain).unwrap();
        std::fs::write(folder.join("key.pem"), key).unwrap();
    }

    fn open(folder: &Path) -> Result<Option<Tls>, ListenError> {
        Tls::from_settings(&Settings {
            server_tls_certificate: folder.join("chain.pem"),
            server_tls_key: folder.join("key.pem"),
            ..Settings::default()
        })
    }

    /// The certificate that a client is shown.
    async fn shown(tls: &Tls) -> CertificateDer<'static> {
        let mut roots = RootCertStore::empty();
        roots.add_parsable_certificates([der(FIRST[0]), der(SECOND[0])]);
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let config = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_root_certificates(roots)
            .with_no_client_auth();
        let (near, far) = duplex(1 << 16);
        let name = ServerName::try_from("localhost").unwrap();
        let connector = TlsConnector::from(Arc::new(config));
        let (accepted, connected) = tokio::join!(tls.accept(near), connector.connect(name, far));
        accepted.unwrap();
        let (_, connection) = connected.as_ref().unwrap().get_ref();
        connection.peer_certificates().unwrap()[0].clone().into_owned()
    }

    #[tokio::test]
    async fn changed_certificate_is_used_and_a_broken_one_is_not() {
        let folder = tempfile::tempdir().unwrap();
        let folder = folder.path();
        write(folder, FIRST);
        let tls = open(folder).unwrap().unwrap();
        assert_eq!(shown(&tls).await, der(FIRST[0]));
        // No certificate, half of a renewal, no file: the first stays in use.
        for broken in [["", FIRST[1]], ["garbage", "garbage"], [SECOND[0], FIRST[1]]] {
            write(folder, broken);
            tls.reload().await;
            assert_eq!(shown(&tls).await, der(FIRST[0]));
        }
        std::fs::remove_file(folder.join("key.pem")).unwrap();
        tls.reload().await;
        assert_eq!(shown(&tls).await, der(FIRST[0]));
        write(folder, SECOND);
        tls.reload().await;
        assert_eq!(shown(&tls).await, der(SECOND[0]));
    }

    #[test]
    fn certificate_that_cannot_be_used_is_named_at_the_start() {
        let folder = tempfile::tempdir().unwrap();
        let folder = folder.path();
        assert!(matches!(open(folder), Err(ListenError::Tls { .. })));
        write(folder, ["", FIRST[1]]);
        let error = open(folder).err().unwrap().to_string();
        assert!(
            error.contains("chain.pem") && error.contains("no certificate"),
            "{error}"
        );
        let half = Settings {
            server_tls_key: folder.join("key.pem"),
            ..Settings::default()
        };
        assert!(matches!(Tls::from_settings(&half), Err(ListenError::HalfTls)));
        assert!(Tls::from_settings(&Settings::default()).unwrap().is_none());
    }
}
