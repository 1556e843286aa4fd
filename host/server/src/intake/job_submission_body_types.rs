//! The bodies of a job submission.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use weir_core::DocumentId;

use super::job_options::JobOptions;
use crate::http_input::deserialize_object;

/// A job with uploaded files.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[allow(dead_code)] // only for the OpenAPI description
pub(crate) struct JobForm {
    /// Files, in one or more parts with this name. A file that is not a PDF is accepted, and its document fails.
    #[schema(min_items = 1, value_type = Vec<String>, format = Binary)]
    file: Vec<u8>,
    /// Options of the job, as JSON.
    pub(super) options: Option<JobOptions>,
}

/// A job with documents that are stored on the host or fetched from a URL.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct NewJob {
    /// Documents.
    #[schema(min_items = 1, max_items = 1000)]
    pub(super) documents: Vec<DocumentSource>,
    /// Options of the job.
    #[serde(default, deserialize_with = "deserialize_object")]
    pub(super) options: JobOptions,
}

/// The source of a document: a stored document or a URL.
#[derive(Debug, Deserialize, Serialize, ToSchema)]
#[serde(
    untagged,
    expecting = "each document must be {\"document\": \"<id>\"} or {\"url\": \"https://…\"}, with an optional name"
)]
pub(crate) enum DocumentSource {
    /// A document that is stored on the host.
    Stored(StoredDocument),
    /// A document at a URL.
    Remote(RemoteDocument),
}

/// A document that an earlier job has stored.
#[derive(Debug, Deserialize, Serialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct StoredDocument {
    /// Id: the SHA-256 hash of the file.
    #[schema(value_type = String, pattern = "^[0-9a-f]{64}$")]
    pub(super) document: DocumentId,
    /// Name in this job.
    pub(super) name: Option<String>,
}

/// A document at a public URL.
#[derive(Debug, Deserialize, Serialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct RemoteDocument {
    /// URL with the scheme `https` or `http`, without credentials.
    #[schema(format = "uri", max_length = 4096)]
    pub(super) url: String,
    /// Name in this job. The default is the last segment of the path.
    pub(super) name: Option<String>,
}
