//! A document from its file to its last event.
//!
//! Whatever happens, it ends in exactly one event: done, failed or cancelled. "Done" is counted, not assumed: every page that
//! was asked for has ended in one state, and all of it is durable.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::io::Read as _;
use std::ops::RangeInclusive;
use std::path::{Path, PathBuf};
use std::pin::pin;
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use sha2::{Digest as _, Sha256};
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio::time::{Instant, timeout_at};
use tokio_util::sync::CancellationToken;
use weir_core::decision::{DocumentFacts, DocumentRoute, Observation};
use weir_core::event::{ErrorNote, EventKind, FailedPage};
use weir_core::ledger::{DocumentRecord, Entry, PageRecord, PageState};
use weir_core::ports::{OpenDocument, Source};
use weir_core::{DocumentId, PageFacts, PageNumber, RasterError};

use crate::Host;
use crate::diagnosis::Load;
use crate::failure::{STAGE_DIED, StageError, note};
use crate::in_work::Claim;
use crate::job::Job;
use crate::page::{self, PageEnd};
use crate::plan;
use crate::rooms::Rooms;
use crate::upsert::{Target, Upserts};

/// A file to ingest.
#[derive(Clone)]
pub struct DocumentSpec {
    /// The file.
    pub path: PathBuf,
    /// What it is called in events and answers.
    pub name: String,
    /// Its password, if it is encrypted.
    pub password: Option<String>,
    /// Pages wanted; all if `None`. What lies beyond the last page is left out.
    pub pages: Option<RangeInclusive<PageNumber>>,
}

impl DocumentSpec {
    /// All pages of a file, called by its file name.
    pub fn new(path: impl Into<PathBuf>) -> Self {
        let path = path.into();
        let name = path.file_name().unwrap_or(path.as_os_str());
        Self {
            name: name.to_string_lossy().into_owned(),
            path,
            password: None,
            pages: None,
        }
    }
}

impl std::fmt::Debug for DocumentSpec {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("DocumentSpec")
            .field("path", &self.path)
            .field("pages", &self.pages)
            .finish_non_exhaustive()
    }
}

/// What became of a document.
#[derive(Debug, Clone, PartialEq)]
pub struct DocumentOutcome {
    /// Its name.
    pub name: String,
    /// Its id, if its file could be read.
    pub document: Option<DocumentId>,
    /// How it ended.
    pub end: DocumentEnd,
}

/// How a document ended.
#[derive(Debug, Clone, PartialEq)]
pub enum DocumentEnd {
    /// Every page asked for has ended in a state.
    Done {
        /// Pages asked for.
        pages: u32,
        /// Pages a search can find.
        searchable: u32,
        /// Pages an earlier job had already done.
        skipped: u32,
        /// Pages that failed, in order.
        failed: Vec<FailedPage>,
    },
    /// It could not be done.
    Failed {
        /// Why.
        error: ErrorNote,
        /// Pages done before, by this job or an earlier one.
        done: u32,
    },
    /// The job was cancelled.
    Cancelled {
        /// Pages done before, by this job or an earlier one.
        done: u32,
    },
}

/// A document in work: what its pages share.
pub(crate) struct Work {
    pub(crate) host: Arc<Host>,
    pub(crate) job: Arc<Job>,
    pub(crate) id: DocumentId,
    pub(crate) name: String,
    pub(crate) open: Arc<dyn OpenDocument>,
    pub(crate) route: DocumentRoute,
    pub(crate) rooms: Rooms,
    pub(crate) load: Load,
    pub(crate) upserts: Upserts,
    /// Pages of which the index may hold passages from before.
    pub(crate) indexed: HashSet<PageNumber>,
}

impl Work {
    /// Writes an event about the document.
    pub(crate) async fn say(&self, what: EventKind) {
        self.job.log.say(Some(self.id), what).await;
    }
}

/// Why a document ends before it is done.
#[derive(Debug)]
pub(crate) enum Unfinished {
    Failed(ErrorNote),
    Cancelled,
}

impl<E> From<E> for Unfinished
where
    StageError: From<E>,
{
    fn from(error: E) -> Self {
        Self::Failed(StageError::from(error).note())
    }
}

