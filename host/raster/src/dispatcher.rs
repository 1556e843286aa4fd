//! Queues in which tasks wait for image memory and for a worker.
//!
//! Drawing needs bytes of the image budget and a worker. Opening, facts and text need only a worker. A drawing task reserves its
//! bytes first, so that a page that waits for memory does not occupy a worker or a position in a queue: see [`ImageBudget`]. Two
//! queues feed the workers in turn, so that reading the facts of many pages does not delay the drawing of one. Within each queue
//! the flows take turns, and within a flow its documents do.
//!
//! A task lives as long as the future that awaits it. A queued task whose future is dropped is skipped. A running task whose
//! future is dropped is canceled in its worker; its bytes are released when the worker responds.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use metrics::{Gauge, Unit};
use parking_lot::Mutex;
use tokio::sync::{mpsc, oneshot};
use weir_core::error::RasterError;
use weir_core::fair_queue::FairQueue;

use crate::image_budget::{ImageBudget, MemoryRequest, flow_of_document};
use crate::image_reservation::{ImageMemoryOwner, ImageReservation};
use crate::protocol::{DocumentKey, SegmentKey};
use crate::segment_pool::{ImageSegment, SegmentPool, WorkerId};
use crate::task::{DocumentFile, QueuedTask, TaskResult, TaskResultSender, pool_closed_error};

/// A command to the supervisor of a worker.
#[derive(Debug)]
pub(crate) enum SupervisorCommand {
    /// Runs a task; a drawing task may come with a cached segment.
    RunTask(QueuedTask),
    /// Closes a document that is no longer used.
    CloseDocument(DocumentKey),
}

/// A worker without a task.
#[derive(Debug)]
pub(crate) struct IdleWorker {
    pub(crate) slot: usize,
    /// The worker process, if one runs.
    pub(crate) worker_id: Option<WorkerId>,
    /// Documents that are open in the worker.
    pub(crate) open_documents: Vec<DocumentKey>,
}

#[derive(Debug)]
struct DispatcherState {
    segment_pool: SegmentPool,
    budget: ImageBudget<oneshot::Sender<ImageReservation>>,
    light_tasks: FairQueue<QueuedTask, u64>,
    draw_tasks: FairQueue<QueuedTask, u64>,
    draw_is_next: bool,
    idle_workers: VecDeque<IdleWorker>,
    /// Number of workers that run a task.
    busy_workers_gauge: Gauge,
    /// One command channel for each worker; empty once the pool is closed.
    supervisors: Vec<mpsc::UnboundedSender<SupervisorCommand>>,
}

/// The task queues, the idle workers and the image budget.
#[derive(Debug)]
pub(crate) struct Dispatcher {
    state: Mutex<DispatcherState>,
    next_key: AtomicU64,
}

impl Dispatcher {
    pub(crate) fn new(
        image_bytes: u64,
        supervisors: Vec<mpsc::UnboundedSender<SupervisorCommand>>,
    ) -> Arc<Self> {
        let idle = (0..supervisors.len()).rev().map(|slot| IdleWorker {
            slot,
            worker_id: None,
            open_documents: Vec::new(),
        });
        Arc::new(Self {
            state: Mutex::new(DispatcherState {
                segment_pool: SegmentPool::new(image_bytes),
                budget: ImageBudget::default(),
                light_tasks: FairQueue::new(),
                draw_tasks: FairQueue::new(),
                draw_is_next: false,
                idle_workers: idle.collect(),
                busy_workers_gauge: register_busy_workers_gauge(),
                supervisors,
            }),
            next_key: AtomicU64::new(1),
        })
    }

    /// Returns a number that was never returned before, as a key for a document, a worker process or a segment.
    pub(crate) fn allocate_unique_key(&self) -> u64 {
        self.next_key.fetch_add(1, Ordering::Relaxed)
    }

    /// Waits for bytes of the image budget.
    pub(crate) async fn await_image_reservation(
        self: &Arc<Self>,
        document: &DocumentFile,
        bytes: u64,
    ) -> Result<ImageReservation, RasterError> {
        let (sender, receiver) = oneshot::channel();
        {
            let mut state = self.state.lock();
            if state.supervisors.is_empty() {
                return Err(pool_closed_error());
            }
            let flow_id = document.flow_id;
            let request = MemoryRequest {
                flow_id,
                bytes,
                recipient: sender,
            };
            state.budget.push_request(document.key, request);
        }
        let waiting = PendingReply::new(self, receiver);
        self.grant_memory_and_dispatch_tasks();
        waiting.receive_reply().await.ok_or_else(pool_closed_error)
    }

