//! What the thread that has the model is sent.

use tokio::sync::oneshot;
use weir_core::language::{Fault, QuestionKind};

use crate::provider::Reply;

/// A question on its way to the thread.
pub(super) struct Asked {
    pub(super) kind: QuestionKind,
    pub(super) system: Option<String>,
    pub(super) prompt: String,
    pub(super) max_tokens: u32,
    /// Closed when nobody waits for the answer any more.
    pub(super) answer: oneshot::Sender<Result<Reply, Fault>>,
}

impl Asked {
    pub(super) fn fail(self, fault: Fault) {
        // Who asked may be gone.
        let _ = self.answer.send(Err(fault));
    }
}
