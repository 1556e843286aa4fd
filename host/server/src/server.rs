//! The server: it serves connections until it is stopped.

use std::sync::Arc;

use tokio::task::JoinSet;
use weir_control::{Control, recover_state_of_previous_process, run_background_work_until_stopped};
use weir_core::StorageError;

use crate::listener::Listener;
use crate::metrics;
use crate::routes::{build_router_and_openapi, build_router_of_worker};
use crate::signed_links::SigningKey;
use crate::state::AppState;

/// An HTTP server that runs until it receives a stop signal.
pub struct Server {
    app: AppState,
}

impl Server {
    /// Builds a server. `signing_key` signs links to page images and page lines. [`Server::serve`] starts it.
    pub fn new(control: Arc<Control>, signing_key: SigningKey) -> Self {
        Self {
            app: AppState::new(control, signing_key),
        }
    }

    #[cfg(test)]
    pub(crate) fn app_state(&self) -> AppState {
        self.app.clone()
    }

    /// Serves the connections of `listener` until `stop` completes.
    ///
    /// The server then accepts no more work, waits up to the grace period of the settings for active requests and running
    /// jobs, and returns when all state is stored. Jobs that have not ended by then resume at the next start.
    pub async fn serve(self, listener: Listener, stop: impl Future<Output = ()>) -> Result<(), StorageError> {
        let app = self.app;
        let control = Arc::clone(&app.control);
        recover_state_of_previous_process(&control).await?;
        let router = match control.claims.node().role.serves_api() {
            true => build_router_and_openapi(app.clone()).0,
            false => build_router_of_worker(app.clone()),
        };
        let mut tasks = JoinSet::new();
        let max_batches_in_flight = control.engine.port_implementations().embedder.worker_count() as usize;
        tasks.spawn(
            Arc::clone(&app.search_buffer).dispatch_batches(Arc::clone(&control) as _, max_batches_in_flight),
        );
        tasks.spawn(metrics::run_metrics_upkeep_loop());
        tasks.spawn(Arc::clone(&app.event_stream_limiter).report_open_streams());
        tasks.spawn(Arc::clone(&app.search_stream_limiter).report_open_streams());
        let requests = async {
            let wait_for_stop = async {
                stop.await;
                tracing::info!("stopping: the server accepts no more work");
                control.stop_signal.cancel();
            };
            tokio::join!(
                listener.serve_connections(router, control.stop_signal.clone()),
                wait_for_stop
            );
            app.event_stream_limiter.wait_until_closed().await;
            app.search_stream_limiter.wait_until_closed().await;
        };
        let ended = run_background_work_until_stopped(&control, app.outbound_client.clone(), requests).await;
        tasks.shutdown().await;
        ended
    }
}