    /// Queues a task and waits for its result.
    pub(crate) async fn queue_task_and_await_result(
        self: &Arc<Self>,
        make_task: impl FnOnce(TaskResultSender) -> QueuedTask,
    ) -> TaskResult {
        let (result_sender, receiver) = oneshot::channel();
        let waiting = PendingReply::new(self, receiver);
        self.enqueue_task(make_task(result_sender));
        waiting
            .receive_reply()
            .await
            .unwrap_or_else(|| Err(pool_closed_error()))
    }

    fn enqueue_task(self: &Arc<Self>, task: QueuedTask) {
        {
            let mut state = self.state.lock();
            if !state.supervisors.is_empty() {
                let flow = flow_of_document(task.document.flow_id, task.document.key);
                let queue = match task.reservation {
                    Some(_) => &mut state.draw_tasks,
                    None => &mut state.light_tasks,
                };
                queue.push(&flow, 0, 1.0, task);
            }
        }
        self.grant_memory_and_dispatch_tasks();
    }

    /// Grants memory to pending requests and assigns tasks to idle workers.
    fn grant_memory_and_dispatch_tasks(self: &Arc<Self>) {
        self.grant_pending_memory();
        loop {
            let (canceled, matched) = {
                let mut state = self.state.lock();
                (state.remove_canceled_tasks(), state.assign_next_task())
            };
            // These are dropped outside the lock: a canceled task releases its bytes through the lock, and so does a task whose supervisor
            // has ended.
            drop(canceled);
            let Some((supervisor, mut task, segment)) = matched else {
                return;
            };
            if let Some(reservation) = &mut task.reservation {
                reservation.segment = segment;
            }
            drop(supervisor.send(SupervisorCommand::RunTask(task)));
        }
    }

    fn grant_pending_memory(self: &Arc<Self>) {
        loop {
            let (_canceled, granted) = {
                let mut state = self.state.lock();
                let canceled = state.budget.remove_canceled_requests(oneshot::Sender::is_closed);
                let free = state.segment_pool.available_bytes();
                let granted = state.budget.grant_next_request(free);
                if let Some(request) = &granted {
                    state.segment_pool.reserve_bytes(request.bytes);
                }
                (canceled, granted)
            };
            let Some(request) = granted else {
                return;
            };
            let owner = Arc::clone(self) as Arc<dyn ImageMemoryOwner>;
            let reservation = ImageReservation::new(owner, request.flow_id, request.bytes);
            drop(request.recipient.send(reservation));
        }
    }

    /// Marks a worker as idle.
    pub(crate) fn mark_worker_idle(self: &Arc<Self>, idle: IdleWorker) {
        {
            let mut state = self.state.lock();
            state.idle_workers.push_back(idle);
            state.busy_workers_gauge.decrement(1.0);
        }
        self.grant_memory_and_dispatch_tasks();
    }

    /// Closes a document in every worker that has it open.
    pub(crate) fn close_document(&self, document: DocumentKey) {
        for supervisor in &self.state.lock().supervisors {
            drop(supervisor.send(SupervisorCommand::CloseDocument(document)));
        }
    }

    pub(crate) fn start_segment_caching_of_worker(&self, worker_id: WorkerId) {
        self.state
            .lock()
            .segment_pool
            .start_segment_caching_of_worker(worker_id);
    }

    pub(crate) fn stop_segment_caching_of_worker(&self, worker_id: WorkerId) {
        self.state
            .lock()
            .segment_pool
            .stop_segment_caching_of_worker(worker_id);
    }

    pub(crate) fn take_segments_to_unmap(&self, worker_id: WorkerId) -> Vec<SegmentKey> {
        self.state.lock().segment_pool.take_segments_to_unmap(worker_id)
    }

    pub(crate) fn available_image_bytes(&self) -> u64 {
        self.state.lock().segment_pool.available_bytes()
    }

    pub(crate) fn peak_image_bytes(&self) -> u64 {
        self.state.lock().segment_pool.peak_bytes()
    }

    pub(crate) fn queued_request_count(&self) -> usize {
        let state = self.state.lock();
        state.budget.len() + state.light_tasks.len() + state.draw_tasks.len()
    }

