//! How many claims and events a PostgreSQL server takes, and whether the costs grow with the rows.
//!
//! The server runs on this machine and shares its cores with the benchmark. It does not sync its files, so a disk's latency is not in
//! the figures. `cargo bench --profile dev -p weir-storage --bench postgres` prints a table.
#![allow(
    clippy::unwrap_used,
    clippy::print_stdout,
    clippy::cast_precision_loss,
    missing_docs
)]

use std::sync::Arc;
use std::time::{Duration, Instant};

use futures::future::join_all;
use weir_core::event::{Event, EventKind};
use weir_core::job_claim::{ClaimOutcome, NodeId};
use weir_core::job_claim_store::JobClaimStore as _;
use weir_core::ledger::{JobRecord, JobState, LedgerEntry};
use weir_core::node::{NodeInfo, NodeRegistry as _, NodeRole};
use weir_core::ports::Ledger as _;
use weir_core::provider_call_limits::{
    CallAdmission, ProviderCallId, ProviderCallLimits, ProviderCallRequest, ProviderCallStore as _,
};
use weir_core::{JobId, RevisionId, TenantId};
use weir_storage::{PostgresConnectionSettings, SqlLedger};
use weir_test_services::PostgresServer;

const TENANTS: usize = 20;
const CLAIMS: usize = 4_000;
/// Ended jobs, and events, in the ledger.
const SIZES: [(u64, u64); 3] = [(0, 0), (100_000, 1_000_000), (100_000, 10_000_000)];
const LEASE: Duration = Duration::from_secs(3600);

fn main() {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .unwrap();
    runtime.block_on(measure());
}

async fn measure() {
    let server = PostgresServer::start();
    let ledger = Arc::new(
        SqlLedger::connect_postgres(&PostgresConnectionSettings {
            url: server.url(),
            password: None,
            max_connections: 16,
        })
        .await
        .unwrap(),
    );
    let tenants: Vec<TenantId> = (0..TENANTS)
        .map(|number| format!("t{number}").parse().unwrap())
        .collect();
    print_provider_calls(&ledger, &server).await;
    println!(
        "rows                         claims/s   commits of 100 events/s   events/s   renewal of 200 claims   256 events   10,000 queued jobs"
    );
    let mut events_before = 0;
    for (jobs, events) in SIZES {
        if events > events_before {
            fill(&server, jobs, events_before, events);
            events_before = events;
        }
        let claims = measure_claims(&ledger, &tenants).await;
        let commits = measure_commits(&ledger, &tenants).await;
        let times = [
            measure_renewal(&ledger, &tenants).await,
            measure_resuming(&ledger, &tenants).await,
            measure_queue(&ledger, &tenants).await,
        ];
        let [renewal, resuming, queue] = times.map(|time| time.as_secs_f64() * 1000.0);
        println!(
            "{jobs:>6} jobs {events:>9} events  {claims:>8.0}   {commits:>23.0}   {:>8.0}   {renewal:>18.1} ms   {resuming:>7.1} ms   {queue:>15.1} ms",
            commits * 100.0,
        );
    }
    for statement in [
        "SELECT position, event FROM events WHERE tenant = 't1' AND position > 500000 ORDER BY position LIMIT 100",
        "SELECT event FROM events WHERE tenant = 't1' AND job = 'j21' AND seq > 3 ORDER BY seq LIMIT 100",
        "SELECT id FROM jobs WHERE tenant = 't1' AND state = 'done' AND id < '~' ORDER BY id DESC LIMIT 50",
        "SELECT id FROM jobs WHERE state IN ('queued', 'running') AND owner IS NULL ORDER BY created_millis, id",
        "SELECT count(*) FROM jobs WHERE tenant = 't1' AND owner IS NOT NULL",
    ] {
        let plan = server.query(&format!("EXPLAIN {statement}"));
        let scan = plan
            .lines()
            .find(|line| line.contains("Scan"))
            .unwrap_or_default();
        println!(
            "{:<52} {}",
            &statement[..50],
            scan.trim().trim_start_matches("->  ")
        );
    }
}

/// Adds ended jobs, and the events after the first `events_before`, directly.
fn fill(server: &PostgresServer, jobs: u64, events_before: u64, events: u64) {
    server.query(&format!(
        "INSERT INTO jobs (tenant, id, pipeline, revision, state, created_millis)
         SELECT 't' || n % {TENANTS}, 'j' || n, 'p', 'r', 'done', n FROM generate_series(1, {jobs}) AS n
         ON CONFLICT DO NOTHING"
    ));
    let event = serde_json::to_string(&make_event(JobId::new(), 1)).unwrap();
    server.query(&format!(
        "INSERT INTO events (tenant, job, seq, event)
         SELECT 't' || n % {TENANTS}, 'j' || n % {jobs}, n / {jobs}, '{event}'
         FROM generate_series({events_before} + 1, {events}) AS n"
    ));
    server.query("ANALYZE");
}

fn make_event(job: JobId, seq: u64) -> Event {
    Event {
        seq,
        job,
        document: None,
        since_job_created_millis: 1,
        kind: EventKind::DocumentCancelled {
            name: "document.pdf".into(),
            done: 1,
        },
    }
}

async fn create_jobs(ledger: &SqlLedger, tenants: &[TenantId], count: usize) -> Vec<JobRecord> {
    let jobs: Vec<JobRecord> = tenants
        .iter()
        .cycle()
        .take(count)
        .map(|tenant| JobRecord {
            id: JobId::new(),
            tenant: tenant.clone(),
            pipeline: "default".into(),
            revision: RevisionId::from_content(b"revision"),
            state: JobState::Queued,
            created_millis: 1,
        })
        .collect();
    let entries = jobs.iter().cloned().map(LedgerEntry::Job).collect();
    ledger.commit_entries(entries).await.unwrap();
    jobs
}

