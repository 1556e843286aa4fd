//! Shares the memory of page images fairly between flows (one flow for each tenant).
//!
//! Free memory goes to the flow that holds the least; among equals the flows take turns ([`FairQueue`]). A flow that already holds memory may
//! hold at most three times the memory that stays free. A single flow thus gets three quarters of the memory, and two flows get
//! three sevenths each. A new flow finds free memory at once, or is the next to get some. Network switches share their buffers in
//! this way (Choudhury and Hahne, "Dynamic queue length thresholds", 1998).
//!
//! A flow that holds nothing stays at the front until enough memory is free for its page, however large. No other flow overtakes
//! it.

use std::collections::HashMap;

use weir_core::PriorityLane;
use weir_core::fair_queue::{FairQueue, Flow};

use crate::protocol::DocumentKey;

/// A flow may hold at most this many times the memory that is left free.
const MAX_HELD_TO_FREE_RATIO: u64 = 3;

/// Returns the flow of a document in a fair queue. Every request has cost 1 there: flows take turns, and in a flow its documents do.
pub(crate) const fn flow_of_document(flow_id: u64, document: DocumentKey) -> Flow<u64> {
    Flow {
        lane: PriorityLane::Bulk,
        tenant: flow_id,
        group: document,
        weight: 1.0,
    }
}

/// A request for image memory.
#[derive(Debug)]
pub(crate) struct MemoryRequest<T> {
    pub(crate) flow_id: u64,
    pub(crate) bytes: u64,
    /// Identifies the caller that gets the memory when it is granted.
    pub(crate) recipient: T,
}

/// The bytes that each flow holds, and the requests for more.
#[derive(Debug)]
pub(crate) struct ImageBudget<T> {
    /// Flows that hold more than 0 bytes.
    held_bytes: HashMap<u64, u64>,
    pending: FairQueue<MemoryRequest<T>, u64>,
}

impl<T> Default for ImageBudget<T> {
    fn default() -> Self {
        Self {
            held_bytes: HashMap::new(),
            pending: FairQueue::new(),
        }
    }
}

impl<T> ImageBudget<T> {
    /// Adds a request to the end of its document's queue.
    pub(crate) fn push_request(&mut self, document: DocumentKey, request: MemoryRequest<T>) {
        let flow = flow_of_document(request.flow_id, document);
        self.pending.push(&flow, 0, 1.0, request);
    }

    /// Removes and returns the next request that can be granted from `free` bytes. Its flow holds those bytes from now on.
    pub(crate) fn grant_next_request(&mut self, free: u64) -> Option<MemoryRequest<T>> {
        let fits_share = |held: u64, bytes: u64| {
            let left = free.checked_sub(bytes);
            left.is_some_and(|left| {
                held == 0 || held.saturating_add(bytes) <= left.saturating_mul(MAX_HELD_TO_FREE_RATIO)
            })
        };
        let mut requests = self.pending.next_request_of_each_tenant(PriorityLane::Bulk);
        requests.sort_by_key(|(_, request)| self.held_bytes_of_flow(request.flow_id));
        let (position, held, bytes) = requests.into_iter().find_map(|(position, request)| {
            let (held, bytes) = (self.held_bytes_of_flow(request.flow_id), request.bytes);
            (held == 0 || fits_share(held, bytes)).then_some((position, held, bytes))
        })?;
        if !fits_share(held, bytes) {
            return None;
        }
        let request = self.pending.take_request_and_charge(&position)?;
        *self.held_bytes.entry(request.flow_id).or_default() += bytes;
        Some(request)
    }

    /// Records that a flow has released bytes.
    pub(crate) fn release_bytes(&mut self, flow_id: u64, bytes: u64) {
        if let Some(held) = self.held_bytes.get_mut(&flow_id) {
            *held = held.saturating_sub(bytes);
            if *held == 0 {
                self.held_bytes.remove(&flow_id);
            }
        }
    }

