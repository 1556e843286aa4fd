//! The recent events of each tenant, read from the ledger once for all its readers.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Weak};
use std::time::Duration;

use bytes::Bytes;
use parking_lot::Mutex;
use tokio::sync::{OnceCell, watch};
use tokio::task::JoinSet;
use weir_core::event::{Event, EventKind};
use weir_core::ports::Ledger as _;
use weir_core::{JobId, StorageError, TenantId};

use crate::commit_notifier::CommitNotifier;

/// The number of events in one read from the ledger.
const EVENTS_PER_READ: usize = 256;
/// The maximum number of recent events in memory for a tenant with readers.
const MAX_RECENT_EVENTS: usize = 1024;
/// The maximum number of bytes of these events.
const MAX_RECENT_BYTES: usize = 512 << 10;
/// The delay before the next attempt after a failed read.
const READ_RETRY_DELAY: Duration = Duration::from_secs(1);

/// An event in the form in which it is sent to clients.
#[derive(Debug)]
pub struct EncodedEvent {
    /// Its position among the tenant's events; 0 if it was read by its number in the job.
    pub position: u64,
    /// Its number in its job.
    pub seq: u64,
    /// Its job.
    pub job: JobId,
    /// Its type.
    pub event_type: &'static str,
    /// Whether it ends its job.
    pub ends_job: bool,
    /// The event as JSON.
    pub json: Bytes,
}

impl EncodedEvent {
    pub(crate) fn new(position: u64, event: &Event) -> Arc<Self> {
        // It cannot fail: an event is plain data that was read from JSON.
        let json = serde_json::to_vec(event).unwrap_or_default();
        Arc::new(Self {
            position,
            seq: event.seq,
            job: event.job,
            event_type: event.kind.name(),
            ends_job: matches!(event.kind, EventKind::JobEnded { .. }),
            json: json.into(),
        })
    }
}

/// The event feeds of the tenants with readers.
pub struct TenantEventFeeds {
    pub(crate) ledger: Arc<CommitNotifier>,
    feeds_by_tenant: Mutex<HashMap<TenantId, Weak<TenantFeed>>>,
}

impl TenantEventFeeds {
    /// Creates an instance without feeds.
    pub fn new(ledger: Arc<CommitNotifier>) -> Self {
        Self {
            ledger,
            feeds_by_tenant: Mutex::default(),
        }
    }

    /// Returns the tenant's feed, and starts it if needed. The feed ends when its last holder drops it.
    pub(crate) async fn get_or_start_tenant_feed(
        &self,
        tenant: &TenantId,
    ) -> Result<Arc<TenantFeed>, StorageError> {
        let feed = {
            let mut feeds = self.feeds_by_tenant.lock();
            feeds.retain(|_, feed| feed.strong_count() > 0);
            match feeds.get(tenant).and_then(Weak::upgrade) {
                Some(feed) => feed,
                None => {
                    let feed = TenantFeed::new(tenant.clone(), Arc::clone(&self.ledger));
                    feeds.insert(tenant.clone(), Arc::downgrade(&feed));
                    feed
                }
            }
        };
        feed.started.get_or_try_init(|| feed.start_read_task()).await?;
        Ok(feed)
    }

    /// Returns the number of running feeds.
    #[cfg(test)]
    pub fn count_running_feeds(&self) -> usize {
        self.feeds_by_tenant
            .lock()
            .values()
            .filter(|f| f.strong_count() > 0)
            .count()
    }
}

/// The recent events of a tenant, and the task that reads them. The task ends when the feed is dropped.
pub(crate) struct TenantFeed {
    shared: Arc<FeedState>,
    started: OnceCell<()>,
    read_task: Mutex<JoinSet<()>>,
}

struct FeedState {
    tenant: TenantId,
    ledger: Arc<CommitNotifier>,
    recent_events: Mutex<RecentEvents>,
    /// The position of the last published event.
    published_position: watch::Sender<u64>,
}

/// All events of the tenant with positions in `evicted_position + 1..=last_position`.
#[derive(Default)]
struct RecentEvents {
    evicted_position: u64,
    last_position: u64,
    events: VecDeque<Arc<EncodedEvent>>,
    bytes: usize,
}