/// Claims a second, from 16 connections, each with the check of the tenant's limit.
async fn measure_claims(ledger: &SqlLedger, tenants: &[TenantId]) -> f64 {
    let jobs = create_jobs(ledger, tenants, CLAIMS).await;
    let node = NodeId::new_unique("bench");
    let began = Instant::now();
    let workers = jobs.chunks(CLAIMS.div_ceil(16)).map(async |jobs| {
        for job in jobs {
            let claimed = ledger
                .claim_job(&job.tenant, &job.id, &node, LEASE, Some(1_000_000))
                .await;
            assert!(matches!(claimed.unwrap(), ClaimOutcome::Claimed(_)));
        }
    });
    join_all(workers).await;
    let rate = CLAIMS as f64 / began.elapsed().as_secs_f64();
    end_jobs(ledger, jobs).await;
    rate
}

/// Group commits of 100 events a second, of one job of each tenant at once.
async fn measure_commits(ledger: &SqlLedger, tenants: &[TenantId]) -> f64 {
    const COMMITS_PER_TENANT: u64 = 20;
    let began = Instant::now();
    let writers = tenants.iter().map(async |tenant| {
        let job = JobId::new();
        for commit in 0..COMMITS_PER_TENANT {
            let event = |seq| LedgerEntry::Event(tenant.clone(), make_event(job, seq));
            let entries = (commit * 100 + 1..=commit * 100 + 100).map(event).collect();
            ledger.commit_entries(entries).await.unwrap();
        }
    });
    join_all(writers).await;
    (COMMITS_PER_TENANT * TENANTS as u64) as f64 / began.elapsed().as_secs_f64()
}

async fn measure_renewal(ledger: &SqlLedger, tenants: &[TenantId]) -> Duration {
    let jobs = create_jobs(ledger, tenants, 200).await;
    let node = NodeId::new_unique("bench");
    for job in &jobs {
        ledger
            .claim_job(&job.tenant, &job.id, &node, LEASE, None)
            .await
            .unwrap();
    }
    let began = Instant::now();
    for _ in 0..20 {
        assert_eq!(ledger.renew_claims(&node, LEASE).await.unwrap().len(), 200);
    }
    let took = began.elapsed() / 20;
    end_jobs(ledger, jobs).await;
    took
}

/// The time in which a client that resumes in the middle of a tenant's events gets the next ones.
async fn measure_resuming(ledger: &SqlLedger, tenants: &[TenantId]) -> Duration {
    let began = Instant::now();
    for tenant in tenants {
        let last = ledger.last_tenant_event_position(tenant).await.unwrap();
        let events = ledger.list_tenant_events(tenant, last / 2, 256).await.unwrap();
        assert!(events.is_sorted_by_key(|(position, _)| *position));
    }
    began.elapsed() / u32::try_from(tenants.len()).unwrap()
}

/// The time in which a node compares its queue with that of the ledger, as each does every second.
async fn measure_queue(ledger: &SqlLedger, tenants: &[TenantId]) -> Duration {
    let jobs = create_jobs(ledger, tenants, 10_000).await;
    let began = Instant::now();
    for _ in 0..5 {
        assert_eq!(ledger.list_claimable_jobs().await.unwrap().len(), 10_000);
    }
    let took = began.elapsed() / 5;
    end_jobs(ledger, jobs).await;
    took
}

/// Prints how many calls of language models the ledger admits and ends.
async fn print_provider_calls(ledger: &SqlLedger, server: &PostgresServer) {
    println!("providers   calls begun and ended/s   calls in the window of each");
    for (name, providers) in [("one", 1), ("several", 16)] {
        for _ in 0..2 {
            let rate = measure_provider_calls(ledger, name, providers).await;
            let rows = server.query(&format!(
                "SELECT count(*) / {providers} FROM provider_calls WHERE provider LIKE '{name}%'"
            ));
            println!("{providers:>9}   {rate:>23.0}   {rows:>27}");
        }
    }
}

/// Calls of language models a second that are begun and ended, from 16 connections, each with the check of all limits.
async fn measure_provider_calls(ledger: &SqlLedger, name: &str, providers: usize) -> f64 {
    const CALLS_PER_CONNECTION: usize = 150;
    let node = NodeInfo::new_unique("bench", NodeRole::Both);
    ledger.renew_node(&node, LEASE).await.unwrap();
    let began = Instant::now();
    let workers = (0..16).map(|worker| {
        let request = ProviderCallRequest {
            call: ProviderCallId::new_unique(),
            provider: format!("{name}{}", worker % providers),
            node: node.id.clone(),
            limits: ProviderCallLimits {
                max_concurrent: 1024,
                requests_per_minute: 100_000,
                tokens_per_minute: 1_000_000_000,
            },
            estimated_tokens: 1000,
        };
        async move {
            for _ in 0..CALLS_PER_CONNECTION {
                let request = ProviderCallRequest {
                    call: ProviderCallId::new_unique(),
                    ..request.clone()
                };
                assert_eq!(ledger.begin_call(&request).await.unwrap(), CallAdmission::Started);
                ledger.end_call(request.call, Some(900)).await.unwrap();
            }
        }
    });
    join_all(workers).await;
    (16 * CALLS_PER_CONNECTION) as f64 / began.elapsed().as_secs_f64()
}

async fn end_jobs(ledger: &SqlLedger, jobs: Vec<JobRecord>) {
    let ended = jobs.into_iter().map(|job| {
        LedgerEntry::Job(JobRecord {
            state: JobState::Done,
            ..job
        })
    });
    ledger.commit_entries(ended.collect()).await.unwrap();
}
