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
pub(crate) trait SearchExecutor: Send + Sync {
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
pub(crate) struct PendingSearch {
    response_receiver: oneshot::Receiver<Result<Vec<SearchHit>, Problem>>,
    deadline: Instant,
}

impl PendingSearch {
    /// Waits for the result, up to the deadline of the query.
    pub(crate) async fn wait_for_hits(self) -> Result<Vec<SearchHit>, Problem> {
        match timeout_at(self.deadline, self.response_receiver).await {
            Ok(Ok(answer)) => answer,
            Ok(Err(_gone)) => Err(Problem::stopping("the host is stopping: use another host")),
            Err(_late) => {
                counter!("weir_search_queries_dropped_total", "reason" => "timeout").increment(1);
                Err(Problem::overloaded("the query timed out: retry it").with_retry_after(RETRY_AFTER))
            }
        }
    }
}

/// The next action of the dispatch loop.
enum NextAction {
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
    ) -> Vec<Result<PendingSearch, Problem>> {
        let tickets = {
            let mut lines = self.queues.lock();
            let since = Instant::now();
            let put = |query| {
                lines.make_room_or_refuse(tenant, self.capacity)?;
                let (reply, answer) = oneshot::channel();
                lines.queue_of_tenant(tenant).queries.push_back(QueuedQuery {
                    query,
                    queued_at: since,
                    response_sender: reply,
                });
                lines.queued_queries += 1;
                let deadline = since + self.query_timeout;
                Ok(PendingSearch {
                    response_receiver: answer,
                    deadline,
                })
            };
            let tickets = queries.into_iter().map(put).collect();
            gauge!("weir_search_queries_queued").set(lines.queued_queries as f64);
            tickets
        };
        self.changed.notify_one();
        tickets
    }

    /// Dispatches batches to `answers`, at most `at_once` at a time. Dropping the future cancels the batches in flight.
    pub(crate) async fn dispatch_batches(self: Arc<Self>, answers: Arc<dyn SearchExecutor>, at_once: usize) {
        let mut under_way = JoinSet::new();
        loop {
            let mut turn = NextAction::WaitForChange;
            while under_way.len() < at_once.max(1) {
                turn = self
                    .queues
                    .lock()
                    .next_action(self.max_batch_size, self.linger_time);
                let NextAction::SendBatch(tenant, batch) = turn else {
                    break;
                };
                under_way.spawn(answer(Arc::clone(&self), Arc::clone(&answers), tenant, batch));
                turn = NextAction::WaitForChange;
            }
            let not_before = match turn {
                NextAction::WaitUntil(at) => Some(at),
                _ => None,
            };
            tokio::select! {
                () = self.changed.notified() => {}
                Some(_) = under_way.join_next() => {}
                () = sleep_until(not_before.unwrap_or_else(Instant::now)), if not_before.is_some() => {}
            }
        }
    }
}

async fn answer(
    buffer: Arc<SearchBuffer>,
    answers: Arc<dyn SearchExecutor>,
    tenant: TenantId,
    batch: Vec<QueuedQuery>,
) {
    let _under_way = BatchInFlight { buffer, tenant };
    histogram!("weir_search_batch_size").record(batch.len() as f64);
    let (queries, replies): (Vec<_>, Vec<_>) =
        batch.into_iter().map(|w| (w.query, w.response_sender)).unzip();
    let answered = AssertUnwindSafe(answers.execute_batch(queries))
        .catch_unwind()
        .await;
    let died = || Problem::internal_error("the search panicked: see the log of the host");
    let mut answers = answered
        .into_iter()
        .flatten()
        .map(|answer| answer.map_err(Problem::from));
    for reply in replies {
        // The caller may have canceled the query.
        let _ = reply.send(answers.next().unwrap_or_else(|| Err(died())));
    }
}

/// Counts a batch in flight in the queue of its tenant until dropped, even after a panic.
struct BatchInFlight {
    buffer: Arc<SearchBuffer>,
    tenant: TenantId,
}

