//! Bodies that have to keep coming.
//!
//! A client that sends a byte now and then would hold a connection, a place in the queue and a file for as long as it likes.
//! So a body is given up when nothing has come for a while, and when all of it comes more slowly than any line in use.

use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use axum::BoxError;
use axum::body::Body;
use bytes::Bytes;
use hyper::body::{Body as HttpBody, Frame, SizeHint};
use tokio::time::{Instant, Sleep, sleep_until};

/// Bytes a second below which a body is given up, once it has had the first wait for free.
const SLOWEST: f64 = 1024.0;

/// Nothing came for so long.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Stalled {
    /// Nothing at all.
    #[error("nothing came for {0:?}")]
    Silent(Duration),
    /// Too little.
    #[error("it came more slowly than 1 KiB a second")]
    Slow,
}

/// A body with a deadline for each of its pieces and one for all of them.
pub(crate) struct Paced {
    body: Body,
    wait: Duration,
    began: Option<Instant>,
    came: u64,
    deadline: Pin<Box<Sleep>>,
}

impl Paced {
    /// Gives up when nothing has come for `wait`.
    pub(crate) fn new(body: Body, wait: Duration) -> Self {
        Self {
            body,
            wait,
            began: None,
            came: 0,
            deadline: Box::pin(sleep_until(Instant::now())),
        }
    }

    /// When the whole body should have come further than it has.
    fn slowest(&self, began: Instant) -> Instant {
        began + self.wait + Duration::from_secs_f64(self.came as f64 / SLOWEST)
    }
}

impl HttpBody for Paced {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        let now = Instant::now();
        if let Poll::Ready(frame) = Pin::new(&mut self.body).poll_frame(cx) {
            let began = *self.began.get_or_insert(now);
            if let Some(Ok(data)) = frame.as_ref().map(|frame| frame.as_ref().map(|f| f.data_ref())) {
                self.came += data.map_or(0, |data| data.len() as u64);
                if now > self.slowest(began) {
                    return Poll::Ready(Some(Err(Stalled::Slow.into())));
                }
            }
            let next = now + self.wait;
            self.deadline.as_mut().reset(next);
            return Poll::Ready(frame.map(|frame| frame.map_err(BoxError::from)));
        }
        if self.began.is_none() {
            self.began = Some(now);
            let next = now + self.wait;
            self.deadline.as_mut().reset(next);
        }
        ready!(self.deadline.as_mut().poll(cx));
        Poll::Ready(Some(Err(Stalled::Silent(self.wait).into())))
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
    use http_body_util::BodyExt as _;
    use std::convert::Infallible;

    /// A body of one-byte pieces, so far apart.
    fn body(pieces: usize, apart: Duration) -> Body {
        let pieces = stream::iter(0..pieces).then(move |_| async move {
            tokio::time::sleep(apart).await;
            Ok::<_, Infallible>(Bytes::from_static(b"x"))
        });
        Body::from_stream(pieces)
    }

    async fn read(pieces: usize, apart: u64) -> Result<usize, String> {
        let body = Paced::new(body(pieces, Duration::from_secs(apart)), Duration::from_secs(30));
        let whole = body.collect().await.map_err(|e| e.to_string())?;
        Ok(whole.to_bytes().len())
    }

    #[tokio::test(start_paused = true)]
    async fn a_body_that_keeps_coming_is_read() {
        assert_eq!(read(20, 1).await, Ok(20));
        assert_eq!(read(1, 29).await, Ok(1));
        assert_eq!(read(0, 0).await, Ok(0));
    }

    #[tokio::test(start_paused = true)]
    async fn silence_and_trickles_are_given_up() {
        let began = Instant::now();
        assert_eq!(read(2, 31).await, Err("nothing came for 30s".into()));
        assert_eq!(began.elapsed(), Duration::from_secs(30));
        assert_eq!(
            read(1000, 10).await,
            Err("it came more slowly than 1 KiB a second".into())
        );
    }
}
