//! The stream buffer: queries that arrive together are embedded together.
//!
//! A model embeds thirty-two short texts in little more time than one, so under load a query does better to wait a moment
//! for others. With nothing to wait behind, it does not: a tenant's query leaves at once if none of its batches is under
//! way, else when its batch is full, the one before is answered, or the oldest has waited for the linger time. What is
//! under way is thus what gathers the next batch, and an idle host answers without delay.
//!
//! Tenants take turns batch by batch. The buffer is bounded for the host; when it is full, the tenant with the most queries
//! waiting gives way: its newest is dropped, or the newcomer refused if that is one of its own. Both are told so and counted.

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
use weir_core::search::Hit;
use weir_core::settings::Settings;
use weir_engine::{SearchError, SearchRequest};

use crate::problem::Problem;

/// When a refused caller may try again.
const AGAIN: Duration = Duration::from_secs(1);

/// Answers queries of one tenant, in their order.
#[async_trait]
pub(crate) trait Answers: Send + Sync {
    async fn answer(&self, queries: Vec<SearchRequest>) -> Vec<Result<Vec<Hit>, SearchError>>;
}

/// Queries that wait for their turn.
pub(crate) struct SearchBuffer {
    capacity: usize,
    batch: usize,
    linger: Duration,
    deadline: Duration,
    lines: Mutex<Lines>,
    changed: Notify,
}

#[derive(Default)]
struct Lines {
    /// In the order of their turns.
    tenants: VecDeque<Line>,
    waiting: usize,
}

/// A tenant's queries.
struct Line {
    tenant: TenantId,
    queries: VecDeque<Waiting>,
    under_way: usize,
}

struct Waiting {
    query: SearchRequest,
    since: Instant,
    reply: oneshot::Sender<Result<Vec<Hit>, Problem>>,
}

/// A query that is in the buffer. Dropped, it is given up.
pub(crate) struct Ticket {
    answer: oneshot::Receiver<Result<Vec<Hit>, Problem>>,
    deadline: Instant,
}

impl Ticket {
    /// The hits, or why there are none.
    pub(crate) async fn answer(self) -> Result<Vec<Hit>, Problem> {
        match timeout_at(self.deadline, self.answer).await {
            Ok(Ok(answer)) => answer,
            Ok(Err(_gone)) => Err(Problem::stopping("the host is stopping: ask another one")),
            Err(_late) => {
                counter!("weir_queries_dropped_total", "why" => "late").increment(1);
                Err(Problem::overloaded("the query was not answered in time: try again").after(AGAIN))
            }
        }
    }
}

/// What is to be done next.
enum Turn {
    Batch(TenantId, Vec<Waiting>),
    NotBefore(Instant),
    Nothing,
}

impl SearchBuffer {
    /// An empty buffer.
    pub(crate) fn new(settings: &Settings) -> Arc<Self> {
        Arc::new(Self {
            capacity: settings.stream_capacity as usize,
            batch: settings.stream_batch as usize,
            linger: Duration::from_millis(settings.stream_linger_millis.into()),
            deadline: Duration::from_secs(settings.stream_seconds.into()),
            lines: Mutex::default(),
            changed: Notify::new(),
        })
    }

    /// Puts queries of one tenant in together, each of which is let in or refused.
    pub(crate) fn put(&self, tenant: &TenantId, queries: Vec<SearchRequest>) -> Vec<Result<Ticket, Problem>> {
        let tickets = {
            let mut lines = self.lines.lock();
            let since = Instant::now();
            let put = |query| {
                lines.make_room(tenant, self.capacity)?;
                let (reply, answer) = oneshot::channel();
                lines
                    .line(tenant)
                    .queries
                    .push_back(Waiting { query, since, reply });
                lines.waiting += 1;
                let deadline = since + self.deadline;
                Ok(Ticket { answer, deadline })
            };
            let tickets = queries.into_iter().map(put).collect();
            gauge!("weir_queries_waiting").set(lines.waiting as f64);
            tickets
        };
        self.changed.notify_one();
        tickets
    }

