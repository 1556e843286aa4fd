//! A queue that is fair between documents: each document's requests keep their order, and documents take turns.

use std::collections::VecDeque;

/// Requests by document.
#[derive(Debug)]
pub(crate) struct Rotation<T> {
    /// Never holds an empty line.
    lines: VecDeque<(u64, VecDeque<T>)>,
}

impl<T> Default for Rotation<T> {
    fn default() -> Self {
        Self {
            lines: VecDeque::new(),
        }
    }
}

impl<T> Rotation<T> {
    /// Puts a request at the end of its document's line.
    pub(crate) fn push(&mut self, document: u64, request: T) {
        match self.lines.iter_mut().find(|(key, _)| *key == document) {
            Some((_, line)) => line.push_back(request),
            None => self.lines.push_back((document, VecDeque::from([request]))),
        }
    }

    /// The request whose turn it is.
    pub(crate) fn front(&self) -> Option<&T> {
        self.lines.front().and_then(|(_, line)| line.front())
    }

    /// Takes the request whose turn it is; then it is the next document's turn.
    pub(crate) fn pop(&mut self) -> Option<T> {
        let (document, mut line) = self.lines.pop_front()?;
        let request = line.pop_front();
        if !line.is_empty() {
            self.lines.push_back((document, line));
        }
        request
    }

    /// Takes the request whose turn it is away without using up the turn.
    pub(crate) fn discard(&mut self) -> Option<T> {
        let (_, line) = self.lines.front_mut()?;
        let request = line.pop_front();
        if line.is_empty() {
            self.lines.pop_front();
        }
        request
    }

    /// Requests waiting.
    pub(crate) fn len(&self) -> usize {
        self.lines.iter().map(|(_, line)| line.len()).sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn documents_take_turns_and_keep_their_own_order() {
        let mut queue = Rotation::default();
        for (document, request) in [(1, "a1"), (1, "a2"), (1, "a3"), (2, "b1"), (3, "c1"), (2, "b2")] {
            queue.push(document, request);
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
            queue.push(document, request);
        }
        assert_eq!(queue.discard(), Some("a1"));
        assert_eq!(queue.pop(), Some("a2"));
        assert_eq!((queue.discard(), queue.discard()), (Some("b1"), None));
    }
}
