//! Calls of component functions, parsed from the JSON of a test case.

use std::ops::Range;

use serde::Deserialize;
use weir_core::decision;
use weir_core::{DocumentId, PageNumber, Stage, page};

use super::defaults::{
    default_document_id, default_max_tokens, default_one, default_page_height, default_page_width,
    default_true,
};
use super::observed_event::ObserveInputJson;
use super::stage_state::{QueueStateJson, StageTimingJson};

/// A call of one of the contract's functions.
#[derive(Debug, Clone, Deserialize)]
#[serde(tag = "function", content = "input", deny_unknown_fields)]
pub(crate) enum ComponentCall {
    #[serde(rename = "batching.plan")]
    Plan(BatchContextJson),
    #[serde(rename = "routing.document")]
    Document(DocumentFactsJson),
    #[serde(rename = "routing.page")]
    Page(PageInputJson),
    #[serde(rename = "routing.failed")]
    Failed(StageFailureJson),
    #[serde(rename = "chunking.passages")]
    Passages(PassageSourceJson),
    #[serde(rename = "chunking.summarize")]
    Summarize(SummarySourceJson),
    #[serde(rename = "progress.observe")]
    Observe(ObserveInputJson),
}

#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub(crate) struct PageFactsJson {
    number: PageNumber,
    #[serde(default = "default_page_width")]
    width: f32,
    #[serde(default = "default_page_height")]
    height: f32,
    #[serde(default)]
    text_chars: u32,
    #[serde(default)]
    image_coverage: f32,
    #[serde(default = "default_true")]
    readable: bool,
}

impl From<PageFactsJson> for page::PageFacts {
    fn from(facts: PageFactsJson) -> Self {
        Self {
            number: facts.number,
            width: facts.width,
            height: facts.height,
            text_chars: facts.text_chars,
            image_coverage: facts.image_coverage,
            readable: facts.readable,
        }
    }
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
enum DeviceKind {
    #[default]
    Cpu,
    Gpu,
}

#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields, default)]
struct DeviceJson {
    kind: DeviceKind,
    memory_bytes: u64,
    cores: u32,
}

impl Default for DeviceJson {
    fn default() -> Self {
        Self {
            kind: DeviceKind::Cpu,
            memory_bytes: 8 << 30,
            cores: 4,
        }
    }
}

#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub(crate) struct BatchContextJson {
    #[serde(default = "default_document_id")]
    document: DocumentId,
    total_pages: u32,
    remaining_pages: u32,
    #[serde(default)]
    next: Vec<PageFactsJson>,
    #[serde(default)]
    queues: Vec<QueueStateJson>,
    #[serde(default)]
    times: Vec<StageTimingJson>,
    #[serde(default)]
    device: DeviceJson,
    #[serde(default = "default_free_image_bytes")]
    free_image_bytes: u64,
}

const fn default_free_image_bytes() -> u64 {
    256 << 20
}

impl From<BatchContextJson> for decision::BatchContext {
    fn from(situation: BatchContextJson) -> Self {
        Self {
            document: situation.document,
            total_pages: situation.total_pages,
            remaining_pages: situation.remaining_pages,
            next_pages: convert_all(situation.next),
            queues: convert_all(situation.queues),
            stage_timings: convert_all(situation.times),
            device: decision::ComputeDevice {
                gpu: situation.device.kind == DeviceKind::Gpu,
                memory_bytes: situation.device.memory_bytes,
                cores: situation.device.cores,
            },
            free_image_bytes: situation.free_image_bytes,
        }
    }
}

fn convert_all<A: Into<B>, B>(of: Vec<A>) -> Vec<B> {
    of.into_iter().map(Into::into).collect()
}

#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub(crate) struct DocumentFactsJson {
    #[serde(default = "default_document_id")]
    document: DocumentId,
    name: String,
    #[serde(default)]
    bytes: u64,
    pages: u32,
    #[serde(default)]
    title: Option<String>,
    #[serde(default)]
    outline_entries: u32,
    #[serde(default)]
    first_pages: Vec<PageFactsJson>,
}

impl From<DocumentFactsJson> for decision::DocumentFacts {
    fn from(facts: DocumentFactsJson) -> Self {
        Self {
            document: facts.document,
            name: facts.name,
            bytes: facts.bytes,
            pages: facts.pages,
            title: facts.title,
            outline_entries: facts.outline_entries,
            first_pages: convert_all(facts.first_pages),
        }
    }
}

#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub(crate) struct PageInputJson {
    #[serde(default = "default_document_id")]
    document: DocumentId,
    facts: PageFactsJson,
}

impl From<PageInputJson> for (DocumentId, page::PageFacts) {
    fn from(page: PageInputJson) -> Self {
        (page.document, page.facts.into())
    }
}

#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub(crate) struct StageFailureJson {
    #[serde(default = "default_document_id")]
    document: DocumentId,
    page: PageNumber,
    stage: Stage,
    attempt: u32,
    kind: String,
    #[serde(default)]
    message: String,
}

impl From<StageFailureJson> for decision::StageFailure {
    fn from(failure: StageFailureJson) -> Self {
        Self {
            document: failure.document,
            page: failure.page,
            stage: failure.stage,
            attempt: failure.attempt,
            kind: failure.kind,
            message: failure.message,
        }
    }
}

#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub(crate) struct HeadingJson {
    at: Range<u32>,
    level: u8,
}

#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub(crate) struct PassageSourceJson {
    #[serde(default = "default_document_id")]
    document: DocumentId,
    #[serde(default = "default_one")]
    page: PageNumber,
    text: String,
    #[serde(default)]
    headings: Vec<HeadingJson>,
    #[serde(default = "default_max_tokens")]
    max_tokens: u32,
}

impl From<PassageSourceJson> for decision::PassageSource {
    fn from(source: PassageSourceJson) -> Self {
        let headings = source.headings.into_iter().map(|heading| decision::Heading {
            range: heading.at,
            level: heading.level,
        });
        Self {
            document: source.document,
            page: source.page,
            text: source.text,
            headings: headings.collect(),
            max_tokens: source.max_tokens,
        }
    }
}

#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub(crate) struct SummarySourceJson {
    #[serde(default = "default_document_id")]
    document: DocumentId,
    title: String,
    #[serde(default = "default_section_level")]
    level: u8,
    #[serde(default = "default_one")]
    first_page: PageNumber,
    #[serde(default = "default_one")]
    last_page: PageNumber,
    text: String,
}

const fn default_section_level() -> u8 {
    1
}

impl From<SummarySourceJson> for decision::SummarySource {
    fn from(section: SummarySourceJson) -> Self {
        Self {
            document: section.document,
            title: section.title,
            level: section.level,
            first_page: section.first_page,
            last_page: section.last_page,
            text: section.text,
        }
    }
}