    /// Hands batches to `answers`, at most `at_once` at a time, until it is dropped; batches under way end with it.
    pub(crate) async fn run(self: Arc<Self>, answers: Arc<dyn Answers>, at_once: usize) {
        let mut under_way = JoinSet::new();
        loop {
            let mut turn = Turn::Nothing;
            while under_way.len() < at_once.max(1) {
                turn = self.lines.lock().next(self.batch, self.linger);
                let Turn::Batch(tenant, batch) = turn else {
                    break;
                };
                under_way.spawn(answer(Arc::clone(&self), Arc::clone(&answers), tenant, batch));
                turn = Turn::Nothing;
            }
            let not_before = match turn {
                Turn::NotBefore(at) => Some(at),
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

async fn answer(buffer: Arc<SearchBuffer>, answers: Arc<dyn Answers>, tenant: TenantId, batch: Vec<Waiting>) {
    let _under_way = UnderWay { buffer, tenant };
    histogram!("weir_query_batch").record(batch.len() as f64);
    let (queries, replies): (Vec<_>, Vec<_>) = batch.into_iter().map(|w| (w.query, w.reply)).unzip();
    let answered = AssertUnwindSafe(answers.answer(queries)).catch_unwind().await;
    let died = || Problem::internal("the search died: this is a fault of the host, see its log");
    let mut answers = answered
        .into_iter()
        .flatten()
        .map(|answer| answer.map_err(Problem::from));
    for reply in replies {
        // Whoever asked may have gone.
        let _ = reply.send(answers.next().unwrap_or_else(|| Err(died())));
    }
}

/// A batch under way; its tenant's line knows of it until it is dropped, also by a panic.
struct UnderWay {
    buffer: Arc<SearchBuffer>,
    tenant: TenantId,
}

impl Drop for UnderWay {
    fn drop(&mut self) {
        let mut lines = self.buffer.lines.lock();
        let line = lines.line(&self.tenant);
        line.under_way = line.under_way.saturating_sub(1);
        lines.tenants.retain(Line::is_needed);
    }
}

impl Line {
    fn is_needed(&self) -> bool {
        self.under_way > 0 || !self.queries.is_empty()
    }

    /// When its next batch may leave; `None` if there is none.
    fn leaves(&self, batch: usize, linger: Duration, now: Instant) -> Option<Instant> {
        let oldest = self.queries.front()?.since;
        let at_once = self.under_way == 0 || self.queries.len() >= batch;
        Some(if at_once { now } else { oldest + linger })
    }
}

impl Lines {
    fn line(&mut self, tenant: &TenantId) -> &mut Line {
        let known = self.tenants.iter().position(|line| line.tenant == *tenant);
        let place = known.unwrap_or_else(|| {
            // Whoever is being served has had its turn; who waits for one keeps its place before a newcomer.
            let served = self.tenants.iter().position(|line| line.under_way > 0);
            let place = served.unwrap_or(self.tenants.len());
            let line = Line {
                tenant: tenant.clone(),
                queries: VecDeque::new(),
                under_way: 0,
            };
            self.tenants.insert(place, line);
            place
        });
        // There is one at this place, from before or from just now.
        self.tenants.get_mut(place).unwrap_or_else(|| unreachable!())
    }

    /// Makes room for a tenant's query, or refuses it.
    fn make_room(&mut self, tenant: &TenantId, capacity: usize) -> Result<(), Problem> {
        let refusal =
            || Problem::overloaded(format!("{capacity} queries are waiting: try again")).after(AGAIN);
        if self.waiting >= capacity {
            self.forget_the_gone();
        }
        if self.waiting < capacity {
            return Ok(());
        }
        let own = self.tenants.iter().find(|line| line.tenant == *tenant);
        let own = own.map_or(0, |line| line.queries.len());
        let longest = self.tenants.iter_mut().max_by_key(|line| line.queries.len());
        let dropped = longest
            .filter(|line| line.queries.len() > own + 1)
            .and_then(|line| line.queries.pop_back());
        let Some(dropped) = dropped else {
            counter!("weir_queries_refused_total").increment(1);
            return Err(refusal());
        };
        self.waiting -= 1;
        counter!("weir_queries_dropped_total", "why" => "full").increment(1);
        let _ = dropped.reply.send(Err(refusal()));
        Ok(())
    }

    /// Takes out the queries that nobody waits for any more.
    fn forget_the_gone(&mut self) {
        for line in &mut self.tenants {
            line.queries.retain(|waiting| !waiting.reply.is_closed());
        }
        self.tenants.retain(Line::is_needed);
        self.waiting = self.tenants.iter().map(|line| line.queries.len()).sum();
    }

    fn next(&mut self, batch: usize, linger: Duration) -> Turn {
        self.forget_the_gone();
        let now = Instant::now();
        let mut earliest: Option<Instant> = None;
        for place in 0..self.tenants.len() {
            let leaves = self
                .tenants
                .get(place)
                .and_then(|line| line.leaves(batch, linger, now));
            match leaves {
                Some(at) if at <= now => {
                    let Some(mut line) = self.tenants.remove(place) else {
                        break;
                    };
                    let taken: Vec<_> = line.queries.drain(..line.queries.len().min(batch)).collect();
                    line.under_way += 1;
                    let tenant = line.tenant.clone();
                    // Its next turn comes after the others'.
                    self.tenants.push_back(line);
                    self.waiting -= taken.len();
                    gauge!("weir_queries_waiting").set(self.waiting as f64);
                    return Turn::Batch(tenant, taken);
                }
                Some(at) => earliest = Some(earliest.map_or(at, |e| e.min(at))),
                None => {}
            }
        }
        earliest.map_or(Turn::Nothing, Turn::NotBefore)
    }
}
