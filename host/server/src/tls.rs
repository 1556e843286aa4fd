//! The TLS certificate of the listener, which is reloaded when its files change, and why a listener cannot be set up.

use std::net::SocketAddr;
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

/// Interval at which the files are checked for changes.
const RELOAD_CHECK_INTERVAL: Duration = Duration::from_secs(10);

/// The listener cannot be set up.
#[derive(Debug, thiserror::Error)]
pub enum ListenerSetupError {
    /// Listening on the address failed.
    #[error("cannot listen on {address}: {reason}")]
    Bind {
        /// The address.
        address: SocketAddr,
        /// Error of the system.
        reason: std::io::Error,
    },
    /// The certificate or key file is invalid.
    #[error("cannot use {file} for TLS: {reason}")]
    InvalidTlsFile {
        /// The file.
        file: PathBuf,
        /// The error in it.
        reason: String,
    },
    /// Only one of certificate and key is configured.
    #[error("TLS needs both server.tls_certificate_file and server.tls_key_file")]
    IncompleteTlsSettings,
}

/// The certificate and key of the listener, with reload.
pub(crate) struct ReloadableTlsCertificate {
    files: TlsFilePaths,
    loaded: Mutex<LoadedCertificate>,
}

struct LoadedCertificate {
    config: Arc<ServerConfig>,
    /// Hash of the files as last read, even if they were invalid.
    digest: [u8; 32],
}

#[derive(Clone)]
struct TlsFilePaths {
    certificate: PathBuf,
    key: PathBuf,
}

impl ReloadableTlsCertificate {
    /// Reads the files named in the settings. `None` if TLS is not configured.
    pub(crate) fn load_certificate_from_settings(
        settings: &Settings,
    ) -> Result<Option<Self>, ListenerSetupError> {
        let files = TlsFilePaths {
            certificate: settings.server_tls_certificate_file.clone(),
            key: settings.server_tls_key_file.clone(),
        };
        match (
            files.certificate.as_os_str().is_empty(),
            files.key.as_os_str().is_empty(),
        ) {
            (true, true) => return Ok(None),
            (false, false) => {}
            _ => return Err(ListenerSetupError::IncompleteTlsSettings),
        }
        let (digest, config) = files.load_digest_and_config();
        let config = Arc::new(config?);
        gauge!("weir_tls_certificate_reload_failed").set(0.0);
        Ok(Some(Self {
            files,
            loaded: Mutex::new(LoadedCertificate { config, digest }),
        }))
    }

    /// Does the TLS handshake of a connection with the current certificate.
    pub(crate) async fn accept_handshake<S: AsyncRead + AsyncWrite + Unpin>(
        &self,
        stream: S,
    ) -> std::io::Result<TlsStream<S>> {
        let config = Arc::clone(&self.loaded.lock().config);
        TlsAcceptor::from(config).accept(stream).await
    }

    /// Reloads the files whenever they change. Never returns.
    pub(crate) async fn run_certificate_reload_loop(self: Arc<Self>) {
        loop {
            sleep(RELOAD_CHECK_INTERVAL).await;
            self.reload_if_changed().await;
        }
    }

    /// Reloads the files if they have changed. If the new files are invalid, the current certificate stays in use.
    async fn reload_if_changed(&self) {
        let files = self.files.clone();
        let Ok((digest, config)) = tokio::task::spawn_blocking(move || files.load_digest_and_config()).await
        else {
            return;
        };
        {
            let mut state = self.loaded.lock();
            if std::mem::replace(&mut state.digest, digest) == digest {
                return;
            }
            if let Ok(config) = &config {
                state.config = Arc::new(config.clone());
            }
        }
        let failed = config.as_ref().err();
        let outcome = if failed.is_some() { "failed" } else { "loaded" };
        counter!("weir_tls_certificate_reloads_total", "outcome" => outcome).increment(1);
        gauge!("weir_tls_certificate_reload_failed").set(f64::from(u8::from(failed.is_some())));
        match failed {
            None => tracing::info!("reloaded the TLS certificate: new connections use it"),
            Some(error) => {
                tracing::error!(%error, "the changed TLS certificate cannot be used: the previous one stays in use")
            }
        }
    }
}

impl TlsFilePaths {
    /// Reads the files. Returns a hash of their content, or of the read error, and the configuration built from them.
    fn load_digest_and_config(&self) -> ([u8; 32], Result<ServerConfig, ListenerSetupError>) {
        let read = |file: &Path| std::fs::read(file).map_err(|error| invalid_file_error(file, &error));
        match read(&self.certificate).and_then(|certificate| Ok((certificate, read(&self.key)?))) {
            Ok((certificate, key)) => {
                let hash = |bytes: &[u8]| Sha256::digest(bytes);
                let both = [hash(&certificate), hash(&key)].concat();
                (hash(&both).into(), self.build_server_config(&certificate, &key))
            }
            Err(error) => (Sha256::digest(error.to_string()).into(), Err(error)),
        }
    }

