//! Making a key and recognizing it.

use std::fmt;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use sha2::{Digest as _, Sha256};
use subtle::ConstantTimeEq as _;
use weir_core::TenantId;
use weir_core::tenancy::{KeyRecord, Scope};

/// Bytes of the public part.
const ID_BYTES: usize = 6;
/// Bytes of the secret.
const SECRET_BYTES: usize = 32;

/// A key that has just been made. Its text is shown once and kept nowhere.
pub struct FreshKey {
    /// What is kept of it.
    pub record: KeyRecord,
    /// The key itself.
    pub text: String,
}

impl fmt::Debug for FreshKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.record.fmt(f)
    }
}

/// The system gave no random bytes.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("no key can be made: the system's random generator failed: {0}")]
pub struct MintError(String);

/// Makes a key for a tenant. `now_millis` is the time in milliseconds since 1970.
pub fn mint(
    tenant: &TenantId,
    mut scopes: Vec<Scope>,
    label: &str,
    now_millis: u64,
    expires_millis: Option<u64>,
) -> Result<FreshKey, MintError> {
    let mut random = [0u8; ID_BYTES + SECRET_BYTES];
    fill(&mut random).map_err(MintError)?;
    let (id, secret) = random.split_at(ID_BYTES);
    let id: String = id.iter().map(|byte| format!("{byte:02x}")).collect();
    let secret = URL_SAFE_NO_PAD.encode(secret);
    scopes.sort_unstable();
    scopes.dedup();
    Ok(FreshKey {
        text: format!("weir_{id}_{secret}"),
        record: KeyRecord {
            id,
            tenant: tenant.clone(),
            scopes,
            digest: Sha256::digest(secret.as_bytes()).into(),
            label: label.to_owned(),
            created_millis: now_millis,
            expires_millis,
            revoked_millis: None,
        },
    })
}

/// Fills `bytes` from the system's generator; an error says why it could not.
pub(crate) fn fill(bytes: &mut [u8]) -> Result<(), String> {
    let mut filled = 0;
    while let Some(rest) = bytes.get_mut(filled..).filter(|rest| !rest.is_empty()) {
        filled += rustix::rand::getrandom(rest, rustix::rand::GetRandomFlags::empty())
            .map_err(|e| e.to_string())?;
    }
    Ok(())
}

/// A key as a client sent it.
pub(super) struct Presented<'a> {
    id: &'a str,
    secret: &'a str,
}

impl<'a> Presented<'a> {
    pub(super) fn parse(text: &'a str) -> Option<Self> {
        let (id, secret) = text.strip_prefix("weir_")?.split_once('_')?;
        let well_formed = id.len() == 2 * ID_BYTES && id.bytes().all(|b| b.is_ascii_hexdigit());
        (well_formed && secret.len() <= 64).then_some(Self { id, secret })
    }

    pub(super) const fn id(&self) -> &'a str {
        self.id
    }
}

/// The record, if the key presented is the one it was made for and it still counts.
pub(super) fn matches(presented: &Presented<'_>, record: Option<KeyRecord>, now: u64) -> Option<KeyRecord> {
    let digest: [u8; 32] = Sha256::digest(presented.secret.as_bytes()).into();
    // An unknown key is compared as well, so that it takes as long.
    let kept = record.as_ref().map_or([0; 32], |record| record.digest);
    let same = bool::from(digest.ct_eq(&kept));
    record.filter(|record| same && counts(record, now))
}

/// Whether a key is neither revoked nor expired.
pub(super) fn counts(record: &KeyRecord, now: u64) -> bool {
    record.revoked_millis.is_none() && record.expires_millis.is_none_or(|end| now < end)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fresh(expires: Option<u64>) -> FreshKey {
        mint(
            &TenantId::single(),
            vec![Scope::Read, Scope::Ingest, Scope::Read],
            "",
            1000,
            expires,
        )
        .unwrap()
    }

    #[test]
    fn a_key_is_recognized_and_a_changed_one_is_not() {
        let key = fresh(None);
        assert_eq!(key.record.scopes, [Scope::Ingest, Scope::Read]);
        let presented = Presented::parse(&key.text).unwrap();
        assert!(matches(&presented, Some(key.record.clone()), 2000).is_some());
        assert!(matches(&presented, Some(fresh(None).record), 2000).is_none());
        assert!(matches(&presented, None, 2000).is_none());
        let changed = format!("{}x", &key.text[..key.text.len() - 1]);
        let presented = Presented::parse(&changed).unwrap();
        assert!(key.text == changed || matches(&presented, Some(key.record), 2000).is_none());
    }

    #[test]
    fn keys_end() {
        let mut key = fresh(Some(5000));
        let presented = Presented::parse(&key.text).unwrap();
        assert!(matches(&presented, Some(key.record.clone()), 4999).is_some());
        assert!(matches(&presented, Some(key.record.clone()), 5000).is_none());
        key.record.revoked_millis = Some(1500);
        assert!(matches(&presented, Some(key.record), 1600).is_none());
    }

    #[test]
    fn what_is_no_key_is_not_looked_up() {
        for text in [
            "",
            "weir_",
            "weir_x_y",
            "other_0123456789ab_s",
            "weir_0123456789az_s",
        ] {
            assert!(Presented::parse(text).is_none(), "{text}");
        }
        assert!(Presented::parse(&format!("weir_0123456789ab_{}", "s".repeat(65))).is_none());
    }

    #[test]
    fn a_key_is_not_shown_by_accident() {
        let key = fresh(None);
        let secret = key.text.rsplit('_').next().unwrap().to_owned();
        assert!(!format!("{key:?}").contains(&secret));
    }
}
