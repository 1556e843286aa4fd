//! What a submission says of how its job is to be done, checked once, here.

use std::collections::BTreeMap;
use std::ops::RangeInclusive;

use axum::http::HeaderMap;
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};
use utoipa::ToSchema;
use weir_core::filing::Filing;
use weir_core::order::{Idempotency, OrderOptions, OrderedFile, Webhook};
use weir_core::{Lane, PageNumber};

use crate::outbound::Outbound;
use crate::problem::Problem;
use crate::wire::maybe_object;

/// Longest name of a file.
const NAME_BYTES: usize = 255;
/// Longest password and webhook secret.
const SECRET_BYTES: usize = 1024;
/// Longest URL.
const URL_BYTES: usize = 4096;
/// Numbers that a page may have.
const PAGES: RangeInclusive<PageNumber> = 1..=1_000_000;
/// The header that names a request.
const IDEMPOTENCY_KEY: &str = "idempotency-key";

/// How a job is to be done. Everything may be left out.
#[derive(Debug, Default, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct JobOptions {
    /// Only these pages of each document.
    #[serde(default, deserialize_with = "maybe_object")]
    pages: Option<PageRange>,
    /// Resolution of page images.
    #[schema(minimum = 36, maximum = 600)]
    dpi: Option<u32>,
    /// When text is recognized in page images; `auto` does where a page has no text of its own.
    ocr: Option<PageChoice>,
    /// When pages are read by a vision model, instead of their own text or of recognizing it; `auto` does where `ocr` would recognize
    /// text. The host needs a provider of language models that takes images.
    vision: Option<PageChoice>,
    /// Whether pages are done again that are done already.
    #[serde(default)]
    force: bool,
    /// Whether each document is summarized, by section and as a whole, once its pages are done. A document whose summary cannot be
    /// had has failed, with its pages done.
    #[serde(default)]
    summarize: bool,
    /// Collection that the documents are filed under. It stands over that of the pipeline's routing; a known document that is filed
    /// elsewhere has its pages done again. Without it a known document stays where it is.
    #[schema(pattern = "^[a-z0-9_-]{1,64}$")]
    collection: Option<String>,
    /// Labels of the documents, at most 16 of names of 1 to 64 and values of up to 1024 bytes, beside those of the pipeline's routing,
    /// which stand over these by the same name. A known document with others has its pages done again. Without it a known document
    /// keeps its labels.
    labels: Option<BTreeMap<String, String>>,
    /// Name of the pipeline; `default` if it is not given.
    #[schema(pattern = "^[a-z0-9_-]{1,64}$")]
    pipeline: Option<String>,
    /// How urgent it is; by the size of the files if it is not given.
    #[schema(value_type = Option<LaneName>)]
    lane: Option<Lane>,
    /// Whom to tell when the job has ended.
    #[serde(default, deserialize_with = "maybe_object")]
    webhook: Option<WebhookAddress>,
    /// Passwords of encrypted files, by the names of the files. Forgotten when the job has ended.
    #[serde(default)]
    passwords: BTreeMap<String, String>,
}

/// Pages from the first to the last, counted from 1.
#[derive(Debug, Clone, Copy, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct PageRange {
    /// The first page.
    #[schema(value_type = u32, minimum = 1, maximum = 1_000_000)]
    #[serde(default = "one")]
    first: PageNumber,
    /// The last page; the document's last if it is not given.
    #[schema(value_type = Option<u32>, minimum = 1, maximum = 1_000_000)]
    last: Option<PageNumber>,
}

const fn one() -> PageNumber {
    1
}

/// On which pages something is done.
#[derive(Debug, Clone, Copy, Deserialize, ToSchema)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum PageChoice {
    /// Where a page has no text of its own.
    Auto,
    /// On every page.
    Always,
    /// On none.
    Never,
}

impl PageChoice {
    /// As the pipeline's settings have it.
    fn word(self) -> String {
        let word = match self {
            Self::Auto => "auto",
            Self::Always => "always",
            Self::Never => "never",
        };
        word.to_owned()
    }
}

/// How urgent a job is.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "kebab-case")]
#[allow(dead_code)] // only its description is used
pub(crate) enum LaneName {
    /// Someone waits for it.
    Interactive,
    /// It may take its time.
    Bulk,
}

/// Whom to tell when a job has ended.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct WebhookAddress {
    /// Where to: `https`, or `http`; a public address.
    #[schema(format = "uri", max_length = 4096)]
    url: String,
    /// Key of the signature.
    #[schema(min_length = 1, max_length = 1024)]
    secret: String,
}

impl std::fmt::Debug for WebhookAddress {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("WebhookAddress").finish_non_exhaustive()
    }
}

/// [`JobOptions`], understood.
pub(crate) struct Wish {
    pub(crate) pipeline: String,
    pub(crate) lane: Option<Lane>,
    pub(crate) options: OrderOptions,
    pub(crate) webhook: Option<Webhook>,
    passwords: BTreeMap<String, String>,
}

