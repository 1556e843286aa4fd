//! Leave to make one call, and a question's place in the queue. Each gives back what it holds however its owner ends.

use std::sync::Arc;

use weir_core::language::Fault;
use weir_core::ports::Account;

use crate::desk::{End, Ticket};
use crate::dispatch::Shared;
use crate::fair::QuestionId;
use crate::provider::Reply;

/// Leave to ask a provider once.
pub(crate) struct Permit {
    shared: Arc<Shared>,
    /// Which provider.
    pub(crate) member: usize,
    ticket: Option<Ticket>,
}

impl Permit {
    pub(crate) const fn new(shared: Arc<Shared>, member: usize, ticket: Ticket) -> Self {
        Self {
            shared,
            member,
            ticket: Some(ticket),
        }
    }

    /// The call was answered.
    pub(crate) fn answered(mut self, reply: &Reply) {
        self.end(&End::Answered(reply));
    }

    /// The call failed.
    pub(crate) fn failed(mut self, fault: &Fault) {
        self.end(&End::Failed(fault));
    }

    fn end(&mut self, end: &End<'_>) {
        if let Some(ticket) = self.ticket.take() {
            self.shared.end(self.member, ticket, end);
        }
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        self.end(&End::Withdrawn);
    }
}

/// A question's place in the queue.
pub(crate) struct InQueue<'a> {
    pub(crate) shared: &'a Shared,
    pub(crate) account: &'a Account,
    pub(crate) id: QuestionId,
}

impl Drop for InQueue<'_> {
    fn drop(&mut self) {
        self.shared.withdraw(self.account, self.id);
    }
}

/// A question that pauses before it is put to a provider again.
pub(crate) struct Pausing<'a> {
    shared: &'a Shared,
    member: usize,
}

impl<'a> Pausing<'a> {
    pub(crate) fn begin(shared: &'a Shared, member: usize) -> Self {
        shared.pause(member);
        Self { shared, member }
    }
}

impl Drop for Pausing<'_> {
    fn drop(&mut self) {
        self.shared.resume(self.member);
    }
}
