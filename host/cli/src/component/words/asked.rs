//! What a component is asked.

use std::ops::Range;

use serde::Deserialize;
use weir_core::decision;
use weir_core::{DocumentId, PageNumber, Stage, page};

use super::observed::Observed;
use super::queues::{QueueState, StageTime};
use super::unsaid::{height, model_tokens, one, some_document, width, yes};

/// A call of one of the contract's functions.
#[derive(Debug, Clone, Deserialize)]
#[serde(tag = "function", content = "input", deny_unknown_fields)]
pub(crate) enum Call {
    #[serde(rename = "batching.plan")]
    Plan(Situation),
    #[serde(rename = "routing.document")]
    Document(DocumentFacts),
    #[serde(rename = "routing.page")]
    Page(Page),
    #[serde(rename = "routing.failed")]
    Failed(Failure),
    #[serde(rename = "chunking.passages")]
    Passages(PassageSource),
    #[serde(rename = "chunking.summarize")]
    Summarize(Section),
    #[serde(rename = "progress.observe")]
    Observe(Observed),
}

#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub(crate) struct PageFacts {
    number: PageNumber,
    #[serde(default = "width")]
    width: f32,
    #[serde(default = "height")]
    height: f32,
    #[serde(default)]
    text_chars: u32,
    #[serde(default)]
    image_coverage: f32,
    #[serde(default = "yes")]
    readable: bool,
}

impl From<PageFacts> for page::PageFacts {
    fn from(facts: PageFacts) -> Self {
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
struct Device {
    kind: DeviceKind,
    memory_bytes: u64,
    cores: u32,
}

impl Default for Device {
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
pub(crate) struct Situation {
    #[serde(default = "some_document")]
    document: DocumentId,
    total_pages: u32,
    remaining_pages: u32,
    #[serde(default)]
    next: Vec<PageFacts>,
    #[serde(default)]
    queues: Vec<QueueState>,
    #[serde(default)]
    times: Vec<StageTime>,
    #[serde(default)]
    device: Device,
    #[serde(default = "image_budget")]
    free_image_bytes: u64,
}

const fn image_budget() -> u64 {
    256 << 20
}

impl From<Situation> for decision::Situation {
    fn from(situation: Situation) -> Self {
        Self {
            document: situation.document,
            total_pages: situation.total_pages,
            remaining_pages: situation.remaining_pages,
            next: all(situation.next),
            queues: all(situation.queues),
            times: all(situation.times),
            device: decision::Device {
                gpu: situation.device.kind == DeviceKind::Gpu,
                memory_bytes: situation.device.memory_bytes,
                cores: situation.device.cores,
            },
            free_image_bytes: situation.free_image_bytes,
        }
    }
}

fn all<A: Into<B>, B>(of: Vec<A>) -> Vec<B> {
    of.into_iter().map(Into::into).collect()
}

#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub(crate) struct DocumentFacts {
    #[serde(default = "some_document")]
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
    first_pages: Vec<PageFacts>,
}

impl From<DocumentFacts> for decision::DocumentFacts {
    fn from(facts: DocumentFacts) -> Self {
        Self {
            document: facts.document,
            name: facts.name,
            bytes: facts.bytes,
            pages: facts.pages,
            title: facts.title,
            outline_entries: facts.outline_entries,
            first_pages: all(facts.first_pages),
        }
    }
}

#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub(crate) struct Page {
    #[serde(default = "some_document")]
    document: DocumentId,
    facts: PageFacts,
}

impl From<Page> for (DocumentId, page::PageFacts) {
    fn from(page: Page) -> Self {
        (page.document, page.facts.into())
    }
}

#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub(crate) struct Failure {
    #[serde(default = "some_document")]
    document: DocumentId,
    page: PageNumber,
    stage: Stage,
    attempt: u32,
    kind: String,
    #[serde(default)]
    message: String,
}

impl From<Failure> for decision::Failure {
    fn from(failure: Failure) -> Self {
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
pub(crate) struct Heading {
    at: Range<u32>,
    level: u8,
}

#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub(crate) struct PassageSource {
    #[serde(default = "some_document")]
    document: DocumentId,
    #[serde(default = "one")]
    page: PageNumber,
    text: String,
    #[serde(default)]
    headings: Vec<Heading>,
    #[serde(default = "model_tokens")]
    max_tokens: u32,
}

impl From<PassageSource> for decision::PassageSource {
    fn from(source: PassageSource) -> Self {
        let headings = source.headings.into_iter().map(|heading| decision::Heading {
            at: heading.at,
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
pub(crate) struct Section {
    #[serde(default = "some_document")]
    document: DocumentId,
    title: String,
    #[serde(default = "top_level")]
    level: u8,
    #[serde(default = "one")]
    first_page: PageNumber,
    #[serde(default = "one")]
    last_page: PageNumber,
    text: String,
}

const fn top_level() -> u8 {
    1
}

impl From<Section> for decision::Section {
    fn from(section: Section) -> Self {
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
