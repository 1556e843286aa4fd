//! A cursor in the events of a job, or in all events of a tenant, and where it starts.

use std::sync::Arc;

use weir_core::ports::Ledger;
use weir_core::{JobId, StorageError, TenantId};

use super::event_feed::{EncodedEvent, TenantEventFeeds, TenantFeed};
use crate::commit_notifier::CommitNotifier;

/// The maximum number of events in one read.
const EVENTS_PER_READ: usize = 64;

/// Reads events from a cursor on. Successive calls of [`EventReader::next_events`] return the events without gaps or repetitions.
pub struct EventReader {
    ledger: Arc<CommitNotifier>,
    tenant: TenantId,
    feed: Arc<TenantFeed>,
    cursor: Cursor,
}

enum Cursor {
    /// After the event with this number of a job.
    Job {
        job: JobId,
        seq: u64,
        /// The position up to which the tenant's feed has nothing new for this reader; `None` while it reads from the ledger.
        feed_position: Option<u64>,
    },
    /// After this position among the tenant's events.
    Tenant { position: u64 },
}

impl EventReader {
    /// Creates a reader for the events of a job after the number `seq`.
    pub async fn for_job(
        feeds: &TenantEventFeeds,
        tenant: &TenantId,
        job: JobId,
        seq: u64,
    ) -> Result<Self, StorageError> {
        let feed_position = None;
        Self::new(
            feeds,
            tenant,
            Cursor::Job {
                job,
                seq,
                feed_position,
            },
        )
        .await
    }

    /// Creates a reader for the events of a tenant after `position`, or for future events only if it is `None`.
    pub async fn for_tenant(
        feeds: &TenantEventFeeds,
        tenant: &TenantId,
        position: Option<u64>,
    ) -> Result<Self, StorageError> {
        let mut reader = Self::new(feeds, tenant, Cursor::Tenant { position: 0 }).await?;
        reader.cursor = Cursor::Tenant {
            position: position.unwrap_or_else(|| reader.feed.published_position()),
        };
        Ok(reader)
    }

    async fn new(feeds: &TenantEventFeeds, tenant: &TenantId, cursor: Cursor) -> Result<Self, StorageError> {
        Ok(Self {
            ledger: Arc::clone(&feeds.ledger),
            tenant: tenant.clone(),
            feed: feeds.get_or_start_tenant_feed(tenant).await?,
            cursor,
        })
    }

    /// Waits for the next events and returns at least one. It is cancel-safe: a dropped call has consumed no event.
    pub async fn next_events(&mut self) -> Result<Vec<Arc<EncodedEvent>>, StorageError> {
        let (ledger, tenant, feed) = (&self.ledger, &self.tenant, &self.feed);
        loop {
            match &mut self.cursor {
                Cursor::Job {
                    job,
                    seq,
                    feed_position: feed_cursor @ None,
                } => {
                    // All published events are in the ledger, so the read is complete up to this position.
                    let published_position = feed.published_position();
                    let events = ledger.list_job_events(tenant, job, *seq, EVENTS_PER_READ).await?;
                    if events.len() < EVENTS_PER_READ {
                        *feed_cursor = Some(published_position);
                    }
                    if let Some(last) = events.last() {
                        *seq = last.seq;
                        return Ok(events.iter().map(|event| EncodedEvent::new(0, event)).collect());
                    }
                }
                Cursor::Job {
                    job,
                    seq,
                    feed_position: feed_cursor @ Some(_),
                } => {
                    let position = feed_cursor.unwrap_or_default();
                    let Some(mut following) = feed.events_after(position, Some(*job), EVENTS_PER_READ) else {
                        *feed_cursor = None;
                        continue;
                    };
                    following.events.retain(|event| event.seq > *seq);
                    match following.events.first() {
                        Some(first) if first.seq != *seq + 1 => {
                            // Positions and numbers disagree, which should never happen. Read from the ledger instead.
                            tracing::warn!(job = %job, after = *seq, next = first.seq, "the event feed skipped an event");
                            *feed_cursor = None;
                        }
                        Some(_) => {
                            *feed_cursor = Some(following.complete_until);
                            *seq = following.events.last().map_or(*seq, |event| event.seq);
                            return Ok(following.events);
                        }
                        None => {
                            *feed_cursor = Some(following.complete_until);
                            feed.wait_for_events_after(following.complete_until).await;
                        }
                    }
                }
                Cursor::Tenant { position } => {
                    match feed.events_after(*position, None, EVENTS_PER_READ) {
                        Some(following) if following.events.is_empty() => {
                            feed.wait_for_events_after(*position).await
                        }
                        Some(following) => {
                            *position = following.complete_until;
                            return Ok(following.events);
                        }
                        None => {
                            let published_position = feed.published_position();
                            let events = ledger
                                .list_tenant_events(tenant, *position, EVENTS_PER_READ)
                                .await?;
                            match events.last() {
                                Some((last, _)) => {
                                    *position = *last;
                                    return Ok(events
                                        .iter()
                                        .map(|(at, event)| EncodedEvent::new(*at, event))
                                        .collect());
                                }
                                // The events up to there have been deleted.
                                None => *position = published_position,
                            }
                        }
                    }
                }
            }
        }
    }
}

/// Where the event stream of a job starts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum JobStreamStart {
    /// After the event with this number.
    AfterEvent(u64),
    /// The job has ended and the client has already received its last event.
    JobAlreadyEnded,
}

/// Why an event stream cannot start.
#[derive(Debug, thiserror::Error)]
pub enum JobStreamStartError {
    /// The job does not exist.
    #[error("there is no such job")]
    JobNotFound,
    /// The job has no event with this number.
    #[error("the job has no event {0}: start again without a number")]
    EventNotFound(u64),
    /// The events cannot be read.
    #[error(transparent)]
    Storage(#[from] StorageError),
}

/// Checks that the job exists and that `after` is the number of one of its events.
pub async fn check_and_resolve_stream_start(
    ledger: &dyn Ledger,
    tenant: &TenantId,
    job: &JobId,
    after: u64,
) -> Result<JobStreamStart, JobStreamStartError> {
    let record = ledger.find_job(tenant, job).await?;
    let record = record.ok_or(JobStreamStartError::JobNotFound)?;
    if after == 0 {
        return Ok(JobStreamStart::AfterEvent(0));
    }
    let from_it = ledger.list_job_events(tenant, job, after - 1, 2).await?;
    match from_it.as_slice() {
        [at] if at.seq == after && record.state.is_terminal() => Ok(JobStreamStart::JobAlreadyEnded),
        [at, ..] if at.seq == after => Ok(JobStreamStart::AfterEvent(after)),
        _ => Err(JobStreamStartError::EventNotFound(after)),
    }
}
