//! Whether the reads of HTTP requests, opening, and the first event of a new reader get slower as the embedded ledger grows, and the CPU
//! time of polling running jobs.
//!
//! `cargo bench --profile dev -p weir-storage --bench ledger_volume` prints tables. `WEIR_BENCH_JOBS` is the number of jobs in the large
//! ledger: with 100000 it has 10 million events and a million pages in 4.4 GB, and takes one to three minutes to fill. `WEIR_BENCH_DIR` is the folder
//! for the files.
#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::print_stdout,
    clippy::cast_precision_loss,
    clippy::cast_possible_truncation,
    missing_docs
)]

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use rustix::time::{ClockId, clock_gettime};
use weir_control::CommitNotifier;
use weir_control::events::{EventReader, TenantEventFeeds};
use weir_control::jobs::ProgressCache;
use weir_core::collection_and_labels::CollectionAndLabelsRequest;
use weir_core::event::{Event, EventKind};
use weir_core::job_request::{JobFilter, JobRequest, JobRequestOptions, JobRequestStore, RequestedFile};
use weir_core::ledger::{DocumentRecord, FinalPageState, JobRecord, JobState, LedgerEntry, PageRecord};
use weir_core::page_text::TextSource;
use weir_core::ports::Ledger;
use weir_core::tenancy::{ApiKeyRecord, KeyScope, Tenant, TenantState, TenantStore as _};
use weir_core::usage::{Usage, UsageStore as _};
use weir_core::{DocumentId, JobId, RevisionId, TenantId};
use weir_storage::{SqlLedger, Storage};

const SMALL_LEDGER_JOBS: usize = 100;
const DEFAULT_JOBS: usize = 10_000;
const EVENTS_PER_JOB: u64 = 100;
const PAGES_PER_JOB: u32 = 10;
/// The last job of each ledger has a longer document and more events.
const LONG_JOB_EVENTS: u64 = 10_000;
const LONG_JOB_PAGES: u32 = 1_000;
const ENTRIES_PER_COMMIT: usize = 50_000;
/// Measured calls of each read.
const CALLS: usize = 300;
const DIMENSIONS: usize = 8;
const KEY_ID: &str = "key";
const POLLED_JOBS: usize = 1_000;
const POLL_ROUNDS: u32 = 10;

fn main() {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .unwrap();
    runtime.block_on(measure());
}

async fn measure() {
    let jobs = std::env::var("WEIR_BENCH_JOBS").map_or(DEFAULT_JOBS, |jobs| jobs.parse().unwrap());
    let parent = std::env::var("WEIR_BENCH_DIR").unwrap_or_else(|_| ".".into());
    let small_folder = tempfile::tempdir_in(&parent).unwrap();
    let small = SampleLedger::create(small_folder.path(), SMALL_LEDGER_JOBS).await;
    let folder = tempfile::tempdir_in(&parent).unwrap();
    let large = SampleLedger::create(folder.path(), jobs).await;

    println!(
        "opening (all stores, an empty index): {:.1} ms and {:.1} ms",
        millis(small.opening),
        millis(large.opening)
    );
    println!(
        "{:<52} {:>12} {:>12} {:>7}",
        "read (p50 and p95 in ms, small and large ledger)", "small", "large", "ratio"
    );
    for (name, read) in READS {
        let (few, many) = (small.measure_read(*read).await, large.measure_read(*read).await);
        println!(
            "{name:<52} {:>5.2} {:>6.2} {:>5.2} {:>6.2} {:>7.2}",
            millis(few.0),
            millis(few.1),
            millis(many.0),
            millis(many.1),
            many.1.as_secs_f64() / few.1.as_secs_f64()
        );
    }
    large.print_polling_costs().await;
    small.storage.close().await.unwrap();
    large.storage.close().await.unwrap();
}

