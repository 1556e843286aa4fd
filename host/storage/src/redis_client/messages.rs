//! Messages between nodes, over a channel of Redis.
//!
//! A connection that only receives cannot tell a quiet channel from a server that is away. So each receiver sends
//! a ping over its connection when no message has come for a while.

use std::time::Duration;

use async_trait::async_trait;
use futures::StreamExt as _;
use redis::aio::{PubSubSink, PubSubStream};
use serde::{Deserialize, Serialize};
use tokio::time::timeout;
use weir_core::StorageError;
use weir_core::node_message::{NodeMessage, NodeMessageReceiver, NodeMessenger};

use super::{CONNECT_TIMEOUT, RedisClient, to_storage_error, unavailable};

/// Time without a message after which a receiver checks its connection.
const QUIET_TIME: Duration = Duration::from_secs(2);

/// A message with its sender, which ignores it.
#[derive(Serialize, Deserialize)]
struct Envelope<M> {
    from: String,
    #[serde(flatten)]
    message: M,
}

struct RedisMessageReceiver {
    node: String,
    messages: PubSubStream,
    commands: PubSubSink,
}

#[async_trait]
impl NodeMessenger for RedisClient {
    async fn send_message(&self, message: &NodeMessage) -> Result<(), StorageError> {
        let envelope = Envelope {
            from: self.node.clone(),
            message,
        };
        let text = serde_json::to_string(&envelope).map_err(|error| StorageError::Failed {
            what: "a message to other nodes".into(),
            reason: error.to_string(),
        })?;
        let channel = self.key(&["messages"]);
        self.call(|mut connection| async move {
            redis::cmd("PUBLISH")
                .arg(channel)
                .arg(text)
                .query_async::<()>(&mut connection)
                .await
        })
        .await
    }

    async fn subscribe(&self) -> Result<Box<dyn NodeMessageReceiver>, StorageError> {
        let subscribe = async {
            let (mut commands, messages) = self.client.get_async_pubsub().await?.split();
            commands.subscribe(self.key(&["messages"])).await?;
            Ok((commands, messages))
        };
        let (commands, messages) = timeout(CONNECT_TIMEOUT, subscribe)
            .await
            .map_err(|_| unavailable(format!("no response within {} s", CONNECT_TIMEOUT.as_secs())))?
            .map_err(|error| to_storage_error(&error))?;
        Ok(Box::new(RedisMessageReceiver {
            node: self.node.clone(),
            messages,
            commands,
        }))
    }
}

#[async_trait]
impl NodeMessageReceiver for RedisMessageReceiver {
    async fn next_message(&mut self) -> Option<NodeMessage> {
        loop {
            let Ok(message) = timeout(QUIET_TIME, self.messages.next()).await else {
                let response = timeout(CONNECT_TIMEOUT, self.commands.ping::<redis::Value>()).await;
                if !matches!(response, Ok(Ok(_))) {
                    return None;
                }
                continue;
            };
            let message = message?;
            let text = message.get_payload_bytes();
            match serde_json::from_slice::<Envelope<NodeMessage>>(text) {
                Ok(envelope) if envelope.from == self.node => {}
                Ok(envelope) => return Some(envelope.message),
                Err(error) => {
                    tracing::debug!(%error, "a message on the channel of the nodes is not from a node")
                }
            }
        }
    }
}
