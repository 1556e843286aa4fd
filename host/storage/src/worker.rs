//! A thread that owns something blocking and does what it is asked, in the order it is asked.
//!
//! Both writers of this crate, the vector shard's and the ledger's, take one change at a time. A thread of its own for each
//! states that plainly, keeps their blocking calls off the async runtime and makes the order of changes the order of calls.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::thread;

use parking_lot::Mutex;
use tokio::sync::{mpsc, oneshot};
use weir_core::StorageError;

/// Calls that may wait for the thread; further callers wait for a place.
const WAITING: usize = 64;

type Job<T> = Box<dyn FnOnce(&mut T) + Send>;

/// The thread and the way to it.
pub(crate) struct Worker<T> {
    what: String,
    jobs: Mutex<Option<mpsc::Sender<Job<T>>>>,
    ended: Mutex<Option<oneshot::Receiver<()>>>,
}

impl<T: Send + 'static> Worker<T> {
    /// Starts a thread that owns `state`. `what` names it in errors.
    pub(crate) fn start(name: &str, what: String, mut state: T) -> Result<Self, StorageError> {
        let (jobs, mut inbox) = mpsc::channel::<Job<T>>(WAITING);
        let (ending, ended) = oneshot::channel();
        thread::Builder::new()
            .name(name.to_owned())
            .spawn(move || {
                while let Some(job) = inbox.blocking_recv() {
                    // A job that panics answers nobody; its caller learns of it by that.
                    let _ = catch_unwind(AssertUnwindSafe(|| job(&mut state)));
                }
                drop(state);
                let _ = ending.send(());
            })
            .map_err(|e| StorageError::io(format!("starting the thread of {what}"), &e))?;
        Ok(Self {
            what,
            jobs: Mutex::new(Some(jobs)),
            ended: Mutex::new(Some(ended)),
        })
    }

    /// Has `work` done. If the caller goes away before its turn comes, it is not done at all; once begun it is finished.
    pub(crate) async fn call<R, F>(&self, work: F) -> Result<R, StorageError>
    where
        R: Send + 'static,
        F: FnOnce(&mut T) -> Result<R, StorageError> + Send + 'static,
    {
        let jobs = self.jobs.lock().clone().ok_or_else(|| self.lost("is closed"))?;
        let (answer, answered) = oneshot::channel();
        let job: Job<T> = Box::new(move |state| {
            if !answer.is_closed() {
                let _ = answer.send(work(state));
            }
        });
        jobs.send(job).await.map_err(|_| self.lost("is closed"))?;
        drop(jobs);
        answered
            .await
            .map_err(|_| self.lost("failed inside, see the log"))?
    }

    /// Returns when all that was asked is done and what the thread owned is gone.
    pub(crate) async fn close(&self) {
        drop(self.jobs.lock().take());
        let ended = self.ended.lock().take();
        if let Some(ended) = ended {
            let _ = ended.await;
        }
    }

    fn lost(&self, reason: &str) -> StorageError {
        StorageError::Failed {
            what: self.what.clone(),
            reason: reason.to_owned(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn worker() -> Worker<Vec<u32>> {
        Worker::start("test", "the test".into(), Vec::new()).unwrap()
    }

    #[tokio::test]
    async fn work_is_done_in_the_order_asked() {
        let worker = worker();
        for n in 0..10 {
            worker
                .call(move |list| {
                    list.push(n);
                    Ok(())
                })
                .await
                .unwrap();
        }
        let list = worker.call(|list| Ok(list.clone())).await.unwrap();
        assert_eq!(list, (0..10).collect::<Vec<_>>());
        worker.close().await;
        assert_eq!(
            worker.call(|_| Ok(())).await.unwrap_err().kind(),
            "storage-failed"
        );
    }

    #[tokio::test]
    async fn a_panic_fails_its_caller_only() {
        let worker = worker();
        let failed = worker.call(|_| -> Result<(), _> { panic!("on purpose") }).await;
        assert_eq!(failed.unwrap_err().kind(), "storage-failed");
        assert_eq!(worker.call(|list| Ok(list.len())).await.unwrap(), 0);
    }

    #[tokio::test]
    async fn a_caller_who_left_is_not_served() {
        let worker = worker();
        let (release, held) = std::sync::mpsc::channel::<()>();
        let first = worker.call(move |_| {
            let _ = held.recv();
            Ok(())
        });
        let second = worker.call(|list| {
            list.push(1);
            Ok(())
        });
        tokio::pin!(first);
        assert!(futures_poll(first.as_mut()).await);
        {
            tokio::pin!(second);
            assert!(futures_poll(second.as_mut()).await);
        }
        release.send(()).unwrap();
        first.await.unwrap();
        assert_eq!(worker.call(|list| Ok(list.len())).await.unwrap(), 0);
    }

    /// Polls once; whether it is still pending.
    async fn futures_poll<F: Future>(mut future: std::pin::Pin<&mut F>) -> bool {
        std::future::poll_fn(|cx| std::task::Poll::Ready(future.as_mut().poll(cx).is_pending())).await
    }
}
