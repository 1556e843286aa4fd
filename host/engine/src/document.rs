//! A document from its file to its last event.
//!
//! Whatever happens, it ends in exactly one event: done, failed or cancelled. "Done" is counted, not assumed: every page that
//! was asked for has ended in one state, and all of it is durable. A document that is suspended has not ended, and says so by
//! saying nothing.

use std::collections::BTreeSet;
use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::ops::RangeInclusive;
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use tokio::time::Instant;
use weir_core::decision::{DocumentFacts, Observation};
use weir_core::event::{ErrorNote, EventKind};
use weir_core::filing::Filing;
use weir_core::ledger::{DocumentRecord, Entry};
use weir_core::ports::{Account, OpenDocument, Source};
use weir_core::{DocumentId, Lane, PageNumber, RasterError, StorageError, TenantId};

use crate::delete::taken_back;
use crate::diagnosis::Load;
use crate::failure::{FAILURES, Unfinished, note};
use crate::history::History;
use crate::identity::identify;
use crate::in_work::Claim;
use crate::job::Job;
use crate::outcome::{DocumentEnd, DocumentOutcome};
use crate::pages::{Pages, Tally};
use crate::plan;
use crate::rooms::Rooms;
use crate::spec::DocumentSpec;
use crate::spent::Spent;
use crate::summaries;
use crate::upsert::{Target, Upserts};
use crate::work::Work;

/// Ingests a document.
pub(crate) async fn ingest(job: &Arc<Job>, spec: &DocumentSpec) -> DocumentOutcome {
    let mut ingest = Ingest {
        job,
        spec,
        id: None,
        claim: None,
        tally: Tally::default(),
    };
    let ended = ingest.work().await;
    let end = ingest.conclude(ended).await;
    DocumentOutcome {
        name: spec.name.clone(),
        document: ingest.id,
        end,
    }
}

struct Ingest<'a> {
    job: &'a Arc<Job>,
    spec: &'a DocumentSpec,
    id: Option<DocumentId>,
    /// Held until the last event, so that whoever comes next for the same document finds all of it written down.
    claim: Option<Claim>,
    tally: Tally,
}

