//! A request in a worker's hands, and the answer it owes.
//!
//! Work that is one answer to its caller may be many steps to the workers: a page is looked over, then its lines are
//! read. A worker that finds out what is left splits its job, before it takes anything else: the parts stand where the
//! whole stood, so that any idle worker helps with an older call before a younger one is begun.

use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use tokio::sync::{OwnedSemaphorePermit, oneshot};
use weir_core::{InferenceError, Lane, TenantId};

use super::queue::{CallId, Request};
use super::worker::Shared;

/// Whose turn a request waits for.
#[derive(Clone)]
pub(super) struct Place {
    pub(super) call: CallId,
    pub(super) tenant: TenantId,
    pub(super) lane: Lane,
    pub(super) due: Duration,
    pub(super) weight: f64,
}

/// What the parts of a job owe together.
pub(super) struct Reply<O>(Mutex<Option<oneshot::Sender<Result<O, InferenceError>>>>);

impl<O> Reply<O> {
    pub(super) fn new(sender: oneshot::Sender<Result<O, InferenceError>>) -> Arc<Self> {
        Arc::new(Self(Mutex::new(Some(sender))))
    }

    fn is_wanted(&self) -> bool {
        self.0.lock().as_ref().is_some_and(|sender| !sender.is_closed())
    }
}

/// A request that waits.
pub(super) struct Waiting<I, O> {
    pub(super) item: I,
    pub(super) reply: Arc<Reply<O>>,
    pub(super) place: Arc<Place>,
    pub(super) since: Instant,
    /// Its share of the tenant's room, given back when a worker takes it. A part needs none: it is there because its
    /// whole has been let in.
    pub(super) _room: Option<OwnedSemaphorePermit>,
}

impl<I, O> Waiting<I, O> {
    pub(super) fn request(self, cost: f64) -> Request<Self> {
        Request {
            call: self.place.call,
            cost,
            weight: self.place.weight,
            due: self.place.due,
            item: self,
        }
    }
}

/// A request in a worker's hands.
pub(crate) struct Job<'a, I, O> {
    /// The input.
    pub(crate) item: I,
    pub(super) reply: Arc<Reply<O>>,
    pub(super) place: Arc<Place>,
    pub(super) shared: &'a Shared<I, O>,
}

