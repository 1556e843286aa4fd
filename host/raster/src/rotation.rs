//! A queue that is fair between parties: parties take turns, within a party its documents do, and each document's
//! requests keep their order. So neither a document of a thousand pages nor a thousand documents of one party hold up
//! another's.

use std::collections::VecDeque;

/// Requests by party and document.
#[derive(Debug)]
pub(crate) struct Rotation<T> {
    /// Never holds a party without lines, nor an empty line.
    parties: VecDeque<(u64, Lines<T>)>,
}

/// The lines of a party, by document.
type Lines<T> = VecDeque<(u64, VecDeque<T>)>;

impl<T> Default for Rotation<T> {
    fn default() -> Self {
        Self {
            parties: VecDeque::new(),
        }
    }
}

impl<T> Rotation<T> {
    /// Puts a request at the end of its document's line.
    pub(crate) fn push(&mut self, party: u64, document: u64, request: T) {
        let Some((_, lines)) = self.parties.iter_mut().find(|(key, _)| *key == party) else {
            let line = VecDeque::from([request]);
            self.parties
                .push_back((party, VecDeque::from([(document, line)])));
            return;
        };
        match lines.iter_mut().find(|(key, _)| *key == document) {
            Some((_, line)) => line.push_back(request),
            None => lines.push_back((document, VecDeque::from([request]))),
        }
    }

    /// The next request of each party, in the order of their turns.
    pub(crate) fn fronts(&self) -> impl Iterator<Item = (u64, &T)> {
        self.parties.iter().filter_map(|(party, lines)| {
            let (_, line) = lines.front()?;
            Some((*party, line.front()?))
        })
    }

    /// Takes a party's next request as if it were that party's turn.
    pub(crate) fn pop_of(&mut self, party: u64) -> Option<T> {
        let at = self.parties.iter().position(|(key, _)| *key == party)?;
        let turn = self.parties.remove(at)?;
        self.parties.push_front(turn);
        self.pop()
    }

    /// Takes each party's requests that are `gone` away from before the next one that is not.
    pub(crate) fn discard_gone(&mut self, gone: impl Fn(&T) -> bool) -> Vec<T> {
        let mut discarded = Vec::new();
        for (_, lines) in &mut self.parties {
            while let Some((_, line)) = lines.front_mut()
                && let Some(request) = line.pop_front_if(|request| gone(request))
            {
                discarded.push(request);
                if line.is_empty() {
                    lines.pop_front();
                }
            }
        }
        self.parties.retain(|(_, lines)| !lines.is_empty());
        discarded
    }

    /// The request whose turn it is.
    pub(crate) fn front(&self) -> Option<&T> {
        let (_, lines) = self.parties.front()?;
        lines.front().and_then(|(_, line)| line.front())
    }

    /// Takes the request whose turn it is; then it is the next party's turn, and within this one the next document's.
    pub(crate) fn pop(&mut self) -> Option<T> {
        let (party, mut lines) = self.parties.pop_front()?;
        let (document, mut line) = lines.pop_front()?;
        let request = line.pop_front();
        if !line.is_empty() {
            lines.push_back((document, line));
        }
        if !lines.is_empty() {
            self.parties.push_back((party, lines));
        }
        request
    }

    /// Requests waiting.
    pub(crate) fn len(&self) -> usize {
        let lines = self.parties.iter().flat_map(|(_, lines)| lines);
        lines.map(|(_, line)| line.len()).sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn documents_take_turns_and_keep_their_own_order() {
        let mut queue = Rotation::default();
        for (document, request) in [(1, "a1"), (1, "a2"), (1, "a3"), (2, "b1"), (3, "c1"), (2, "b2")] {
            queue.push(0, document, request);
        }
        assert_eq!((queue.len(), queue.front()), (6, Some(&"a1")));
        let order: Vec<_> = std::iter::from_fn(|| queue.pop()).collect();
        assert_eq!(order, ["a1", "b1", "c1", "a2", "b2", "a3"]);
        assert_eq!(queue.len(), 0);
    }

    #[test]
    fn what_nobody_waits_for_any_more_costs_no_turn() {
        let mut queue = Rotation::default();
        for (document, request) in [(1, "a1"), (1, "a2"), (2, "b1")] {
            queue.push(0, document, request);
        }
        assert_eq!(queue.discard_gone(|request| *request == "a1"), ["a1"]);
        assert_eq!(queue.pop(), Some("a2"));
        assert_eq!(queue.discard_gone(|_| true), ["b1"]);
        assert!(queue.discard_gone(|_| true).is_empty() && queue.front().is_none());
    }

    #[test]
    fn many_documents_of_one_party_get_no_more_than_one_of_another() {
        let mut queue = Rotation::default();
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
        let fronts: Vec<_> = queue.fronts().map(|(party, request)| (party, *request)).collect();
        assert_eq!(fronts, [(1, "many")]);
        assert_eq!(queue.pop_of(1), Some("many"));
        assert_eq!(
            (queue.len(), std::iter::from_fn(|| queue.pop()).count()),
            (96, 96)
        );
    }
}
