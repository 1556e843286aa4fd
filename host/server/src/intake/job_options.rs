//! The options of a job submission and their validation.

use std::collections::BTreeMap;
use std::ops::RangeInclusive;

use axum::http::HeaderMap;
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};
use utoipa::ToSchema;
use weir_core::collection_and_labels::CollectionAndLabelsRequest;
use weir_core::job_request::{IdempotencyKey, JobRequestOptions, RequestedFile, WebhookTarget};
use weir_core::{PageNumber, PriorityLane};

use crate::http_input::deserialize_optional_object;
use crate::outbound_client::OutboundClient;
use crate::problem::Problem;

/// Maximum length of a file name.
const MAX_FILE_NAME_BYTES: usize = 255;
/// Maximum length of a password and of a webhook secret.
const MAX_SECRET_BYTES: usize = 1024;
/// Maximum length of a webhook URL.
const MAX_WEBHOOK_URL_BYTES: usize = 4096;
/// Valid page numbers.
const VALID_PAGE_NUMBERS: RangeInclusive<PageNumber> = 1..=1_000_000;
/// Name of the header with the idempotency key.
const IDEMPOTENCY_KEY_HEADER: &str = "idempotency-key";

/// Options of a job. All are optional.
#[derive(Debug, Default, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct JobOptions {
    /// Process only these pages of each document.
    #[serde(default, deserialize_with = "deserialize_optional_object")]
    pages: Option<PageRange>,
    /// Resolution of page images in dots per inch.
    #[schema(minimum = 36, maximum = 600)]
    dpi: Option<u32>,
    /// When to recognize text in page images (OCR). `auto`: on pages without a text layer.
    ocr: Option<PageChoice>,
    /// When to read pages with a vision model instead of their text layer or OCR. `auto`: on the pages where `ocr` would recognize
    /// text. The host needs a language model provider that accepts images.
    vision: Option<PageChoice>,
    /// Whether to process pages again that are done.
    #[serde(default)]
    force: bool,
    /// Whether to summarize each document, by section and as a whole, after its pages are done. If summarizing fails, the document
    /// fails and its pages stay done.
    #[serde(default)]
    summarize: bool,
    /// Collection of the documents. It overrides the collection that the pipeline's routing selects. A stored document in another
    /// collection is processed again. Without this option a stored document keeps its collection.
    #[schema(pattern = "^[a-z0-9_-]{1,64}$")]
    collection: Option<String>,
    /// Labels of the documents: at most 16, with names of 1 to 64 bytes and values of up to 1024 bytes. A label from the pipeline's
    /// routing overrides one with the same name. A stored document with other labels is processed again. Without this option a
    /// stored document keeps its labels.
    labels: Option<BTreeMap<String, String>>,
    /// Name of the pipeline. The default is `default`.
    #[schema(pattern = "^[a-z0-9_-]{1,64}$")]
    pipeline: Option<String>,
    /// Lane of the job. By default the routing component decides.
    #[schema(value_type = Option<LaneName>)]
    lane: Option<PriorityLane>,
    /// Webhook that is called when the job has ended.
    #[serde(default, deserialize_with = "deserialize_optional_object")]
    webhook: Option<WebhookAddress>,
    /// Passwords of encrypted files, by file name. They are deleted when the job has ended.
    #[serde(default)]
    passwords: BTreeMap<String, String>,
}

/// A range of pages, counted from 1.
#[derive(Debug, Clone, Copy, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct PageRange {
    /// The first page.
    #[schema(value_type = u32, minimum = 1, maximum = 1_000_000)]
    #[serde(default = "default_first_page")]
    first: PageNumber,
    /// The last page. The default is the last page of the document.
    #[schema(value_type = Option<u32>, minimum = 1, maximum = 1_000_000)]
    last: Option<PageNumber>,
}

const fn default_first_page() -> PageNumber {
    1
}

