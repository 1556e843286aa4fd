//! How many pages to take next, and how finely to draw them.

use weir_core::decision::{BatchPlan, Situation};
use weir_core::event::ErrorNote;
use weir_core::manifest::Role;

use super::{Decision, missing, within, words};
use crate::bindings::batching;
use crate::live::Live;
use crate::recording::Exchange;

impl Decision for Situation {
    const ROLE: Role = Role::Batching;
    const FUNCTION: &'static str = "batching.plan";
    type Said = batching::Batch;
    type Answer = BatchPlan;

    async fn ask(&self, live: &mut Live) -> wasmtime::Result<batching::Batch> {
        let guest = live.roles.batching.as_ref().ok_or_else(|| missing(Self::ROLE))?;
        let situation = batching::Situation {
            document: self.document.to_string(),
            total_pages: self.total_pages,
            remaining_pages: self.remaining_pages,
            next: self.next.iter().map(words::page_facts).collect(),
            queues: words::queues(&self.queues),
            times: words::times(&self.times),
            device: batching::Device {
                kind: if self.device.gpu {
                    batching::DeviceKind::Gpu
                } else {
                    batching::DeviceKind::Cpu
                },
                memory_bytes: self.device.memory_bytes,
                cores: self.device.cores,
            },
            free_image_bytes: self.free_image_bytes,
        };
        guest.call_plan(&mut live.store, &situation).await
    }

    fn check(&self, said: batching::Batch) -> Result<BatchPlan, String> {
        let known = u32::try_from(self.next.len()).unwrap_or(64).max(1);
        Ok(BatchPlan {
            pages: within("pages", said.pages, 1, 64)?.min(known),
            dpi: within("dpi", said.dpi, 36, 600)?,
            linger_millis: within("linger-millis", said.linger_millis, 0, 10_000)?,
            queue_capacity: within("queue-capacity", said.queue_capacity, 1, 64)?,
        })
    }

    fn exchange(self, answer: Result<BatchPlan, ErrorNote>) -> Exchange {
        Exchange::Plan(self, answer)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use weir_core::DocumentId;
    use weir_core::decision::Device;
    use weir_core::page::PageFacts;

    fn situation(next: usize) -> Situation {
        let facts = PageFacts {
            number: 1,
            width: 1.0,
            height: 1.0,
            text_chars: 0,
            image_coverage: 0.0,
            readable: true,
        };
        Situation {
            document: DocumentId::of(b"d"),
            total_pages: 9,
            remaining_pages: 9,
            next: vec![facts; next],
            queues: Vec::new(),
            times: Vec::new(),
            device: Device::default(),
            free_image_bytes: 0,
        }
    }

    #[test]
    fn ranges_of_a_batch() {
        let good = batching::Batch {
            pages: 4,
            dpi: 150,
            linger_millis: 0,
            queue_capacity: 8,
        };
        assert_eq!(situation(8).check(good).unwrap().pages, 4);
        assert_eq!(situation(3).check(good).unwrap().pages, 3);
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
            let error = situation(64).check(wrong).unwrap_err();
            assert!(error.contains(name), "{error}");
        }
    }
}
