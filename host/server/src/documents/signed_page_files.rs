//! Page images and text lines by signed links, without a key.

use std::sync::Arc;

use axum::extract::State;
use axum::http::HeaderMap;
use axum::response::Response;
use weir_control::Control;
use weir_core::clock::unix_time_millis;
use weir_core::search::page_lines_blob_key;
use weir_core::tenancy::TenantState;
use weir_core::{DocumentId, PageNumber, TenantId};

use crate::http_input::{PathParams, QueryParams};
use crate::problem::Problem;
use crate::signed_links::{LinkSigner, SignedLinkQuery};
use crate::stored_bytes_response::{StoredBytesResponse, image_media_type};

/// Get a page image by a signed link.
///
/// This request needs no key. Use the links in other responses unchanged.
#[utoipa::path(get, path = "/v1/files/{tenant}/{document}/{page}/image/{file}", tag = "documents", security(()),
    params(
        ("tenant" = String, Path, description = "As in the signed link"),
        ("document" = String, Path, description = "As in the signed link"),
        ("page" = u32, Path, description = "As in the signed link"),
        ("file" = String, Path, description = "As in the signed link"),
        SignedLinkQuery,
    ),
    responses(
        (status = 200, description = "The image", content_type = "image/jpeg", body = [u8]),
        (status = 304, description = "The entity tag matches If-None-Match"),
        (status = 400, description = "The link is malformed", body = Problem, content_type = "application/problem+json"),
        (status = 403, description = "The signature is invalid, or the link has expired", body = Problem, content_type = "application/problem+json"),
        (status = 404, description = "The image does not exist any more", body = Problem, content_type = "application/problem+json"),
    ))]
pub(crate) async fn get_signed_image(
    State(control): State<Arc<Control>>,
    State(link_signer): State<Arc<LinkSigner>>,
    PathParams((tenant, document, page, file)): PathParams<(TenantId, DocumentId, PageNumber, String)>,
    QueryParams(link): QueryParams<SignedLinkQuery>,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    let key = format!("{document}/{page}/image/{file}");
    let media_type = image_media_type(&key);
    let extension = if media_type == "image/webp" { "webp" } else { "jpg" };
    let (bytes, seconds_valid) =
        verify_link_and_read_blob(&control, &link_signer, &tenant, &key, &link).await?;
    let name = format!("page-{page}.{extension}");
    Ok(StoredBytesResponse {
        bytes,
        media_type,
        file_name: name,
        max_age_seconds: seconds_valid,
    }
    .build_response(&headers))
}

/// Get the text lines of a page by a signed link.
///
/// This request needs no key. Use the links in other responses unchanged.
#[utoipa::path(get, path = "/v1/files/{tenant}/{document}/{page}/ocr.json", tag = "documents", security(()),
    params(
        ("tenant" = String, Path, description = "As in the signed link"),
        ("document" = String, Path, description = "As in the signed link"),
        ("page" = u32, Path, description = "As in the signed link"),
        SignedLinkQuery,
    ),
    responses(
        (status = 200, description = "The lines", content_type = "application/json", body = serde_json::Value),
        (status = 304, description = "The entity tag matches If-None-Match"),
        (status = 400, description = "The link is malformed", body = Problem, content_type = "application/problem+json"),
        (status = 403, description = "The signature is invalid, or the link has expired", body = Problem, content_type = "application/problem+json"),
        (status = 404, description = "The lines do not exist any more", body = Problem, content_type = "application/problem+json"),
    ))]
pub(crate) async fn get_signed_lines(
    State(control): State<Arc<Control>>,
    State(link_signer): State<Arc<LinkSigner>>,
    PathParams((tenant, document, page)): PathParams<(TenantId, DocumentId, PageNumber)>,
    QueryParams(link): QueryParams<SignedLinkQuery>,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    let key = page_lines_blob_key(&document, page);
    let (bytes, seconds_valid) =
        verify_link_and_read_blob(&control, &link_signer, &tenant, &key, &link).await?;
    let name = format!("page-{page}.json");
    Ok(StoredBytesResponse {
        bytes,
        media_type: "application/json",
        file_name: name,
        max_age_seconds: seconds_valid,
    }
    .build_response(&headers))
}

/// Reads the blob of a link. Also returns for how many more seconds the link is valid.
async fn verify_link_and_read_blob(
    control: &Control,
    link_signer: &LinkSigner,
    tenant: &TenantId,
    key: &str,
    link: &SignedLinkQuery,
) -> Result<(Vec<u8>, u64), Problem> {
    let now = unix_time_millis() / 1000;
    // The same message in every case, so that it does not reveal what exists.
    let refused =
        || Problem::forbidden("the link has expired or is invalid: request the page again to get a new link");
    if !link_signer.is_link_valid(tenant, key, link, now) {
        return Err(refused());
    }
    let tenant_now = control.tenant_store.find_tenant(tenant).await?;
    if tenant_now.is_none_or(|tenant| tenant.state != TenantState::Active) {
        return Err(refused());
    }
    let bytes = control
        .engine
        .port_implementations()
        .blobs
        .get_blob(tenant, key)
        .await?;
    let bytes = bytes.ok_or_else(|| Problem::not_found("the file of this page does not exist any more"))?;
    Ok((bytes, link.expires.saturating_sub(now)))
}
