//! The calls of a job, written down so that they can be put to another component later.
//!
//! A call costs the job a move into a list; a thread encodes and writes the lists in groups. Recording is an observer: when
//! it cannot keep up, the disk is full or a job has filled its share, it stops with a note and the job goes on.
//!
//! A recording is a sequence of [`Frame`]s, each in front of it its length (four bytes, little end first), encoded by
//! `postcard`. A job that was resumed has several sittings in one file, each begun by [`Frame::Opened`] and, unless the
//! process was ended first, closed by [`Frame::Ended`] with the number of its calls.
//! The thread that writes them also removes those that are not to be kept any longer.

mod read;
mod retention;
mod write;

use std::collections::BTreeMap;
use std::ops::Range;

use serde::{Deserialize, Serialize};
use weir_core::decision::{
    BatchPlan, DocumentFacts, DocumentRoute, Failure, Observation, PageRoute, PassageSource, ProgressUpdate,
    Section, Situation, SummaryPlan, Verdict,
};
use weir_core::event::ErrorNote;
use weir_core::manifest::{
    Capability, ComponentFile, Limits, Manifest, OnTrap, Pipeline, Role, SettingValue,
};
use weir_core::page::PageFacts;
use weir_core::{DocumentId, JobId, RevisionId, TenantId};

use crate::heard::Heard;

pub use read::read_recording;
pub use retention::Retention;
pub(crate) use write::{Recorder, Writer};

/// A piece of a recording.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub enum Frame {
    /// The job's components were opened: at its start, and each time it was resumed.
    Opened(Box<Opened>),
    /// A component was asked.
    Call(Box<Call>),
    /// Recording ended before the job did, for this reason.
    Stopped(String),
    /// The job's components were dropped. A sitting without this or [`Frame::Stopped`], or with fewer calls, was cut short.
    Ended {
        /// Calls since [`Frame::Opened`].
        calls: u64,
    },
}

/// What a job ran.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Opened {
    /// Whose job it was.
    pub tenant: TenantId,
    /// The job.
    pub job: JobId,
    /// The pipeline's name.
    pub pipeline: String,
    /// Its revision.
    pub revision: RevisionId,
    /// The settings its components could read.
    pub settings: BTreeMap<String, String>,
    /// Its components; a call refers to them by place.
    pub components: Vec<Component>,
    /// Which of them decides in each role.
    pub assigned: Vec<Assigned>,
    /// The rights they had.
    pub grants: Vec<Capability>,
    /// Limits of their calls, where they differed from the host's.
    pub limits: Limits,
}

/// Who decides in a role, as places in [`Opened::components`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Assigned {
    /// The role.
    pub role: Role,
    /// Who is asked.
    pub first: u16,
    /// Who is asked if that fails.
    pub stand_in: Option<u16>,
}

impl Opened {
    /// The pipeline that the job ran, of files that are found by digest. Its revision is not that of the job if the pipeline has
    /// components that were not opened.
    pub fn pipeline(&self, mut find: impl FnMut(&Component) -> ComponentFile) -> Pipeline {
        let mut manifest = Manifest::embedded();
        manifest.name.clone_from(&self.pipeline);
        manifest.settings = self
            .settings
            .iter()
            .map(|(name, value)| (name.clone(), SettingValue::String(value.clone())))
            .collect();
        manifest.capabilities.grant.clone_from(&self.grants);
        manifest.limits = self.limits;
        let (mut components, mut defaults) = (BTreeMap::new(), BTreeMap::new());
        for assigned in &self.assigned {
            let mut file = |place: u16| self.components.get(usize::from(place)).map(&mut find);
            components.extend(file(assigned.first).map(|file| (assigned.role, file)));
            if let Some(place) = assigned.stand_in {
                manifest.on_trap = OnTrap::Default;
                defaults.extend(file(place).map(|file| (assigned.role, file)));
            }
        }
        Pipeline::new(manifest, components, defaults)
    }

    /// About how many bytes it holds.
    fn weight(&self) -> usize {
        let settings: usize = self.settings.iter().map(|(k, v)| k.len() + v.len()).sum();
        size_of::<Self>() + settings + self.components.len() * size_of::<Component>()
    }
}

/// A component of a job.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Component {
    /// Its name in errors.
    pub name: String,
    /// SHA-256 of its bytes.
    pub digest: [u8; 32],
}

/// A call of a component.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Call {
    /// Which one, as its place in [`Opened::components`].
    pub component: u16,
    /// Its place among that one's calls since the job was opened.
    pub turn: u32,
    /// Microseconds it took, with what it waited for.
    pub micros: u32,
    /// What capabilities answered it.
    pub heard: Vec<Heard>,
    /// What was asked and answered.
    pub exchange: Exchange,
}

impl Call {
    /// About how many bytes it holds.
    fn weight(&self) -> usize {
        let heard: usize = self.heard.iter().map(|heard| heard.answer.len()).sum();
        size_of::<Self>() + heard + self.exchange.weight()
    }
}

/// A question with its answer, or with the reason why there was none.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub enum Exchange {
    /// How to take the next batch.
    Plan(Situation, Result<BatchPlan, ErrorNote>),
    /// Where a document goes.
    Document(DocumentFacts, Result<DocumentRoute, ErrorNote>),
    /// How a page is read.
    Page(DocumentId, PageFacts, Result<PageRoute, ErrorNote>),
    /// What follows a failure.
    Failed(Failure, Result<Verdict, ErrorNote>),
    /// Where a page's text is cut.
    Passages(PassageSource, Result<Vec<Range<u32>>, ErrorNote>),
    /// How a section is summarized.
    Summarize(Section, Result<SummaryPlan, ErrorNote>),
    /// What the user is told, so many milliseconds after the job's start.
    Observe(u64, Observation, Result<Vec<ProgressUpdate>, ErrorNote>),
}

impl Exchange {
    /// About how many bytes it holds on the heap.
    fn weight(&self) -> usize {
        match self {
            Self::Plan(situation, _) => situation.next.len() * size_of::<PageFacts>(),
            Self::Passages(source, _) => source.text.len(),
            Self::Summarize(section, _) => section.text.len(),
            Self::Document(..) | Self::Page(..) | Self::Failed(..) | Self::Observe(..) => 0,
        }
    }
}
