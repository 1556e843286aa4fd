//! Ingests a document, from its file to its last event.
//!
//! Each document ends with exactly one event: done, failed or cancelled. It is done only if every requested page has ended in
//! one state and all results are durable. A suspended document has not ended, so it writes no such event.

use std::collections::BTreeSet;
use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::ops::RangeInclusive;
use std::sync::Arc;

use tokio::time::Instant;
use weir_core::clock::unix_time_millis;
use weir_core::collection_and_labels::CollectionAndLabelsRequest;
use weir_core::decision::{DocumentFacts, ModelPreferences, ObservedEvent};
use weir_core::event::{ErrorInfo, EventKind};
use weir_core::ledger::{DocumentRecord, LedgerEntry};
use weir_core::ports::{OpenedPdf, PdfFileToOpen, SchedulingContext};
use weir_core::{DocumentId, PageNumber, PriorityLane, RasterError, StorageError, TenantId};

use crate::batch_planner;
use crate::bottleneck::EmptyAndFullQueueCounter;
use crate::document_hash::compute_document_id_and_size;
use crate::document_locks::DocumentLock;
use crate::document_stage_queues::DocumentStageQueues;
use crate::error::{DocumentStopReason, FAILURE_LOG_TARGET, build_error_info};
use crate::job_and_document_context::DocumentContext;
use crate::job_and_document_context::JobContext;
use crate::job_outcome::{DocumentEndState, DocumentOutcome};
use crate::job_spec::DocumentSpec;
use crate::page_task_runner::{PageTally, PageTaskRunner};
use crate::pages_of_earlier_runs::{PagesOfEarlierRuns, build_done_page_revocation};
use crate::stage_busy_times::StageBusyTimes;
use crate::store_retry::retry_while_unavailable;
use crate::summarization;
use crate::upsert_writer::{UpsertQueue, UpsertWriter};

/// Ingests a document.
pub(crate) async fn ingest_document(job: &Arc<JobContext>, spec: &DocumentSpec) -> DocumentOutcome {
    let mut ingest = DocumentIngestion {
        job,
        spec,
        scheduling_group: job.engine.new_scheduling_group_id(),
        id: None,
        document_lock: None,
        tally: PageTally::default(),
    };
    let ended = ingest.process_pages_and_summarize().await;
    let end = ingest.commit_and_write_end_event(ended).await;
    DocumentOutcome {
        name: spec.name.clone(),
        document: ingest.id,
        end,
    }
}

struct DocumentIngestion<'a> {
    job: &'a Arc<JobContext>,
    spec: &'a DocumentSpec,
    /// The scheduling group of this run: the queues of workers and models divide a tenant's share between its groups.
    scheduling_group: u64,
    id: Option<DocumentId>,
    /// Held until the last event is written, so that the next user of the document finds all its results recorded.
    document_lock: Option<DocumentLock>,
    tally: PageTally,
}