/// The reads of HTTP requests. Each returns the number of rows that it has read.
#[derive(Clone, Copy)]
enum Read {
    Job,
    ApiKey,
    NewestJobs,
    FailedJobs,
    OlderJobs,
    JobEvents,
    LastJobEvent,
    LastTenantEvents,
    MiddleTenantEvents,
    TenantPosition,
    NewestDocuments,
    OlderDocuments,
    DocumentPages,
    Page,
    PageOfRevision,
    Usage,
    StoredBytes,
    ComponentLog,
    Progress,
    ProgressOfLongJob,
    FirstJobEvent,
    FirstTenantEvent,
}

const READS: &[(&str, Read)] = &[
    ("a job with its request and revision", Read::Job),
    ("an API key with its tenant", Read::ApiKey),
    ("50 newest jobs", Read::NewestJobs),
    ("50 failed jobs before one in the middle", Read::FailedJobs),
    ("50 jobs before one in the middle", Read::OlderJobs),
    ("50 events from the middle of 10,000 of a job", Read::JobEvents),
    ("the last event of a job", Read::LastJobEvent),
    ("the last 50 events of the tenant", Read::LastTenantEvents),
    (
        "50 events from the middle of the tenant's",
        Read::MiddleTenantEvents,
    ),
    ("the position of the tenant's last event", Read::TenantPosition),
    ("50 newest documents", Read::NewestDocuments),
    ("50 documents after one in the middle", Read::OlderDocuments),
    (
        "50 pages from the middle of a document of 1,000",
        Read::DocumentPages,
    ),
    ("a page", Read::Page),
    ("a page under a revision", Read::PageOfRevision),
    ("usage of 30 days of a year", Read::Usage),
    ("stored bytes", Read::StoredBytes),
    ("the component log of a job", Read::ComponentLog),
    ("progress of a job with 100 events, not cached", Read::Progress),
    (
        "progress of a job with 10,000 events, not cached",
        Read::ProgressOfLongJob,
    ),
    ("first event of a job to a new reader", Read::FirstJobEvent),
    (
        "first event of the tenant to a new reader",
        Read::FirstTenantEvent,
    ),
];

/// A ledger with the jobs of one tenant.
struct SampleLedger {
    storage: Storage,
    ledger: Arc<SqlLedger>,
    tenant: TenantId,
    jobs: Vec<JobId>,
    opening: Duration,
}

impl SampleLedger {
    async fn create(folder: &Path, jobs: usize) -> Self {
        let began = Instant::now();
        let tenant: TenantId = "t".parse().unwrap();
        let storage = open_storage(folder).await;
        let jobs = fill(&storage.ledger, &tenant, jobs).await;
        storage.close().await.unwrap();
        add_job_requests(folder, &jobs);
        let filled = began.elapsed();
        let began = Instant::now();
        let storage = open_storage(folder).await;
        let opening = began.elapsed();
        let bytes = std::fs::metadata(folder.join("ledger.db")).unwrap().len();
        println!(
            "{} jobs with {} events and {} pages: filled in {:.0} s, {:.0} MB",
            jobs.len(),
            jobs.len() as u64 * EVENTS_PER_JOB + LONG_JOB_EVENTS,
            jobs.len() as u64 * u64::from(PAGES_PER_JOB) + u64::from(LONG_JOB_PAGES),
            filled.as_secs_f64(),
            bytes as f64 / 1e6,
        );
        Self {
            ledger: Arc::clone(&storage.ledger),
            storage,
            tenant,
            jobs,
            opening,
        }
    }

    /// Returns the median and the 95th percentile of the time of a read, of other jobs and documents at each call.
    async fn measure_read(&self, read: Read) -> (Duration, Duration) {
        let mut times = Vec::with_capacity(CALLS);
        for call in 0..CALLS {
            // A prime step visits jobs of all ages.
            let job = self.jobs[call * 7919 % self.jobs.len()];
            let began = Instant::now();
            let rows = self.run_read(read, &job).await;
            times.push(began.elapsed());
            assert!(rows > 0 || matches!(read, Read::ComponentLog));
        }
        times.sort_unstable();
        (times[CALLS / 2], times[CALLS * 95 / 100])
    }

