//! The search buffer: groups queries that arrive together into batches.
//!
//! A model embeds 32 short texts in little more time than one, so batches increase the throughput under load. If a tenant has
//! no batch in flight, its query is sent at once, so an idle host adds no delay. Otherwise the queries of the tenant wait until
//! the batch is full, the batch in flight ends, or the oldest query has waited for the linger time.
//!
//! Tenants are served in turn, one batch each. The capacity of the buffer applies to the whole host. If the buffer is full, a new
//! query replaces the newest query of the tenant with the most queued queries, unless its own tenant has as many; then it is
//! refused. Both the dropped and the refused query get an error response and are counted.

use std::collections::VecDeque;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use futures::FutureExt as _;
use metrics::{counter, gauge, histogram};
use parking_lot::Mutex;
use tokio::sync::{Notify, oneshot};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep_until, timeout_at};
use weir_core::TenantId;
use weir_core::search::SearchHit;
use weir_core::settings::Settings;
use weir_engine::{SearchError, SearchRequest};

use crate::problem::Problem;

/// `Retry-After` of refused and dropped queries.
const RETRY_AFTER: Duration = Duration::from_secs(1);

/// Executes the queries of a batch, which belong to one tenant. Returns the results in the order of the queries.
#[async_trait]
pub(crate) trait SearchBatchExecutor: Send + Sync {
    async fn execute_batch(&self, queries: Vec<SearchRequest>) -> Vec<Result<Vec<SearchHit>, SearchError>>;
}

/// A bounded buffer that batches the queries of each tenant.
pub(crate) struct SearchBuffer {
    capacity: usize,
    max_batch_size: usize,
    linger_time: Duration,
    query_timeout: Duration,
    queues: Mutex<TenantQueues>,
    changed: Notify,
}

#[derive(Default)]
struct TenantQueues {
    /// In the order in which they are served.
    tenant_queues: VecDeque<TenantQueue>,
    queued_queries: usize,
}

/// The queued queries of a tenant.
struct TenantQueue {
    tenant: TenantId,
    queries: VecDeque<QueuedQuery>,
    batches_in_flight: usize,
}

struct QueuedQuery {
    query: SearchRequest,
    queued_at: Instant,
    response_sender: oneshot::Sender<Result<Vec<SearchHit>, Problem>>,
}

/// A query in the buffer. Dropping it cancels the query.
pub(crate) struct PendingSearchHandle {
    response_receiver: oneshot::Receiver<Result<Vec<SearchHit>, Problem>>,
    deadline: Instant,
}

impl PendingSearchHandle {
    /// Waits for the result, up to the deadline of the query.
    pub(crate) async fn wait_for_hits(self) -> Result<Vec<SearchHit>, Problem> {
        match timeout_at(self.deadline, self.response_receiver).await {
            Ok(Ok(result)) => result,
            Ok(Err(_gone)) => Err(Problem::stopping("the host is stopping: use another host")),
            Err(_late) => {
                counter!("weir_search_queries_unanswered_total", "reason" => "timeout").increment(1);
                Err(Problem::overloaded("the query timed out: retry it").with_retry_after(RETRY_AFTER))
            }
        }
    }
}

/// The next action of the dispatch loop.
enum NextDispatchAction {
    SendBatch(TenantId, Vec<QueuedQuery>),
    WaitUntil(Instant),
    WaitForChange,
}

impl SearchBuffer {
    pub(crate) fn new(settings: &Settings) -> Arc<Self> {
        Arc::new(Self {
            capacity: settings.query_stream_max_queued_queries as usize,
            max_batch_size: settings.query_stream_max_batch_queries as usize,
            linger_time: Duration::from_millis(settings.query_stream_batch_linger_millis.into()),
            query_timeout: Duration::from_secs(settings.query_stream_query_timeout_seconds.into()),
            queues: Mutex::default(),
            changed: Notify::new(),
        })
    }

