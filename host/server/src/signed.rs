//! Links that work without a key for a while: page images and lines.
//!
//! An `<img>` cannot send a key, so an answer that names an image carries a link with the time of its end and a signature
//! over tenant, blob key and that time. Nothing is kept of a link, and nothing is looked up for it: whoever has the host's
//! signing key can tell a true one. It is good for one blob of one tenant and cannot be taken back before its time, which
//! is why that is short.

use std::fmt;
use std::fs::{File, OpenOptions};
use std::io::{ErrorKind, Read as _, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;
use std::sync::Arc;

use axum::extract::State;
use axum::http::HeaderMap;
use axum::response::Response;
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use hmac::{Hmac, KeyInit as _, Mac as _};
use serde::Deserialize;
use sha2::Sha256;
use utoipa::IntoParams;
use weir_core::search::lines_key;
use weir_core::tenancy::TenantState;
use weir_core::{DocumentId, PageNumber, StorageError, TenantId};

use crate::app::{App, now_millis};
use crate::auth::random;
use crate::problem::Problem;
use crate::stored::{Stored, image_type};
use crate::wire::{Params, Route};

/// Name of the key's file.
const FILE: &str = "links.key";
const KEY_BYTES: usize = 32;
/// Links end at full minutes, so that a page that is asked for again has the same links and the browser its images.
const STEP: u64 = 60;

/// The host's key for links.
pub struct SigningKey([u8; KEY_BYTES]);

impl fmt::Debug for SigningKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SigningKey")
    }
}

impl SigningKey {
    /// The key in `<data>/links.key`, which only the host's user can read; made if there is none. Hosts that share their
    /// documents share it, and removing it ends all links.
    pub fn open(data: &Path) -> Result<Self, StorageError> {
        let path = data.join(FILE);
        let what = path.display().to_string();
        match File::open(&path) {
            Ok(file) => Self::read(file, what),
            Err(error) if error.kind() == ErrorKind::NotFound => Self::make(data, &path),
            Err(error) => Err(StorageError::io(what, &error)),
        }
    }

    fn read(mut file: File, what: String) -> Result<Self, StorageError> {
        let mut key = [0; KEY_BYTES];
        let damaged = |reason: String| StorageError::Damaged {
            what: what.clone(),
            reason: format!("{reason}: remove it to have a new one made, which ends all links"),
        };
        file.read_exact(&mut key).map_err(|e| damaged(e.to_string()))?;
        Ok(Self(key))
    }

    /// Written under another name and linked into place whole; if another process was first, its key counts.
    fn make(data: &Path, path: &Path) -> Result<Self, StorageError> {
        let what = || path.display().to_string();
        let mut key = [0; KEY_BYTES];
        random(&mut key).map_err(|reason| StorageError::Failed { what: what(), reason })?;
        let unfinished = data.join(format!("{FILE}.{}", std::process::id()));
        let written = OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(true)
            .mode(0o600)
            .open(&unfinished)
            .and_then(|mut file| file.write_all(&key).and_then(|()| file.sync_all()))
            .and_then(|()| match std::fs::hard_link(&unfinished, path) {
                Err(error) if error.kind() == ErrorKind::AlreadyExists => Ok(()),
                linked => linked,
            })
            .and_then(|()| File::open(data)?.sync_all());
        let _ = std::fs::remove_file(&unfinished);
        written.map_err(|e| StorageError::io(what(), &e))?;
        Self::read(
            File::open(path).map_err(|e| StorageError::io(what(), &e))?,
            what(),
        )
    }
}

/// Makes links and checks them.
pub(crate) struct Links {
    key: SigningKey,
    seconds: u64,
}

impl Links {
    /// Links that last `seconds`, and at most a minute longer.
    pub(crate) const fn new(key: SigningKey, seconds: u64) -> Self {
        Self { key, seconds }
    }

    /// A link to a tenant's blob: a path on this host.
    pub(crate) fn to(&self, tenant: &TenantId, key: &str) -> String {
        self.at(tenant, key, now_millis() / 1000)
    }

