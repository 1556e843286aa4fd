//! The batching role: the number of pages in the next batch and their resolution.

use weir_core::decision::PolicyFunctionInput as _;
use weir_core::decision::{BatchContext, DeviceKind, NextBatchPlan};

use super::{GuestFunction, check_range, missing_export_error, wit_conversions};
use crate::bindings::batching;
use crate::instance::instance_data::LiveInstance;
use crate::recording::{PolicyFunctionCall, RecordedDecision};

impl GuestFunction for BatchContext {
    const RECORD: fn(PolicyFunctionCall<Self>) -> RecordedDecision = RecordedDecision::Plan;
    type RawDecision = batching::Batch;

    async fn call_guest_function(&self, live: &mut LiveInstance) -> wasmtime::Result<batching::Batch> {
        let guest = live
            .exports
            .batching
            .as_ref()
            .ok_or_else(|| missing_export_error(Self::ROLE))?;
        let situation = batching::Situation {
            document: self.document.to_string(),
            total_pages: self.total_pages,
            remaining_pages: self.remaining_pages,
            next: self
                .next_pages
                .iter()
                .map(wit_conversions::to_wit_page_facts)
                .collect(),
            queues: wit_conversions::to_wit_queues(&self.queues),
            times: wit_conversions::to_wit_stage_times(&self.stage_timings),
            device: batching::Device {
                kind: match self.device.kind {
                    DeviceKind::Cpu => batching::DeviceKind::Cpu,
                    DeviceKind::Gpu => batching::DeviceKind::Gpu,
                },
                memory_bytes: self.device.memory_bytes,
                cores: self.device.cores,
            },
            free_image_bytes: self.free_image_bytes,
        };
        guest.call_plan(&mut live.store, &situation).await
    }

    fn validate_decision(&self, raw_decision: batching::Batch) -> Result<NextBatchPlan, String> {
        let known_pages = u32::try_from(self.next_pages.len()).unwrap_or(64).max(1);
        Ok(NextBatchPlan {
            pages: check_range("pages", raw_decision.pages, 1, 64)?.min(known_pages),
            dpi: check_range("dpi", raw_decision.dpi, 36, 600)?,
            linger_millis: check_range("linger-millis", raw_decision.linger_millis, 0, 10_000)?,
            queue_capacity: check_range("queue-capacity", raw_decision.queue_capacity, 1, 64)?,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use weir_core::DocumentId;
    use weir_core::decision::ComputeDevice;
    use weir_core::page::PageFacts;

    fn sample_batch_context(next: usize) -> BatchContext {
        let facts = PageFacts {
            number: 1,
            width: 1.0,
            height: 1.0,
            text_chars: 0,
            image_coverage: 0.0,
            readable: true,
        };
        BatchContext {
            document: DocumentId::from_content(b"d"),
            total_pages: 9,
            remaining_pages: 9,
            next_pages: vec![facts; next],
            queues: Vec::new(),
            stage_timings: Vec::new(),
            device: ComputeDevice::default(),
            free_image_bytes: 0,
        }
    }

    #[test]
    fn batch_plan_values_are_checked() {
        let good = batching::Batch {
            pages: 4,
            dpi: 150,
            linger_millis: 0,
            queue_capacity: 8,
        };
        assert_eq!(sample_batch_context(8).validate_decision(good).unwrap().pages, 4);
        assert_eq!(sample_batch_context(3).validate_decision(good).unwrap().pages, 3);
        for (wrong, name) in [
            (batching::Batch { pages: 0, ..good }, "pages is 0"),
            (batching::Batch { pages: 65, ..good }, "pages is 65"),
            (batching::Batch { dpi: 35, ..good }, "dpi"),
            (batching::Batch { dpi: 601, ..good }, "dpi"),
            (
                batching::Batch {
                    linger_millis: 10_001,
                    ..good
                },
                "linger",
            ),
            (
                batching::Batch {
                    queue_capacity: 0,
                    ..good
                },
                "queue-capacity",
            ),
            (
                batching::Batch {
                    queue_capacity: 65,
                    ..good
                },
                "queue-capacity",
            ),
        ] {
            let error = sample_batch_context(64).validate_decision(wrong).unwrap_err();
            assert!(error.contains(name), "{error}");
        }
    }
}
