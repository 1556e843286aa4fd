//! Response bodies that keep their connection in use until they are written to the socket.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use axum::body::Body;
use bytes::{Buf, Bytes};
use hyper::body::{Body as HttpBody, Frame, SizeHint};

use super::ConnectionUseGuard;

/// A response body that marks its connection as in use until the last byte has been written.
///
/// Reading the last byte from this body is not enough: data for a slow client stays in the write buffers of the connection.
pub(crate) struct ResponseBodyWithUseGuard {
    body: Body,
    in_use: Arc<ConnectionUseGuard>,
}

impl ResponseBodyWithUseGuard {
    pub(crate) fn new(body: Body, in_use: ConnectionUseGuard) -> Self {
        Self {
            body,
            in_use: Arc::new(in_use),
        }
    }
}

impl HttpBody for ResponseBodyWithUseGuard {
    type Data = ResponseBytesWithUseGuard;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<ResponseBytesWithUseGuard>, axum::Error>>> {
        let frame = Pin::new(&mut self.body).poll_frame(context);
        let in_use = &self.in_use;
        frame.map_ok(|frame| {
            frame.map_data(|bytes| ResponseBytesWithUseGuard {
                bytes,
                _in_use: Arc::clone(in_use),
            })
        })
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

/// Response bytes that have not been written yet. They keep the connection in use until dropped.
pub(crate) struct ResponseBytesWithUseGuard {
    bytes: Bytes,
    _in_use: Arc<ConnectionUseGuard>,
}

impl Buf for ResponseBytesWithUseGuard {
    fn remaining(&self) -> usize {
        self.bytes.remaining()
    }

    fn chunk(&self) -> &[u8] {
        self.bytes.chunk()
    }

    fn advance(&mut self, count: usize) {
        self.bytes.advance(count);
    }

    fn copy_to_bytes(&mut self, count: usize) -> Bytes {
        self.bytes.copy_to_bytes(count)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tokio::time::Instant;

    use super::*;
    use crate::connections::ConnectionLimiter;

    #[tokio::test(start_paused = true)]
    async fn response_bytes_keep_the_connection_in_use() {
        let connections = ConnectionLimiter::new(1, 0);
        let connection = connections.admit_connection([10, 0, 0, 1].into()).unwrap();
        let mut body = ResponseBodyWithUseGuard::new(Body::from("answer"), connection.mark_in_use());
        assert_eq!(body.size_hint().exact(), Some(6));
        let frame = std::future::poll_fn(|context| Pin::new(&mut body).poll_frame(context)).await;
        let bytes = frame.unwrap().unwrap().into_data().ok().unwrap();
        drop(body);
        assert_eq!(connection.idle_since(), None);
        tokio::time::advance(Duration::from_millis(1)).await;
        drop(bytes);
        assert_eq!(connection.idle_since(), Some(Instant::now()));
        connection.mark_in_use_until_closed();
        assert_eq!(connection.idle_since(), None);
    }
}
