//! Why the listener cannot be set up.

use std::net::SocketAddr;
use std::path::PathBuf;

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
