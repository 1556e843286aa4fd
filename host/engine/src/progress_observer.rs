//! Calls the progress component of a job with its events.

use std::sync::Arc;

use weir_core::event::EventKind;
use weir_core::ports::JobPolicy;

use crate::error::build_error_info;
use crate::event_log::{EventLog, ProgressObserverMessage, ProgressObserverQueue};
use crate::stop_signal::StopSignal;

/// Calls the progress component with each event in turn and writes its updates as events, until the job is over. If the
/// component fails for good, the job fails.
pub(crate) async fn run_progress_observer(
    mut queue: ProgressObserverQueue,
    log: Arc<EventLog>,
    policy: Arc<dyn JobPolicy>,
    stop_signal: StopSignal,
) {
    loop {
        let message = tokio::select! {
            biased;
            Some(error) = queue.policy_failures.recv() => {
                log.write_event(None, EventKind::PolicyFallback { error: build_error_info(error.kind(), &error) }).await;
                continue;
            }
            message = queue.messages.recv() => message,
        };
        let (at_millis, observation, reply) = match message {
            None | Some(ProgressObserverMessage::JobOver) => return,
            Some(ProgressObserverMessage::Event(at, observation)) => (at, observation, None),
            Some(ProgressObserverMessage::DocumentEnd(at, observation, reply)) => {
                (at, observation, Some(reply))
            }
        };
        let updates = tokio::select! {
            biased;
            () = stop_signal.await_cancelled_or_failed() => Ok(Vec::new()),
            updates = policy.decide_progress_updates(at_millis, observation) => updates,
        };
        let result = match updates {
            Ok(updates) => {
                for update in updates {
                    let progress = EventKind::Progress {
                        percent: update.percent,
                        message: update.message,
                        seconds_left: update.seconds_left,
                    };
                    log.write_event(Some(update.document), progress).await;
                }
                Ok(())
            }
            Err(error) => {
                stop_signal.signal_failure(build_error_info(error.kind(), &error));
                Err(error)
            }
        };
        if let Some(reply) = reply {
            // The document may have been cancelled meanwhile.
            let _ = reply.send(result);
        }
    }
}