    fn at(&self, tenant: &TenantId, key: &str, now: u64) -> String {
        let expires = (now + self.seconds).next_multiple_of(STEP);
        let signature = self.mac(tenant, key, expires).finalize().into_bytes();
        let signature = URL_SAFE_NO_PAD.encode(signature);
        format!("/v1/files/{tenant}/{key}?expires={expires}&signature={signature}")
    }

    /// Whether the host made this link and it has not ended; compared in constant time.
    fn is_good(&self, tenant: &TenantId, key: &str, link: &Link, now: u64) -> bool {
        let signature = URL_SAFE_NO_PAD.decode(&link.signature).unwrap_or_default();
        let genuine = self
            .mac(tenant, key, link.expires)
            .verify_slice(&signature)
            .is_ok();
        genuine && now < link.expires
    }

    fn mac(&self, tenant: &TenantId, key: &str, expires: u64) -> Hmac<Sha256> {
        // HMAC takes keys of any length.
        let mut mac = Hmac::<Sha256>::new_from_slice(&self.key.0).unwrap_or_else(|_| unreachable!());
        // Neither a tenant's name nor a number can hold a line break, so no two texts are the same.
        mac.update(format!("weir link 1\n{tenant}\n{expires}\n{key}").as_bytes());
        mac
    }
}

/// A link's query.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(crate) struct Link {
    /// When it ends, in seconds since 1970.
    expires: u64,
    /// What makes it genuine.
    signature: String,
}

/// A page's image by a signed link.
///
/// Needs no key: use the links of other answers as they are.
#[utoipa::path(get, path = "/v1/files/{tenant}/{document}/{page}/image/{file}", tag = "documents", security(()),
    params(
        ("tenant" = String, Path, description = "as in the link"),
        ("document" = String, Path, description = "as in the link"),
        ("page" = u32, Path, description = "as in the link"),
        ("file" = String, Path, description = "as in the link"),
        Link,
    ),
    responses(
        (status = 200, description = "the image", content_type = "image/jpeg", body = [u8]),
        (status = 304, description = "it is what If-None-Match says"),
        (status = 400, description = "no link", body = Problem, content_type = "application/problem+json"),
        (status = 403, description = "not genuine, or ended", body = Problem, content_type = "application/problem+json"),
        (status = 404, description = "gone", body = Problem, content_type = "application/problem+json"),
    ))]
pub(crate) async fn signed_image(
    State(app): State<Arc<App>>,
    Route((tenant, document, page, file)): Route<(TenantId, DocumentId, PageNumber, String)>,
    Params(link): Params<Link>,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    let key = format!("{document}/{page}/image/{file}");
    let media_type = image_type(&key);
    let extension = if media_type == "image/webp" { "webp" } else { "jpg" };
    let (bytes, fresh) = open(&app, &tenant, &key, &link).await?;
    let name = format!("page-{page}.{extension}");
    Ok(Stored {
        bytes,
        media_type,
        name,
        fresh,
    }
    .answer(&headers))
}

/// A page's lines by a signed link.
///
/// Needs no key: use the links of other answers as they are.
#[utoipa::path(get, path = "/v1/files/{tenant}/{document}/{page}/ocr.json", tag = "documents", security(()),
    params(
        ("tenant" = String, Path, description = "as in the link"),
        ("document" = String, Path, description = "as in the link"),
        ("page" = u32, Path, description = "as in the link"),
        Link,
    ),
    responses(
        (status = 200, description = "the lines", content_type = "application/json", body = serde_json::Value),
        (status = 304, description = "it is what If-None-Match says"),
        (status = 400, description = "no link", body = Problem, content_type = "application/problem+json"),
        (status = 403, description = "not genuine, or ended", body = Problem, content_type = "application/problem+json"),
        (status = 404, description = "gone", body = Problem, content_type = "application/problem+json"),
    ))]
pub(crate) async fn signed_lines(
    State(app): State<Arc<App>>,
    Route((tenant, document, page)): Route<(TenantId, DocumentId, PageNumber)>,
    Params(link): Params<Link>,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    let key = lines_key(&document, page);
    let (bytes, fresh) = open(&app, &tenant, &key, &link).await?;
    let name = format!("page-{page}.json");
    Ok(Stored {
        bytes,
        media_type: "application/json",
        name,
        fresh,
    }
    .answer(&headers))
}

