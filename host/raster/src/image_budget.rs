//! Shares the memory of page images fairly between flows (one flow for each tenant).
//!
//! Free memory goes to the flow that holds the least; round robin decides among equals. A flow that already holds memory may
//! hold at most three times the memory that stays free. A single flow thus gets three quarters of the memory, and two flows get
//! three sevenths each. A new flow finds free memory at once, or is the next to get some. Network switches share their buffers in
//! this way (Choudhury and Hahne, "Dynamic queue length thresholds", 1998).
//!
//! A flow that holds nothing stays at the front until enough memory is free for its page, however large. No other flow overtakes
//! it.

use std::collections::HashMap;

use crate::round_robin_queue::RoundRobinQueue;

/// A flow may hold at most this many times the memory that is left free.
const MAX_HELD_TO_FREE_RATIO: u64 = 3;

/// A request for image memory.
#[derive(Debug)]
pub(crate) struct MemoryRequest<T> {
    pub(crate) flow_id: u64,
    pub(crate) bytes: u64,
    /// The receiver of the memory.
    pub(crate) item: T,
}

/// The bytes that each flow holds, and the requests for more.
#[derive(Debug)]
pub(crate) struct ImageBudget<T> {
    /// Flows that hold more than 0 bytes.
    held_bytes: HashMap<u64, u64>,
    pending: RoundRobinQueue<MemoryRequest<T>>,
}

impl<T> Default for ImageBudget<T> {
    fn default() -> Self {
        Self {
            held_bytes: HashMap::new(),
            pending: RoundRobinQueue::default(),
        }
    }
}

impl<T> ImageBudget<T> {
    /// Adds a request to the end of its document's queue.
    pub(crate) fn push(&mut self, document: u64, request: MemoryRequest<T>) {
        self.pending.push(request.flow_id, document, request);
    }

    /// Removes and returns the next request that can be granted from `free` bytes. Its flow holds those bytes from now on.
    pub(crate) fn grant_next(&mut self, free: u64) -> Option<MemoryRequest<T>> {
        let requests = self.pending.front_of_each_flow();
        let mut requests: Vec<_> = requests
            .map(|(party, request)| (self.held_bytes(party), party, request.bytes))
            .collect();
        requests.sort_by_key(|(held, ..)| *held);
        let may = |(held, _, bytes): &(u64, u64, u64)| {
            let left = free.checked_sub(*bytes);
            left.is_some_and(|left| {
                *held == 0 || held.saturating_add(*bytes) <= left.saturating_mul(MAX_HELD_TO_FREE_RATIO)
            })
        };
        let first = requests.iter().find(|request| request.0 == 0 || may(request))?;
        let (_, party, bytes) = *first;
        if !may(first) {
            return None;
        }
        *self.held_bytes.entry(party).or_default() += bytes;
        self.pending.pop_from_flow(party)
    }

    /// Records that a flow has released bytes.
    pub(crate) fn release_bytes(&mut self, party: u64, bytes: u64) {
        if let Some(held) = self.held_bytes.get_mut(&party) {
            *held = held.saturating_sub(bytes);
            if *held == 0 {
                self.held_bytes.remove(&party);
            }
        }
    }

    /// Removes the canceled requests at the front of each flow.
    pub(crate) fn remove_canceled(&mut self, gone: impl Fn(&T) -> bool) -> Vec<MemoryRequest<T>> {
        self.pending.remove_canceled(|request| gone(&request.item))
    }

    /// Returns the number of pending requests.
    pub(crate) fn len(&self) -> usize {
        self.pending.len()
    }

    fn held_bytes(&self, party: u64) -> u64 {
        self.held_bytes.get(&party).copied().unwrap_or(0)
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

        fn request_bytes(&mut self, party: u64, bytes: u64, times: usize) {
            for _ in 0..times {
                let request = MemoryRequest {
                    flow_id: party,
                    bytes,
                    item: (),
                };
                self.budget.push(party, request);
            }
        }

        /// Grants every request that can be granted; returns their flows in order.
        fn grant_all(&mut self) -> Vec<u64> {
            let mut granted = Vec::new();
            while let Some(request) = self.budget.grant_next(self.free_bytes) {
                self.free_bytes -= request.bytes;
                granted.push(request.flow_id);
            }
            granted
        }

        fn release_bytes(&mut self, party: u64, bytes: u64) {
            self.budget.release_bytes(party, bytes);
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
            if memory.budget.held_bytes(1) > memory.budget.held_bytes(2) {
                memory.release_bytes(1, 1);
            }
            memory.grant_all();
        }
        let held = [memory.budget.held_bytes(1), memory.budget.held_bytes(2)];
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
        let mut turns = 0;
        while memory.budget.held_bytes(1) > 0 {
            memory.release_bytes(1, 1);
            turns += 1;
            if memory.grant_all().contains(&2) {
                break;
            }
        }
        assert_eq!((turns, memory.budget.held_bytes(2)), (12, 16));
    }
}
