//! Upserts of one document, grouped as they come.
//!
//! A write to the index costs about the same for one page as for many, so while one is under way whatever gets ready
//! gathers and goes with the next: no timer, no waiting for company, and the busier the index the larger the groups.
//! Pages that the index knows already are removed first, since a page done again may have fewer passages than before and
//! those of another revision have other ids.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{mpsc, oneshot};
use tokio_util::task::AbortOnDropHandle;
use tracing::Instrument as _;
use weir_core::ports::VectorStore;
use weir_core::search::Point;
use weir_core::{DocumentId, PageNumber, Stage, StorageError, TenantId};

use crate::failure::StageError;
use crate::stage::Waiting;

/// Pages in a group.
const PAGES: usize = 64;
/// Points after which a group takes no further page.
const POINTS: usize = 4096;

/// Where pages are handed in. The waiting room before the stage bounds what can be in here.
pub(crate) struct Upserts(mpsc::UnboundedSender<Ready>);

/// A page whose vectors are ready.
struct Ready {
    waiting: Waiting,
    passages: Passages,
    reply: oneshot::Sender<Result<Duration, StorageError>>,
}

/// The passages of a page.
#[derive(Clone)]
pub(crate) struct Passages {
    pub(crate) page: PageNumber,
    pub(crate) points: Vec<Point>,
    /// Whether the index may hold other passages of the page.
    pub(crate) replace: bool,
}

/// Where the passages go.
pub(crate) struct Target {
    pub(crate) vectors: Arc<dyn VectorStore>,
    pub(crate) tenant: TenantId,
    pub(crate) document: DocumentId,
    pub(crate) collection: String,
}

impl Upserts {
    /// Starts the task, which is the caller's to end and to wait for.
    pub(crate) fn start(target: Target) -> (Self, AbortOnDropHandle<()>) {
        let (ready, inbox) = mpsc::unbounded_channel();
        (
            Self(ready),
            AbortOnDropHandle::new(tokio::spawn(target.run(inbox).in_current_span())),
        )
    }

    /// Writes a page's passages and says how long its share of the work took; they can be found when it returns.
    pub(crate) async fn put(&self, waiting: Waiting, passages: Passages) -> Result<Duration, StageError> {
        let (reply, answer) = oneshot::channel();
        let ready = Ready {
            waiting,
            passages,
            reply,
        };
        let died = || StageError::Died(Stage::Upsert);
        self.0.send(ready).map_err(|_| died())?;
        Ok(answer.await.map_err(|_| died())??)
    }
}

impl Target {
    async fn run(self, mut inbox: mpsc::UnboundedReceiver<Ready>) {
        while let Some(first) = inbox.recv().await {
            let Ready {
                waiting,
                passages,
                reply,
            } = first;
            let seat = waiting.seat().await;
            let mut points = passages.points.len();
            let mut group = vec![(passages, reply)];
            while group.len() < PAGES
                && points < POINTS
                && let Ok(next) = inbox.try_recv()
            {
                points += next.passages.points.len();
                group.push((next.passages, next.reply));
            }
            // A page whose task has ended may have failed elsewhere: its passages must not be written with, or after, their
            // removal.
            group.retain(|(_, reply)| !reply.is_closed());
            if group.is_empty() {
                continue;
            }
            let (group, replies): (Vec<_>, Vec<_>) = group.into_iter().unzip();
            let written = self.write(&group).await;
            let pages = u32::try_from(group.len()).unwrap_or(u32::MAX);
            match written {
                Ok(()) => {
                    let each = seat.finished(pages) / pages;
                    for reply in replies {
                        // A page that was dropped meanwhile does not wait for it any more.
                        let _ = reply.send(Ok(each));
                    }
                }
                Err(error) if pages == 1 || is_everyones(&error) => {
                    for reply in replies {
                        let _ = reply.send(Err(error.clone()));
                    }
                }
                // One page may have spoiled it for all: each gets the answer to itself alone.
                Err(_) => {
                    for (page, reply) in group.into_iter().zip(replies) {
                        let written = self.write(&[page]).await;
                        let _ = reply.send(written.map(|()| seat.finished(1)));
                    }
                }
            }
        }
    }

    async fn write(&self, group: &[Passages]) -> Result<(), StorageError> {
        let known: Vec<_> = group.iter().filter(|p| p.replace).map(|p| p.page).collect();
        if !known.is_empty() {
            self.vectors
                .remove(&self.tenant, &self.document, Some(&known))
                .await?;
        }
        let points: Vec<_> = group.iter().flat_map(|p| p.points.iter().cloned()).collect();
        if points.is_empty() {
            return Ok(());
        }
        self.vectors.upsert(&self.tenant, &self.collection, points).await
    }
}

/// Whether trying page by page would only fail page by page.
fn is_everyones(error: &StorageError) -> bool {
    StageError::from(error.clone()).is_everyones()
}