    /// Adds queries of one tenant. Each query is accepted or refused on its own.
    pub(crate) fn enqueue_queries(
        &self,
        tenant: &TenantId,
        queries: Vec<SearchRequest>,
    ) -> Vec<Result<PendingSearchHandle, Problem>> {
        let pending_searches = {
            let mut queues = self.queues.lock();
            let now = Instant::now();
            let enqueue = |query| {
                queues.evict_if_full_or_refuse(tenant, self.capacity)?;
                let (response_sender, response_receiver) = oneshot::channel();
                queues
                    .get_or_insert_tenant_queue(tenant)
                    .queries
                    .push_back(QueuedQuery {
                        query,
                        queued_at: now,
                        response_sender,
                    });
                queues.queued_queries += 1;
                let deadline = now + self.query_timeout;
                Ok(PendingSearchHandle {
                    response_receiver,
                    deadline,
                })
            };
            let pending_searches = queries.into_iter().map(enqueue).collect();
            gauge!("weir_search_queries_queued").set(queues.queued_queries as f64);
            pending_searches
        };
        self.changed.notify_one();
        pending_searches
    }

    /// Sends batches to `executor`, at most `max_batches_in_flight` at a time. Dropping the future cancels the batches in flight.
    pub(crate) async fn dispatch_batches(
        self: Arc<Self>,
        executor: Arc<dyn SearchBatchExecutor>,
        max_batches_in_flight: usize,
    ) {
        let mut batch_tasks = JoinSet::new();
        loop {
            let mut action = NextDispatchAction::WaitForChange;
            while batch_tasks.len() < max_batches_in_flight.max(1) {
                action = self
                    .queues
                    .lock()
                    .take_next_batch_or_wait(self.max_batch_size, self.linger_time);
                let NextDispatchAction::SendBatch(tenant, batch) = action else {
                    break;
                };
                batch_tasks.spawn(execute_batch_and_respond(
                    Arc::clone(&self),
                    Arc::clone(&executor),
                    tenant,
                    batch,
                ));
                action = NextDispatchAction::WaitForChange;
            }
            let not_before = match action {
                NextDispatchAction::WaitUntil(at) => Some(at),
                _ => None,
            };
            tokio::select! {
                () = self.changed.notified() => {}
                Some(_) = batch_tasks.join_next() => {}
                () = sleep_until(not_before.unwrap_or_else(Instant::now)), if not_before.is_some() => {}
            }
        }
    }
}

async fn execute_batch_and_respond(
    buffer: Arc<SearchBuffer>,
    executor: Arc<dyn SearchBatchExecutor>,
    tenant: TenantId,
    batch: Vec<QueuedQuery>,
) {
    let _in_flight_guard = BatchInFlightGuard { buffer, tenant };
    histogram!("weir_search_batch_size").record(batch.len() as f64);
    let (queries, response_senders): (Vec<_>, Vec<_>) = batch
        .into_iter()
        .map(|queued| (queued.query, queued.response_sender))
        .unzip();
    let results_of_batch = AssertUnwindSafe(executor.execute_batch(queries))
        .catch_unwind()
        .await;
    let panic_problem = || Problem::internal_error("the search panicked: see the log of the host");
    let mut results = results_of_batch
        .into_iter()
        .flatten()
        .map(|result| result.map_err(Problem::from));
    for response_sender in response_senders {
        // The caller may have canceled the query.
        let _ = response_sender.send(results.next().unwrap_or_else(|| Err(panic_problem())));
    }
}

/// Counts a batch in flight in the queue of its tenant until dropped, even after a panic.
struct BatchInFlightGuard {
    buffer: Arc<SearchBuffer>,
    tenant: TenantId,
}

impl Drop for BatchInFlightGuard {
    fn drop(&mut self) {
        let mut queues = self.buffer.queues.lock();
        let queue = queues.get_or_insert_tenant_queue(&self.tenant);
        queue.batches_in_flight = queue.batches_in_flight.saturating_sub(1);
        queues
            .tenant_queues
            .retain(TenantQueue::has_queued_or_running_queries);
    }
}

impl TenantQueue {
    fn has_queued_or_running_queries(&self) -> bool {
        self.batches_in_flight > 0 || !self.queries.is_empty()
    }

    /// The time at which its next batch may be sent. `None` if no query is queued.
    fn next_batch_time(&self, max_batch_size: usize, linger: Duration, now: Instant) -> Option<Instant> {
        let oldest = self.queries.front()?.queued_at;
        let at_once = self.batches_in_flight == 0 || self.queries.len() >= max_batch_size;
        Some(if at_once { now } else { oldest + linger })
    }
}

