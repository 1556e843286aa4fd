//! The routing role: the route of a document and of each page, and the action after a failure.

use serde::{Deserialize, Serialize};

use super::{PolicyFunctionInput, default_document};
use crate::id::{DocumentId, PageNumber};
use crate::manifest::Role;
use crate::page::{PageFacts, PriorityLane, Stage};

/// Label of a document or a page: name and value.
pub type Label = (String, String);

/// The form of labels in JSON: objects with `name` and `value`. A recording encodes both forms in the same way.
mod as_objects {
    use serde::{Deserialize, Deserializer, Serialize, Serializer};

    use super::Label;

    #[derive(Serialize)]
    struct LabelRef<'a> {
        name: &'a str,
        value: &'a str,
    }

    #[derive(Deserialize)]
    #[serde(deny_unknown_fields)]
    struct OwnedLabel {
        name: String,
        value: String,
    }

    pub(crate) fn serialize<S: Serializer>(labels: &[Label], serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_seq(labels.iter().map(|(name, value)| LabelRef { name, value }))
    }

    pub(crate) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<Label>, D::Error> {
        let labels = Vec::<OwnedLabel>::deserialize(deserializer)?;
        Ok(labels
            .into_iter()
            .map(|label| (label.name, label.value))
            .collect())
    }
}

/// Input of the routing component, once for each document.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct DocumentFacts {
    /// The document.
    #[serde(default = "default_document")]
    pub document: DocumentId,
    /// The file's name.
    pub name: String,
    /// Size in bytes.
    #[serde(default)]
    pub bytes: u64,
    /// Number of pages.
    pub pages: u32,
    /// Title from the PDF metadata.
    #[serde(default)]
    pub title: Option<String>,
    /// Number of outline entries.
    #[serde(default)]
    pub outline_entries: u32,
    /// Facts of the first pages, at most 8.
    #[serde(default)]
    pub first_pages: Vec<PageFacts>,
}

impl PolicyFunctionInput for DocumentFacts {
    const ROLE: Role = Role::Routing;
    const NAME: &'static str = "routing.document";
    type Decision = DocumentRoute;

    fn describe_call_subject(&self) -> String {
        self.name.clone()
    }
}

/// Decision of the routing component for a document.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct DocumentRoute {
    /// Collection that its passages are indexed in. The name is valid by [`crate::id::is_valid_name`].
    pub collection: String,
    /// Lane of the document.
    pub lane: PriorityLane,
    /// Models for the document.
    pub models: ModelPreferences,
    /// Labels of every passage, at most 16.
    #[serde(with = "as_objects")]
    pub labels: Vec<Label>,
}

/// Names of models; `None` for the host's default.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct ModelPreferences {
    /// OCR model.
    pub ocr: Option<String>,
    /// Text embedding model.
    pub text_embedding: Option<String>,
}

/// Input of the routing component for a page.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct PageToRoute {
    /// The document.
    #[serde(default = "default_document")]
    pub document: DocumentId,
    /// Facts of the page.
    pub facts: PageFacts,
}

impl PolicyFunctionInput for PageToRoute {
    const ROLE: Role = Role::Routing;
    const NAME: &'static str = "routing.page";
    type Decision = PageRoute;

    fn describe_call_subject(&self) -> String {
        format!("page {}", self.facts.number)
    }
}

/// How the text of a page is obtained.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ReadingMethod {
    /// Read from the text layer of the PDF.
    TextLayer,
    /// Recognized in the page image by OCR.
    Ocr,
    /// Transcribed from the page image by a vision-language model.
    VisionModel,
    /// The page is not read.
    Nothing,
}

/// Decision of the routing component for a page.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct PageRoute {
    /// How its text is obtained.
    #[serde(rename = "reading")]
    pub reading_method: ReadingMethod,
    /// Whether its passages become searchable.
    pub embed: bool,
    /// Whether its image is stored.
    pub store: bool,
    /// Labels of its passages, at most 16.
    #[serde(with = "as_objects")]
    pub labels: Vec<Label>,
}

impl PageRoute {
    /// Whether the page must be rasterized before it is read. A page for a vision model is rasterized again when a
    /// provider is free.
    pub fn needs_raster_before_reading(&self) -> bool {
        self.store || self.reading_method == ReadingMethod::Ocr
    }
}

/// Input of the routing component after a page has failed in a stage.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct PageStageFailure {
    /// The document.
    #[serde(default = "default_document")]
    pub document: DocumentId,
    /// The page.
    pub page: PageNumber,
    /// Stage that it failed in.
    pub stage: Stage,
    /// 1 for the first failure in this stage.
    pub attempt: u32,
    /// Stable error kind for programs.
    pub kind: String,
    /// Error message for people.
    #[serde(default)]
    pub message: String,
}

impl PolicyFunctionInput for PageStageFailure {
    const ROLE: Role = Role::Routing;
    const NAME: &'static str = "routing.failed";
    type Decision = FailureAction;

    fn describe_call_subject(&self) -> String {
        format!("page {}, {}, attempt {}", self.page, self.stage, self.attempt)
    }
}

/// Decision of the routing component after a failure.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum FailureAction {
    /// Retry the page after this many milliseconds, at most 60,000.
    RetryAfter(u32),
    /// Report the page as failed and continue.
    SkipPage,
    /// Stop the document. Other documents of the job continue, and the job ends as failed.
    FailDocument,
}
