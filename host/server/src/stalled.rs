//! A connection whose other end takes nothing.
//!
//! An answer waits for its client, and a client that never reads would hold its connection for ever: its place, its
//! descriptor and what is buffered for it. So writing that gets nowhere has a deadline, however the answer is made. It is
//! the time without any progress that counts, so a slow client may take as long as it needs.
//!
//! Whoever answers sees no more than that the client is gone. [`GivenUp`] goes with each request of a connection and tells
//! him why, where that makes a difference.

use std::convert::Infallible;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use axum::extract::FromRequestParts;
use axum::http::request::Parts;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::{Instant, Sleep, sleep};

use crate::connections::{Connection, InUse};

/// Whether a connection was given up because its other end took nothing.
#[derive(Debug, Clone, Default)]
pub(crate) struct GivenUp(Arc<AtomicBool>);

impl GivenUp {
    /// Whether it was.
    pub(crate) fn is_so(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }
}

impl<S: Sync> FromRequestParts<S> for GivenUp {
    type Rejection = Infallible;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Infallible> {
        Ok(parts.extensions.get::<Self>().cloned().unwrap_or_default())
    }
}

/// A stream whose writes fail when nothing has been taken for so long.
pub(crate) struct Stalled<S> {
    stream: S,
    patience: Duration,
    deadline: Pin<Box<Sleep>>,
    connection: Connection,
    /// Set while a write waits: a response that is not written yet is in use.
    waiting: Option<InUse>,
    given_up: GivenUp,
}

impl<S> Stalled<S> {
    /// Fails writes after `patience` without progress, and says so in `given_up` before.
    pub(crate) fn new(stream: S, patience: Duration, given_up: GivenUp, connection: Connection) -> Self {
        Self {
            stream,
            patience,
            deadline: Box::pin(sleep(patience)),
            connection,
            waiting: None,
            given_up,
        }
    }

    /// Passes on what a write came to, or fails it when it has waited for too long.
    fn judge<T>(&mut self, context: &mut Context<'_>, written: Poll<io::Result<T>>) -> Poll<io::Result<T>> {
        if written.is_ready() {
            self.waiting = None;
            return written;
        }
        if self.waiting.is_none() {
            self.waiting = Some(self.connection.begin_use());
            self.deadline.as_mut().reset(Instant::now() + self.patience);
        }
        ready!(self.deadline.as_mut().poll(context));
        self.given_up.0.store(true, Ordering::Relaxed);
        Poll::Ready(Err(io::Error::new(
            io::ErrorKind::TimedOut,
            "the client takes nothing",
        )))
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Stalled<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(context, buffer)
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Stalled<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write(context, bytes);
        self.judge(context, written)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write_vectored(context, slices);
        self.judge(context, written)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let flushed = Pin::new(&mut self.stream).poll_flush(context);
        self.judge(context, flushed)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let shut = Pin::new(&mut self.stream).poll_shutdown(context);
        self.judge(context, shut)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::connections::Connections;
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, duplex};

    fn connection() -> Connection {
        Connections::new(1, 0).add([127, 0, 0, 1].into()).unwrap()
    }

    #[tokio::test(start_paused = true)]
    async fn a_write_that_gets_nowhere_fails() {
        let (near, _far) = duplex(8);
        let given_up = GivenUp::default();
        let mut near = Stalled::new(near, Duration::from_secs(30), given_up.clone(), connection());
        let began = Instant::now();
        let error = near.write_all(&[0; 100]).await.unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::TimedOut);
        assert_eq!(began.elapsed(), Duration::from_secs(30));
        assert!(given_up.is_so());
    }

    #[tokio::test(start_paused = true)]
    async fn a_slow_reader_is_waited_for() {
        let (near, mut far) = duplex(8);
        let given_up = GivenUp::default();
        let connection = connection();
        let mut near = Stalled::new(
            near,
            Duration::from_secs(30),
            given_up.clone(),
            connection.clone(),
        );
        let reading = async {
            let mut all = Vec::new();
            for round in 0..25 {
                tokio::time::sleep(Duration::from_secs(29)).await;
                // The last eight bytes fit into the pipe.
                assert_eq!(connection.idle_since().is_none(), round < 23, "{round}");
                let mut bytes = [0; 4];
                far.read_exact(&mut bytes).await.unwrap();
                all.extend(bytes);
            }
            all.len()
        };
        let (written, read) = tokio::join!(near.write_all(&[0; 100]), reading);
        written.unwrap();
        assert_eq!(read, 100);
        assert!(connection.idle_since().is_some());
        // Nothing to write is no stall.
        tokio::time::sleep(Duration::from_secs(3600)).await;
        near.write_all(b"x").await.unwrap();
        assert!(!given_up.is_so());
    }
}