/// The pages to which an option applies.
#[derive(Debug, Clone, Copy, Deserialize, ToSchema)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum PageChoice {
    /// Pages without a text layer.
    Auto,
    /// All pages.
    Always,
    /// No page.
    Never,
}

impl PageChoice {
    /// Returns the value of the corresponding pipeline setting.
    fn page_choice_to_setting_text(self) -> String {
        let value = match self {
            Self::Auto => "auto",
            Self::Always => "always",
            Self::Never => "never",
        };
        value.to_owned()
    }
}

/// The scheduling class of a job.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "kebab-case")]
#[allow(dead_code)] // only for the OpenAPI description
pub(crate) enum LaneName {
    /// Low latency, for a job that a person waits for.
    Interactive,
    /// Throughput, for a job without urgency.
    Bulk,
}

/// The webhook of a job.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct WebhookAddress {
    /// Public URL with the scheme `https` or `http`.
    #[schema(format = "uri", max_length = 4096)]
    url: String,
    /// Secret for signing the webhook requests.
    #[schema(min_length = 1, max_length = 1024)]
    secret: String,
}

impl std::fmt::Debug for WebhookAddress {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("WebhookAddress").finish_non_exhaustive()
    }
}

/// Validated [`JobOptions`].
pub(crate) struct ValidatedJobOptions {
    pub(crate) pipeline: String,
    pub(crate) lane: Option<PriorityLane>,
    pub(crate) options: JobRequestOptions,
    pub(crate) webhook: Option<WebhookTarget>,
    passwords: BTreeMap<String, String>,
}

impl JobOptions {
    /// Validates the options.
    pub(crate) fn validate_options(self, outbound: &OutboundClient) -> Result<ValidatedJobOptions, Problem> {
        let requested_pages = self
            .pages
            .map(|range| (range.first, range.last.unwrap_or(range.first)));
        if requested_pages.is_some_and(|(first, last)| {
            !VALID_PAGE_NUMBERS.contains(&first) || !VALID_PAGE_NUMBERS.contains(&last)
        }) {
            return Err(Problem::unprocessable(format!(
                "page numbers must be from 1 to {}",
                VALID_PAGE_NUMBERS.end()
            )));
        }
        // A range with `last` before `first` is accepted and reversed.
        let pages = self.pages.map(|range| {
            let last = range.last.unwrap_or(PageNumber::MAX);
            (range.first.min(last), range.first.max(last))
        });
        if self.dpi.is_some_and(|dpi| !(36..=600).contains(&dpi)) {
            return Err(Problem::unprocessable("dpi must be from 36 to 600"));
        }
        if self
            .passwords
            .values()
            .any(|password| password.len() > MAX_SECRET_BYTES)
        {
            return Err(Problem::unprocessable(format!(
                "a password must have at most {MAX_SECRET_BYTES} bytes"
            )));
        }
        let placement = CollectionAndLabelsRequest {
            collection: self.collection,
            labels: self.labels.map(|labels| labels.into_iter().collect()),
        };
        placement
            .validate()
            .map_err(|error| Problem::unprocessable(error.to_string()))?;
        let webhook = match self.webhook {
            None => None,
            Some(WebhookAddress { url, secret }) => {
                if url.len() > MAX_WEBHOOK_URL_BYTES || !(1..=MAX_SECRET_BYTES).contains(&secret.len()) {
                    return Err(Problem::unprocessable(format!(
                        "the URL of a webhook must have at most {MAX_WEBHOOK_URL_BYTES} bytes and its secret 1 to {MAX_SECRET_BYTES} bytes"
                    )));
                }
                let url = outbound
                    .parse_allowed_url(&url)
                    .map_err(|error| Problem::unprocessable(error.to_string()))?;
                Some(WebhookTarget {
                    url: url.into(),
                    secret,
                })
            }
        };
        Ok(ValidatedJobOptions {
            pipeline: self.pipeline.unwrap_or_else(|| "default".into()),
            lane: self.lane,
            options: JobRequestOptions {
                pages,
                dpi: self.dpi,
                ocr: self.ocr.map(PageChoice::page_choice_to_setting_text),
                vision: self.vision.map(PageChoice::page_choice_to_setting_text),
                force: self.force,
                summarize: self.summarize,
                collection_and_labels: placement,
            },
            webhook,
            passwords: self.passwords,
        })
    }
}