impl<I, O> Job<'_, I, O> {
    /// Whether an answer is still owed: someone waits for it, and no part has answered or failed.
    pub(crate) fn is_wanted(&self) -> bool {
        self.reply.is_wanted()
    }

    /// Sends the answer, unless another part has.
    pub(crate) fn answer(self, answer: Result<O, InferenceError>) {
        if let Some(sender) = self.reply.0.lock().take() {
            // What it was given wrongly is not the model's failure.
            if answer
                .as_ref()
                .is_err_and(|e| !matches!(e, InferenceError::Input { .. }))
            {
                self.shared.measures.failures.increment(1);
            }
            // The caller may have gone; then nobody is owed an answer.
            let _ = sender.send(answer);
        }
    }

    /// Puts `parts`, each with what it costs, in this job's place. The one that has the answer gives it, the others are
    /// dropped when they are done; if all are dropped unanswered, the request has failed.
    pub(crate) fn split(self, parts: Vec<(I, f64)>) {
        let mut state = self.shared.state.lock();
        // Checked with the queue in hand: a caller that goes takes out of it what it finds, after it has stopped waiting.
        if state.closed || !self.is_wanted() {
            return;
        }
        let since = Instant::now();
        for (item, cost) in parts {
            let part = Waiting {
                item,
                reply: Arc::clone(&self.reply),
                place: Arc::clone(&self.place),
                since,
                _room: None,
            };
            state
                .batcher
                .queue()
                .push(&self.place.tenant, self.place.lane, part.request(cost));
        }
        self.shared.tell_waiting(&state);
        drop(state);
        self.shared.changed.notify_all();
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::sync::mpsc;

    use super::super::tests::account;
    use super::super::{Gain, Model, ModelStats, Scheduler, Sharing};
    use super::*;

    /// What a [`Splitter`] is given: a whole of so many parts, or one of them.
    enum Piece {
        Whole(usize),
        Part { number: usize, left: Arc<AtomicUsize> },
    }

    /// Splits wholes; the last part to be done answers. It notes what it runs and then waits for the gate.
    struct Splitter {
        gate: Arc<Mutex<mpsc::Receiver<()>>>,
        ran: Arc<Mutex<Vec<String>>>,
    }

    impl Model<Piece, usize> for Splitter {
        fn run(&mut self, batch: Vec<Job<'_, Piece, usize>>) {
            for job in batch.into_iter().filter(Job::is_wanted) {
                match &job.item {
                    Piece::Whole(parts) => self.ran.lock().push(format!("whole of {parts}")),
                    Piece::Part { number, .. } => self.ran.lock().push(format!("part {number}")),
                }
                if self.gate.lock().recv().is_err() {
                    return;
                }
                match &job.item {
                    Piece::Whole(parts) => {
                        let left = Arc::new(AtomicUsize::new(*parts));
                        let part = |number| Piece::Part {
                            number,
                            left: Arc::clone(&left),
                        };
                        let parts = (0..*parts).map(|n| (part(n), 1.0)).collect();
                        job.split(parts);
                    }
                    Piece::Part { number: 13, .. } => job.answer(Err(crate::runtime::missing("part 13"))),
                    Piece::Part { left, .. } => {
                        if left.fetch_sub(1, Ordering::SeqCst) == 1 {
                            job.answer(Ok(7));
                        }
                    }
                }
            }
        }
    }

    type Splitting = (
        Arc<Scheduler<Piece, usize>>,
        mpsc::Sender<()>,
        Arc<Mutex<Vec<String>>>,
    );

    fn splitting(workers: usize) -> Splitting {
        let (open_gate, gate) = mpsc::channel();
        let (gate, ran) = (Arc::new(Mutex::new(gate)), Arc::new(Mutex::new(Vec::new())));
        let model_ran = Arc::clone(&ran);
        let sharing = Sharing {
            name: "fake",
            workers,
            batch: 1,
            room: 10,
            gain: Gain::UpTo(0.0),
            niceness: 0,
            meter: None,
        };
        let scheduler = Scheduler::new(sharing, move |_| {
            Ok(Box::new(Splitter {
                gate: Arc::clone(&gate),
                ran: Arc::clone(&model_ran),
            }))
        });
        (Arc::new(scheduler), open_gate, ran)
    }

    fn whole(
        scheduler: &Arc<Scheduler<Piece, usize>>,
        parts: usize,
    ) -> tokio::task::JoinHandle<Result<Vec<usize>, InferenceError>> {
        let scheduler = Arc::clone(scheduler);
        tokio::spawn(async move {
            scheduler
                .submit(&account("a"), vec![(Piece::Whole(parts), 1.0)])
                .await
        })
    }

    async fn until(scheduler: &Scheduler<Piece, usize>, wanted: impl Fn(ModelStats) -> bool) {
        let all = async {
            while !wanted(scheduler.stats()) {
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
        };
        tokio::time::timeout(Duration::from_secs(20), all)
            .await
            .unwrap_or_else(|_| panic!("never reached, at {:?}", scheduler.stats()));
    }

    #[tokio::test]
    async fn the_parts_of_an_older_request_go_ahead_of_a_younger() {
        let (scheduler, gate, ran) = splitting(1);
        let old = whole(&scheduler, 3);
        until(&scheduler, |s| s.running == 1).await;
        let young = whole(&scheduler, 2);
        until(&scheduler, |s| s.waiting == 1).await;
        for _ in 0..7 {
            gate.send(()).unwrap();
        }
        assert_eq!(old.await.unwrap().unwrap(), [7]);
        assert_eq!(young.await.unwrap().unwrap(), [7]);
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
    async fn idle_workers_share_the_parts() {
        let (scheduler, gate, _) = splitting(3);
        let one = whole(&scheduler, 3);
        until(&scheduler, |s| s.running == 1).await;
        gate.send(()).unwrap();
        until(&scheduler, |s| s.running == 3 && s.waiting == 0).await;
        for _ in 0..3 {
            gate.send(()).unwrap();
        }
        assert_eq!(one.await.unwrap().unwrap(), [7]);
    }

    #[tokio::test]
    async fn a_caller_who_goes_takes_the_parts_along() {
        let (scheduler, gate, ran) = splitting(1);
        let dropped = whole(&scheduler, 5);
        until(&scheduler, |s| s.running == 1).await;
        gate.send(()).unwrap();
        until(&scheduler, |s| s.requests == 2 && s.waiting == 4).await;
        dropped.abort();
        until(&scheduler, |s| s.waiting == 0).await;
        // Gone before the worker knew what there is to do: then there are no parts.
        gate.send(()).unwrap();
        until(&scheduler, |s| s.running == 0).await;
        let dropped = whole(&scheduler, 5);
        until(&scheduler, |s| s.running == 1).await;
        dropped.abort();
        assert!(dropped.await.unwrap_err().is_cancelled());
        gate.send(()).unwrap();
        until(&scheduler, |s| s.running == 0).await;
        assert_eq!(*ran.lock(), ["whole of 5", "part 0", "whole of 5"]);
        assert_eq!((scheduler.stats().requests, scheduler.stats().waiting), (3, 0));
    }

    #[tokio::test]
    async fn a_failed_part_fails_the_whole_and_the_others_are_not_run() {
        let (scheduler, gate, ran) = splitting(1);
        let failed = whole(&scheduler, 20);
        for _ in 0..15 {
            gate.send(()).unwrap();
        }
        assert_eq!(failed.await.unwrap().unwrap_err().kind(), "model-unavailable");
        until(&scheduler, |s| s.running == 0 && s.waiting == 0).await;
        assert_eq!(ran.lock().len(), 15, "{:?}", ran.lock());
    }
}
