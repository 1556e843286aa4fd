//! Certificates for tests, valid for a hundred years, and a client that trusts them.

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::sync::Arc;

use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject as _;
use rustls::{ClientConfig, ClientConnection, RootCertStore, StreamOwned};

/// A certificate for 127.0.0.1 and its key, as PEM.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TestCertificate {
    pub chain: &'static str,
    pub key: &'static str,
}

pub const FIRST_CERTIFICATE: TestCertificate = TestCertificate {
    chain: include_str!("tls/first.pem"),
    key: include_str!("tls/first.key.pem"),
};
pub const SECOND_CERTIFICATE: TestCertificate = TestCertificate {
    chain: include_str!("tls/second.pem"),
    key: include_str!("tls/second.key.pem"),
};

impl TestCertificate {
    /// Writes the files `chain.pem` and `key.pem` into a folder.
    pub fn write_files(&self, folder: &Path) {
        std::fs::write(folder.join("key.pem"), self.key).unwrap();
        std::fs::write(folder.join("chain.pem"), self.chain).unwrap();
    }

    pub fn to_der(&self) -> CertificateDer<'static> {
        CertificateDer::from_pem_slice(self.chain.as_bytes()).unwrap()
    }
}

/// Returns the configuration of a client that trusts the certificates of this module.
pub fn client_config() -> Arc<ClientConfig> {
    let mut roots = RootCertStore::empty();
    roots.add_parsable_certificates([FIRST_CERTIFICATE.to_der(), SECOND_CERTIFICATE.to_der()]);
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    Arc::new(config)
}

/// Wraps a connection in TLS. The handshake happens with the first read or write.
pub fn wrap_stream(
    config: &Arc<ClientConfig>,
    stream: TcpStream,
) -> StreamOwned<ClientConnection, TcpStream> {
    let name = "127.0.0.1".try_into().unwrap();
    StreamOwned::new(ClientConnection::new(Arc::clone(config), name).unwrap(), stream)
}

/// Sends a GET with an API key and returns the whole response, headers and body.
pub fn get_over_tls(address: SocketAddr, path: &str, key: &str) -> String {
    let mut stream = wrap_stream(&client_config(), TcpStream::connect(address).unwrap());
    let request = format!(
        "GET {path} HTTP/1.1\r\nHost: weir\r\nAuthorization: Bearer {key}\r\nConnection: close\r\n\r\n"
    );
    stream.write_all(request.as_bytes()).unwrap();
    let mut response = String::new();
    stream.read_to_string(&mut response).unwrap();
    response
}