    /// Closes the queues and ends the supervisors; pending requests fail.
    pub(crate) fn close(&self) {
        let closed = {
            let mut state = self.state.lock();
            (
                std::mem::take(&mut state.supervisors),
                std::mem::take(&mut state.budget),
                std::mem::take(&mut state.light_tasks),
                std::mem::take(&mut state.draw_tasks),
            )
        };
        drop(closed);
    }
}

fn register_busy_workers_gauge() -> Gauge {
    metrics::describe_gauge!(
        "weir_raster_workers_busy",
        Unit::Count,
        "Raster worker processes with a command in progress"
    );
    metrics::gauge!("weir_raster_workers_busy")
}

type Assignment = (
    mpsc::UnboundedSender<SupervisorCommand>,
    QueuedTask,
    Option<ImageSegment>,
);

impl DispatcherState {
    /// Removes the canceled tasks.
    fn remove_canceled_tasks(&mut self) -> [Vec<QueuedTask>; 2] {
        [&mut self.light_tasks, &mut self.draw_tasks]
            .map(|queue| queue.withdraw_matching_uncharged(|task| task.result_sender.is_closed()))
    }

    fn assign_next_task(&mut self) -> Option<Assignment> {
        if self.idle_workers.is_empty() {
            return None;
        }
        let draw = !self.draw_tasks.is_empty() && (self.draw_is_next || self.light_tasks.is_empty());
        let queue = if draw { &self.draw_tasks } else { &self.light_tasks };
        let (position, next) = queue.find_next_accepted_request(|_| true)?;
        let (document, bytes) = (next.document.key, next.task.needed_image_bytes());
        let idle = self.take_best_idle_worker(document, bytes)?;
        let supervisor = self.supervisors.get(idle.slot)?.clone();
        let queue = if draw {
            &mut self.draw_tasks
        } else {
            &mut self.light_tasks
        };
        let task = queue.take_request_and_charge(&position)?;
        self.draw_is_next = !draw;
        self.busy_workers_gauge.increment(1.0);
        let segment = (bytes > 0)
            .then(|| self.segment_pool.take_cached_segment(idle.worker_id, bytes))
            .flatten();
        Some((supervisor, task, segment))
    }

    /// Removes and returns the idle worker that can start the task fastest. A worker that has the document open is preferred;
    /// then one with a cached segment of the right size; then the one that worked last, so that a light load keeps few processes
    /// warm.
    fn take_best_idle_worker(&mut self, document: DocumentKey, bytes: u64) -> Option<IdleWorker> {
        let best = self.idle_workers.iter().enumerate().max_by_key(|(at, idle)| {
            let open = idle.open_documents.contains(&document);
            let segment = idle
                .worker_id
                .is_some_and(|worker_id| self.segment_pool.has_cached_segment(worker_id, bytes));
            (open, segment, *at)
        })?;
        let at = best.0;
        self.idle_workers.remove(at)
    }
}

impl ImageMemoryOwner for Dispatcher {
    fn release_bytes_and_segment(self: Arc<Self>, flow_id: u64, bytes: u64, segment: Option<ImageSegment>) {
        {
            let mut state = self.state.lock();
            state.segment_pool.release_bytes(bytes);
            state.budget.release_bytes(flow_id, bytes);
            if let Some(segment) = segment {
                state.segment_pool.cache_segment(segment);
            }
        }
        self.grant_memory_and_dispatch_tasks();
    }
}

/// The receiver of a reply. Dropping it dispatches tasks again, so that a canceled request does not block the next one.
struct PendingReply<T> {
    receiver: Option<oneshot::Receiver<T>>,
    dispatcher: Arc<Dispatcher>,
}

impl<T> PendingReply<T> {
    fn new(dispatcher: &Arc<Dispatcher>, receiver: oneshot::Receiver<T>) -> Self {
        Self {
            receiver: Some(receiver),
            dispatcher: Arc::clone(dispatcher),
        }
    }

    /// Waits for the reply; `None` if the sender is gone.
    async fn receive_reply(mut self) -> Option<T> {
        match &mut self.receiver {
            Some(receiver) => receiver.await.ok(),
            None => None,
        }
    }
}

impl<T> Drop for PendingReply<T> {
    fn drop(&mut self) {
        self.receiver = None;
        self.dispatcher.grant_memory_and_dispatch_tasks();
    }
}
