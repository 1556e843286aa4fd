//! The state that the handlers share.

use std::sync::Arc;

use axum::extract::FromRef;
use tokio::sync::{Semaphore, SemaphorePermit};
use weir_control::Control;

use crate::outbound_client::OutboundClient;
use crate::search::SearchBuffer;
use crate::signed_links::{LinkSigner, SigningKey};
use crate::stream_limiter::StreamLimiter;

/// Maximum number of concurrent renderings of documents as Markdown.
const MAX_CONCURRENT_MARKDOWN_RENDERINGS: usize = 2;

/// Limits the number of concurrent renderings of documents as Markdown.
pub(crate) struct MarkdownRenderLimiter(Semaphore);

impl MarkdownRenderLimiter {
    /// Waits until a rendering may start. The permit belongs to it until it ends.
    pub(crate) async fn acquire_render_permit(&self) -> Option<SemaphorePermit<'_>> {
        // It cannot fail: the semaphore is never closed.
        self.0.acquire().await.ok()
    }
}

/// State that all handlers share. A handler takes the part that it needs.
#[derive(Clone)]
pub(crate) struct AppState {
    pub(crate) control: Arc<Control>,
    pub(crate) outbound_client: Arc<OutboundClient>,
    /// Limits the number of open event streams.
    pub(crate) event_stream_limiter: Arc<StreamLimiter>,
    /// Limits the number of open search streams.
    pub(crate) search_stream_limiter: Arc<StreamLimiter>,
    pub(crate) search_buffer: Arc<SearchBuffer>,
    pub(crate) link_signer: Arc<LinkSigner>,
    pub(crate) markdown_render_limit: Arc<MarkdownRenderLimiter>,
}

impl AppState {
    /// Creates the state of a server without connections.
    pub(crate) fn new(control: Arc<Control>, signing_key: SigningKey) -> Self {
        let settings = &control.settings;
        Self {
            outbound_client: Arc::new(OutboundClient::new(settings)),
            event_stream_limiter: StreamLimiter::new(
                "event",
                Arc::clone(&control.shared_limits),
                settings.server_max_event_streams,
                settings.server_max_event_streams_per_tenant,
            ),
            search_stream_limiter: StreamLimiter::new(
                "query",
                Arc::clone(&control.shared_limits),
                settings.query_stream_max_streams,
                settings.query_stream_max_streams_per_tenant,
            ),
            search_buffer: SearchBuffer::new(settings),
            link_signer: Arc::new(LinkSigner::new(
                signing_key,
                settings.server_signed_link_lifetime_seconds.into(),
            )),
            markdown_render_limit: Arc::new(MarkdownRenderLimiter(Semaphore::new(
                MAX_CONCURRENT_MARKDOWN_RENDERINGS,
            ))),
            control,
        }
    }
}

impl FromRef<AppState> for Arc<Control> {
    fn from_ref(app: &AppState) -> Self {
        Arc::clone(&app.control)
    }
}

impl FromRef<AppState> for Arc<LinkSigner> {
    fn from_ref(app: &AppState) -> Self {
        Arc::clone(&app.link_signer)
    }
}

impl FromRef<AppState> for Arc<MarkdownRenderLimiter> {
    fn from_ref(app: &AppState) -> Self {
        Arc::clone(&app.markdown_render_limit)
    }
}
