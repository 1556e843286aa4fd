//! A tenant's latest events, read from the ledger once for all its readers.

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

use crate::hub::Announced;

/// Events the follower reads at a time.
const PAGE: usize = 256;
/// Latest events kept for a tenant that has readers.
const KEPT: usize = 1024;
/// Bytes of them.
const KEPT_BYTES: usize = 512 << 10;
/// Pause after the ledger could not be read.
const PAUSE: Duration = Duration::from_secs(1);

/// An event as readers are told it.
#[derive(Debug)]
pub(super) struct Told {
    /// Its place among the tenant's events; 0 if it was read as a job's.
    pub(super) place: u64,
    /// Its number in its job.
    pub(super) seq: u64,
    pub(super) job: JobId,
    /// Its type.
    pub(super) kind: &'static str,
    /// Whether it ends its job.
    pub(super) last: bool,
    /// The event.
    pub(super) json: Bytes,
}

impl Told {
    pub(super) fn new(place: u64, event: &Event) -> Arc<Self> {
        // An event is plain data; it came out of JSON.
        let json = serde_json::to_vec(event).unwrap_or_default();
        Arc::new(Self {
            place,
            seq: event.seq,
            job: event.job,
            kind: event.what.name(),
            last: matches!(event.what, EventKind::JobEnded { .. }),
            json: json.into(),
        })
    }
}

/// The feeds of the tenants that have readers.
pub(crate) struct Feeds {
    pub(super) ledger: Arc<Announced>,
    feeds: Mutex<HashMap<TenantId, Weak<Feed>>>,
}

impl Feeds {
    pub(crate) fn new(ledger: Arc<Announced>) -> Self {
        Self {
            ledger,
            feeds: Mutex::default(),
        }
    }

    /// The tenant's feed, which lasts as long as somebody holds it.
    pub(super) async fn join(&self, tenant: &TenantId) -> Result<Arc<Feed>, StorageError> {
        let feed = {
            let mut feeds = self.feeds.lock();
            feeds.retain(|_, feed| feed.strong_count() > 0);
            match feeds.get(tenant).and_then(Weak::upgrade) {
                Some(feed) => feed,
                None => {
                    let feed = Feed::new(tenant.clone(), Arc::clone(&self.ledger));
                    feeds.insert(tenant.clone(), Arc::downgrade(&feed));
                    feed
                }
            }
        };
        feed.started.get_or_try_init(|| feed.start()).await?;
        Ok(feed)
    }

    /// Feeds that run.
    #[cfg(test)]
    pub(super) fn running(&self) -> usize {
        self.feeds
            .lock()
            .values()
            .filter(|f| f.strong_count() > 0)
            .count()
    }
}

/// A tenant's latest events, and the task that reads them; the task ends with the feed.
pub(super) struct Feed {
    shared: Arc<Shared>,
    started: OnceCell<()>,
    follower: Mutex<JoinSet<()>>,
}

struct Shared {
    tenant: TenantId,
    ledger: Arc<Announced>,
    latest: Mutex<Latest>,
    /// The place up to which events have been told.
    grew: watch::Sender<u64>,
}

/// All of the tenant's events with places in `from + 1..=to`.
#[derive(Default)]
struct Latest {
    from: u64,
    to: u64,
    events: VecDeque<Arc<Told>>,
    bytes: usize,
}

/// What follows a place.
pub(super) struct Following {
    /// The events.
    pub(super) events: Vec<Arc<Told>>,
    /// The place up to which they were looked at.
    pub(super) to: u64,
}

impl Feed {
    fn new(tenant: TenantId, ledger: Arc<Announced>) -> Arc<Self> {
        Arc::new(Self {
            shared: Arc::new(Shared {
                tenant,
                ledger,
                latest: Mutex::default(),
                grew: watch::Sender::new(0),
            }),
            started: OnceCell::new(),
            follower: Mutex::new(JoinSet::new()),
        })
    }

    async fn start(&self) -> Result<(), StorageError> {
        let shared = Arc::clone(&self.shared);
        // The bell first: what is committed after the place is read rings it.
        let bell = shared.ledger.bell(&shared.tenant);
        let place = shared.ledger.tenant_place(&shared.tenant).await?;
        {
            let mut latest = shared.latest.lock();
            (latest.from, latest.to) = (place, place);
        }
        shared.grew.send_replace(place);
        self.follower.lock().spawn(shared.follow(bell, place));
        Ok(())
    }

    /// The place up to which events have been told: all of them are in the ledger.
    pub(super) fn place(&self) -> u64 {
        *self.shared.grew.borrow()
    }

    /// The events after `place`, of one job if one is given; `None` if some of them are not kept any more.
    pub(super) fn after(&self, place: u64, job: Option<JobId>, most: usize) -> Option<Following> {
        let latest = self.shared.latest.lock();
        if place < latest.from {
            return None;
        }
        let first = latest.events.partition_point(|told| told.place <= place);
        let mut following = Following {
            events: Vec::new(),
            to: latest.to.max(place),
        };
        for told in latest.events.range(first..) {
            if job.is_none_or(|job| job == told.job) {
                if following.events.len() == most {
                    // The rest comes next time.
                    following.to = following.events.last().map_or(place, |told| told.place);
                    break;
                }
                following.events.push(Arc::clone(told));
            }
        }
        Some(following)
    }

    /// Returns when events after `place` have been told.
    pub(super) async fn grown(&self, place: u64) {
        let mut grew = self.shared.grew.subscribe();
        // The sender lives as long as this feed.
        let _ = grew.wait_for(|to| *to > place).await;
    }
}

impl Shared {
    async fn follow(self: Arc<Self>, mut bell: watch::Receiver<()>, mut place: u64) {
        loop {
            match self.ledger.tenant_events(&self.tenant, place, PAGE).await {
                Ok(events) => {
                    let all = events.len() < PAGE;
                    if let Some((last, _)) = events.last() {
                        place = *last;
                        self.tell(&events);
                    }
                    if all && bell.changed().await.is_err() {
                        return;
                    }
                }
                Err(error) => {
                    tracing::warn!(tenant = %self.tenant, %error, "events cannot be read, their readers wait");
                    tokio::time::sleep(PAUSE).await;
                }
            }
        }
    }

    fn tell(&self, events: &[(u64, Event)]) {
        let told: Vec<_> = events
            .iter()
            .map(|(place, event)| Told::new(*place, event))
            .collect();
        let to = {
            let mut latest = self.latest.lock();
            for told in told {
                latest.to = told.place;
                latest.bytes += told.json.len();
                latest.events.push_back(told);
            }
            while latest.events.len() > KEPT || latest.bytes > KEPT_BYTES {
                let Some(oldest) = latest.events.pop_front() else {
                    break;
                };
                latest.from = oldest.place;
                latest.bytes -= oldest.json.len();
            }
            latest.to
        };
        self.grew.send_replace(to);
    }
}