    fn build_server_config(
        &self,
        certificate: &[u8],
        key: &[u8],
    ) -> Result<ServerConfig, ListenerSetupError> {
        let chain = CertificateDer::pem_slice_iter(certificate)
            .collect::<Result<Vec<_>, _>>()
            .map_err(|error| invalid_file_error(&self.certificate, &error))?;
        if chain.is_empty() {
            return Err(invalid_file_error(
                &self.certificate,
                &"it contains no certificate",
            ));
        }
        let key =
            PrivateKeyDer::from_pem_slice(key).map_err(|error| invalid_file_error(&self.key, &error))?;
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let mut config = ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .map_err(|error| invalid_file_error(&self.certificate, &error))?
            .with_no_client_auth()
            .with_single_cert(chain, key)
            .map_err(|error| invalid_file_error(&self.certificate, &error))?;
        config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
        Ok(config)
    }
}

fn invalid_file_error(file: &Path, reason: &dyn std::fmt::Display) -> ListenerSetupError {
    ListenerSetupError::InvalidTlsFile {
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

    fn certificate_der(pem: &str) -> CertificateDer<'static> {
        CertificateDer::from_pem_slice(pem.as_bytes()).unwrap()
    }

    fn write_certificate_files(folder: &Path, [chain, key]: [&str; 2]) {
        std::fs::write(folder.join("chain.pem"), chain).unwrap();
        std::fs::write(folder.join("key.pem"), key).unwrap();
    }

    fn load_certificate(folder: &Path) -> Result<Option<ReloadableTlsCertificate>, ListenerSetupError> {
        ReloadableTlsCertificate::load_certificate_from_settings(&Settings {
            server_tls_certificate_file: folder.join("chain.pem"),
            server_tls_key_file: folder.join("key.pem"),
            ..Settings::default()
        })
    }

    /// Connects as a client and returns the certificate that the server presents.
    async fn served_certificate(tls: &ReloadableTlsCertificate) -> CertificateDer<'static> {
        let mut roots = RootCertStore::empty();
        roots.add_parsable_certificates([certificate_der(FIRST[0]), certificate_der(SECOND[0])]);
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let config = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_root_certificates(roots)
            .with_no_client_auth();
        let (near, far) = duplex(1 << 16);
        let name = ServerName::try_from("localhost").unwrap();
        let connector = TlsConnector::from(Arc::new(config));
        let (accepted, connected) = tokio::join!(tls.accept_handshake(near), connector.connect(name, far));
        accepted.unwrap();
        let (_, connection) = connected.as_ref().unwrap().get_ref();
        connection.peer_certificates().unwrap()[0].clone().into_owned()
    }

    #[tokio::test]
    async fn changed_certificate_is_reloaded_and_an_invalid_one_is_not() {
        let folder = tempfile::tempdir().unwrap();
        let folder = folder.path();
        write_certificate_files(folder, FIRST);
        let tls = load_certificate(folder).unwrap().unwrap();
        assert_eq!(served_certificate(&tls).await, certificate_der(FIRST[0]));
        // The first certificate stays in use while the files are empty, invalid, mismatched or missing.
        for broken in [["", FIRST[1]], ["garbage", "garbage"], [SECOND[0], FIRST[1]]] {
            write_certificate_files(folder, broken);
            tls.reload_if_changed().await;
            assert_eq!(served_certificate(&tls).await, certificate_der(FIRST[0]));
        }
        std::fs::remove_file(folder.join("key.pem")).unwrap();
        tls.reload_if_changed().await;
        assert_eq!(served_certificate(&tls).await, certificate_der(FIRST[0]));
        write_certificate_files(folder, SECOND);
        tls.reload_if_changed().await;
        assert_eq!(served_certificate(&tls).await, certificate_der(SECOND[0]));
    }

    #[test]
    fn invalid_certificate_file_is_reported_at_startup() {
        let folder = tempfile::tempdir().unwrap();
        let folder = folder.path();
        assert!(matches!(
            load_certificate(folder),
            Err(ListenerSetupError::InvalidTlsFile { .. })
        ));
        write_certificate_files(folder, ["", FIRST[1]]);
        let error = load_certificate(folder).err().unwrap().to_string();
        assert!(
            error.contains("chain.pem") && error.contains("no certificate"),
            "{error}"
        );
        let half = Settings {
            server_tls_key_file: folder.join("key.pem"),
            ..Settings::default()
        };
        assert!(matches!(
            ReloadableTlsCertificate::load_certificate_from_settings(&half),
            Err(ListenerSetupError::IncompleteTlsSettings)
        ));
        assert!(
            ReloadableTlsCertificate::load_certificate_from_settings(&Settings::default())
                .unwrap()
                .is_none()
        );
    }
}
