//! Receives the announcements of other nodes.

use std::time::Duration;

use tokio::time::sleep;
use weir_core::StorageError;
use weir_core::node_message::{NodeMessage, NodeMessageReceiver};

use crate::admission;
use crate::state::Control;

/// Time between two attempts to receive messages.
const RECONNECT_INTERVAL: Duration = Duration::from_secs(1);
/// Announced jobs of a message that are looked up one by one. More are found faster by comparing the whole queue.
const MAX_JOBS_LOOKED_UP: usize = 32;

/// Handles messages until the host stops.
pub(crate) async fn handle_messages_until_stopped(control: &Control) {
    let Some(messenger) = control.node_messages.messenger() else {
        return;
    };
    let mut was_lost = false;
    let handle = async {
        loop {
            match messenger.subscribe().await {
                Ok(receiver) => {
                    tracing::info!("the messages of other nodes are received");
                    was_lost = false;
                    handle_messages(control, receiver).await;
                    tracing::warn!(
                        "the messages of other nodes are lost: changes are looked up in the ledger"
                    );
                }
                // Once for each outage.
                Err(error) if !was_lost => {
                    was_lost = true;
                    tracing::warn!(%error, "the messages of other nodes are not received: changes are looked up in the ledger");
                }
                Err(_) => {}
            }
            sleep(RECONNECT_INTERVAL).await;
        }
    };
    control.stop_signal.run_until_cancelled(handle).await;
    control.node_messages.set_receives_messages(false);
}

async fn handle_messages(control: &Control, mut receiver: Box<dyn NodeMessageReceiver>) {
    control.node_messages.set_receives_messages(true);
    // Messages were lost before.
    control.ledger.notify_all_subscribers();
    while let Some(message) = receiver.next_message().await {
        if let Err(error) = handle_message(control, message).await {
            tracing::warn!(%error, "a change that another node has announced cannot be read yet");
        }
    }
    control.node_messages.set_receives_messages(false);
}

async fn handle_message(control: &Control, message: NodeMessage) -> Result<(), StorageError> {
    for tenant in &message.tenants_with_events {
        control.ledger.notify_subscribers(tenant);
    }
    let are_many_jobs = message.claimable_jobs.len() > MAX_JOBS_LOOKED_UP;
    if message.claims_changed || are_many_jobs {
        control.takeover_wakeup.notify_one();
    }
    if are_many_jobs {
        return Ok(());
    }
    for (tenant, job) in &message.claimable_jobs {
        admission::enqueue_announced_job(control, tenant, job).await?;
    }
    Ok(())
}
