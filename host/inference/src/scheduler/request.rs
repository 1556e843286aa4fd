//! A queued request, the request that a worker runs, and the reply of both.
//!
//! A request with one result for its caller may need many steps: OCR first detects the lines of a page and then recognizes
//! them. A worker that knows the remaining steps splits its request before it takes another. The parts get the position of the
//! whole request in the queue, so idle workers help with an older call before they start a newer one.

use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use tokio::sync::{OwnedSemaphorePermit, oneshot};
use weir_core::InferenceError;
use weir_core::fair_queue::Flow;

use super::batcher::{Batcher, CallId, QueuedItem};

/// The call and the flow of a request, which decide its position in the queue.
pub(super) struct RequestOrigin {
    pub(super) call_id: CallId,
    pub(super) flow: Flow,
    pub(super) dispatch_deadline: Duration,
}

/// The reply to a request, shared by its parts; the first result is sent.
pub(super) struct SharedReplySender<O>(Mutex<Option<oneshot::Sender<Result<O, InferenceError>>>>);

impl<O> SharedReplySender<O> {
    pub(super) fn new(sender: oneshot::Sender<Result<O, InferenceError>>) -> Arc<Self> {
        Arc::new(Self(Mutex::new(Some(sender))))
    }

    pub(super) fn is_awaited(&self) -> bool {
        self.0.lock().as_ref().is_some_and(|sender| !sender.is_closed())
    }
}

/// A request in the queue.
pub(super) struct QueuedRequest<I, O> {
    pub(super) item: I,
    pub(super) reply: Arc<SharedReplySender<O>>,
    pub(super) origin: Arc<RequestOrigin>,
    pub(super) queued_at: Instant,
    /// A slot of the tenant's queue, freed when a worker takes the request. A part needs no slot, because its whole request was
    /// admitted.
    pub(super) _queue_slot: Option<OwnedSemaphorePermit>,
}

impl<I, O> QueuedRequest<I, O> {
    /// Adds the request to the queue.
    pub(super) fn push_to_batcher(self, batcher: &mut Batcher<Self>, cost: f64) {
        let origin = Arc::clone(&self.origin);
        let item = QueuedItem {
            call_id: origin.call_id,
            cost,
            charged_seconds: 0.0,
            dispatch_deadline: origin.dispatch_deadline,
            item: self,
        };
        batcher.push(&origin.flow, item);
    }
}

/// A model that runs batches of requests.
pub(crate) trait BatchRunningModel<I, O> {
    /// Runs a batch. It completes each request as soon as its result is ready, or splits it. A request that is dropped fails.
    fn run_batch(&mut self, batch: Vec<ActiveRequest<'_, I, O>>);
}

/// The scheduler's operations that a running request uses: queue its parts and count its failure.
pub(super) trait SchedulerForActiveRequests<I, O> {
    /// Queues the parts of a request, each with its cost. Does nothing if the caller of the request has been
    /// dropped, or the scheduler is closed.
    fn queue_parts(
        &self,
        origin: &Arc<RequestOrigin>,
        reply: &Arc<SharedReplySender<O>>,
        parts: Vec<(I, f64)>,
    );

    /// Counts a request that the model failed to answer.
    fn count_failed_request(&self);
}

/// A request that a worker runs.
pub(crate) struct ActiveRequest<'a, I, O> {
    /// The input.
    pub(crate) item: I,
    pub(super) reply: Arc<SharedReplySender<O>>,
    pub(super) origin: Arc<RequestOrigin>,
    pub(super) scheduler: &'a dyn SchedulerForActiveRequests<I, O>,
}

