//! Shares the memory of page images between parties.
//!
//! Memory that is free goes to the party that holds the least of it; among equals, to the one whose turn it is. A party that
//! holds some gets more only while a part of the memory stays free for others: it may hold three times what is left. One party
//! alone thus has three quarters, two have three sevenths each, and one that comes to a host in full use finds room at once
//! or is the next to get some. (Switches share their buffers this way: Choudhury and Hahne, dynamic queue length thresholds,
//! 1998.)
//!
//! A party that holds nothing waits at the head until there is enough for its page, however large, and is not overtaken.

use std::collections::HashMap;

use crate::rotation::Rotation;

/// How many times what is left free a party may hold.
const TIMES_FREE: u64 = 3;

/// A request for memory.
#[derive(Debug)]
pub(crate) struct Request<T> {
    pub(crate) party: u64,
    pub(crate) bytes: u64,
    /// Where the memory goes.
    pub(crate) item: T,
}

/// Bytes held by each party, and the requests for more.
#[derive(Debug)]
pub(crate) struct Budget<T> {
    /// Parties that hold some.
    held: HashMap<u64, u64>,
    waiting: Rotation<Request<T>>,
}

impl<T> Default for Budget<T> {
    fn default() -> Self {
        Self {
            held: HashMap::new(),
            waiting: Rotation::default(),
        }
    }
}

impl<T> Budget<T> {
    /// Puts a request at the end of its document's line.
    pub(crate) fn push(&mut self, document: u64, request: Request<T>) {
        self.waiting.push(request.party, document, request);
    }

    /// Takes the request that gets its bytes next, of `free` ones. It counts as holding them.
    pub(crate) fn next(&mut self, free: u64) -> Option<Request<T>> {
        let requests = self.waiting.fronts();
        let mut requests: Vec<_> = requests
            .map(|(party, request)| (self.held(party), party, request.bytes))
            .collect();
        requests.sort_by_key(|(held, ..)| *held);
        let may = |(held, _, bytes): &(u64, u64, u64)| {
            let left = free.checked_sub(*bytes);
            left.is_some_and(|left| {
                *held == 0 || held.saturating_add(*bytes) <= left.saturating_mul(TIMES_FREE)
            })
        };
        let first = requests.iter().find(|request| request.0 == 0 || may(request))?;
        let (_, party, bytes) = *first;
        if !may(first) {
            return None;
        }
        *self.held.entry(party).or_default() += bytes;
        self.waiting.pop_of(party)
    }

    /// A party has given bytes back.
    pub(crate) fn give_back(&mut self, party: u64, bytes: u64) {
        if let Some(held) = self.held.get_mut(&party) {
            *held = held.saturating_sub(bytes);
            if *held == 0 {
                self.held.remove(&party);
            }
        }
    }

    /// Takes out requests that are `gone`, as far as others wait behind them.
    pub(crate) fn discard_gone(&mut self, gone: impl Fn(&T) -> bool) -> Vec<Request<T>> {
        self.waiting.discard_gone(|request| gone(&request.item))
    }

    /// Requests waiting.
    pub(crate) fn len(&self) -> usize {
        self.waiting.len()
    }

    fn held(&self, party: u64) -> u64 {
        self.held.get(&party).copied().unwrap_or(0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A memory of so many bytes.
    struct Memory {
        budget: Budget<()>,
        free: u64,
    }

    impl Memory {
        fn new(bytes: u64) -> Self {
            Self {
                budget: Budget::default(),
                free: bytes,
            }
        }

        fn ask(&mut self, party: u64, bytes: u64, times: usize) {
            for _ in 0..times {
                let request = Request {
                    party,
                    bytes,
                    item: (),
                };
                self.budget.push(party, request);
            }
        }

        /// Grants what can be granted: parties, in order.
        fn grant(&mut self) -> Vec<u64> {
            let mut granted = Vec::new();
            while let Some(request) = self.budget.next(self.free) {
                self.free -= request.bytes;
                granted.push(request.party);
            }
            granted
        }

        fn give_back(&mut self, party: u64, bytes: u64) {
            self.budget.give_back(party, bytes);
            self.free += bytes;
        }
    }

    #[test]
    fn one_party_leaves_a_quarter_free_for_others() {
        let mut memory = Memory::new(16);
        memory.ask(1, 1, 100);
        assert_eq!(memory.grant(), [1; 12]);
        memory.ask(2, 1, 1);
        assert_eq!(memory.grant(), [2]);
    }

    #[test]
    fn parties_that_want_much_hold_equal_shares() {
        let mut memory = Memory::new(70);
        memory.ask(1, 1, 100);
        memory.grant();
        memory.ask(2, 1, 100);
        // What the first gives back goes to the second, until they are even.
        for _ in 0..60 {
            if memory.budget.held(1) > memory.budget.held(2) {
                memory.give_back(1, 1);
            }
            memory.grant();
        }
        let held = [memory.budget.held(1), memory.budget.held(2)];
        assert!(held[0].abs_diff(held[1]) <= 1 && memory.free >= 10, "{held:?}");
    }

    #[test]
    fn a_party_that_holds_nothing_is_next_in_full_use() {
        let mut memory = Memory::new(4);
        memory.ask(1, 1, 100);
        memory.ask(2, 1, 2);
        assert_eq!(memory.grant(), [1, 2, 1]);
        memory.ask(3, 1, 1);
        assert_eq!(memory.grant(), [3]);
        memory.ask(4, 1, 1);
        assert!(memory.grant().is_empty());
        memory.give_back(1, 1);
        assert_eq!(memory.grant(), [4]);
    }

    #[test]
    fn a_large_page_is_not_overtaken_for_ever() {
        let mut memory = Memory::new(16);
        memory.ask(1, 1, 12);
        memory.grant();
        memory.ask(2, 16, 1);
        memory.ask(1, 1, 100);
        memory.ask(3, 1, 100);
        let mut turns = 0;
        while memory.budget.held(1) > 0 {
            memory.give_back(1, 1);
            turns += 1;
            if memory.grant().contains(&2) {
                break;
            }
        }
        assert_eq!((turns, memory.budget.held(2)), (12, 16));
    }
}