/// Ingests a document.
pub(crate) async fn ingest(job: &Arc<Job>, spec: &DocumentSpec) -> DocumentOutcome {
    let mut ingest = Ingest {
        job,
        spec,
        id: None,
        claim: None,
        tally: Tally::default(),
        searchable_before: 0,
    };
    let ended = ingest.begin().await;
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
    claim: Option<Claim>,
    tally: Tally,
    searchable_before: u32,
}

/// How the pages stand.
#[derive(Default)]
struct Tally {
    asked: u32,
    skipped: u32,
    done: u32,
    searchable: u32,
    failed: Vec<FailedPage>,
    /// Page images that were replaced by others under another key.
    stale: Vec<String>,
}

impl Ingest<'_> {
    /// From the file to the last page.
    async fn begin(&mut self) -> Result<(), Unfinished> {
        let (job, spec) = (self.job, self.spec);
        let (id, bytes) = job.unless_halted(identify(&spec.path)).await??;
        self.id = Some(id);
        let claim = job.host.in_work.claim(&job.tenant, id);
        self.claim = Some(job.unless_halted(claim).await?);
        let source = Source {
            path: spec.path.clone(),
            password: spec.password.clone(),
        };
        let open = job
            .unless_halted(job.host.ports.rasterizer.open(&source))
            .await??;
        let _seen = job.capabilities.show(id, &open);
        let asked = self.asked(open.info().pages)?;
        self.tally.asked = asked.end() - asked.start() + 1;
        let ledger = &job.host.ports.ledger;
        let before = job.unless_halted(ledger.pages(&job.tenant, &id, None)).await??;
        let mut wanted: BTreeSet<PageNumber> = asked.clone().collect();
        if !job.force {
            for (page, passages) in before.iter().filter_map(|r| done_under(job, r)) {
                if wanted.remove(&page) {
                    self.tally.skipped += 1;
                    self.searchable_before += u32::from(passages > 0);
                }
            }
        }
        let known = job.unless_halted(ledger.document(&job.tenant, &id)).await??;
        let started = EventKind::DocumentStarted {
            name: spec.name.clone(),
            pages: self.tally.asked,
            already_done: self.tally.skipped,
        };
        job.log.say(Some(id), started).await;
        if wanted.is_empty()
            && let Some(mut record) = known
        {
            record.name.clone_from(&spec.name);
            self.take_in(record).await;
            return Ok(());
        }
        self.route_and_work(id, bytes, open, wanted, &before).await
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

    async fn route_and_work(
        &mut self,
        id: DocumentId,
        bytes: u64,
        open: Arc<dyn OpenDocument>,
        wanted: BTreeSet<PageNumber>,
        before: &[PageRecord],
    ) -> Result<(), Unfinished> {
        let job = self.job;
        let info = open.info().clone();
        let vectors = Arc::clone(&job.host.ports.vectors);
        let indexed = job.unless_halted(vectors.pages(&job.tenant, &id)).await??;
        let first = 1..plan::FIRST.min(info.pages) + 1;
        let first_pages = job.unless_halted(plan::facts(&id, &*open, first)).await?;
        let first_pages = first_pages.map_err(Unfinished::Failed)?;
        let facts = DocumentFacts {
            document: id,
            name: self.spec.name.clone(),
            bytes,
            pages: info.pages,
            title: info.title.clone(),
            outline_entries: u32::try_from(info.outline.len()).unwrap_or(u32::MAX),
            first_pages: first_pages.clone(),
        };
        let route = job.unless_halted(job.policy.route_document(facts)).await??;
        if route.ocr_model.is_some() || route.embedding_model.is_some() {
            tracing::warn!(document = %id, "the route names models; this host has one of each kind and uses those");
        }
        self.take_in(DocumentRecord {
            id,
            tenant: job.tenant.clone(),
            name: self.spec.name.clone(),
            bytes,
            pages: info.pages,
            title: info.title,
            outline: info.outline,
            collection: route.collection.clone(),
            created_millis: now_millis(),
        })
        .await;
        let target = Target {
            vectors,
            tenant: job.tenant.clone(),
            document: id,
            collection: route.collection.clone(),
        };
        let work = Arc::new(Work {
            host: Arc::clone(&job.host),
            job: Arc::clone(job),
            id,
            name: self.spec.name.clone(),
            open,
            route,
            rooms: Rooms::new(&job.host.seats),
            load: Load::default(),
            upserts: Upserts::start(target),
            indexed: indexed.into_iter().map(|(page, _)| page).collect(),
        });
        let began = Instant::now();
        let worked = self.work(&work, &wanted, &first_pages, images(before)).await;
        let took = began.elapsed();
        tracing::info!(
            document = %id, name = self.spec.name, pages = self.tally.done, millis = took.as_millis() as u64,
            "{}", work.load.bottleneck(&work.rooms.queues(), &work.rooms.busy(), took)
        );
        worked
    }

    async fn take_in(&self, record: DocumentRecord) {
        if let Some(slot) = self.job.host.journal.slot().await {
            slot.write(vec![Entry::Document(record)]);
        }
    }

    /// Takes every wanted page through its path.
    async fn work(
        &mut self,
        work: &Arc<Work>,
        wanted: &BTreeSet<PageNumber>,
        known: &[PageFacts],
        images: HashMap<PageNumber, String>,
    ) -> Result<(), Unfinished> {
        let numbers: Vec<_> = wanted.iter().copied().collect();
        let mut open = wanted.clone();
        let mut pages = JoinSet::new();
        let (send, mut taken) = mpsc::channel(1);
        let mut halted = {
            let mut planning = pin!(plan::take_pages(work, &numbers, known, send));
            let (mut planned, mut more) = (false, true);
            loop {
                if planned && !more && pages.is_empty() {
                    break Ok(());
                }
                tokio::select! {
                    biased;
                    halted = self.job.halted() => break Err(halted),
                    Some(ended) = pages.join_next(), if !pages.is_empty() => {
                        if let Err(halted) = self.count(ended, &mut open, &images) {
                            break Err(halted);
                        }
                    }
                    page = taken.recv(), if more => match page {
                        Some(page) => {
                            pages.spawn(page::run(Arc::clone(work), page));
                        }
                        None => more = false,
                    },
                    all = &mut planning, if !planned => {
                        planned = true;
                        if let Err(error) = all {
                            break Err(Unfinished::Failed(error));
                        }
                    }
                }
            }
        };
        if matches!(halted, Err(Unfinished::Cancelled)) {
            let deadline = self.job.halt.deadline();
            let rest = async {
                while let Some(ended) = pages.join_next().await {
                    if let Err(failed) = self.count(ended, &mut open, &images) {
                        return Err(failed);
                    }
                }
                Ok(())
            };
            if let Ok(Err(failed)) = timeout_at(deadline, rest).await {
                halted = Err(failed);
            }
        }
        // Whoever is left is dropped, and gone when this returns.
        pages.shutdown().await;
        halted?;
        match open.first() {
            None => Ok(()),
            Some(first) => Err(lost(format!(
                "{} pages were lost on the way, page {first} is the first: this is a fault of the host, see its log",
                open.len()
            ))),
        }
    }

    /// Counts a page that has ended; an error if the document cannot go on.
    fn count(
        &mut self,
        ended: Result<(PageNumber, PageEnd), tokio::task::JoinError>,
        open: &mut BTreeSet<PageNumber>,
        images: &HashMap<PageNumber, String>,
    ) -> Result<(), Unfinished> {
        let (page, end) = ended.map_err(|died| {
            tracing::error!(%died, "a page's task died");
            Unfinished::Failed(note(
                STAGE_DIED,
                "a page's task died: this is a fault of the host, see its log",
            ))
        })?;
        match end {
            PageEnd::Dropped => return Ok(()),
            PageEnd::Fatal(error) => return Err(Unfinished::Failed(error)),
            PageEnd::Failed(failed) => self.tally.failed.push(failed),
            PageEnd::Done { passages, image } => {
                self.tally.done += 1;
                self.tally.searchable += u32::from(passages > 0);
                if let Some(old) = images.get(&page).filter(|old| Some(*old) != image.as_ref()) {
                    self.tally.stale.push(old.clone());
                }
            }
        }
        if open.remove(&page) {
            Ok(())
        } else {
            Err(lost(format!(
                "page {page} ended twice: this is a fault of the host, see its log"
            )))
        }
    }

    /// The document's last event, once everything before it is durable.
    async fn conclude(&mut self, ended: Result<(), Unfinished>) -> DocumentEnd {
        let job = self.job;
        let written = job.host.journal.sync().await;
        let ended = match (ended, written) {
            (Ok(()), Ok(())) => {
                self.sweep().await;
                match self.show_done().await {
                    Ok(()) => Ok(()),
                    Err(unfinished) => Err(unfinished),
                }
            }
            (Ok(()) | Err(Unfinished::Cancelled), Err(error)) => Err(error.into()),
            (Err(unfinished), _) => Err(unfinished),
        };
        let done = self.tally.done + self.tally.skipped;
        let name = self.spec.name.clone();
        let (what, end) = match ended {
            Ok(()) => {
                let mut failed = std::mem::take(&mut self.tally.failed);
                failed.sort_by_key(|f| f.page);
                let (pages, skipped) = (self.tally.asked, self.tally.skipped);
                let searchable = self.tally.searchable + self.searchable_before;
                let what = EventKind::DocumentDone {
                    name,
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
            Err(Unfinished::Failed(error)) => {
                tracing::warn!(name = self.spec.name, error = error.message, "document failed");
                if let Some(document) = self.id {
                    let failed = self.failed();
                    // The document has failed already; what the component makes of it changes nothing.
                    let _ = job
                        .log
                        .show_end(Observation::DocumentFailed {
                            document,
                            done,
                            failed,
                        })
                        .await;
                }
                let what = EventKind::DocumentFailed {
                    name,
                    error: error.clone(),
                    done,
                };
                (what, DocumentEnd::Failed { error, done })
            }
            Err(Unfinished::Cancelled) => {
                let what = EventKind::DocumentCancelled { name, done };
                (what, DocumentEnd::Cancelled { done })
            }
        };
        job.log.say(self.id, what).await;
        end
    }

    /// Shows the good end to the progress component, which can still fail the document by failing itself.
    async fn show_done(&self) -> Result<(), Unfinished> {
        let Some(document) = self.id else { return Ok(()) };
        let (done, failed) = (self.tally.done + self.tally.skipped, self.failed());
        let end = Observation::DocumentDone {
            document,
            done,
            failed,
        };
        Ok(self.job.unless_halted(self.job.log.show_end(end)).await??)
    }

    fn failed(&self) -> u32 {
        u32::try_from(self.tally.failed.len()).unwrap_or(u32::MAX)
    }

    /// Deletes page images that others have replaced. The new ones are written down by now; should this be cut short, an
    /// image stays that nothing points to.
    async fn sweep(&mut self) {
        for key in std::mem::take(&mut self.tally.stale) {
            if let Err(error) = self.job.host.ports.blobs.delete(&self.job.tenant, &key).await {
                tracing::warn!(key, %error, "an image that is not needed any more could not be deleted");
            }
        }
    }
}

/// Page and passages of a page that is done under the revision of this job. The latest record counts, whatever its revision:
/// what another revision has done since is what the index holds.
fn done_under(job: &Job, record: &PageRecord) -> Option<(PageNumber, u32)> {
    match record.state {
        PageState::Done { passages, .. } if record.revision == job.pipeline.revision => {
            Some((record.page, passages))
        }
        _ => None,
    }
}

/// Keys of the page images there are.
fn images(before: &[PageRecord]) -> HashMap<PageNumber, String> {
    before
        .iter()
        .filter_map(|record| match &record.state {
            PageState::Done { image: Some(key), .. } => Some((record.page, key.clone())),
            _ => None,
        })
        .collect()
}

fn lost(message: String) -> Unfinished {
    Unfinished::Failed(note("lost-pages", message))
}

fn now_millis() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}

/// The id of a file, and its size. Read on a thread for blocking work, which ends early if nobody waits for it any more.
async fn identify(path: &Path) -> Result<(DocumentId, u64), RasterError> {
    let gone = CancellationToken::new();
    let _guard = gone.clone().drop_guard();
    let path = path.to_owned();
    let shown = path.display().to_string();
    let failed = |reason: String| RasterError::File { path: shown, reason };
    let hashed = tokio::task::spawn_blocking(move || -> std::io::Result<_> {
        let mut file = std::fs::File::open(path)?;
        let (mut hash, mut bytes) = (Sha256::new(), 0_u64);
        let mut block = vec![0; 1 << 18];
        loop {
            let read = file.read(&mut block)?;
            if read == 0 || gone.is_cancelled() {
                return Ok((DocumentId::from_digest(hash.finalize().into()), bytes));
            }
            hash.update(block.get(..read).unwrap_or_default());
            bytes += read as u64;
        }
    });
    match hashed.await {
        Ok(Ok(found)) => Ok(found),
        Ok(Err(error)) => Err(failed(error.to_string())),
        Err(error) => Err(failed(error.to_string())),
    }
}