    async fn run_read(&self, read: Read, job: &JobId) -> usize {
        let (ledger, tenant) = (self.ledger.as_ref(), &self.tenant);
        let long = self.jobs.last().unwrap();
        let document = DocumentId::from_content(job.to_string().as_bytes());
        let long_document = DocumentId::from_content(long.to_string().as_bytes());
        let middle = self.jobs[self.jobs.len() / 2];
        let list_jobs = async |state, before| {
            let filter = JobFilter {
                state,
                before,
                limit: 50,
            };
            ledger.list_jobs(tenant, &filter).await.unwrap().len()
        };
        match read {
            Read::Job => {
                let found = ledger.read_job_snapshot(tenant, job, EVENTS_PER_JOB, 1).await;
                usize::from(found.unwrap().is_some())
            }
            Read::ApiKey => {
                let found = ledger.find_api_key_with_tenant(KEY_ID).await;
                usize::from(found.unwrap().is_some())
            }
            Read::NewestJobs => list_jobs(None, None).await,
            Read::FailedJobs => list_jobs(Some(JobState::Failed), Some(middle)).await,
            Read::OlderJobs => list_jobs(None, Some(middle)).await,
            Read::JobEvents => {
                let events = ledger
                    .list_job_events(tenant, long, LONG_JOB_EVENTS / 2, 50)
                    .await;
                events.unwrap().len()
            }
            Read::LastJobEvent => usize::from(ledger.last_job_event(tenant, job).await.unwrap().is_some()),
            Read::LastTenantEvents | Read::MiddleTenantEvents => {
                let last = ledger.last_tenant_event_position(tenant).await.unwrap();
                let after = match read {
                    Read::LastTenantEvents => last - 50,
                    _ => last / 2,
                };
                ledger.list_tenant_events(tenant, after, 50).await.unwrap().len()
            }
            Read::TenantPosition => ledger.last_tenant_event_position(tenant).await.unwrap() as usize,
            Read::NewestDocuments => {
                let documents = ledger.list_tenant_documents_after(tenant, None, 50).await;
                documents.unwrap().len()
            }
            Read::OlderDocuments => {
                let after = (self.jobs.len() as u64 / 2, document);
                let documents = ledger.list_tenant_documents_after(tenant, Some(after), 50).await;
                documents.unwrap().len()
            }
            Read::DocumentPages => {
                let after = LONG_JOB_PAGES / 2;
                let pages = ledger.list_pages_after(tenant, &long_document, after, 50).await;
                pages.unwrap().len()
            }
            Read::Page => {
                let page = ledger.find_page(tenant, &document, PAGES_PER_JOB, None).await;
                usize::from(page.unwrap().is_some())
            }
            Read::PageOfRevision => {
                let revision = revision();
                let page = ledger
                    .find_page(tenant, &document, PAGES_PER_JOB, Some(&revision))
                    .await;
                usize::from(page.unwrap().is_some())
            }
            Read::Usage => ledger.list_daily_usage(tenant, 336, 365).await.unwrap().len(),
            Read::StoredBytes => {
                ledger.count_stored_bytes(tenant).await.unwrap();
                1
            }
            Read::ComponentLog => {
                ledger.last_component_log_seq(tenant, job).await.unwrap();
                ledger.list_component_log(tenant, job, 0, 50).await.unwrap().len()
            }
            Read::Progress | Read::ProgressOfLongJob => {
                let job = match read {
                    Read::Progress => job,
                    _ => long,
                };
                let progress = ProgressCache::default().load_progress(ledger, tenant, job).await;
                progress.unwrap().documents.len()
            }
            Read::FirstJobEvent | Read::FirstTenantEvent => {
                let feeds = TenantEventFeeds::new(CommitNotifier::new(self.shared_ledger()));
                let mut reader = match read {
                    Read::FirstJobEvent => EventReader::for_job(&feeds, tenant, *job, 0).await,
                    _ => EventReader::for_tenant(&feeds, tenant, Some(0)).await,
                }
                .unwrap();
                reader.next_events().await.unwrap().len()
            }
        }
    }