impl JobOptions {
    /// What is wished, once it is within bounds.
    pub(crate) fn understand(self, outbound: &Outbound) -> Result<Wish, Problem> {
        let said = self
            .pages
            .map(|range| (range.first, range.last.unwrap_or(range.first)));
        if said.is_some_and(|(first, last)| !PAGES.contains(&first) || !PAGES.contains(&last)) {
            return Err(Problem::unprocessable(format!(
                "pages are counted from 1 to {}",
                PAGES.end()
            )));
        }
        // Whichever way round they are said.
        let pages = self.pages.map(|range| {
            let last = range.last.unwrap_or(PageNumber::MAX);
            (range.first.min(last), range.first.max(last))
        });
        if self.dpi.is_some_and(|dpi| !(36..=600).contains(&dpi)) {
            return Err(Problem::unprocessable("dpi is from 36 to 600"));
        }
        if self
            .passwords
            .values()
            .any(|password| password.len() > SECRET_BYTES)
        {
            return Err(Problem::unprocessable(format!(
                "a password has at most {SECRET_BYTES} bytes"
            )));
        }
        let filing = Filing {
            collection: self.collection,
            labels: self.labels.map(|labels| labels.into_iter().collect()),
        };
        filing
            .check()
            .map_err(|error| Problem::unprocessable(error.to_string()))?;
        let webhook = match self.webhook {
            None => None,
            Some(WebhookAddress { url, secret }) => {
                if url.len() > URL_BYTES || !(1..=SECRET_BYTES).contains(&secret.len()) {
                    return Err(Problem::unprocessable(format!(
                        "a webhook's URL has at most {URL_BYTES} bytes and its secret 1 to {SECRET_BYTES}"
                    )));
                }
                let url = outbound
                    .url(&url)
                    .map_err(|error| Problem::unprocessable(error.to_string()))?;
                Some(Webhook {
                    url: url.into(),
                    secret,
                })
            }
        };
        Ok(Wish {
            pipeline: self.pipeline.unwrap_or_else(|| "default".into()),
            lane: self.lane,
            options: OrderOptions {
                pages,
                dpi: self.dpi,
                ocr: self.ocr.map(PageChoice::word),
                vision: self.vision.map(PageChoice::word),
                force: self.force,
                summarize: self.summarize,
                filing,
            },
            webhook,
            passwords: self.passwords,
        })
    }
}

impl Wish {
    /// Gives each file its password. One for a file that is not there is a mistake the client wants to know of.
    pub(crate) fn unlock(&self, files: &mut [OrderedFile]) -> Result<(), Problem> {
        for (name, password) in &self.passwords {
            let mut named = files.iter_mut().filter(|file| file.name == *name).peekable();
            if named.peek().is_none() {
                return Err(Problem::not_found(
                    "passwords names a file that is not in this submission",
                ));
            }
            named.for_each(|file| file.password = Some(password.clone()));
        }
        Ok(())
    }

    /// The request by its `Idempotency-Key`, if it has one. `files` are the files that were sent, or the documents that were named.
    pub(crate) fn idempotency(
        &self,
        headers: &HeaderMap,
        files: &impl Serialize,
    ) -> Result<Option<Idempotency>, Problem> {
        #[derive(Serialize)]
        struct Canonical<'a, F> {
            pipeline: &'a str,
            lane: Option<Lane>,
            options: &'a OrderOptions,
            webhook: &'a Option<Webhook>,
            #[serde(skip_serializing_if = "BTreeMap::is_empty")]
            passwords: &'a BTreeMap<String, String>,
            files: &'a F,
        }
        let Some(key) = idempotency_key(headers)? else {
            return Ok(None);
        };
        let canonical = Canonical {
            pipeline: &self.pipeline,
            lane: self.lane,
            options: &self.options,
            webhook: &self.webhook,
            passwords: &self.passwords,
            files,
        };
        let canonical =
            serde_json::to_vec(&canonical).map_err(|error| Problem::internal(error.to_string()))?;
        Ok(Some(Idempotency {
            key,
            digest: Sha256::digest(canonical).into(),
        }))
    }
}

/// The client's word for a request.
pub(crate) fn idempotency_key(headers: &HeaderMap) -> Result<Option<String>, Problem> {
    let mut keys = headers.get_all(IDEMPOTENCY_KEY).iter();
    let Some(key) = keys.next() else {
        return Ok(None);
    };
    let text = key
        .to_str()
        .ok()
        .filter(|text| (1..=255).contains(&text.len()) && text.bytes().all(|b| b.is_ascii_graphic()));
    match (text, keys.next()) {
        (Some(text), None) => Ok(Some(text.to_owned())),
        _ => Err(Problem::invalid(
            "Idempotency-Key is one word of 1 to 255 visible characters",
        )),
    }
}

/// A file's name as it is kept: what a client says, without folders and what cannot be shown.
pub(crate) fn file_name(given: Option<&str>, number: usize) -> String {
    let last = given
        .and_then(|name| name.rsplit(['/', '\\']).next())
        .unwrap_or_default();
    let mut name: String = last.chars().filter(|c| !c.is_control()).collect();
    while name.len() > NAME_BYTES {
        name.pop();
    }
    match name.trim() {
        "" | "." | ".." => format!("document-{number}"),
        name => name.to_owned(),
    }
}

#[cfg(test)]
#[path = "order_tests.rs"]
mod tests;