impl TenantQueues {
    fn get_or_insert_tenant_queue(&mut self, tenant: &TenantId) -> &mut TenantQueue {
        let existing = self
            .tenant_queues
            .iter()
            .position(|queue| queue.tenant == *tenant);
        let index = existing.unwrap_or_else(|| {
            // Tenants with a batch in flight have been served, so a new tenant comes before them and after the waiting ones.
            let served = self
                .tenant_queues
                .iter()
                .position(|queue| queue.batches_in_flight > 0);
            let index = served.unwrap_or(self.tenant_queues.len());
            let queue = TenantQueue {
                tenant: tenant.clone(),
                queries: VecDeque::new(),
                batches_in_flight: 0,
            };
            self.tenant_queues.insert(index, queue);
            index
        });
        // The queue at this index exists or was just inserted.
        self.tenant_queues
            .get_mut(index)
            .unwrap_or_else(|| unreachable!())
    }

    /// Ensures that a query of the tenant fits: drops a query of another tenant if necessary, or returns the refusal.
    fn evict_if_full_or_refuse(&mut self, tenant: &TenantId, capacity: usize) -> Result<(), Problem> {
        let refusal = || {
            Problem::overloaded(format!(
                "the search buffer is full with {capacity} queries: retry"
            ))
            .with_retry_after(RETRY_AFTER)
        };
        if self.queued_queries >= capacity {
            self.remove_abandoned_queries();
        }
        if self.queued_queries < capacity {
            return Ok(());
        }
        let own = self.tenant_queues.iter().find(|queue| queue.tenant == *tenant);
        let own = own.map_or(0, |queue| queue.queries.len());
        let longest = self
            .tenant_queues
            .iter_mut()
            .max_by_key(|queue| queue.queries.len());
        let dropped = longest
            .filter(|queue| queue.queries.len() > own + 1)
            .and_then(|queue| queue.queries.pop_back());
        let Some(dropped) = dropped else {
            counter!("weir_search_queries_refused_buffer_full_total").increment(1);
            return Err(refusal());
        };
        self.queued_queries -= 1;
        counter!("weir_search_queries_unanswered_total", "reason" => "buffer-full").increment(1);
        let _ = dropped.response_sender.send(Err(refusal()));
        Ok(())
    }

    /// Removes the queries whose caller no longer waits.
    fn remove_abandoned_queries(&mut self) {
        for queue in &mut self.tenant_queues {
            queue
                .queries
                .retain(|waiting| !waiting.response_sender.is_closed());
        }
        self.tenant_queues
            .retain(TenantQueue::has_queued_or_running_queries);
        self.queued_queries = self.tenant_queues.iter().map(|queue| queue.queries.len()).sum();
    }

    fn take_next_batch_or_wait(&mut self, max_batch_size: usize, linger: Duration) -> NextDispatchAction {
        self.remove_abandoned_queries();
        let now = Instant::now();
        let mut earliest: Option<Instant> = None;
        for index in 0..self.tenant_queues.len() {
            let batch_time = self
                .tenant_queues
                .get(index)
                .and_then(|queue| queue.next_batch_time(max_batch_size, linger, now));
            match batch_time {
                Some(at) if at <= now => {
                    let Some(mut queue) = self.tenant_queues.remove(index) else {
                        break;
                    };
                    let taken: Vec<_> = queue
                        .queries
                        .drain(..queue.queries.len().min(max_batch_size))
                        .collect();
                    queue.batches_in_flight += 1;
                    let tenant = queue.tenant.clone();
                    // The other tenants are served before its next batch.
                    self.tenant_queues.push_back(queue);
                    self.queued_queries -= taken.len();
                    gauge!("weir_search_queries_queued").set(self.queued_queries as f64);
                    return NextDispatchAction::SendBatch(tenant, taken);
                }
                Some(at) => earliest = Some(earliest.map_or(at, |e| e.min(at))),
                None => {}
            }
        }
        earliest.map_or(NextDispatchAction::WaitForChange, NextDispatchAction::WaitUntil)
    }
}