impl<I, O> ActiveRequest<'_, I, O> {
    /// Returns whether a result is still needed: the caller waits for it, and no part has sent a result or an error.
    pub(crate) fn is_awaited(&self) -> bool {
        self.reply.is_awaited()
    }

    /// Sends the result, unless another part has sent one.
    pub(crate) fn send_result(self, result: Result<O, InferenceError>) {
        if let Some(sender) = self.reply.0.lock().take() {
            // Invalid input does not count as a failure of the model.
            if result
                .as_ref()
                .is_err_and(|e| !matches!(e, InferenceError::InvalidInput { .. }))
            {
                self.scheduler.count_failed_request();
            }
            // The caller may have stopped waiting; then the result is dropped.
            let _ = sender.send(result);
        }
    }

    /// Replaces this request by `parts`, each given with its cost. The part that has the final result sends it; the other parts
    /// are dropped when they are done. If all parts are dropped without a result, the request fails.
    pub(crate) fn replace_with_queued_parts(self, parts: Vec<(I, f64)>) {
        self.scheduler.queue_parts(&self.origin, &self.reply, parts);
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::sync::mpsc;

    use super::super::tests::scheduling_context_of;
    use super::super::{BatchRunningModel, MaxUsefulBatchCost, ModelStats, Scheduler, SchedulerConfig};
    use super::*;

    /// The input of a [`SplittingModel`]: a whole request with its number of parts, or one part.
    enum TestStep {
        Whole(usize),
        Part { number: usize, left: Arc<AtomicUsize> },
    }

    /// Splits whole requests; the part that finishes last sends the result. It records what it runs and then waits for the gate.
    struct SplittingModel {
        gate: Arc<Mutex<mpsc::Receiver<()>>>,
        ran: Arc<Mutex<Vec<String>>>,
    }

    impl BatchRunningModel<TestStep, usize> for SplittingModel {
        fn run_batch(&mut self, batch: Vec<ActiveRequest<'_, TestStep, usize>>) {
            for request in batch.into_iter().filter(ActiveRequest::is_awaited) {
                match &request.item {
                    TestStep::Whole(parts) => self.ran.lock().push(format!("whole of {parts}")),
                    TestStep::Part { number, .. } => self.ran.lock().push(format!("part {number}")),
                }
                if self.gate.lock().recv().is_err() {
                    return;
                }
                match &request.item {
                    TestStep::Whole(parts) => {
                        let left = Arc::new(AtomicUsize::new(*parts));
                        let part = |number| TestStep::Part {
                            number,
                            left: Arc::clone(&left),
                        };
                        let parts = (0..*parts).map(|n| (part(n), 1.0)).collect();
                        request.replace_with_queued_parts(parts);
                    }
                    TestStep::Part { number: 13, .. } => {
                        request.send_result(Err(crate::onnx_runtime::missing_file_error("part 13")))
                    }
                    TestStep::Part { left, .. } => {
                        if left.fetch_sub(1, Ordering::SeqCst) == 1 {
                            request.send_result(Ok(7));
                        }
                    }
                }
            }
        }
    }

    type SplittingFixture = (
        Arc<Scheduler<TestStep, usize>>,
        mpsc::Sender<()>,
        Arc<Mutex<Vec<String>>>,
    );

    fn splitting_fixture(workers: usize) -> SplittingFixture {
        let (open_gate, gate) = mpsc::channel();
        let (gate, ran) = (Arc::new(Mutex::new(gate)), Arc::new(Mutex::new(Vec::new())));
        let model_ran = Arc::clone(&ran);
        let scheduler_config = SchedulerConfig {
            model_name: "fake",
            workers,
            max_batch: 1,
            max_queued_per_tenant: 10,
            max_useful_batch_cost: MaxUsefulBatchCost::UpToCost(0.0),
            latency_boost: Duration::ZERO,
            niceness: 0,
            usage_meter: None,
        };
        let scheduler = Scheduler::new(scheduler_config, move |_| {
            Ok(Box::new(SplittingModel {
                gate: Arc::clone(&gate),
                ran: Arc::clone(&model_ran),
            }))
        });
        (Arc::new(scheduler), open_gate, ran)
    }

    fn submit_whole(
        scheduler: &Arc<Scheduler<TestStep, usize>>,
        parts: usize,
    ) -> tokio::task::JoinHandle<Result<Vec<usize>, InferenceError>> {
        let scheduler = Arc::clone(scheduler);
        tokio::spawn(async move {
            scheduler
                .submit_and_await_results(&scheduling_context_of("a"), vec![(TestStep::Whole(parts), 1.0)])
                .await
        })
    }

    async fn wait_for_stats(scheduler: &Scheduler<TestStep, usize>, wanted: impl Fn(ModelStats) -> bool) {
        let all = async {
            while !wanted(scheduler.stats()) {
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
        };
        tokio::time::timeout(Duration::from_secs(20), all)
            .await
            .unwrap_or_else(|_| panic!("unexpected statistics: {:?}", scheduler.stats()));
    }

    #[tokio::test]
    async fn parts_of_an_older_request_run_before_a_newer_request() {
        let (scheduler, gate, ran) = splitting_fixture(1);
        let older = submit_whole(&scheduler, 3);
        wait_for_stats(&scheduler, |s| s.busy_workers == 1).await;
        let newer = submit_whole(&scheduler, 2);
        wait_for_stats(&scheduler, |s| s.queued_requests == 1).await;
        for _ in 0..7 {
            gate.send(()).unwrap();
        }
        assert_eq!(older.await.unwrap().unwrap(), [7]);
        assert_eq!(newer.await.unwrap().unwrap(), [7]);
        assert_eq!(
            *ran.lock(),
            [
                "whole of 3",
                "part 0",
                "part 1",
                "part 2",
                "whole of 2",
                "part 0",
                "part 1"
            ]
        );
        assert_eq!(scheduler.stats().requests, 7);
    }

    #[tokio::test]
    async fn idle_workers_share_the_parts_of_a_request() {
        let (scheduler, gate, _) = splitting_fixture(3);
        let one = submit_whole(&scheduler, 3);
        wait_for_stats(&scheduler, |s| s.busy_workers == 1).await;
        gate.send(()).unwrap();
        wait_for_stats(&scheduler, |s| s.busy_workers == 3 && s.queued_requests == 0).await;
        for _ in 0..3 {
            gate.send(()).unwrap();
        }
        assert_eq!(one.await.unwrap().unwrap(), [7]);
    }

    #[tokio::test]
    async fn dropping_the_call_removes_its_waiting_parts() {
        let (scheduler, gate, ran) = splitting_fixture(1);
        let dropped = submit_whole(&scheduler, 5);
        wait_for_stats(&scheduler, |s| s.busy_workers == 1).await;
        gate.send(()).unwrap();
        wait_for_stats(&scheduler, |s| s.requests == 2 && s.queued_requests == 4).await;
        dropped.abort();
        wait_for_stats(&scheduler, |s| s.queued_requests == 0).await;
        // The caller leaves before the worker splits the request, so there are no parts.
        gate.send(()).unwrap();
        wait_for_stats(&scheduler, |s| s.busy_workers == 0).await;
        let dropped = submit_whole(&scheduler, 5);
        wait_for_stats(&scheduler, |s| s.busy_workers == 1).await;
        dropped.abort();
        assert!(dropped.await.unwrap_err().is_cancelled());
        gate.send(()).unwrap();
        wait_for_stats(&scheduler, |s| s.busy_workers == 0).await;
        assert_eq!(*ran.lock(), ["whole of 5", "part 0", "whole of 5"]);
        assert_eq!(
            (scheduler.stats().requests, scheduler.stats().queued_requests),
            (3, 0)
        );
    }

    #[tokio::test]
    async fn failed_part_fails_the_request_and_cancels_other_parts() {
        let (scheduler, gate, ran) = splitting_fixture(1);
        let failed = submit_whole(&scheduler, 20);
        for _ in 0..15 {
            gate.send(()).unwrap();
        }
        assert_eq!(failed.await.unwrap().unwrap_err().kind(), "model-unavailable");
        wait_for_stats(&scheduler, |s| s.busy_workers == 0 && s.queued_requests == 0).await;
        assert_eq!(ran.lock().len(), 15, "{:?}", ran.lock());
    }
}
