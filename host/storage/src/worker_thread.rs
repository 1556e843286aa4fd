//! A thread that owns a blocking resource and runs calls on it, in the order of their arrival.
//!
//! The index and the ledger take one change at a time. A thread for each keeps the blocking calls off the async runtime and
//! applies changes in the order of the calls.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::thread;

use parking_lot::Mutex;
use tokio::sync::{mpsc, oneshot};
use weir_core::StorageError;

/// Calls that may wait in the thread's queue. Further callers wait for space in the queue.
const MAX_QUEUED_CALLS: usize = 64;
/// The reason that the caller gets if its call panics.
const INTERNAL_ERROR: &str = "an internal error (panic) occurred; see the log of the host";

type QueuedCall<T> = Box<dyn FnOnce(&mut T) + Send>;

/// A handle to the thread.
pub(crate) struct WorkerThread<T> {
    name: String,
    sender: Mutex<Option<mpsc::Sender<QueuedCall<T>>>>,
    ended: Mutex<Option<oneshot::Receiver<()>>>,
}

impl<T: Send + 'static> WorkerThread<T> {
    /// Starts a thread that owns `state`. `name` is the name of the thread, `what` the name in errors.
    pub(crate) fn start(name: &str, what: String, mut state: T) -> Result<Self, StorageError> {
        let (sender, mut receiver) = mpsc::channel::<QueuedCall<T>>(MAX_QUEUED_CALLS);
        let (ended_sender, ended) = oneshot::channel();
        thread::Builder::new()
            .name(name.to_owned())
            .spawn(move || {
                while let Some(call) = receiver.blocking_recv() {
                    // A call that panics drops its reply channel, which gives its caller an error.
                    let _ = catch_unwind(AssertUnwindSafe(|| call(&mut state)));
                }
                drop(state);
                let _ = ended_sender.send(());
            })
            .map_err(|e| StorageError::from_io_error(format!("starting the worker thread for {what}"), &e))?;
        Ok(Self {
            name: what,
            sender: Mutex::new(Some(sender)),
            ended: Mutex::new(Some(ended)),
        })
    }

    /// Runs `work` on the thread and returns its result. If the future is dropped before `work` begins, it does not run; a call that has
    /// begun is finished.
    pub(crate) async fn run<R, F>(&self, work: F) -> Result<R, StorageError>
    where
        R: Send + 'static,
        F: FnOnce(&mut T) -> Result<R, StorageError> + Send + 'static,
    {
        let (call, result) = create_queued_call(work);
        let sent = self.sender_if_open()?.send(call).await;
        sent.map_err(|_| self.unavailable_error("it is already closed"))?;
        result.await.map_err(|_| self.unavailable_error(INTERNAL_ERROR))?
    }

    /// Like [`WorkerThread::run`], but blocks the calling thread. Do not call it in async code.
    pub(crate) fn run_and_block_caller<R, F>(&self, work: F) -> Result<R, StorageError>
    where
        R: Send + 'static,
        F: FnOnce(&mut T) -> Result<R, StorageError> + Send + 'static,
    {
        let (call, result) = create_queued_call(work);
        let sent = self.sender_if_open()?.blocking_send(call);
        sent.map_err(|_| self.unavailable_error("it is already closed"))?;
        result
            .blocking_recv()
            .map_err(|_| self.unavailable_error(INTERNAL_ERROR))?
    }

    fn sender_if_open(&self) -> Result<mpsc::Sender<QueuedCall<T>>, StorageError> {
        let sender = self.sender.lock().clone();
        sender.ok_or_else(|| self.unavailable_error("it is already closed"))
    }

    /// Waits until all queued calls are done and the thread's resource is dropped. Later calls fail.
    pub(crate) async fn close(&self) {
        drop(self.sender.lock().take());
        let ended = self.ended.lock().take();
        if let Some(ended) = ended {
            let _ = ended.await;
        }
    }

    fn unavailable_error(&self, reason: &str) -> StorageError {
        StorageError::Failed {
            what: self.name.clone(),
            reason: reason.to_owned(),
        }
    }
}

/// Returns a call that runs `work` if its caller still waits, and the receiver of its result.
fn create_queued_call<T, R: Send + 'static>(
    work: impl FnOnce(&mut T) -> Result<R, StorageError> + Send + 'static,
) -> (QueuedCall<T>, oneshot::Receiver<Result<R, StorageError>>) {
    let (sender, result) = oneshot::channel();
    let call = move |state: &mut T| {
        if !sender.is_closed() {
            let _ = sender.send(work(state));
        }
    };
    (Box::new(call), result)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn start_test_worker() -> WorkerThread<Vec<u32>> {
        WorkerThread::start("test", "the test".into(), Vec::new()).unwrap()
    }

    #[tokio::test]
    async fn calls_run_in_the_order_of_arrival() {
        let worker = start_test_worker();
        for n in 0..10 {
            worker
                .run(move |list| {
                    list.push(n);
                    Ok(())
                })
                .await
                .unwrap();
        }
        let list = worker.run(|list| Ok(list.clone())).await.unwrap();
        assert_eq!(list, (0..10).collect::<Vec<_>>());
        worker.close().await;
        assert_eq!(worker.run(|_| Ok(())).await.unwrap_err().kind(), "storage-failed");
    }

    #[tokio::test]
    async fn a_panic_fails_its_caller_only() {
        let worker = start_test_worker();
        let failed = worker.run(|_| -> Result<(), _> { panic!("on purpose") }).await;
        assert_eq!(failed.unwrap_err().kind(), "storage-failed");
        assert_eq!(worker.run(|list| Ok(list.len())).await.unwrap(), 0);
    }

    #[tokio::test]
    async fn a_call_of_a_dropped_future_is_not_run() {
        let worker = start_test_worker();
        let (release, held) = std::sync::mpsc::channel::<()>();
        let first = worker.run(move |_| {
            let _ = held.recv();
            Ok(())
        });
        let second = worker.run(|list| {
            list.push(1);
            Ok(())
        });
        tokio::pin!(first);
        assert!(poll_once_is_pending(first.as_mut()).await);
        {
            tokio::pin!(second);
            assert!(poll_once_is_pending(second.as_mut()).await);
        }
        release.send(()).unwrap();
        first.await.unwrap();
        assert_eq!(worker.run(|list| Ok(list.len())).await.unwrap(), 0);
    }

    /// Polls a future once and returns whether it is still pending.
    async fn poll_once_is_pending<F: Future>(mut future: std::pin::Pin<&mut F>) -> bool {
        std::future::poll_fn(|cx| std::task::Poll::Ready(future.as_mut().poll(cx).is_pending())).await
    }
}