impl DocumentIngestion<'_> {
    /// Processes the document from the file to the last page, and its summary if the job wants one.
    async fn process_pages_and_summarize(&mut self) -> Result<(), DocumentStopReason> {
        let (job, spec) = (self.job, self.spec);
        let ports = &job.engine.ports;
        if let Some(reason) = &spec.missing {
            let reason = reason.clone();
            Err(RasterError::FileUnreadable { reason })?;
        }
        let opened = job.run_unless_stopped(spec.source.open(&job.tenant)).await??;
        // Kept until the document has ended: the rasterizer can open its path again.
        let file = opened.ok_or_else(|| RasterError::FileUnreadable {
            reason: "the upload is not stored".into(),
        })?;
        let (id, bytes) = job
            .run_unless_stopped(compute_document_id_and_size(file.path()))
            .await??;
        self.id = Some(id);
        let lock = job.engine.document_locks.lock_document(&job.tenant, id);
        self.document_lock = Some(job.run_unless_stopped(lock).await?);
        let source = PdfFileToOpen {
            path: file.path().to_owned(),
            password: spec.password.clone(),
            flow_id: hash_tenant_to_flow_id(&job.tenant),
        };
        let open = job
            .run_unless_stopped(ports.rasterizer.open_document(&source))
            .await??;
        let _visible = job.capabilities.expose_document_to_components(id, &open);
        let mut wanted: BTreeSet<PageNumber> = self.requested_pages(open.document_info().pages)?.collect();
        let existing = job
            .run_unless_stopped(PagesOfEarlierRuns::load_from_ledger_and_index(job, &id))
            .await??;
        let known = job
            .run_unless_stopped(retry_while_unavailable(|| {
                ports.ledger.find_document(&job.tenant, &id)
            }))
            .await??;
        let placement = match &known {
            Some(record) => job
                .requested_placement
                .clone()
                .fill_missing_from(record.requested_collection_and_labels.clone()),
            None => job.requested_placement.clone(),
        };
        let record_to_relabel = known
            .as_ref()
            .filter(|record| record.requested_collection_and_labels != placement);
        if let Some(record) = record_to_relabel {
            wanted.extend(existing.latest_page_records().iter().map(|record| record.page));
            job.run_unless_stopped(relabel_document_and_revoke_pages(
                job, record, &placement, &existing,
            ))
            .await??;
        }
        let is_outdated =
            existing.has_pages_of_other_revision(job) || (job.summarize && !existing.is_empty());
        self.tally.requested = u32::try_from(wanted.len()).unwrap_or(u32::MAX);
        if record_to_relabel.is_none() {
            for (page, passages) in existing.completed_pages(job) {
                if wanted.remove(&page) {
                    self.tally.skipped += 1;
                    self.tally.searchable += u32::from(passages > 0);
                }
            }
        }
        let started = EventKind::DocumentStarted {
            name: spec.name.clone(),
            pages: self.tally.requested,
            already_done: self.tally.skipped,
        };
        job.log.write_event(Some(id), started).await;
        let result = match known {
            Some(record) if wanted.is_empty() => {
                self.write_document_record(DocumentRecord {
                    name: spec.name.clone(),
                    ..record
                })
                .await;
                Ok(())
            }
            _ => {
                if is_outdated {
                    // The summaries cover pages that will be replaced, or miss pages that will be added.
                    job.run_unless_stopped(summarization::remove_summaries(job, &id))
                        .await??;
                }
                self.route_document_and_process_pages(id, bytes, open, wanted, &existing, placement)
                    .await
            }
        };
        match result {
            Ok(()) if job.summarize => self.commit_pages_and_summarize_document(id).await,
            result => result,
        }
    }

    /// Commits all results of the document and summarizes it.
    async fn commit_pages_and_summarize_document(&self, id: DocumentId) -> Result<(), DocumentStopReason> {
        let job = self.job;
        let engine = &job.engine;
        job.run_unless_stopped(engine.group_commit.commit_pending())
            .await??;
        let known = retry_while_unavailable(|| engine.ports.ledger.find_document(&job.tenant, &id));
        let Some(record) = job.run_unless_stopped(known).await?? else {
            return Ok(());
        };
        let account = SchedulingContext {
            // A summary is less urgent than pages, unless the job requests a lane.
            lane: job.lane.unwrap_or(PriorityLane::Bulk),
            group: self.scheduling_group,
            ..job.account.clone()
        };
        job.run_unless_stopped(summarization::summarize_document(job, &account, &record))
            .await?
    }

    /// Returns the requested pages that exist in the document.
    fn requested_pages(&self, pages: u32) -> Result<RangeInclusive<PageNumber>, DocumentStopReason> {
        let (first, last) = match &self.spec.pages {
            Some(range) => (*range.start(), *range.end()),
            None => (1, pages),
        };
        let requested = first.max(1)..=last.min(pages);
        if requested.is_empty() {
            let message =
                format!("pages {first}-{last} were requested, but the document has pages 1-{pages}");
            return Err(DocumentStopReason::Failed(build_error_info(
                "no-such-page",
                message,
            )));
        }
        Ok(requested)
    }

    /// Gets the document's route from the routing component, records the document and processes its pages.
    async fn route_document_and_process_pages(
        &mut self,
        id: DocumentId,
        bytes: u64,
        open: Arc<dyn OpenedPdf>,
        wanted: BTreeSet<PageNumber>,
        existing: &PagesOfEarlierRuns,
        placement: CollectionAndLabelsRequest,
    ) -> Result<(), DocumentStopReason> {
        let (job, name) = (self.job, &self.spec.name);
        let info = open.document_info().clone();
        let first = 1..batch_planner::FIRST_FETCH_PAGES.min(info.pages) + 1;
        let first_pages = job
            .run_unless_stopped(batch_planner::fetch_facts_marking_unreadable_pages(
                &id, &*open, first,
            ))
            .await?;
        let first_pages = first_pages.map_err(DocumentStopReason::Failed)?;
        let facts = DocumentFacts {
            document: id,
            name: name.clone(),
            bytes,
            pages: info.pages,
            title: info.title.clone(),
            outline_entries: u32::try_from(info.outline.len()).unwrap_or(u32::MAX),
            first_pages: first_pages.clone(),
        };
        let mut route = job.run_unless_stopped(job.policy.route_document(facts)).await??;
        placement.override_collection_and_add_labels(&mut route);
        if route.models != ModelPreferences::default() {
            tracing::warn!(
                document = %id,
                "the route's models are ignored: this host has one OCR model and one embedding model"
            );
        }
        self.write_document_record(DocumentRecord {
            id,
            tenant: job.tenant.clone(),
            name: name.clone(),
            bytes,
            pages: info.pages,
            title: info.title,
            outline: info.outline,
            collection: route.collection.clone(),
            labels: route.labels.clone(),
            requested_collection_and_labels: placement,
            created_millis: unix_time_millis(),
        })
        .await;
        let account = SchedulingContext {
            lane: job.lane.unwrap_or(route.lane),
            group: self.scheduling_group,
            ..job.account.clone()
        };
        let (upserts, upserting) = UpsertQueue::start_writer(UpsertWriter {
            vectors: Arc::clone(&job.engine.ports.vectors),
            tenant: job.tenant.clone(),
            document: id,
            collection: route.collection.clone(),
        });
        let busy_time = StageBusyTimes::new();
        let document = Arc::new(DocumentContext {
            engine: Arc::clone(&job.engine),
            job: Arc::clone(job),
            id,
            name: name.clone(),
            open,
            queues: DocumentStageQueues::new(&job.engine.workers, &account, [&job.busy_time, &busy_time]),
            route,
            account,
            queue_samples: EmptyAndFullQueueCounter::default(),
            upserts,
            indexed_pages: existing.indexed_pages(),
        });
        let began = Instant::now();
        let pages = PageTaskRunner::new(&document, &mut self.tally, wanted, existing.image_keys());
        let result = pages.run_and_verify_all_pages(&first_pages).await;
        upserting.abort();
        // The writer was aborted, or it had panicked and its pages have failed.
        let _ = upserting.await;
        let took = began.elapsed();
        tracing::info!(
            document = %id, name, pages = self.tally.done, millis = took.as_millis() as u64,
            "{}", document.queue_samples.describe_bottleneck(&busy_time.stage_totals(), took)
        );
        result
    }

    async fn write_document_record(&self, record: DocumentRecord) {
        let entries = vec![LedgerEntry::Document(record)];
        self.job.log.submit_ledger_entries(entries).await;
    }

    /// Commits all results and writes the document's last event.
    async fn commit_and_write_end_event(
        &mut self,
        result: Result<(), DocumentStopReason>,
    ) -> DocumentEndState {
        let written = self.job.engine.group_commit.commit_pending().await;
        let ended = match (result, written) {
            (Ok(()), Ok(())) => {
                self.delete_stale_images().await;
                self.notify_component_of_document_done().await
            }
            (Ok(()) | Err(DocumentStopReason::Cancelled), Err(error)) => Err(error.into()),
            (Err(unfinished), _) => Err(unfinished),
        };
        let (event, end) = match ended {
            Ok(()) => self.build_done_event_and_state(),
            Err(DocumentStopReason::Failed(error)) => self.notify_failure_and_build_event(error).await,
            Err(DocumentStopReason::Cancelled) => {
                let (name, done) = (
                    self.spec.name.clone(),
                    self.tally.total_done_including_earlier_jobs(),
                );
                let event = EventKind::DocumentCancelled { name, done };
                (event, DocumentEndState::Cancelled { done })
            }
            Err(DocumentStopReason::Suspended) => {
                let done = self.tally.total_done_including_earlier_jobs();
                return DocumentEndState::Suspended { done };
            }
        };
        self.job.log.write_event(self.id, event).await;
        end
    }

    fn build_done_event_and_state(&mut self) -> (EventKind, DocumentEndState) {
        let mut failed = std::mem::take(&mut self.tally.failed);
        failed.sort_by_key(|f| f.page);
        let PageTally {
            requested: pages,
            skipped,
            searchable,
            ..
        } = self.tally;
        let event = EventKind::DocumentDone {
            name: self.spec.name.clone(),
            pages,
            searchable,
            skipped,
            failed: failed.clone(),
        };
        let end = DocumentEndState::Done {
            pages,
            searchable,
            skipped,
            failed,
        };
        (event, end)
    }

    async fn notify_failure_and_build_event(&self, error: ErrorInfo) -> (EventKind, DocumentEndState) {
        let (name, done) = (
            self.spec.name.clone(),
            self.tally.total_done_including_earlier_jobs(),
        );
        tracing::warn!(target: FAILURE_LOG_TARGET, name, error = error.message, "document failed");
        if let Some(document) = self.id {
            let end = ObservedEvent::DocumentFailed {
                document,
                done,
                failed: self.tally.total_failed(),
            };
            // The document has failed already, so an error of the component changes nothing.
            let _ = self.job.log.notify_document_end_and_wait(end).await;
        }
        let event = EventKind::DocumentFailed {
            name,
            error: error.clone(),
            done,
        };
        (event, DocumentEndState::Failed { error, done })
    }

    /// Tells the progress component that the document is done, and waits for it. If the component fails, the document fails as
    /// well.
    async fn notify_component_of_document_done(&self) -> Result<(), DocumentStopReason> {
        let Some(document) = self.id else { return Ok(()) };
        let end = ObservedEvent::DocumentDone {
            document,
            done: self.tally.total_done_including_earlier_jobs(),
            failed: self.tally.total_failed(),
        };
        Ok(self
            .job
            .run_unless_cancelled_or_failed(self.job.log.notify_document_end_and_wait(end))
            .await??)
    }

    /// Deletes page images that were replaced. The new ones are recorded already. If this is interrupted, an image stays that
    /// nothing refers to.
    async fn delete_stale_images(&mut self) {
        for key in std::mem::take(&mut self.tally.stale_images) {
            let deleted = self
                .job
                .engine
                .ports
                .blobs
                .delete_blobs_with_prefix(&self.job.tenant, &key);
            if let Ok(Err(error)) = self.job.run_unless_cancelled_or_failed(deleted).await {
                tracing::warn!(key, %error, "a replaced page image could not be deleted");
            }
        }
    }
}

