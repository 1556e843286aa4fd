//! A cursor in a job's events, or in all of a tenant's.

use std::sync::Arc;

use weir_core::ports::Ledger as _;
use weir_core::{JobId, StorageError, TenantId};

use super::feed::{Feed, Feeds, Told};
use crate::hub::Announced;

/// Events a reader takes at a time.
const PAGE: usize = 64;

/// Reads on from a cursor. What [`Reader::next`] answers follows what it answered before, without gaps and repetitions.
pub(super) struct Reader {
    ledger: Arc<Announced>,
    tenant: TenantId,
    feed: Arc<Feed>,
    cursor: Cursor,
}

enum Cursor {
    /// After this number of a job.
    Job {
        job: JobId,
        seq: u64,
        /// The place up to which the tenant's events hold nothing new for this reader; `None` while it reads the ledger.
        place: Option<u64>,
    },
    /// After this place of the tenant.
    Tenant { place: u64 },
}

impl Reader {
    /// The events of a job after number `seq`.
    pub(super) async fn of_job(
        feeds: &Feeds,
        tenant: &TenantId,
        job: JobId,
        seq: u64,
    ) -> Result<Self, StorageError> {
        let place = None;
        Self::new(feeds, tenant, Cursor::Job { job, seq, place }).await
    }

    /// A tenant's events after `place`; only those still to come if there is none.
    pub(super) async fn of_tenant(
        feeds: &Feeds,
        tenant: &TenantId,
        place: Option<u64>,
    ) -> Result<Self, StorageError> {
        let mut reader = Self::new(feeds, tenant, Cursor::Tenant { place: 0 }).await?;
        reader.cursor = Cursor::Tenant {
            place: place.unwrap_or_else(|| reader.feed.place()),
        };
        Ok(reader)
    }

    async fn new(feeds: &Feeds, tenant: &TenantId, cursor: Cursor) -> Result<Self, StorageError> {
        Ok(Self {
            ledger: Arc::clone(&feeds.ledger),
            tenant: tenant.clone(),
            feed: feeds.join(tenant).await?,
            cursor,
        })
    }

    /// The next events, at least one; waits for it. Dropped while it waits, it has taken nothing.
    pub(super) async fn next(&mut self) -> Result<Vec<Arc<Told>>, StorageError> {
        let (ledger, tenant, feed) = (&self.ledger, &self.tenant, &self.feed);
        loop {
            match &mut self.cursor {
                Cursor::Job {
                    job,
                    seq,
                    place: behind @ None,
                } => {
                    // What has been told by now is in the ledger, so the answer is complete up to here.
                    let told = feed.place();
                    let events = ledger.events(tenant, job, *seq, PAGE).await?;
                    if events.len() < PAGE {
                        *behind = Some(told);
                    }
                    if let Some(last) = events.last() {
                        *seq = last.seq;
                        return Ok(events.iter().map(|event| Told::new(0, event)).collect());
                    }
                }
                Cursor::Job {
                    job,
                    seq,
                    place: told @ Some(_),
                } => {
                    let place = told.unwrap_or_default();
                    let Some(mut following) = feed.after(place, Some(*job), PAGE) else {
                        *told = None;
                        continue;
                    };
                    following.events.retain(|event| event.seq > *seq);
                    match following.events.first() {
                        Some(first) if first.seq != *seq + 1 => {
                            // Places and numbers disagree, which a ledger never lets happen; it has the last word.
                            tracing::warn!(job = %job, after = *seq, next = first.seq, "an event was passed over");
                            *told = None;
                        }
                        Some(_) => {
                            *told = Some(following.to);
                            *seq = following.events.last().map_or(*seq, |event| event.seq);
                            return Ok(following.events);
                        }
                        None => {
                            *told = Some(following.to);
                            feed.grown(following.to).await;
                        }
                    }
                }
                Cursor::Tenant { place } => match feed.after(*place, None, PAGE) {
                    Some(following) if following.events.is_empty() => feed.grown(*place).await,
                    Some(following) => {
                        *place = following.to;
                        return Ok(following.events);
                    }
                    None => {
                        let told = feed.place();
                        let events = ledger.tenant_events(tenant, *place, PAGE).await?;
                        match events.last() {
                            Some((last, _)) => {
                                *place = *last;
                                return Ok(events.iter().map(|(at, event)| Told::new(*at, event)).collect());
                            }
                            // Nothing is left of what was there.
                            None => *place = told,
                        }
                    }
                },
            }
        }
    }
}
