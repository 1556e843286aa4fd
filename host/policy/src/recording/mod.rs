//! Records the policy calls of jobs, so that they can be replayed against other components later.
//!
//! Recording a call costs the job only a move into a list. A thread encodes the lists in groups and appends them to a
//! [`RecordingStore`](weir_core::recording::RecordingStore). Recording never affects a job: if the thread or the store is too slow,
//! the disk is full or the recording has reached its size limit, recording stops with a note and the job goes on. A task beside the
//! thread removes expired recordings.
//!
//! # Format
//!
//! A recording has one session for each time the job was started or resumed, on any node. A session is a sequence of
//! [`RecordingFrame`]s. Each is encoded by `postcard` and preceded by its length in bytes (four bytes, little-endian). `postcard`
//! encodes fields and variants by position, so their order is part of the format and their names are not.
//!
//! A session starts with [`RecordingFrame::SessionStarted`]. It ends with [`RecordingFrame::SessionEnded`], which has the number of
//! its calls, or with [`RecordingFrame::RecordingStopped`]. A session without either was cut short when the process was killed. The
//! start is stored with the first call, so that a session of a killed process is not missing without a trace.

mod frames;
mod job_recorder;
mod recorded_decision;
mod recording_in_progress;
mod retention;
mod session_buffer;
mod writer;

#[cfg(test)]
mod tests;

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use weir_core::manifest::{
    Capability, ComponentFailurePolicy, ComponentLimits, Manifest, ResolvedComponentFile, ResolvedPipeline,
    Role, SettingValue,
};
use weir_core::{JobId, RevisionId, TenantId};

use crate::capability_trace::RecordedResponse;

pub(crate) use frames::read_session_frames;
pub use frames::{decode_frames, read_recording};
pub(crate) use job_recorder::JobRecorder;
pub(crate) use recorded_decision::match_function;
pub use recorded_decision::{PolicyFunctionCall, PolicyFunctionInvocation, RecordedDecision};
pub use retention::Retention;
pub(crate) use writer::RecordingWriter;

/// An entry of a recording.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub enum RecordingFrame {
    /// The job's components were opened: at its start and each time it was resumed.
    SessionStarted(Box<SessionHeader>),
    /// A policy call.
    Call(Box<RecordedCall>),
    /// Recording stopped before the job ended, for this reason.
    RecordingStopped(String),
    /// The job's components were closed. A session is incomplete if it has fewer calls than this frame says, or neither this
    /// frame nor [`RecordingFrame::RecordingStopped`].
    SessionEnded {
        /// Calls since [`RecordingFrame::SessionStarted`].
        calls: u64,
    },
}

/// The pipeline and the components of a recorded job.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct SessionHeader {
    /// The owner of the job.
    pub tenant: TenantId,
    /// The job.
    pub job: JobId,
    /// The pipeline's name.
    pub pipeline: String,
    /// The pipeline's revision.
    pub revision: RevisionId,
    /// The settings that the components could read.
    pub settings: BTreeMap<String, String>,
    /// The components; a call refers to its component by index.
    pub components: Vec<RecordedComponent>,
    /// The components of each role.
    pub role_assignments: Vec<RoleAssignment>,
    /// The capabilities that the components had.
    pub granted_capabilities: Vec<Capability>,
    /// The limits in the manifest.
    pub limits: ComponentLimits,
}

/// The components of a role, as indexes into [`SessionHeader::components`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct RoleAssignment {
    /// The role.
    pub role: Role,
    /// The component that is called.
    pub primary: u16,
    /// The component that is called if the first one fails.
    pub fallback: Option<u16>,
}

impl SessionHeader {
    /// Rebuilds the pipeline of the job. `find` returns the file of a component, by its digest. The revision differs from the
    /// job's if the pipeline had components that the job did not open.
    pub fn to_pipeline(
        &self,
        mut find: impl FnMut(&RecordedComponent) -> ResolvedComponentFile,
    ) -> ResolvedPipeline {
        let mut manifest = Manifest::default_pipeline_manifest();
        manifest.name.clone_from(&self.pipeline);
        manifest.settings = self
            .settings
            .iter()
            .map(|(name, value)| (name.clone(), SettingValue::String(value.clone())))
            .collect();
        manifest.capabilities.grant.clone_from(&self.granted_capabilities);
        manifest.limits = self.limits;
        let (mut components, mut defaults) = (BTreeMap::new(), BTreeMap::new());
        for assigned in &self.role_assignments {
            let mut file =
                |component_index: u16| self.components.get(usize::from(component_index)).map(&mut find);
            components.extend(file(assigned.primary).map(|file| (assigned.role, file)));
            if let Some(component_index) = assigned.fallback {
                manifest.on_component_failure = ComponentFailurePolicy::Default;
                defaults.extend(file(component_index).map(|file| (assigned.role, file)));
            }
        }
        ResolvedPipeline::new(manifest, components, defaults)
    }

    /// Returns the approximate size in bytes.
    fn estimate_bytes(&self) -> usize {
        let settings: usize = self.settings.iter().map(|(k, v)| k.len() + v.len()).sum();
        size_of::<Self>() + settings + self.components.len() * size_of::<RecordedComponent>()
    }
}

/// A component of a recorded job.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RecordedComponent {
    /// The component's name in errors.
    pub name: String,
    /// SHA-256 of the component's bytes.
    pub digest: [u8; 32],
}

/// A recorded policy call.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct RecordedCall {
    /// Index of the component in [`SessionHeader::components`].
    pub component_index: u16,
    /// Number of the call among the calls of this component in the session, from 0.
    pub sequence: u32,
    /// Elapsed microseconds, including waits.
    pub elapsed_micros: u32,
    /// Responses of the capabilities that the call used.
    pub responses: Vec<RecordedResponse>,
    /// Input and result of the call.
    pub decision: RecordedDecision,
}

impl RecordedCall {
    /// Returns the approximate size in bytes.
    fn estimate_bytes(&self) -> usize {
        let response_bytes: usize = self.responses.iter().map(|heard| heard.response.len()).sum();
        size_of::<Self>() + response_bytes + self.decision.estimate_heap_bytes()
    }
}