/// Records a document's new collection and labels, and revokes that its pages are done. Its summaries are removed first, since
/// nothing shows that they are outdated once the new collection and labels are recorded.
async fn relabel_document_and_revoke_pages(
    job: &JobContext,
    record: &DocumentRecord,
    placement: &CollectionAndLabelsRequest,
    existing: &PagesOfEarlierRuns,
) -> Result<(), StorageError> {
    let ports = &job.engine.ports;
    summarization::remove_summaries(job, &record.id).await?;
    tokio::try_join!(
        retry_while_unavailable(|| ports.blobs.flush_blobs()),
        retry_while_unavailable(|| ports.vectors.flush_points())
    )?;
    // Pending entries of the document would otherwise be committed after this one.
    job.engine.group_commit.commit_pending().await?;
    let reason = build_error_info(
        "refiled",
        "the labels or the collection of the document were changed: ingest the document again",
    );
    let pages = existing.latest_page_records().iter().cloned();
    let mut entries: Vec<_> = pages
        .filter_map(|page| build_done_page_revocation(page, &reason))
        .collect();
    entries.push(LedgerEntry::Document(DocumentRecord {
        requested_collection_and_labels: placement.clone(),
        ..record.clone()
    }));
    retry_while_unavailable(|| ports.ledger.commit_entries(entries.clone())).await
}

/// Hashes a tenant for the rasterizer, which must not know tenants. Tenants with the same hash share one flow of the
/// rasterizer's fair queue, which costs little.
fn hash_tenant_to_flow_id(tenant: &TenantId) -> u64 {
    let mut hasher = DefaultHasher::new();
    tenant.hash(&mut hasher);
    hasher.finish()
}
