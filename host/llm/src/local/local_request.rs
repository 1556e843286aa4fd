//! A request to the model thread.

use tokio::sync::oneshot;
use weir_core::llm::{LlmRequestKind, ProviderError};

use crate::provider::ProviderResponse;

/// A request on its way to the model thread.
pub(super) struct LocalRequest {
    pub(super) kind: LlmRequestKind,
    pub(super) system: Option<String>,
    pub(super) prompt: String,
    pub(super) max_tokens: u32,
    /// Closed when the caller has dropped the request.
    pub(super) response_sender: oneshot::Sender<Result<ProviderResponse, ProviderError>>,
}

impl LocalRequest {
    pub(super) fn send_error(self, fault: ProviderError) {
        // The caller may have dropped the request.
        let _ = self.response_sender.send(Err(fault));
    }
}