impl ValidatedJobOptions {
    /// Assigns each password to its file. A password for an unknown file name is an error.
    pub(crate) fn assign_passwords(&self, files: &mut [RequestedFile]) -> Result<(), Problem> {
        for (name, password) in &self.passwords {
            let mut files_of_name = files.iter_mut().filter(|file| file.name == *name).peekable();
            if files_of_name.peek().is_none() {
                return Err(Problem::not_found(
                    "passwords contains the name of a file that is not in this submission",
                ));
            }
            files_of_name.for_each(|file| file.password = Some(password.clone()));
        }
        Ok(())
    }

    /// Returns the idempotency key of the request with a digest of its content, or `None` without the header. `files` are the
    /// uploaded files or the given documents.
    ///
    /// Digests are stored in the ledger, so the serialized form must not change.
    pub(crate) fn build_idempotency_key(
        &self,
        headers: &HeaderMap,
        files: &impl Serialize,
    ) -> Result<Option<IdempotencyKey>, Problem> {
        #[derive(Serialize)]
        struct CanonicalJobRequest<'a, F> {
            pipeline: &'a str,
            lane: Option<PriorityLane>,
            options: &'a JobRequestOptions,
            webhook: &'a Option<WebhookTarget>,
            #[serde(skip_serializing_if = "BTreeMap::is_empty")]
            passwords: &'a BTreeMap<String, String>,
            files: &'a F,
        }
        let Some(key) = parse_idempotency_key(headers)? else {
            return Ok(None);
        };
        let canonical = CanonicalJobRequest {
            pipeline: &self.pipeline,
            lane: self.lane,
            options: &self.options,
            webhook: &self.webhook,
            passwords: &self.passwords,
            files,
        };
        let canonical =
            serde_json::to_vec(&canonical).map_err(|error| Problem::internal_error(error.to_string()))?;
        Ok(Some(IdempotencyKey {
            key,
            request_digest: Sha256::digest(canonical).into(),
        }))
    }
}

/// Parses the `Idempotency-Key` header.
pub(crate) fn parse_idempotency_key(headers: &HeaderMap) -> Result<Option<String>, Problem> {
    let mut keys = headers.get_all(IDEMPOTENCY_KEY_HEADER).iter();
    let Some(key) = keys.next() else {
        return Ok(None);
    };
    let text = key
        .to_str()
        .ok()
        .filter(|text| (1..=255).contains(&text.len()) && text.bytes().all(|b| b.is_ascii_graphic()));
    match (text, keys.next()) {
        (Some(text), None) => Ok(Some(text.to_owned())),
        _ => Err(Problem::invalid_request(
            "Idempotency-Key must have 1 to 255 visible ASCII characters",
        )),
    }
}

/// Returns the file name to store: the given name without folders and control characters, at most 255 bytes. If nothing
/// remains, `document-<number>`.
pub(crate) fn sanitize_file_name(client_name: Option<&str>, number: usize) -> String {
    let last = client_name
        .and_then(|name| name.rsplit(['/', '\\']).next())
        .unwrap_or_default();
    let mut name: String = last.chars().filter(|c| !c.is_control()).collect();
    while name.len() > MAX_FILE_NAME_BYTES {
        name.pop();
    }
    match name.trim() {
        "" | "." | ".." => format!("document-{number}"),
        name => name.to_owned(),
    }
}

#[cfg(test)]
#[path = "job_options_tests.rs"]
mod tests;