impl Drop for BatchInFlight {
    fn drop(&mut self) {
        let mut lines = self.buffer.queues.lock();
        let line = lines.queue_of_tenant(&self.tenant);
        line.batches_in_flight = line.batches_in_flight.saturating_sub(1);
        lines.tenant_queues.retain(TenantQueue::is_in_use);
    }
}

impl TenantQueue {
    fn is_in_use(&self) -> bool {
        self.batches_in_flight > 0 || !self.queries.is_empty()
    }

    /// The time at which its next batch may be sent. `None` if no query is queued.
    fn next_batch_time(&self, batch: usize, linger: Duration, now: Instant) -> Option<Instant> {
        let oldest = self.queries.front()?.queued_at;
        let at_once = self.batches_in_flight == 0 || self.queries.len() >= batch;
        Some(if at_once { now } else { oldest + linger })
    }
}

impl TenantQueues {
    fn queue_of_tenant(&mut self, tenant: &TenantId) -> &mut TenantQueue {
        let known = self.tenant_queues.iter().position(|line| line.tenant == *tenant);
        let place = known.unwrap_or_else(|| {
            // Tenants with a batch in flight have been served, so a new tenant comes before them and after the waiting ones.
            let served = self
                .tenant_queues
                .iter()
                .position(|line| line.batches_in_flight > 0);
            let place = served.unwrap_or(self.tenant_queues.len());
            let line = TenantQueue {
                tenant: tenant.clone(),
                queries: VecDeque::new(),
                batches_in_flight: 0,
            };
            self.tenant_queues.insert(place, line);
            place
        });
        // The queue at this index exists or was just inserted.
        self.tenant_queues
            .get_mut(place)
            .unwrap_or_else(|| unreachable!())
    }

    /// Ensures that a query of the tenant fits: drops a query of another tenant if necessary, or returns the refusal.
    fn make_room_or_refuse(&mut self, tenant: &TenantId, capacity: usize) -> Result<(), Problem> {
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
        let own = self.tenant_queues.iter().find(|line| line.tenant == *tenant);
        let own = own.map_or(0, |line| line.queries.len());
        let longest = self
            .tenant_queues
            .iter_mut()
            .max_by_key(|line| line.queries.len());
        let dropped = longest
            .filter(|line| line.queries.len() > own + 1)
            .and_then(|line| line.queries.pop_back());
        let Some(dropped) = dropped else {
            counter!("weir_search_queries_refused_total").increment(1);
            return Err(refusal());
        };
        self.queued_queries -= 1;
        counter!("weir_search_queries_dropped_total", "reason" => "buffer-full").increment(1);
        let _ = dropped.response_sender.send(Err(refusal()));
        Ok(())
    }

    /// Removes the queries whose caller no longer waits.
    fn remove_abandoned_queries(&mut self) {
        for line in &mut self.tenant_queues {
            line.queries
                .retain(|waiting| !waiting.response_sender.is_closed());
        }
        self.tenant_queues.retain(TenantQueue::is_in_use);
        self.queued_queries = self.tenant_queues.iter().map(|line| line.queries.len()).sum();
    }

    fn next_action(&mut self, batch: usize, linger: Duration) -> NextAction {
        self.remove_abandoned_queries();
        let now = Instant::now();
        let mut earliest: Option<Instant> = None;
        for place in 0..self.tenant_queues.len() {
            let leaves = self
                .tenant_queues
                .get(place)
                .and_then(|line| line.next_batch_time(batch, linger, now));
            match leaves {
                Some(at) if at <= now => {
                    let Some(mut line) = self.tenant_queues.remove(place) else {
                        break;
                    };
                    let taken: Vec<_> = line.queries.drain(..line.queries.len().min(batch)).collect();
                    line.batches_in_flight += 1;
                    let tenant = line.tenant.clone();
                    // The other tenants are served before its next batch.
                    self.tenant_queues.push_back(line);
                    self.queued_queries -= taken.len();
                    gauge!("weir_search_queries_queued").set(self.queued_queries as f64);
                    return NextAction::SendBatch(tenant, taken);
                }
                Some(at) => earliest = Some(earliest.map_or(at, |e| e.min(at))),
                None => {}
            }
        }
        earliest.map_or(NextAction::WaitForChange, NextAction::WaitUntil)
    }
}