    fn shared_ledger(&self) -> Arc<dyn Ledger> {
        Arc::<SqlLedger>::clone(&self.ledger)
    }

    /// Prints the CPU time of one request for each of the running jobs, of which each has a new event since its last request.
    async fn print_polling_costs(&self) {
        let (ledger, tenant) = (self.ledger.as_ref(), &self.tenant);
        let jobs = &self.jobs[self.jobs.len().saturating_sub(POLLED_JOBS + 1)..self.jobs.len() - 1];
        let cache = ProgressCache::default();
        let (mut key_time, mut job_time) = (Duration::ZERO, Duration::ZERO);
        for seq in EVENTS_PER_JOB + 1..=EVENTS_PER_JOB + 1 + u64::from(POLL_ROUNDS) {
            let events = jobs.iter().map(|job| {
                let event = make_event(*job, None, seq, progress_kind());
                LedgerEntry::Event(tenant.clone(), event)
            });
            ledger.commit_entries(events.collect()).await.unwrap();
            let began = cpu_time();
            for _ in jobs {
                let found = ledger.find_api_key_with_tenant(KEY_ID).await.unwrap();
                assert_eq!(&found.unwrap().1.id, tenant);
            }
            let with_keys = cpu_time();
            for job in jobs {
                let found = cache.load_job(ledger, ledger, tenant, job).await.unwrap();
                assert_eq!(found.unwrap().progress.last_seq, seq);
            }
            // The first round fills the cache.
            if seq > EVENTS_PER_JOB + 1 {
                key_time += with_keys - began;
                job_time += cpu_time() - with_keys;
            }
        }
        let [key_time, job_time] = [key_time, job_time].map(|time| millis(time / POLL_ROUNDS));
        println!(
            "polling {} running jobs once: {key_time:.1} ms of CPU for the key and {job_time:.1} ms for the job; {:.1} % of a core if each is polled every second",
            jobs.len(),
            (key_time + job_time) / 10.0,
        );
    }
}

async fn open_storage(folder: &Path) -> Storage {
    Storage::open_or_create(folder, DIMENSIONS, "bench")
        .await
        .unwrap()
}

fn revision() -> RevisionId {
    RevisionId::from_content(b"revision")
}

/// Adds ended jobs with their documents, pages and events. The last job is longer.
async fn fill(ledger: &SqlLedger, tenant: &TenantId, count: usize) -> Vec<JobId> {
    let jobs: Vec<JobId> = (0..count).map(|_| JobId::new()).collect();
    let record = Tenant {
        id: tenant.clone(),
        state: TenantState::Active,
        weight: 1.0,
        quotas: Default::default(),
        retention: Default::default(),
        created_millis: 0,
    };
    ledger.create_tenant(&record).await.unwrap();
    let key = ApiKeyRecord {
        id: KEY_ID.into(),
        tenant: tenant.clone(),
        scopes: KeyScope::ALL.into(),
        secret_digest: [0; 32],
        display_name: "a key".into(),
        created_millis: 0,
        expires_millis: None,
        revoked_millis: None,
    };
    ledger.put_api_key(&key).await.unwrap();
    for day in 1..=365 {
        let usage = Usage {
            pages: 1,
            ..Usage::default()
        };
        let amounts = vec![(tenant.clone(), usage)];
        ledger.add_daily_usage_of_tenants(day, amounts).await.unwrap();
    }
    let mut entries = Vec::with_capacity(ENTRIES_PER_COMMIT + LONG_JOB_EVENTS as usize * 2);
    for (number, job) in (0..).zip(&jobs) {
        let (events, pages) = match number + 1 == count {
            true => (LONG_JOB_EVENTS, LONG_JOB_PAGES),
            false => (EVENTS_PER_JOB, PAGES_PER_JOB),
        };
        add_job(&mut entries, tenant, *job, number, events, pages);
        if entries.len() >= ENTRIES_PER_COMMIT || number + 1 == count {
            ledger.commit_entries(std::mem::take(&mut entries)).await.unwrap();
        }
    }
    jobs
}