/// The events after a position.
pub(crate) struct EventsAfter {
    pub(crate) events: Vec<Arc<EncodedEvent>>,
    /// The position up to which the events are complete.
    pub(crate) complete_until: u64,
}

impl TenantFeed {
    fn new(tenant: TenantId, ledger: Arc<CommitNotifier>) -> Arc<Self> {
        Arc::new(Self {
            shared: Arc::new(FeedState {
                tenant,
                ledger,
                recent_events: Mutex::default(),
                published_position: watch::Sender::new(0),
            }),
            started: OnceCell::new(),
            read_task: Mutex::new(JoinSet::new()),
        })
    }

    async fn start_read_task(&self) -> Result<(), StorageError> {
        let shared = Arc::clone(&self.shared);
        // Subscribe before the position is read, so that no later commit is missed.
        let commits = shared.ledger.subscribe_to_tenant_commits(&shared.tenant);
        let position = shared.ledger.last_tenant_event_position(&shared.tenant).await?;
        {
            let mut recent = shared.recent_events.lock();
            (recent.evicted_position, recent.last_position) = (position, position);
        }
        shared.published_position.send_replace(position);
        self.read_task
            .lock()
            .spawn(shared.read_new_events(commits, position));
        Ok(())
    }

    /// Returns the position of the last published event. All events up to it are in the ledger.
    pub(crate) fn published_position(&self) -> u64 {
        *self.shared.published_position.borrow()
    }

    /// Returns up to `limit` events after `after_position`, only those of `job` if it is given; `None` if some of them are not in
    /// memory any more.
    pub(crate) fn events_after(
        &self,
        after_position: u64,
        job: Option<JobId>,
        limit: usize,
    ) -> Option<EventsAfter> {
        let recent = self.shared.recent_events.lock();
        if after_position < recent.evicted_position {
            return None;
        }
        let first = recent
            .events
            .partition_point(|event| event.position <= after_position);
        let mut following = EventsAfter {
            events: Vec::new(),
            complete_until: recent.last_position.max(after_position),
        };
        for event in recent.events.range(first..) {
            if job.is_none_or(|job| job == event.job) {
                if following.events.len() == limit {
                    // The next call returns the rest.
                    following.complete_until = following
                        .events
                        .last()
                        .map_or(after_position, |event| event.position);
                    break;
                }
                following.events.push(Arc::clone(event));
            }
        }
        Some(following)
    }

    /// Waits until events after `after_position` are published.
    pub(crate) async fn wait_for_events_after(&self, after_position: u64) {
        let mut published = self.shared.published_position.subscribe();
        // It cannot fail: the sender lives as long as this feed.
        let _ = published.wait_for(|to| *to > after_position).await;
    }
}

impl FeedState {
    async fn read_new_events(self: Arc<Self>, mut commits: watch::Receiver<()>, mut position: u64) {
        loop {
            match self
                .ledger
                .list_tenant_events(&self.tenant, position, EVENTS_PER_READ)
                .await
            {
                Ok(events) => {
                    let all = events.len() < EVENTS_PER_READ;
                    if let Some((last, _)) = events.last() {
                        position = *last;
                        self.publish_events(&events);
                    }
                    if all && self.ledger.wait_for_commit(&mut commits).await.is_err() {
                        return;
                    }
                }
                Err(error) => {
                    tracing::warn!(tenant = %self.tenant, %error, "cannot read events: the event streams of the tenant wait");
                    tokio::time::sleep(READ_RETRY_DELAY).await;
                }
            }
        }
    }

    fn publish_events(&self, events: &[(u64, Event)]) {
        let encoded_events: Vec<_> = events
            .iter()
            .map(|(position, event)| EncodedEvent::new(*position, event))
            .collect();
        let to = {
            let mut recent = self.recent_events.lock();
            for told in encoded_events {
                recent.last_position = told.position;
                recent.bytes += told.json.len();
                recent.events.push_back(told);
            }
            while recent.events.len() > MAX_RECENT_EVENTS || recent.bytes > MAX_RECENT_BYTES {
                let Some(oldest) = recent.events.pop_front() else {
                    break;
                };
                recent.evicted_position = oldest.position;
                recent.bytes -= oldest.json.len();
            }
            recent.last_position
        };
        self.published_position.send_replace(to);
    }
}