/// The blob behind a link, and for how many seconds more it may be had.
async fn open(app: &App, tenant: &TenantId, key: &str, link: &Link) -> Result<(Vec<u8>, u64), Problem> {
    let now = now_millis() / 1000;
    // The same words in every case, so that nothing is learnt of what is there.
    let refused = || {
        Problem::forbidden("the link has ended or is not genuine: ask for the page again to get a new one")
    };
    if !app.links.is_good(tenant, key, link, now) {
        return Err(refused());
    }
    let tenant_now = app.registry.tenant(tenant).await?;
    if tenant_now.is_none_or(|tenant| tenant.state != TenantState::Active) {
        return Err(refused());
    }
    let bytes = app.engine.ports().blobs.get(tenant, key).await?;
    let bytes = bytes.ok_or_else(|| Problem::not_found("the page is not kept any more"))?;
    Ok((bytes, link.expires.saturating_sub(now)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt as _;

    fn links() -> Links {
        Links::new(SigningKey([7; KEY_BYTES]), 900)
    }

    fn parsed(link: &str) -> Link {
        let (_, query) = link.split_once("?expires=").unwrap();
        let (expires, signature) = query.split_once("&signature=").unwrap();
        Link {
            expires: expires.parse().unwrap(),
            signature: signature.into(),
        }
    }

    #[test]
    fn a_link_is_good_for_one_blob_of_one_tenant_until_its_end() {
        let (links, tenant) = (links(), "a".parse().unwrap());
        let link = links.at(&tenant, "d/1/image/150.jpg", 1000);
        assert!(
            link.starts_with("/v1/files/a/d/1/image/150.jpg?expires=1920&"),
            "{link}"
        );
        let link = parsed(&link);
        let good = |tenant: &TenantId, key, link: &Link, now| links.is_good(tenant, key, link, now);
        assert!(good(&tenant, "d/1/image/150.jpg", &link, 1919));
        assert!(!good(&tenant, "d/1/image/150.jpg", &link, 1920), "it has ended");
        assert!(!good(&"b".parse().unwrap(), "d/1/image/150.jpg", &link, 1000));
        assert!(!good(&tenant, "d/2/image/150.jpg", &link, 1000));
        let longer = Link {
            expires: 9999,
            signature: link.signature.clone(),
        };
        assert!(!good(&tenant, "d/1/image/150.jpg", &longer, 1000));
        for signature in ["", "x", "AAAA"] {
            let forged = Link {
                expires: link.expires,
                signature: signature.into(),
            };
            assert!(!good(&tenant, "d/1/image/150.jpg", &forged, 1000));
        }
        let other = Links::new(SigningKey([8; KEY_BYTES]), 900);
        assert!(!other.is_good(&tenant, "d/1/image/150.jpg", &link, 1000));
    }

    #[test]
    fn links_made_within_a_minute_are_the_same() {
        let (links, tenant) = (links(), "a".parse().unwrap());
        assert_eq!(links.at(&tenant, "k", 961), links.at(&tenant, "k", 1020));
        assert_ne!(links.at(&tenant, "k", 961), links.at(&tenant, "k", 1021));
    }

    #[test]
    fn the_key_is_made_once_and_private() {
        let data = tempfile::tempdir().unwrap();
        let first = SigningKey::open(data.path()).unwrap();
        let again = SigningKey::open(data.path()).unwrap();
        assert_eq!(first.0, again.0);
        assert_ne!(first.0, [0; KEY_BYTES]);
        let file = data.path().join(FILE);
        assert_eq!(
            std::fs::metadata(&file).unwrap().permissions().mode() & 0o777,
            0o600
        );
        assert_eq!(
            std::fs::read_dir(data.path()).unwrap().count(),
            1,
            "nothing is left beside it"
        );
        assert!(!format!("{first:?}").contains(&format!("{}", first.0[0])));
        std::fs::write(&file, b"short").unwrap();
        let error = SigningKey::open(data.path()).unwrap_err();
        assert!(matches!(error, StorageError::Damaged { .. }), "{error}");
    }
}
