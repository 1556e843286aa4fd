//! Whether the size of the ledger stays the same for a year in which old jobs are removed.
//!
//! Each simulated day adds jobs with their events to a ledger in SQLite and removes those that are older than 30 days.
//! `cargo bench --profile dev -p weir-storage --bench retention` prints a table; `WEIR_BENCH_DAYS` and `WEIR_BENCH_JOBS_PER_DAY` set
//! other sizes.
#![allow(
    clippy::unwrap_used,
    clippy::print_stdout,
    clippy::cast_precision_loss,
    missing_docs
)]

use std::path::Path;
use std::time::{Duration, Instant};

use weir_core::event::{Event, EventKind};
use weir_core::ledger::{JobRecord, JobState, LedgerEntry};
use weir_core::ports::Ledger as _;
use weir_core::retention::RetentionStore as _;
use weir_core::{DocumentId, JobId, RevisionId, TenantId};
use weir_storage::SqlLedger;

const RETENTION_DAYS: u64 = 30;
const PAGES_PER_JOB: u32 = 6;
const MILLIS_PER_DAY: u64 = 24 * 60 * 60 * 1000;
/// Jobs that one commit adds.
const JOBS_PER_COMMIT: u64 = 100;
/// Jobs that one call removes, as a server does it.
const JOBS_PER_BATCH: u32 = 20;
const DAYS_PER_ROW: u64 = 15;

fn main() {
    let days = read_variable("WEIR_BENCH_DAYS", 90);
    let jobs_per_day = read_variable("WEIR_BENCH_JOBS_PER_DAY", 500);
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .unwrap();
    runtime.block_on(measure(days, jobs_per_day));
}

fn read_variable(name: &str, default: u64) -> u64 {
    std::env::var(name).map_or(default, |value| value.parse().unwrap())
}

async fn measure(days: u64, jobs_per_day: u64) {
    println!(
        "{jobs_per_day} jobs a day with {} events each, kept for {RETENTION_DAYS} days",
        PAGES_PER_JOB + 1
    );
    println!(
        "{:>5} {:>9} {:>8} {:>12} {:>14} {:>18}",
        "day", "jobs", "MiB", "adding, s", "removing, s", "longest batch, ms"
    );
    let folder = tempfile::tempdir().unwrap();
    let ledger = SqlLedger::open_or_create_shared(folder.path()).await.unwrap();
    let tenant = TenantId::default_tenant();
    let clock = rusqlite::Connection::open(folder.path().join("ledger.db")).unwrap();
    let (mut adding, mut removing, mut longest_batch) = (Duration::ZERO, Duration::ZERO, Duration::ZERO);
    for day in 1..=days {
        let began = Instant::now();
        add_jobs(&ledger, &tenant, day, jobs_per_day).await;
        adding += began.elapsed();
        // The jobs have ended just now, but should have ended on the simulated day.
        clock
            .execute(
                "UPDATE jobs SET ended_millis = created_millis WHERE tenant = 'default'
                 AND state NOT IN ('queued', 'running') AND coalesce(ended_millis, created_millis) > ?1",
                [i64::try_from((days + 2) * MILLIS_PER_DAY).unwrap()],
            )
            .unwrap();
        let before = (day + 1).saturating_sub(RETENTION_DAYS) * MILLIS_PER_DAY;
        let began = Instant::now();
        loop {
            let batch_began = Instant::now();
            let jobs = ledger
                .list_expired_jobs(&tenant, before, JOBS_PER_BATCH)
                .await
                .unwrap();
            ledger.remove_ended_jobs(&tenant, &jobs).await.unwrap();
            longest_batch = longest_batch.max(batch_began.elapsed());
            if jobs.is_empty() {
                break;
            }
        }
        removing += began.elapsed();
        if day % DAYS_PER_ROW == 0 {
            let kept = ledger
                .count_expired_records(
                    &tenant,
                    weir_core::retention::RecordKind::EndedJobs,
                    u64::MAX >> 1,
                )
                .await
                .unwrap();
            println!(
                "{day:>5} {kept:>9} {:>8.1} {:>12.2} {:>14.2} {:>18.1}",
                folder_bytes(folder.path()) as f64 / f64::from(1 << 20),
                adding.as_secs_f64() / DAYS_PER_ROW as f64,
                removing.as_secs_f64() / DAYS_PER_ROW as f64,
                longest_batch.as_secs_f64() * 1000.0
            );
            (adding, removing, longest_batch) = Default::default();
        }
    }
    ledger.close().await;
}

async fn add_jobs(ledger: &SqlLedger, tenant: &TenantId, day: u64, jobs: u64) {
    let mut added = 0;
    while added < jobs {
        let in_commit = JOBS_PER_COMMIT.min(jobs - added);
        let entries = (0..in_commit)
            .flat_map(|number| job_entries(tenant, day * MILLIS_PER_DAY + added + number))
            .collect();
        ledger.commit_entries(entries).await.unwrap();
        added += in_commit;
    }
}

/// A job of one document that was done at once.
fn job_entries(tenant: &TenantId, created_millis: u64) -> Vec<LedgerEntry> {
    let job = JobId::new();
    let document = DocumentId::from_content(&created_millis.to_le_bytes());
    let record = JobRecord {
        id: job,
        tenant: tenant.clone(),
        pipeline: "default".into(),
        revision: RevisionId::from_content(b"revision"),
        state: JobState::Done,
        created_millis,
    };
    let started = EventKind::DocumentStarted {
        name: format!("{created_millis}.pdf"),
        pages: PAGES_PER_JOB,
        already_done: 0,
    };
    let pages = (1..=PAGES_PER_JOB).map(|page| EventKind::PageDone {
        page,
        searchable: true,
        passages: 4,
    });
    let kinds = std::iter::once(started).chain(pages);
    let events = (1..).zip(kinds).map(|(seq, kind)| {
        let event = Event {
            seq,
            job,
            document: Some(document),
            since_job_created_millis: seq,
            kind,
        };
        LedgerEntry::Event(tenant.clone(), event)
    });
    std::iter::once(LedgerEntry::Job(record)).chain(events).collect()
}

fn folder_bytes(folder: &Path) -> u64 {
    let entries = std::fs::read_dir(folder).unwrap();
    entries
        .map(|entry| entry.unwrap().metadata().unwrap().len())
        .sum()
}
