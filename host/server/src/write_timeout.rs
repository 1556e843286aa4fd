//! The write timeout of connections.
//!
//! A client that never reads would hold its connection, the file descriptor and the buffered data forever. So a write fails
//! after a timeout without any progress. A slow client that makes progress is not limited.
//!
//! A handler only sees that the client is gone. [`WriteTimedOutFlag`] is an extension of each request and tells a handler whether
//! the write timeout was the reason.

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

use crate::connections::{ConnectionHandle, ConnectionUseGuard};

/// Shared flag: whether the write timeout ended the connection.
#[derive(Debug, Clone, Default)]
pub(crate) struct WriteTimedOutFlag(Arc<AtomicBool>);

impl WriteTimedOutFlag {
    pub(crate) fn has_timed_out(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }
}

impl<S: Sync> FromRequestParts<S> for WriteTimedOutFlag {
    type Rejection = Infallible;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Infallible> {
        Ok(parts.extensions.get::<Self>().cloned().unwrap_or_default())
    }
}

/// A stream whose writes fail after a timeout without progress.
pub(crate) struct WriteTimeoutStream<S> {
    stream: S,
    timeout: Duration,
    deadline: Pin<Box<Sleep>>,
    connection: ConnectionHandle,
    /// Set while a write is blocked. A connection with an unwritten response is in use.
    blocked_write: Option<ConnectionUseGuard>,
    timed_out: WriteTimedOutFlag,
}

impl<S> WriteTimeoutStream<S> {
    /// Fails a write after `write_timeout` without progress, and sets `write_timed_out` first.
    pub(crate) fn new(
        stream: S,
        write_timeout: Duration,
        write_timed_out: WriteTimedOutFlag,
        connection: ConnectionHandle,
    ) -> Self {
        Self {
            stream,
            timeout: write_timeout,
            deadline: Box::pin(sleep(write_timeout)),
            connection,
            blocked_write: None,
            timed_out: write_timed_out,
        }
    }

    /// Returns the result of a write, or an error if the write has been blocked for longer than the timeout.
    fn check_write_progress<T>(
        &mut self,
        context: &mut Context<'_>,
        written: Poll<io::Result<T>>,
    ) -> Poll<io::Result<T>> {
        if written.is_ready() {
            self.blocked_write = None;
            return written;
        }
        if self.blocked_write.is_none() {
            self.blocked_write = Some(self.connection.mark_in_use());
            self.deadline.as_mut().reset(Instant::now() + self.timeout);
        }
        ready!(self.deadline.as_mut().poll(context));
        self.timed_out.0.store(true, Ordering::Relaxed);
        Poll::Ready(Err(io::Error::new(
            io::ErrorKind::TimedOut,
            "the client reads no data",
        )))
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for WriteTimeoutStream<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(context, buffer)
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for WriteTimeoutStream<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write(context, bytes);
        self.check_write_progress(context, written)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write_vectored(context, slices);
        self.check_write_progress(context, written)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let flushed = Pin::new(&mut self.stream).poll_flush(context);
        self.check_write_progress(context, flushed)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let shut = Pin::new(&mut self.stream).poll_shutdown(context);
        self.check_write_progress(context, shut)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::connections::ConnectionLimiter;
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, duplex};

    fn connection() -> ConnectionHandle {
        ConnectionLimiter::new(1, 0)
            .admit_connection([127, 0, 0, 1].into())
            .unwrap()
    }

    #[tokio::test(start_paused = true)]
    async fn write_without_progress_times_out() {
        let (near, _far) = duplex(8);
        let write_timed_out = WriteTimedOutFlag::default();
        let mut near = WriteTimeoutStream::new(
            near,
            Duration::from_secs(30),
            write_timed_out.clone(),
            connection(),
        );
        let began = Instant::now();
        let error = near.write_all(&[0; 100]).await.unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::TimedOut);
        assert_eq!(began.elapsed(), Duration::from_secs(30));
        assert!(write_timed_out.has_timed_out());
    }

    #[tokio::test(start_paused = true)]
    async fn slow_reader_does_not_time_out() {
        let (near, mut far) = duplex(8);
        let write_timed_out = WriteTimedOutFlag::default();
        let connection = connection();
        let mut near = WriteTimeoutStream::new(
            near,
            Duration::from_secs(30),
            write_timed_out.clone(),
            connection.clone(),
        );
        let reading = async {
            let mut all = Vec::new();
            for round in 0..25 {
                tokio::time::sleep(Duration::from_secs(29)).await;
                // The last eight bytes fit into the pipe, so the write completes before they are read.
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
        // The timeout does not run while there is nothing to write.
        tokio::time::sleep(Duration::from_secs(3600)).await;
        near.write_all(b"x").await.unwrap();
        assert!(!write_timed_out.has_timed_out());
    }
}
