//! Signed links: time-limited access to page images and text lines without an API key.
//!
//! An `<img>` element cannot send a key. So a response that names an image contains a link with an expiry time and a signature over
//! tenant, blob key and expiry time. Links are not stored: every host with the signing key can verify them. A link gives access to
//! one blob of one tenant. It cannot be revoked before it expires, so its lifetime is short.

use std::fmt;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use hmac::{Hmac, KeyInit as _, Mac as _};
use serde::Deserialize;
use sha2::Sha256;
use utoipa::IntoParams;
use weir_control::api_key::{KeyGenerationError, fill_with_random_bytes};
use weir_core::TenantId;
use weir_core::clock::unix_time_millis;

/// Expiry times are multiples of this number of seconds. So a page that is requested again has the same links, and the browser
/// can use its cached images.
const EXPIRY_STEP_SECONDS: u64 = 60;

/// The key with which links are signed. All hosts that serve the same documents need the same key.
pub struct SigningKey([u8; Self::BYTES]);

impl fmt::Debug for SigningKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SigningKey")
    }
}

impl SigningKey {
    /// Size of a key in bytes.
    pub const BYTES: usize = 32;

    /// Generates a random key.
    pub fn generate() -> Result<Self, KeyGenerationError> {
        let mut key = [0; Self::BYTES];
        fill_with_random_bytes(&mut key)?;
        Ok(Self(key))
    }

    /// Creates the key from its bytes.
    #[must_use]
    pub const fn from_bytes(key: [u8; Self::BYTES]) -> Self {
        Self(key)
    }

    /// Returns the key, which must be kept secret.
    #[must_use]
    pub const fn to_bytes(&self) -> [u8; Self::BYTES] {
        self.0
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

    fn test_signer() -> LinkSigner {
        LinkSigner::new(SigningKey([7; SigningKey::BYTES]), 900)
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
        let other = LinkSigner::new(SigningKey([8; SigningKey::BYTES]), 900);
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
    fn generated_keys_differ_and_are_not_printed() {
        let (key, other) = (SigningKey::generate().unwrap(), SigningKey::generate().unwrap());
        assert_ne!(key.to_bytes(), other.to_bytes());
        assert_eq!(format!("{key:?}"), "SigningKey");
    }
}
