//! The batching role: how many pages the next batch takes.

use serde::{Deserialize, Serialize};

use super::stage_state::{QueueState, StageTiming};
use super::{PolicyFunctionInput, default_document};
use crate::id::DocumentId;
use crate::manifest::Role;
use crate::page::PageFacts;

/// The kind of a device.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum DeviceKind {
    /// The host's CPU.
    #[default]
    Cpu,
    /// A GPU.
    Gpu,
}

/// The device that models run on.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct ComputeDevice {
    /// Its kind.
    #[serde(default)]
    pub kind: DeviceKind,
    /// Bytes of memory that a model may use on it.
    #[serde(default = "default_device_memory")]
    pub memory_bytes: u64,
    /// CPU cores of the host.
    #[serde(default = "default_cores")]
    pub cores: u32,
}

const fn default_device_memory() -> u64 {
    8 << 30
}

const fn default_cores() -> u32 {
    4
}

const fn default_device() -> ComputeDevice {
    ComputeDevice {
        kind: DeviceKind::Cpu,
        memory_bytes: default_device_memory(),
        cores: default_cores(),
    }
}

const fn default_free_image_bytes() -> u64 {
    256 << 20
}

/// Input of the batching component before each batch.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct BatchContext {
    /// The document.
    #[serde(default = "default_document")]
    pub document: DocumentId,
    /// Pages that the job processes.
    pub total_pages: u32,
    /// Pages that no batch has taken yet, at least 1.
    pub remaining_pages: u32,
    /// The next pages, 1 to 64.
    #[serde(rename = "next", default)]
    pub next_pages: Vec<PageFacts>,
    /// State of the stage queues.
    #[serde(default)]
    pub queues: Vec<QueueState>,
    /// Timings of the stages.
    #[serde(rename = "times", default)]
    pub stage_timings: Vec<StageTiming>,
    /// The device that models run on.
    #[serde(default = "default_device")]
    pub device: ComputeDevice,
    /// Bytes that are free for page images.
    #[serde(default = "default_free_image_bytes")]
    pub free_image_bytes: u64,
}

impl PolicyFunctionInput for BatchContext {
    const ROLE: Role = Role::Batching;
    const NAME: &'static str = "batching.plan";
    type Decision = NextBatchPlan;

    fn describe_call_subject(&self) -> String {
        let first = self.next_pages.first().map_or(0, |facts| facts.number);
        format!("the batch from page {first}")
    }
}

/// Decision of the batching component: how to take the next batch.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct NextBatchPlan {
    /// Pages to take, 1 to 64.
    pub pages: u32,
    /// Resolution in dpi, 36 to 600.
    pub dpi: u32,
    /// Time in milliseconds that a partial embedding batch waits for more texts, 0 to 10,000.
    pub linger_millis: u32,
    /// Batches that can queue in front of each stage, 1 to 64.
    pub queue_capacity: u32,
}
