//! The read timeout of request bodies.
//!
//! A client that sends one byte now and then would hold a connection, a queue reservation and a file without limit. So
//! reading a body fails if no data arrives for the idle timeout, or if the average rate is below 1 KiB per second.
//!
//! The server often responds with an error while the client is still sending. If the server closed the connection at once,
//! the connection would be reset, and many clients would report a broken pipe and never read the response. So the rest of an
//! unread body is drained: at most 16 MiB, for at most two seconds.

use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use axum::BoxError;
use axum::body::Body;
use bytes::Bytes;
use http_body_util::BodyExt as _;
use hyper::body::{Body as HttpBody, Frame, SizeHint};
use tokio::runtime::Handle;
use tokio::time::{Instant, Sleep, sleep_until, timeout};
use tokio_util::task::TaskTracker;

/// Minimum average rate in bytes per second. It applies after one idle timeout has passed.
const MIN_BYTES_PER_SECOND: f64 = 1024.0;

/// Limits for draining a body that no handler reads any more.
const MAX_DRAINED_BYTES: u64 = 16 << 20;
const DRAIN_TIMEOUT: Duration = Duration::from_secs(2);

/// The client sent its body too slowly.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum BodyReadTimeoutError {
    /// No data arrived for this time.
    #[error("no data arrived for {0:?}")]
    NoData(Duration),
    /// The average rate is below the minimum.
    #[error("the data arrived more slowly than 1 KiB per second")]
    TooSlow,
}

/// A request body whose reads fail if the client stops sending or sends too slowly.
pub(crate) struct ReadTimeoutBody {
    body: Body,
    idle_timeout: Duration,
    started_at: Option<Instant>,
    received_bytes: u64,
    is_finished: bool,
    deadline: Pin<Box<Sleep>>,
    drain_tasks: TaskTracker,
}

impl ReadTimeoutBody {
    /// Fails if no data arrives for `wait`. If the body is dropped unread, a task in `tasks` drains it.
    pub(crate) fn new(body: Body, wait: Duration, tasks: TaskTracker) -> Self {
        Self {
            body,
            idle_timeout: wait,
            started_at: None,
            received_bytes: 0,
            is_finished: false,
            deadline: Box::pin(sleep_until(Instant::now())),
            drain_tasks: tasks,
        }
    }

    /// The time until which the bytes received so far satisfy the minimum rate.
    fn minimum_rate_deadline(&self, began: Instant) -> Instant {
        began + self.idle_timeout + Duration::from_secs_f64(self.received_bytes as f64 / MIN_BYTES_PER_SECOND)
    }
}

impl Drop for ReadTimeoutBody {
    fn drop(&mut self) {
        if self.is_finished || self.body.is_end_stream() {
            return;
        }
        let rest = std::mem::take(&mut self.body);
        if let Ok(runtime) = Handle::try_current() {
            self.drain_tasks.spawn_on(drain_body(rest), &runtime);
        }
    }
}

/// Reads and discards the rest of a body.
async fn drain_body(mut rest: Body) {
    let reading = async {
        let mut received_bytes = 0;
        while let Some(Ok(frame)) = rest.frame().await {
            received_bytes += frame.data_ref().map_or(0, |data| data.len() as u64);
            if received_bytes > MAX_DRAINED_BYTES {
                return;
            }
        }
    };
    // A client that still sends after this time gets a connection reset.
    let _ = timeout(DRAIN_TIMEOUT, reading).await;
}

impl HttpBody for ReadTimeoutBody {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        let now = Instant::now();
        if let Poll::Ready(frame) = Pin::new(&mut self.body).poll_frame(cx) {
            let started_at = *self.started_at.get_or_insert(now);
            if let Some(Ok(data)) = frame.as_ref().map(|frame| frame.as_ref().map(|f| f.data_ref())) {
                self.received_bytes += data.map_or(0, |data| data.len() as u64);
                if now > self.minimum_rate_deadline(started_at) {
                    self.is_finished = true;
                    return Poll::Ready(Some(Err(BodyReadTimeoutError::TooSlow.into())));
                }
            }
            let next = now + self.idle_timeout;
            self.deadline.as_mut().reset(next);
            self.is_finished = !matches!(frame, Some(Ok(_)));
            return Poll::Ready(frame.map(|frame| frame.map_err(BoxError::from)));
        }
        if self.started_at.is_none() {
            self.started_at = Some(now);
            let next = now + self.idle_timeout;
            self.deadline.as_mut().reset(next);
        }
        ready!(self.deadline.as_mut().poll(cx));
        self.is_finished = true;
        Poll::Ready(Some(Err(BodyReadTimeoutError::NoData(self.idle_timeout).into())))
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures::{StreamExt as _, stream};
    use std::convert::Infallible;

    /// A body of `pieces` one-byte pieces that arrive at intervals of `apart`.
    fn body_of_pieces(pieces: usize, apart: Duration) -> Body {
        let pieces = stream::iter(0..pieces).then(move |_| async move {
            tokio::time::sleep(apart).await;
            Ok::<_, Infallible>(Bytes::from_static(b"x"))
        });
        Body::from_stream(pieces)
    }

    async fn read_body(pieces: usize, apart: u64) -> Result<usize, String> {
        let body = ReadTimeoutBody::new(
            body_of_pieces(pieces, Duration::from_secs(apart)),
            Duration::from_secs(30),
            TaskTracker::new(),
        );
        let whole = body.collect().await.map_err(|e| e.to_string())?;
        Ok(whole.to_bytes().len())
    }

    #[tokio::test(start_paused = true)]
    async fn steady_body_is_read_completely() {
        assert_eq!(read_body(20, 1).await, Ok(20));
        assert_eq!(read_body(1, 29).await, Ok(1));
        assert_eq!(read_body(0, 0).await, Ok(0));
    }

    #[tokio::test(start_paused = true)]
    async fn silent_and_slow_bodies_time_out() {
        let began = Instant::now();
        assert_eq!(read_body(2, 31).await, Err("no data arrived for 30s".into()));
        assert_eq!(began.elapsed(), Duration::from_secs(30));
        assert_eq!(
            read_body(1000, 10).await,
            Err("the data arrived more slowly than 1 KiB per second".into())
        );
    }

    #[tokio::test(start_paused = true)]
    async fn unread_body_is_drained_for_a_limited_time() {
        let tasks = TaskTracker::new();
        let begin = |pieces, apart| {
            let body = body_of_pieces(pieces, Duration::from_secs(apart));
            drop(ReadTimeoutBody::new(body, Duration::from_secs(30), tasks.clone()));
        };
        begin(3, 0);
        assert_eq!(tasks.len(), 1);
        begin(1000, 1);
        tasks.close();
        let began = Instant::now();
        tasks.wait().await;
        assert_eq!(began.elapsed(), DRAIN_TIMEOUT);
        let read = ReadTimeoutBody::new(body_of_pieces(0, Duration::ZERO), DRAIN_TIMEOUT, tasks.clone());
        read.collect().await.unwrap();
        assert!(tasks.is_empty(), "a body that was read needs no draining");
    }
}
