//! Signed links: time-limited access to page images and text lines without an API key.
//!
//! An `<img>` element cannot send a key. So a response that names an image contains a link with an expiry time and a signature over
//! tenant, blob key and expiry time. Links are not stored: every host with the signing key can verify them. A link gives access to
//! one blob of one tenant. It cannot be revoked before it expires, so its lifetime is short.

use std::fmt;
use std::fs::{File, OpenOptions};
use std::io::{ErrorKind, Read as _, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use hmac::{Hmac, KeyInit as _, Mac as _};
use serde::Deserialize;
use sha2::Sha256;
use utoipa::IntoParams;
use weir_control::api_key::fill_with_random_bytes;
use weir_core::clock::unix_time_millis;
use weir_core::{StorageError, TenantId};

/// The name of the key file in the data folder.
const SIGNING_KEY_FILE: &str = "links.key";
const KEY_BYTES: usize = 32;
/// Expiry times are multiples of this number of seconds. So a page that is requested again has the same links, and the browser
/// can use its cached images.
const EXPIRY_STEP_SECONDS: u64 = 60;

/// The key with which the host signs links.
pub struct SigningKey([u8; KEY_BYTES]);

impl fmt::Debug for SigningKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SigningKey")
    }
}

impl SigningKey {
    /// Reads the key from `<data>/links.key`, or creates the file if it does not exist. Only the user of the host can read it. Hosts
    /// that share documents have to share the file. Removing it invalidates all links.
    pub fn load_or_create_key(data: &Path) -> Result<Self, StorageError> {
        let path = data.join(SIGNING_KEY_FILE);
        let what = path.display().to_string();
        match File::open(&path) {
            Ok(file) => Self::read_key_file(file, what),
            Err(error) if error.kind() == ErrorKind::NotFound => Self::create_key_file(data, &path),
            Err(error) => Err(StorageError::from_io_error(what, &error)),
        }
    }

    fn read_key_file(mut file: File, what: String) -> Result<Self, StorageError> {
        let mut key = [0; KEY_BYTES];
        let damaged = |reason: String| StorageError::Damaged {
            what: what.clone(),
            reason: format!("{reason}: remove it to create a new key, which invalidates all links"),
        };
        file.read_exact(&mut key).map_err(|e| damaged(e.to_string()))?;
        Ok(Self(key))
    }

    /// Writes a new key under a temporary name and links it into place, so that the file is never incomplete. If another process
    /// was first, its key is used.
    fn create_key_file(data: &Path, path: &Path) -> Result<Self, StorageError> {
        let what = || path.display().to_string();
        let mut key = [0; KEY_BYTES];
        fill_with_random_bytes(&mut key).map_err(|reason| StorageError::Failed { what: what(), reason })?;
        let temporary_path = data.join(format!("{SIGNING_KEY_FILE}.{}", std::process::id()));
        let written = OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(true)
            .mode(0o600)
            .open(&temporary_path)
            .and_then(|mut file| file.write_all(&key).and_then(|()| file.sync_all()))
            .and_then(|()| match std::fs::hard_link(&temporary_path, path) {
                Err(error) if error.kind() == ErrorKind::AlreadyExists => Ok(()),
                linked => linked,
            })
            .and_then(|()| File::open(data)?.sync_all());
        let _ = std::fs::remove_file(&temporary_path);
        written.map_err(|e| StorageError::from_io_error(what(), &e))?;
        Self::read_key_file(
            File::open(path).map_err(|e| StorageError::from_io_error(what(), &e))?,
            what(),
        )
    }
}

/// Creates and verifies signed links.
pub(crate) struct LinkSigner {
    signing_key: SigningKey,
    lifetime_seconds: u64,
}

impl LinkSigner {
    /// Creates a signer for links that are valid for `seconds`, and at most one minute longer.
    pub(crate) const fn new(key: SigningKey, seconds: u64) -> Self {
        Self {
            signing_key: key,
            lifetime_seconds: seconds,
        }
    }

    /// Returns a signed link to a blob of a tenant, as a path on this host.
    pub(crate) fn sign_link(&self, tenant: &TenantId, key: &str) -> String {
        self.sign_link_at(tenant, key, unix_time_millis() / 1000)
    }

    fn sign_link_at(&self, tenant: &TenantId, key: &str, now: u64) -> String {
        let expires = (now + self.lifetime_seconds).next_multiple_of(EXPIRY_STEP_SECONDS);
        let signature = self.link_mac(tenant, key, expires).finalize().into_bytes();
        let signature = URL_SAFE_NO_PAD.encode(signature);
        format!("/v1/files/{tenant}/{key}?expires={expires}&signature={signature}")
    }