fn add_job(
    entries: &mut Vec<LedgerEntry>,
    tenant: &TenantId,
    job: JobId,
    number: usize,
    events: u64,
    pages: u32,
) {
    let document = DocumentId::from_content(job.to_string().as_bytes());
    let name = format!("document-{number}.pdf");
    entries.push(LedgerEntry::Job(JobRecord {
        id: job,
        tenant: tenant.clone(),
        pipeline: "default".into(),
        revision: revision(),
        state: match number % 20 {
            0 => JobState::Failed,
            _ => JobState::Done,
        },
        created_millis: number as u64,
    }));
    entries.push(LedgerEntry::Document(DocumentRecord {
        id: document,
        tenant: tenant.clone(),
        name: name.clone(),
        bytes: 100_000,
        pages,
        title: Some("A title".into()),
        outline: Vec::new(),
        collection: "default".into(),
        labels: Vec::new(),
        requested_collection_and_labels: CollectionAndLabelsRequest::default(),
        created_millis: number as u64,
    }));
    for page in 1..=pages {
        entries.push(LedgerEntry::Page(PageRecord {
            tenant: tenant.clone(),
            document,
            page,
            revision: revision(),
            job,
            state: FinalPageState::Done {
                source: TextSource::TextLayer,
                passages: 10,
                image: Some(format!("{document}/pages/{page}/image/150.jpg")),
                text: Some(format!("{document}/pages/{page}/lines")),
            },
        }));
    }
    for seq in 1..=events {
        let kind = match seq {
            1 => EventKind::DocumentStarted {
                name: name.clone(),
                pages,
                already_done: 0,
            },
            _ if seq % 2 == 0 => EventKind::PageDone {
                page: seq as u32 % pages + 1,
                searchable: true,
                passages: 10,
            },
            _ => progress_kind(),
        };
        let event = make_event(job, Some(document), seq, kind);
        entries.push(LedgerEntry::Event(tenant.clone(), event));
    }
}

fn progress_kind() -> EventKind {
    EventKind::Progress {
        percent: 50.0,
        message: "half of the pages are done".into(),
        seconds_left: Some(10),
    }
}

const fn make_event(job: JobId, document: Option<DocumentId>, seq: u64, kind: EventKind) -> Event {
    Event {
        seq,
        job,
        document,
        since_job_created_millis: seq,
        kind,
    }
}

/// Adds a request for each job directly, because the port writes one in a transaction.
fn add_job_requests(folder: &Path, jobs: &[JobId]) {
    let mut connection = rusqlite::Connection::open(folder.join("ledger.db")).unwrap();
    let transaction = connection.transaction().unwrap();
    {
        let insert = "INSERT INTO job_requests (tenant, job, request) VALUES ('t', ?1, ?2)";
        let mut insert = transaction.prepare(insert).unwrap();
        for (number, job) in jobs.iter().enumerate() {
            let request = JobRequest {
                job: *job,
                tenant: "t".parse().unwrap(),
                lane: None,
                files: vec![RequestedFile {
                    name: format!("document-{number}.pdf"),
                    document: DocumentId::from_content(job.to_string().as_bytes()),
                    bytes: 100_000,
                    password: None,
                }],
                options: JobRequestOptions::default(),
                webhook: None,
                traceparent: None,
            };
            let json = serde_json::to_string(&request).unwrap();
            insert.execute((job.to_string(), json)).unwrap();
        }
    }
    transaction.commit().unwrap();
}

fn millis(time: Duration) -> f64 {
    time.as_secs_f64() * 1000.0
}

/// Returns the CPU time of this process.
fn cpu_time() -> Duration {
    Duration::try_from(clock_gettime(ClockId::ProcessCPUTime)).unwrap()
}
