//! Generates and verifies API keys.

use std::fmt;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use data_encoding::HEXLOWER;
use sha2::{Digest as _, Sha256};
use subtle::ConstantTimeEq as _;
use weir_core::TenantId;
use weir_core::tenancy::{ApiKeyRecord, KeyScope};

const KEY_ID_BYTES: usize = 6;
const KEY_SECRET_BYTES: usize = 32;

/// A newly generated API key. The key itself is shown once and stored nowhere.
pub struct GeneratedApiKey {
    /// The record to store, with a hash of the secret.
    pub record: ApiKeyRecord,
    /// The complete key, `weir_<id>_<secret>`.
    pub full_key: String,
}

impl fmt::Debug for GeneratedApiKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.record.fmt(f)
    }
}

/// The random generator of the system failed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("cannot generate a key: the random generator of the system failed: {0}")]
pub struct KeyGenerationError(String);

/// Generates a key for a tenant. `now_millis` and `expires_millis` are in milliseconds since 1970.
pub fn generate_api_key(
    tenant: &TenantId,
    mut scopes: Vec<KeyScope>,
    label: &str,
    now_millis: u64,
    expires_millis: Option<u64>,
) -> Result<GeneratedApiKey, KeyGenerationError> {
    let mut random = [0u8; KEY_ID_BYTES + KEY_SECRET_BYTES];
    fill_with_random_bytes(&mut random)?;
    let (id, secret) = random.split_at(KEY_ID_BYTES);
    let id = HEXLOWER.encode(id);
    let secret = URL_SAFE_NO_PAD.encode(secret);
    scopes.sort_unstable();
    scopes.dedup();
    Ok(GeneratedApiKey {
        full_key: format!("weir_{id}_{secret}"),
        record: ApiKeyRecord {
            id,
            tenant: tenant.clone(),
            scopes,
            secret_digest: Sha256::digest(secret.as_bytes()).into(),
            display_name: label.to_owned(),
            created_millis: now_millis,
            expires_millis,
            revoked_millis: None,
        },
    })
}

/// Fills `bytes` from the random generator of the system.
pub fn fill_with_random_bytes(bytes: &mut [u8]) -> Result<(), KeyGenerationError> {
    let mut filled = 0;
    while let Some(rest) = bytes.get_mut(filled..).filter(|rest| !rest.is_empty()) {
        filled += rustix::rand::getrandom(rest, rustix::rand::GetRandomFlags::empty())
            .map_err(|e| KeyGenerationError(e.to_string()))?;
    }
    Ok(())
}

/// A syntactically valid key that a client sent.
pub struct PresentedKey<'a> {
    id: &'a str,
    secret: &'a str,
}

impl<'a> PresentedKey<'a> {
    /// Parses a key; `None` if it is malformed.
    pub fn parse(text: &'a str) -> Option<Self> {
        let (id, secret) = text.strip_prefix("weir_")?.split_once('_')?;
        let well_formed = id.len() == 2 * KEY_ID_BYTES && id.bytes().all(|b| b.is_ascii_hexdigit());
        (well_formed && secret.len() <= 64).then_some(Self { id, secret })
    }

    /// Returns the public part of the key.
    pub const fn key_id(&self) -> &'a str {
        self.id
    }
}

/// Returns the record if the presented key belongs to it and is neither revoked nor expired.
pub fn verify_api_key(
    presented: &PresentedKey<'_>,
    record: Option<ApiKeyRecord>,
    now: u64,
) -> Option<ApiKeyRecord> {
    let digest: [u8; 32] = Sha256::digest(presented.secret.as_bytes()).into();
    // An unknown key is compared too, so that the response time does not tell it from a known one.
    let stored_digest = record.as_ref().map_or([0; 32], |record| record.secret_digest);
    let digest_matches = bool::from(digest.ct_eq(&stored_digest));
    record.filter(|record| digest_matches && is_api_key_active(record, now))
}

/// Whether a key is neither revoked nor expired.
pub fn is_api_key_active(record: &ApiKeyRecord, now: u64) -> bool {
    record.revoked_millis.is_none() && record.expires_millis.is_none_or(|end| now < end)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn generate_test_key(expires: Option<u64>) -> GeneratedApiKey {
        generate_api_key(
            &TenantId::default_tenant(),
            vec![KeyScope::Read, KeyScope::Ingest, KeyScope::Read],
            "",
            1000,
            expires,
        )
        .unwrap()
    }

    #[test]
    fn correct_key_is_verified_and_a_changed_one_is_not() {
        let key = generate_test_key(None);
        assert_eq!(key.record.scopes, [KeyScope::Ingest, KeyScope::Read]);
        let presented = PresentedKey::parse(&key.full_key).unwrap();
        assert!(verify_api_key(&presented, Some(key.record.clone()), 2000).is_some());
        assert!(verify_api_key(&presented, Some(generate_test_key(None).record), 2000).is_none());
        assert!(verify_api_key(&presented, None, 2000).is_none());
        let changed = format!("{}x", &key.full_key[..key.full_key.len() - 1]);
        let presented = PresentedKey::parse(&changed).unwrap();
        assert!(key.full_key == changed || verify_api_key(&presented, Some(key.record), 2000).is_none());
    }

    #[test]
    fn expired_and_revoked_keys_are_rejected() {
        let mut key = generate_test_key(Some(5000));
        let presented = PresentedKey::parse(&key.full_key).unwrap();
        assert!(verify_api_key(&presented, Some(key.record.clone()), 4999).is_some());
        assert!(verify_api_key(&presented, Some(key.record.clone()), 5000).is_none());
        key.record.revoked_millis = Some(1500);
        assert!(verify_api_key(&presented, Some(key.record), 1600).is_none());
    }

    #[test]
    fn malformed_key_is_rejected_before_the_lookup() {
        for text in [
            "",
            "weir_",
            "weir_x_y",
            "other_0123456789ab_s",
            "weir_0123456789az_s",
        ] {
            assert!(PresentedKey::parse(text).is_none(), "{text}");
        }
        assert!(PresentedKey::parse(&format!("weir_0123456789ab_{}", "s".repeat(65))).is_none());
    }

    #[test]
    fn debug_output_does_not_contain_the_secret() {
        let key = generate_test_key(None);
        let secret = key.full_key.rsplit('_').next().unwrap().to_owned();
        assert!(!format!("{key:?}").contains(&secret));
    }
}
