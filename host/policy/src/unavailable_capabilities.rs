//! Capabilities for calls outside of a job.

use std::sync::atomic::{AtomicBool, Ordering};

use async_trait::async_trait;
use weir_core::component_log::ComponentLogRecord;
use weir_core::event::ErrorInfo;
use weir_core::ports::HostCapabilities;
use weir_core::{DocumentId, PageNumber, PolicyError, Rect};

/// Capabilities that always fail.
#[derive(Default)]
pub(crate) struct UnavailableCapabilities {
    pub(crate) was_called: AtomicBool,
}

impl UnavailableCapabilities {
    fn refuse_call<T>(&self) -> Result<T, ErrorInfo> {
        self.was_called.store(true, Ordering::Relaxed);
        Err(ErrorInfo {
            kind: "unavailable".into(),
            message: "this capability is not available outside of a job".into(),
        })
    }
}

#[async_trait]
impl HostCapabilities for UnavailableCapabilities {
    async fn render_preview(
        &self,
        _: &DocumentId,
        _: PageNumber,
        _: u32,
    ) -> Result<(u32, u32, Vec<u8>), ErrorInfo> {
        self.refuse_call()
    }

    async fn read_page_text_layer(&self, _: &DocumentId, _: PageNumber) -> Result<String, ErrorInfo> {
        self.refuse_call()
    }

    async fn count_embedding_tokens(&self, _: &str) -> Result<u32, ErrorInfo> {
        self.refuse_call()
    }

    async fn embed_texts(&self, _: Vec<String>) -> Result<Vec<Vec<f32>>, ErrorInfo> {
        self.refuse_call()
    }

    async fn recognize_region(&self, _: &DocumentId, _: PageNumber, _: Rect) -> Result<String, ErrorInfo> {
        self.refuse_call()
    }

    async fn generate_text(&self, _: &str, _: u32) -> Result<String, ErrorInfo> {
        self.refuse_call()
    }

    fn report_policy_fallback(&self, _: &PolicyError) {}
    fn append_component_log(&self, _: ComponentLogRecord) {}
}