impl Ingest<'_> {
    /// From the file to the last page.
    async fn work(&mut self) -> Result<(), Unfinished> {
        let (job, spec) = (self.job, self.spec);
        let ports = &job.host.ports;
        if let Some(reason) = &spec.missing {
            let reason = reason.clone();
            Err(RasterError::File { reason })?;
        }
        let (id, bytes) = job.unless_halted(identify(&spec.path)).await??;
        self.id = Some(id);
        let claim = job.host.in_work.claim(&job.tenant, id);
        self.claim = Some(job.unless_halted(claim).await?);
        let source = Source {
            path: spec.path.clone(),
            password: spec.password.clone(),
            party: party(&job.tenant),
        };
        let open = job.unless_halted(ports.rasterizer.open(&source)).await??;
        let _shown = job.capabilities.show(id, &open);
        let mut wanted: BTreeSet<PageNumber> = self.asked(open.info().pages)?.collect();
        let history = job.unless_halted(History::of(job, &id)).await??;
        let known = job
            .unless_halted(ports.ledger.document(&job.tenant, &id))
            .await??;
        let filing = match &known {
            Some(record) => job.filing.clone().or(record.requested.clone()),
            None => job.filing.clone(),
        };
        let refiled = known.as_ref().filter(|record| record.requested != filing);
        if let Some(record) = refiled {
            wanted.extend(history.pages().iter().map(|record| record.page));
            job.unless_halted(refile(job, record, &filing, &history))
                .await??;
        }
        let is_outdated = history.has_other_revisions(job) || (job.summarize && !history.is_empty());
        self.tally.asked = u32::try_from(wanted.len()).unwrap_or(u32::MAX);
        if refiled.is_none() {
            for (page, passages) in history.done(job) {
                if wanted.remove(&page) {
                    self.tally.skipped += 1;
                    self.tally.searchable += u32::from(passages > 0);
                }
            }
        }
        let started = EventKind::DocumentStarted {
            name: spec.name.clone(),
            pages: self.tally.asked,
            already_done: self.tally.skipped,
        };
        job.log.say(Some(id), started).await;
        let worked = match known {
            Some(record) if wanted.is_empty() => {
                self.write(DocumentRecord {
                    name: spec.name.clone(),
                    ..record
                })
                .await;
                Ok(())
            }
            _ => {
                if is_outdated {
                    // They are of pages that are about to be replaced, or without those that are added.
                    job.unless_halted(summaries::remove(job, &id)).await??;
                }
                self.work_pages(id, bytes, open, wanted, &history, filing).await
            }
        };
        match worked {
            Ok(()) if job.summarize => self.summarize(id).await,
            worked => worked,
        }
    }

    /// Summarizes the document, of which everything has been written down by then.
    async fn summarize(&self, id: DocumentId) -> Result<(), Unfinished> {
        let job = self.job;
        let host = &job.host;
        job.unless_halted(host.journal.sync()).await??;
        let known = host.ports.ledger.document(&job.tenant, &id);
        let Some(record) = job.unless_halted(known).await?? else {
            return Ok(());
        };
        let account = Account {
            // Nobody waits for a summary as for a page, if nobody says so.
            lane: job.lane.unwrap_or(Lane::Bulk),
            ..job.account.clone()
        };
        job.unless_halted(summaries::summarize(job, &account, &record))
            .await?
    }

    /// The pages asked for, of those there are.
    fn asked(&self, pages: u32) -> Result<RangeInclusive<PageNumber>, Unfinished> {
        let (first, last) = match &self.spec.pages {
            Some(range) => (*range.start(), *range.end()),
            None => (1, pages),
        };
        let asked = first.max(1)..=last.min(pages);
        if asked.is_empty() {
            let message =
                format!("pages {first}-{last} were asked for, but the document has pages 1-{pages}");
            return Err(Unfinished::Failed(note("no-such-page", message)));
        }
        Ok(asked)
    }

    /// Asks where the document goes, and takes its pages there.
    async fn work_pages(
        &mut self,
        id: DocumentId,
        bytes: u64,
        open: Arc<dyn OpenDocument>,
        wanted: BTreeSet<PageNumber>,
        history: &History,
        filing: Filing,
    ) -> Result<(), Unfinished> {
        let (job, name) = (self.job, &self.spec.name);
        let info = open.info().clone();
        let first = 1..plan::FIRST.min(info.pages) + 1;
        let first_pages = job.unless_halted(plan::facts(&id, &*open, first)).await?;
        let first_pages = first_pages.map_err(Unfinished::Failed)?;
        let facts = DocumentFacts {
            document: id,
            name: name.clone(),
            bytes,
            pages: info.pages,
            title: info.title.clone(),
            outline_entries: u32::try_from(info.outline.len()).unwrap_or(u32::MAX),
            first_pages: first_pages.clone(),
        };
        let mut route = job.unless_halted(job.policy.route_document(facts)).await??;
        filing.apply(&mut route);
        if route.ocr_model.is_some() || route.embedding_model.is_some() {
            tracing::warn!(document = %id, "the route names models, but this host has one of each kind and uses those");
        }
        self.write(DocumentRecord {
            id,
            tenant: job.tenant.clone(),
            name: name.clone(),
            bytes,
            pages: info.pages,
            title: info.title,
            outline: info.outline,
            collection: route.collection.clone(),
            labels: route.labels.clone(),
            requested: filing,
            created_millis: now_millis(),
        })
        .await;
        let account = Account {
            lane: job.lane.unwrap_or(route.lane),
            ..job.account.clone()
        };
        let (upserts, upserting) = Upserts::start(Target {
            vectors: Arc::clone(&job.host.ports.vectors),
            tenant: job.tenant.clone(),
            document: id,
            collection: route.collection.clone(),
        });
        let spent = Spent::new();
        let work = Arc::new(Work {
            host: Arc::clone(&job.host),
            job: Arc::clone(job),
            id,
            name: name.clone(),
            open,
            rooms: Rooms::new(&job.host.seats, &account, [&job.spent, &spent]),
            route,
            account,
            load: Load::default(),
            upserts,
            indexed: history.indexed(),
        });
        let began = Instant::now();
        let pages = Pages::new(&work, &mut self.tally, wanted, history.images());
        let worked = pages.run(&first_pages).await;
        upserting.abort();
        // It was aborted, or had died and told so through the pages it failed.
        let _ = upserting.await;
        let took = began.elapsed();
        tracing::info!(
            document = %id, name, pages = self.tally.done, millis = took.as_millis() as u64,
            "{}", work.load.bottleneck(&spent.work(), took)
        );
        worked
    }

    async fn write(&self, record: DocumentRecord) {
        // A journal that is gone has told the job so.
        if let Some(slot) = self.job.host.journal.slot().await {
            slot.write(vec![Entry::Document(record)]);
        }
    }

    /// The document's last event, once everything before it is durable.
    async fn conclude(&mut self, worked: Result<(), Unfinished>) -> DocumentEnd {
        let written = self.job.host.journal.sync().await;
        let ended = match (worked, written) {
            (Ok(()), Ok(())) => {
                self.sweep().await;
                self.show_done().await
            }
            (Ok(()) | Err(Unfinished::Cancelled), Err(error)) => Err(error.into()),
            (Err(unfinished), _) => Err(unfinished),
        };
        let (what, end) = match ended {
            Ok(()) => self.done(),
            Err(Unfinished::Failed(error)) => self.failed(error).await,
            Err(Unfinished::Cancelled) => {
                let (name, done) = (self.spec.name.clone(), self.tally.all_done());
                let what = EventKind::DocumentCancelled { name, done };
                (what, DocumentEnd::Cancelled { done })
            }
            Err(Unfinished::Suspended) => {
                let done = self.tally.all_done();
                return DocumentEnd::Suspended { done };
            }
        };
        self.job.log.say(self.id, what).await;
        end
    }

    fn done(&mut self) -> (EventKind, DocumentEnd) {
        let mut failed = std::mem::take(&mut self.tally.failed);
        failed.sort_by_key(|f| f.page);
        let Tally {
            asked: pages,
            skipped,
            searchable,
            ..
        } = self.tally;
        let what = EventKind::DocumentDone {
            name: self.spec.name.clone(),
            pages,
            searchable,
            skipped,
            failed: failed.clone(),
        };
        let end = DocumentEnd::Done {
            pages,
            searchable,
            skipped,
            failed,
        };
        (what, end)
    }

    async fn failed(&self, error: ErrorNote) -> (EventKind, DocumentEnd) {
        let (name, done) = (self.spec.name.clone(), self.tally.all_done());
        tracing::warn!(target: FAILURES, name, error = error.message, "document failed");
        if let Some(document) = self.id {
            let end = Observation::DocumentFailed {
                document,
                done,
                failed: self.tally.all_failed(),
            };
            // The document has failed already; what the component makes of it changes nothing.
            let _ = self.job.log.show_end(end).await;
        }
        let what = EventKind::DocumentFailed {
            name,
            error: error.clone(),
            done,
        };
        (what, DocumentEnd::Failed { error, done })
    }

    /// Shows the good end to the progress component, which can still fail the document by failing itself.
    async fn show_done(&self) -> Result<(), Unfinished> {
        let Some(document) = self.id else { return Ok(()) };
        let end = Observation::DocumentDone {
            document,
            done: self.tally.all_done(),
            failed: self.tally.all_failed(),
        };
        Ok(self.job.unless_over(self.job.log.show_end(end)).await??)
    }

    /// Deletes page images that others have replaced. The new ones are written down by now; should this be cut short, an
    /// image stays that nothing points to.
    async fn sweep(&mut self) {
        for key in std::mem::take(&mut self.tally.stale) {
            let deleted = self.job.host.ports.blobs.delete(&self.job.tenant, &key);
            if let Ok(Err(error)) = self.job.unless_over(deleted).await {
                tracing::warn!(key, %error, "an image that is not needed any more could not be deleted");
            }
        }
    }
}

/// Writes down that a document is filed otherwise and that its pages have yet to be done so. Its summaries are removed
/// first: once the document is filed anew, nothing shows that they are out of date.
async fn refile(
    job: &Job,
    record: &DocumentRecord,
    filing: &Filing,
    history: &History,
) -> Result<(), StorageError> {
    let ports = &job.host.ports;
    summaries::remove(job, &record.id).await?;
    tokio::try_join!(ports.blobs.flush(), ports.vectors.flush())?;
    // Entries about the document that are still on their way would come after.
    job.host.journal.sync().await?;
    let reason = note(
        "refiled",
        "its labels or its collection were changed: ingest the document again",
    );
    let pages = history.pages().iter().cloned();
    let mut entries: Vec<_> = pages.filter_map(|page| taken_back(page, &reason)).collect();
    entries.push(Entry::Document(DocumentRecord {
        requested: filing.clone(),
        ..record.clone()
    }));
    ports.ledger.commit(entries).await
}

/// A tenant as the rasterizer may know it. Two that share a number share their turns, which costs them little.
fn party(tenant: &TenantId) -> u64 {
    let mut hasher = DefaultHasher::new();
    tenant.hash(&mut hasher);
    hasher.finish()
}

pub(crate) fn now_millis() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}
