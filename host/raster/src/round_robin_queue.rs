//! A round-robin queue: flows take turns, the documents within a flow take turns, and the requests of a document keep their
//! order. Neither a document of a thousand pages nor a thousand documents of one flow delay another flow.

use std::collections::VecDeque;

/// Queued requests by flow and document.
#[derive(Debug)]
pub(crate) struct RoundRobinQueue<T> {
    /// Holds no flow without documents and no document without requests.
    flows: VecDeque<(u64, DocumentQueues<T>)>,
}

/// The request queues of a flow, by document.
type DocumentQueues<T> = VecDeque<(u64, VecDeque<T>)>;

impl<T> Default for RoundRobinQueue<T> {
    fn default() -> Self {
        Self {
            flows: VecDeque::new(),
        }
    }
}

impl<T> RoundRobinQueue<T> {
    /// Adds a request to the end of its document's queue.
    pub(crate) fn push(&mut self, party: u64, document: u64, request: T) {
        let Some((_, lines)) = self.flows.iter_mut().find(|(key, _)| *key == party) else {
            let line = VecDeque::from([request]);
            self.flows.push_back((party, VecDeque::from([(document, line)])));
            return;
        };
        match lines.iter_mut().find(|(key, _)| *key == document) {
            Some((_, line)) => line.push_back(request),
            None => lines.push_back((document, VecDeque::from([request]))),
        }
    }

    /// Returns the next request of each flow, in the order of their turns.
    pub(crate) fn front_of_each_flow(&self) -> impl Iterator<Item = (u64, &T)> {
        self.flows.iter().filter_map(|(party, lines)| {
            let (_, line) = lines.front()?;
            Some((*party, line.front()?))
        })
    }

    /// Removes the next request of a flow as if it were that flow's turn.
    pub(crate) fn pop_from_flow(&mut self, party: u64) -> Option<T> {
        let at = self.flows.iter().position(|(key, _)| *key == party)?;
        let turn = self.flows.remove(at)?;
        self.flows.push_front(turn);
        self.pop()
    }

    /// Removes the canceled requests at the front of each flow and returns them.
    pub(crate) fn remove_canceled(&mut self, gone: impl Fn(&T) -> bool) -> Vec<T> {
        let mut discarded = Vec::new();
        for (_, lines) in &mut self.flows {
            while let Some((_, line)) = lines.front_mut()
                && let Some(request) = line.pop_front_if(|request| gone(request))
            {
                discarded.push(request);
                if line.is_empty() {
                    lines.pop_front();
                }
            }
        }
        self.flows.retain(|(_, lines)| !lines.is_empty());
        discarded
    }

    /// Returns the next request.
    pub(crate) fn front(&self) -> Option<&T> {
        let (_, lines) = self.flows.front()?;
        lines.front().and_then(|(_, line)| line.front())
    }

    /// Removes the next request. The turn passes to the next flow, and within the flow to its next document.
    pub(crate) fn pop(&mut self) -> Option<T> {
        let (party, mut lines) = self.flows.pop_front()?;
        let (document, mut line) = lines.pop_front()?;
        let request = line.pop_front();
        if !line.is_empty() {
            lines.push_back((document, line));
        }
        if !lines.is_empty() {
            self.flows.push_back((party, lines));
        }
        request
    }

    /// Returns the number of queued requests.
    pub(crate) fn len(&self) -> usize {
        let lines = self.flows.iter().flat_map(|(_, lines)| lines);
        lines.map(|(_, line)| line.len()).sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn documents_take_turns_and_keep_their_own_order() {
        let mut queue = RoundRobinQueue::default();
        for (document, request) in [(1, "a1"), (1, "a2"), (1, "a3"), (2, "b1"), (3, "c1"), (2, "b2")] {
            queue.push(0, document, request);
        }
        assert_eq!((queue.len(), queue.front()), (6, Some(&"a1")));
        let order: Vec<_> = std::iter::from_fn(|| queue.pop()).collect();
        assert_eq!(order, ["a1", "b1", "c1", "a2", "b2", "a3"]);
        assert_eq!(queue.len(), 0);
    }

    #[test]
    fn canceled_requests_cost_no_turn() {
        let mut queue = RoundRobinQueue::default();
        for (document, request) in [(1, "a1"), (1, "a2"), (2, "b1")] {
            queue.push(0, document, request);
        }
        assert_eq!(queue.remove_canceled(|request| *request == "a1"), ["a1"]);
        assert_eq!(queue.pop(), Some("a2"));
        assert_eq!(queue.remove_canceled(|_| true), ["b1"]);
        assert!(queue.remove_canceled(|_| true).is_empty() && queue.front().is_none());
    }

    #[test]
    fn many_documents_of_one_flow_share_its_turns() {
        let mut queue = RoundRobinQueue::default();
        for document in 0..50 {
            queue.push(1, document, "many");
            queue.push(1, document, "many");
        }
        for _ in 0..3 {
            queue.push(2, 100, "one");
        }
        assert_eq!(queue.len(), 103);
        let order: Vec<_> = std::iter::from_fn(|| queue.pop()).take(6).collect();
        assert_eq!(order, ["many", "one", "many", "one", "many", "one"]);
        let fronts: Vec<_> = queue
            .front_of_each_flow()
            .map(|(party, request)| (party, *request))
            .collect();
        assert_eq!(fronts, [(1, "many")]);
        assert_eq!(queue.pop_from_flow(1), Some("many"));
        assert_eq!(
            (queue.len(), std::iter::from_fn(|| queue.pop()).count()),
            (96, 96)
        );
    }
}
