//! Bodies that have to keep coming.
//!
//! A client that sends a byte now and then would hold a connection, a place in the queue and a file for as long as it likes.
//! So a body is given up when nothing has come for a while, and when all of it comes more slowly than any line in use.
//!
//! A refusal often comes while the client is still sending. Closed at once, the connection would be reset under the client's
//! hands, and many clients then report a broken pipe and never read the answer. So what is left of a body that nobody reads
//! any more is taken in for a moment and thrown away.

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

/// Bytes a second below which a body is given up, once it has had the first wait for free.
const SLOWEST: f64 = 1024.0;

/// What is taken in of a body after its end has been decided, and for how long.
const LINGER_BYTES: u64 = 16 << 20;
const LINGER: Duration = Duration::from_secs(2);

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
    over: bool,
    deadline: Pin<Box<Sleep>>,
    tasks: TaskTracker,
}

impl Paced {
    /// Gives up when nothing has come for `wait`. What takes in the rest of it is among `tasks`.
    pub(crate) fn new(body: Body, wait: Duration, tasks: TaskTracker) -> Self {
        Self {
            body,
            wait,
            began: None,
            came: 0,
            over: false,
            deadline: Box::pin(sleep_until(Instant::now())),
            tasks,
        }
    }

    /// When the whole body should have come further than it has.
    fn slowest(&self, began: Instant) -> Instant {
        began + self.wait + Duration::from_secs_f64(self.came as f64 / SLOWEST)
    }
}

impl Drop for Paced {
    fn drop(&mut self) {
        if self.over || self.body.is_end_stream() {
            return;
        }
        let rest = std::mem::take(&mut self.body);
        if let Ok(runtime) = Handle::try_current() {
            self.tasks.spawn_on(take_in(rest), &runtime);
        }
    }
}

/// Reads and forgets.
async fn take_in(mut rest: Body) {
    let reading = async {
        let mut came = 0;
        while let Some(Ok(frame)) = rest.frame().await {
            came += frame.data_ref().map_or(0, |data| data.len() as u64);
            if came > LINGER_BYTES {
                return;
            }
        }
    };
    // A client that goes on after that is cut off.
    let _ = timeout(LINGER, reading).await;
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
                    self.over = true;
                    return Poll::Ready(Some(Err(Stalled::Slow.into())));
                }
            }
            let next = now + self.wait;
            self.deadline.as_mut().reset(next);
            self.over = !matches!(frame, Some(Ok(_)));
            return Poll::Ready(frame.map(|frame| frame.map_err(BoxError::from)));
        }
        if self.began.is_none() {
            self.began = Some(now);
            let next = now + self.wait;
            self.deadline.as_mut().reset(next);
        }
        ready!(self.deadline.as_mut().poll(cx));
        self.over = true;
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
        let body = Paced::new(
            body(pieces, Duration::from_secs(apart)),
            Duration::from_secs(30),
            TaskTracker::new(),
        );
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
    #[tokio::test(start_paused = true)]
    async fn what_nobody_reads_is_taken_in_for_a_moment() {
        let tasks = TaskTracker::new();
        let begin = |pieces, apart| {
            let body = body(pieces, Duration::from_secs(apart));
            drop(Paced::new(body, Duration::from_secs(30), tasks.clone()));
        };
        begin(3, 0);
        assert_eq!(tasks.len(), 1);
        begin(1000, 1);
        tasks.close();
        let began = Instant::now();
        tasks.wait().await;
        assert_eq!(began.elapsed(), LINGER);
        let read = Paced::new(body(0, Duration::ZERO), LINGER, tasks.clone());
        read.collect().await.unwrap();
        assert!(tasks.is_empty(), "nothing is left of a body that was read");
    }
}
