//! The background work of a host: it recovers the state of the previous process, runs jobs, delivers webhooks and writes usage.

use std::sync::Arc;
use std::time::Duration;

use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use weir_core::StorageError;

use crate::state::Control;
use crate::webhook::{WebhookDelivery, WebhookSender};
use crate::{admission, document_removal, job_takeover, node_message_handler, retention, staged_files};

/// Age of a staged file from which no other node can be receiving it, with a margin for wrong clocks.
const MIN_STAGED_FILE_AGE: Duration = Duration::from_secs(24 * 60 * 60);

/// Recovers the uploads, document removals and jobs of the previous process. Call this once, before [`run_background_work_until_stopped`].
pub async fn recover_state_of_previous_process(control: &Control) -> Result<(), StorageError> {
    let min_age = match control.shares_ledger() {
        true => MIN_STAGED_FILE_AGE,
        false => Duration::ZERO,
    };
    let (uploads, job_requests) = (control.upload_store.as_ref(), control.job_requests.as_ref());
    staged_files::recover_staged_files(uploads, job_requests, min_age).await?;
    document_removal::resume_removals(control).await?;
    admission::requeue_unfinished_jobs(control).await
}

/// Runs jobs, delivers webhooks and writes usage until the host stops.
///
/// `requests` serves the clients. It has to complete after `control.stop_signal` is canceled. Returns when `requests` has completed,
/// the running jobs have ended or were suspended at the end of the grace period, and all state is stored. Suspended jobs resume at
/// the next start.
pub async fn run_background_work_until_stopped(
    control: &Arc<Control>,
    sender: Arc<dyn WebhookSender>,
    requests: impl Future<Output = ()>,
) -> Result<(), StorageError> {
    let mut deliveries = JoinSet::new();
    let delivery = WebhookDelivery::new(
        Arc::clone(&control.ledger),
        Arc::clone(&control.job_requests),
        sender,
        Arc::clone(&control.claims),
        &control.settings,
    );
    deliveries.spawn(delivery.run_delivery_loop());
    // Usage is collected until the last job and the last request have ended.
    let usage_is_complete = CancellationToken::new();
    let suspend_jobs = async {
        control.stop_signal.cancelled().await;
        let grace = Duration::from_secs(control.settings.server_shutdown_grace_seconds.into());
        control.engine.suspend_jobs_and_shutdown(grace).await
    };
    let work = async {
        let all_have_ended = CancellationToken::new();
        let dispatch = async {
            match control.claims.node().role.runs_jobs() {
                true => admission::run_dispatcher(Arc::clone(control), control.stop_signal.clone()).await,
                false => control.stop_signal.cancelled().await,
            }
        };
        let serve_and_dispatch = async {
            tokio::join!(requests, dispatch);
            all_have_ended.cancel();
        };
        // In a task of its own, so that it never waits behind other work.
        let mut renewal = JoinSet::new();
        let (renewing_control, until_ended) = (Arc::clone(control), all_have_ended.clone());
        renewal.spawn(async move {
            let claims = &renewing_control.claims;
            claims
                .renew_until_stopped(&renewing_control.engine, until_ended)
                .await;
        });
        let renew = async { while renewal.join_next().await.is_some() {} };
        let take_over = async {
            if control.shares_ledger() {
                job_takeover::take_over_jobs_until_stopped(control).await;
            }
        };
        let remove_expired = retention::remove_expired_records_until_stopped(control);
        let send_messages = control.node_messages.send_until_stopped(all_have_ended.clone());
        let handle_messages = node_message_handler::handle_messages_until_stopped(control);
        let ((), suspended, (), (), (), (), ()) = tokio::join!(
            serve_and_dispatch,
            suspend_jobs,
            renew,
            take_over,
            remove_expired,
            send_messages,
            handle_messages
        );
        control.background_tasks.close();
        control.background_tasks.wait().await;
        deliveries.shutdown().await;
        usage_is_complete.cancel();
        suspended
    };
    let flush_usage = control
        .usage_recorder
        .flush_usage_periodically(control.usage_store.as_ref(), usage_is_complete.clone());
    let (ended, ()) = tokio::join!(work, flush_usage);
    ended
}