    /// Removes the canceled requests.
    pub(crate) fn remove_canceled_requests(
        &mut self,
        is_canceled: impl Fn(&T) -> bool,
    ) -> Vec<MemoryRequest<T>> {
        self.pending
            .withdraw_matching_uncharged(|request| is_canceled(&request.recipient))
    }

    /// Returns the number of pending requests.
    pub(crate) fn len(&self) -> usize {
        self.pending.len()
    }

    fn held_bytes_of_flow(&self, flow_id: u64) -> u64 {
        self.held_bytes.get(&flow_id).copied().unwrap_or(0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A budget with its free bytes.
    struct TestMemory {
        budget: ImageBudget<()>,
        free_bytes: u64,
    }

    impl TestMemory {
        fn new(bytes: u64) -> Self {
            Self {
                budget: ImageBudget::default(),
                free_bytes: bytes,
            }
        }

        fn request_bytes(&mut self, flow_id: u64, bytes: u64, times: usize) {
            for _ in 0..times {
                let request = MemoryRequest {
                    flow_id,
                    bytes,
                    recipient: (),
                };
                self.budget.push_request(flow_id, request);
            }
        }

        /// Grants every request that can be granted; returns their flows in order.
        fn grant_all(&mut self) -> Vec<u64> {
            let mut granted = Vec::new();
            while let Some(request) = self.budget.grant_next_request(self.free_bytes) {
                self.free_bytes -= request.bytes;
                granted.push(request.flow_id);
            }
            granted
        }

        fn release_bytes(&mut self, flow_id: u64, bytes: u64) {
            self.budget.release_bytes(flow_id, bytes);
            self.free_bytes += bytes;
        }
    }

    #[test]
    fn one_flow_leaves_a_quarter_free_for_others() {
        let mut memory = TestMemory::new(16);
        memory.request_bytes(1, 1, 100);
        assert_eq!(memory.grant_all(), [1; 12]);
        memory.request_bytes(2, 1, 1);
        assert_eq!(memory.grant_all(), [2]);
    }

    #[test]
    fn flows_with_large_demand_hold_equal_shares() {
        let mut memory = TestMemory::new(70);
        memory.request_bytes(1, 1, 100);
        memory.grant_all();
        memory.request_bytes(2, 1, 100);
        // The memory that the first flow releases goes to the second until both hold the same.
        for _ in 0..60 {
            if memory.budget.held_bytes_of_flow(1) > memory.budget.held_bytes_of_flow(2) {
                memory.release_bytes(1, 1);
            }
            memory.grant_all();
        }
        let held = [
            memory.budget.held_bytes_of_flow(1),
            memory.budget.held_bytes_of_flow(2),
        ];
        assert!(
            held[0].abs_diff(held[1]) <= 1 && memory.free_bytes >= 10,
            "{held:?}"
        );
    }

    #[test]
    fn flow_without_memory_is_next_when_all_is_in_use() {
        let mut memory = TestMemory::new(4);
        memory.request_bytes(1, 1, 100);
        memory.request_bytes(2, 1, 2);
        assert_eq!(memory.grant_all(), [1, 2, 1]);
        memory.request_bytes(3, 1, 1);
        assert_eq!(memory.grant_all(), [3]);
        memory.request_bytes(4, 1, 1);
        assert!(memory.grant_all().is_empty());
        memory.release_bytes(1, 1);
        assert_eq!(memory.grant_all(), [4]);
    }

    #[test]
    fn large_page_is_not_starved_by_small_ones() {
        let mut memory = TestMemory::new(16);
        memory.request_bytes(1, 1, 12);
        memory.grant_all();
        memory.request_bytes(2, 16, 1);
        memory.request_bytes(1, 1, 100);
        memory.request_bytes(3, 1, 100);
        let mut releases = 0;
        while memory.budget.held_bytes_of_flow(1) > 0 {
            memory.release_bytes(1, 1);
            releases += 1;
            if memory.grant_all().contains(&2) {
                break;
            }
        }
        assert_eq!((releases, memory.budget.held_bytes_of_flow(2)), (12, 16));
    }
}