    /// Whether the link has a valid signature and has not expired. The signatures are compared in constant time.
    pub(crate) fn is_link_valid(
        &self,
        tenant: &TenantId,
        key: &str,
        link: &SignedLinkQuery,
        now: u64,
    ) -> bool {
        let signature = URL_SAFE_NO_PAD.decode(&link.signature).unwrap_or_default();
        let has_valid_signature = self
            .link_mac(tenant, key, link.expires)
            .verify_slice(&signature)
            .is_ok();
        has_valid_signature && now < link.expires
    }

    fn link_mac(&self, tenant: &TenantId, key: &str, expires: u64) -> Hmac<Sha256> {
        // HMAC takes keys of any length.
        let mut mac = Hmac::<Sha256>::new_from_slice(&self.signing_key.0).unwrap_or_else(|_| unreachable!());
        // Neither a tenant's name nor a number can contain a line break, so different links never have the same text.
        mac.update(format!("weir link 1\n{tenant}\n{expires}\n{key}").as_bytes());
        mac
    }
}

/// The query parameters of a signed link.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(crate) struct SignedLinkQuery {
    /// When the link expires, in seconds since 1970.
    pub(crate) expires: u64,
    /// The signature of the link.
    pub(crate) signature: String,
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt as _;

    fn test_signer() -> LinkSigner {
        LinkSigner::new(SigningKey([7; KEY_BYTES]), 900)
    }

    fn parse_link(link: &str) -> SignedLinkQuery {
        let (_, query) = link.split_once("?expires=").unwrap();
        let (expires, signature) = query.split_once("&signature=").unwrap();
        SignedLinkQuery {
            expires: expires.parse().unwrap(),
            signature: signature.into(),
        }
    }

    #[test]
    fn link_is_valid_for_one_blob_of_one_tenant_until_it_expires() {
        let (links, tenant) = (test_signer(), "a".parse().unwrap());
        let link = links.sign_link_at(&tenant, "d/1/image/150.jpg", 1000);
        assert!(
            link.starts_with("/v1/files/a/d/1/image/150.jpg?expires=1920&"),
            "{link}"
        );
        let link = parse_link(&link);
        let good =
            |tenant: &TenantId, key, link: &SignedLinkQuery, now| links.is_link_valid(tenant, key, link, now);
        assert!(good(&tenant, "d/1/image/150.jpg", &link, 1919));
        assert!(!good(&tenant, "d/1/image/150.jpg", &link, 1920), "it has expired");
        assert!(!good(&"b".parse().unwrap(), "d/1/image/150.jpg", &link, 1000));
        assert!(!good(&tenant, "d/2/image/150.jpg", &link, 1000));
        let longer = SignedLinkQuery {
            expires: 9999,
            signature: link.signature.clone(),
        };
        assert!(!good(&tenant, "d/1/image/150.jpg", &longer, 1000));
        for signature in ["", "x", "AAAA"] {
            let forged = SignedLinkQuery {
                expires: link.expires,
                signature: signature.into(),
            };
            assert!(!good(&tenant, "d/1/image/150.jpg", &forged, 1000));
        }
        let other = LinkSigner::new(SigningKey([8; KEY_BYTES]), 900);
        assert!(!other.is_link_valid(&tenant, "d/1/image/150.jpg", &link, 1000));
    }

    #[test]
    fn links_made_within_a_minute_are_the_same() {
        let (links, tenant) = (test_signer(), "a".parse().unwrap());
        assert_eq!(
            links.sign_link_at(&tenant, "k", 961),
            links.sign_link_at(&tenant, "k", 1020)
        );
        assert_ne!(
            links.sign_link_at(&tenant, "k", 961),
            links.sign_link_at(&tenant, "k", 1021)
        );
    }

    #[test]
    fn key_file_is_created_once_and_is_private() {
        let data = tempfile::tempdir().unwrap();
        let first = SigningKey::load_or_create_key(data.path()).unwrap();
        let again = SigningKey::load_or_create_key(data.path()).unwrap();
        assert_eq!(first.0, again.0);
        assert_ne!(first.0, [0; KEY_BYTES]);
        let file = data.path().join(SIGNING_KEY_FILE);
        assert_eq!(
            std::fs::metadata(&file).unwrap().permissions().mode() & 0o777,
            0o600
        );
        assert_eq!(
            std::fs::read_dir(data.path()).unwrap().count(),
            1,
            "no temporary file is left"
        );
        assert!(!format!("{first:?}").contains(&format!("{}", first.0[0])));
        std::fs::write(&file, b"short").unwrap();
        let error = SigningKey::load_or_create_key(data.path()).unwrap_err();
        assert!(matches!(error, StorageError::Damaged { .. }), "{error}");
    }
}
