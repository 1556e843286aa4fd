//! Writes the passages of one document to the index, in groups of pages.
//!
//! A write to the index costs about the same for one page as for many. So pages that become ready during a write form the group
//! of the next write. No timer is needed, and groups grow as the index gets busier.
//!
//! Old passages of a page are removed first: a page that is processed again may have fewer passages than before, and the passages
//! of another revision have other ids.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{mpsc, oneshot};
use tokio_util::task::AbortOnDropHandle;
use tracing::Instrument as _;
use weir_core::ports::VectorStore;
use weir_core::search::IndexPoint;
use weir_core::{DocumentId, PageNumber, Stage, StorageError, TenantId};

use crate::error::StageError;
use crate::stage_queue::QueuedPage;
use crate::store_retry::retry_while_unavailable;

/// The most pages in a group.
const MAX_GROUP_PAGES: usize = 64;
/// A group with at least this many points takes no further page.
const MAX_GROUP_POINTS: usize = 4096;

/// The handle through which pages submit their passages. The stage queue bounds the number of pages in the channel.
pub(crate) struct UpsertQueue(mpsc::UnboundedSender<QueuedUpsert>);

/// A page whose vectors are ready, with the channel for its result.
struct QueuedUpsert {
    queued_page: QueuedPage,
    passages: PagePassages,
    reply: oneshot::Sender<Result<Duration, StorageError>>,
}

/// The new passages of a page.
#[derive(Clone)]
pub(crate) struct PagePassages {
    pub(crate) page: PageNumber,
    pub(crate) points: Vec<IndexPoint>,
    /// Whether the index may hold old passages of the page.
    pub(crate) replace: bool,
}

/// The task that writes the passages of one document to the index.
pub(crate) struct UpsertWriter {
    pub(crate) vectors: Arc<dyn VectorStore>,
    pub(crate) tenant: TenantId,
    pub(crate) document: DocumentId,
    pub(crate) collection: String,
}

impl UpsertQueue {
    /// Starts the writer task. The caller ends the task and waits for it.
    pub(crate) fn start_writer(target: UpsertWriter) -> (Self, AbortOnDropHandle<()>) {
        let (ready, inbox) = mpsc::unbounded_channel();
        (
            Self(ready),
            AbortOnDropHandle::new(tokio::spawn(target.run_write_loop(inbox).in_current_span())),
        )
    }

    /// Writes the passages of a page and returns the page's share of the write time. The passages are searchable when this
    /// returns.
    pub(crate) async fn upsert_passages(
        &self,
        queued_page: QueuedPage,
        passages: PagePassages,
    ) -> Result<Duration, StageError> {
        let (reply, response) = oneshot::channel();
        let ready = QueuedUpsert {
            queued_page,
            passages,
            reply,
        };
        let stage_died_error = || StageError::StageDied(Stage::Upsert);
        self.0.send(ready).map_err(|_| stage_died_error())?;
        Ok(response.await.map_err(|_| stage_died_error())??)
    }
}

impl UpsertWriter {
    async fn run_write_loop(self, mut inbox: mpsc::UnboundedReceiver<QueuedUpsert>) {
        while let Some(first) = inbox.recv().await {
            let QueuedUpsert {
                queued_page,
                passages,
                reply,
            } = first;
            let slot = queued_page.leave_queue_for_worker_slot().await;
            let mut points = passages.points.len();
            let mut group = vec![(passages, reply)];
            while group.len() < MAX_GROUP_PAGES
                && points < MAX_GROUP_POINTS
                && let Ok(next) = inbox.try_recv()
            {
                points += next.passages.points.len();
                group.push((next.passages, next.reply));
            }
            // A page whose task has ended may have failed elsewhere. Its passages must not be written during or after their removal.
            group.retain(|(_, reply)| !reply.is_closed());
            if group.is_empty() {
                continue;
            }
            let (group, replies): (Vec<_>, Vec<_>) = group.into_iter().unzip();
            let written = self.write_group(&group).await;
            let pages = u32::try_from(group.len()).unwrap_or(u32::MAX);
            match written {
                Ok(()) => {
                    let each = slot.record_finished_pages(pages) / pages;
                    for reply in replies {
                        // The page may have been dropped meanwhile.
                        let _ = reply.send(Ok(each));
                    }
                }
                Err(error) if pages == 1 || affects_every_page(&error) => {
                    for reply in replies {
                        let _ = reply.send(Err(error.clone()));
                    }
                }
                // One page may have failed the whole group, so each page is written alone and gets its own result.
                Err(_) => {
                    for (page, reply) in group.into_iter().zip(replies) {
                        let written = self.write_group(&[page]).await;
                        let _ = reply.send(written.map(|()| slot.record_finished_pages(1)));
                    }
                }
            }
        }
    }

    async fn write_group(&self, group: &[PagePassages]) -> Result<(), StorageError> {
        let known: Vec<_> = group.iter().filter(|p| p.replace).map(|p| p.page).collect();
        if !known.is_empty() {
            retry_while_unavailable(|| {
                self.vectors
                    .remove_document_or_page_points(&self.tenant, &self.document, Some(&known))
            })
            .await?;
        }
        let points: Vec<_> = group.iter().flat_map(|p| p.points.iter().cloned()).collect();
        if points.is_empty() {
            return Ok(());
        }
        retry_while_unavailable(|| {
            self.vectors
                .upsert_points(&self.tenant, &self.collection, points.clone())
        })
        .await
    }
}

/// Whether every page would fail in the same way if it were written alone.
fn affects_every_page(error: &StorageError) -> bool {
    StageError::from(error.clone()).affects_every_page()
}
