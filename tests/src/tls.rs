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
pub struct Certificate {
    pub chain: &'static str,
    pub key: &'static str,
}

pub const FIRST: Certificate = Certificate {
    chain: include_str!("tls/first.pem"),
    key: include_str!("tls/first.key.pem"),
};
pub const SECOND: Certificate = Certificate {
    chain: include_str!("tls/second.pem"),
    key: include_str!("tls/second.key.pem"),
};

impl Certificate {
    /// Puts the files `chain.pem` and `key.pem` into a folder.
    pub fn write(&self, folder: &Path) {
        std::fs::write(folder.join("key.pem"), self.key).unwrap();
        std::fs::write(folder.join("chain.pem"), self.chain).unwrap();
    }

    pub fn der(&self) -> CertificateDer<'static> {
        CertificateDer::from_pem_slice(self.chain.as_bytes()).unwrap()
    }
}

/// A client that trusts the certificates of this module.
pub fn client() -> Arc<ClientConfig> {
    let mut roots = RootCertStore::empty();
    roots.add_parsable_certificates([FIRST.der(), SECOND.der()]);
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    Arc::new(config)
}

/// A connection whose handshake is made with the first byte.
pub fn connect(config: &Arc<ClientConfig>, stream: TcpStream) -> StreamOwned<ClientConnection, TcpStream> {
    let name = "127.0.0.1".try_into().unwrap();
    StreamOwned::new(ClientConnection::new(Arc::clone(config), name).unwrap(), stream)
}

/// The response to a GET with a key, head and body.
pub fn get(address: SocketAddr, path: &str, key: &str) -> String {
    let mut stream = connect(&client(), TcpStream::connect(address).unwrap());
    let request = format!(
        "GET {path} HTTP/1.1\r\nHost: weir\r\nAuthorization: Bearer {key}\r\nConnection: close\r\n\r\n"
    );
    stream.write_all(request.as_bytes()).unwrap();
    let mut response = String::new();
    stream.read_to_string(&mut response).unwrap();
    response
}
