use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use parking_lot::Mutex;
use tokio::task::JoinHandle;
use tokio::time::Instant;
use weir_core::event::{ErrorInfo, Event, EventKind};
use weir_core::job_request::{JobRequest, JobRequestOptions, JobRequestStore as _, WebhookTarget};
use weir_core::ledger::{JobState, LedgerEntry};
use weir_core::ports::Ledger as _;
use weir_core::settings::Settings;
use weir_core::{DocumentId, JobId, TenantId};

use super::webhook_request::{WebhookRequest, sign_body};
use super::{WebhookDelivery, WebhookSender};
use crate::commit_notifier::CommitNotifier;
use crate::testing::{FakeStore, TEST_LEASE, commit_events, job_record, new_test_claims};

/// Fake receivers, selected by the host in the URL. `ok` responds with 204, `gone` with 410, and `moved` with 302. `slow` never
/// responds. `fails-N` fails N times and then responds with 200.
#[derive(Default)]
struct FakeReceivers {
    requests: Mutex<Vec<(WebhookRequest, Instant)>>,
    concurrency: Mutex<HashMap<String, (usize, usize)>>,
}

struct ConcurrencyGuard<'a>(&'a FakeReceivers, String);

impl Drop for ConcurrencyGuard<'_> {
    fn drop(&mut self) {
        self.0.concurrency.lock().get_mut(&self.1).unwrap().0 -= 1;
    }
}

#[async_trait]
impl WebhookSender for FakeReceivers {
    async fn send_webhook(&self, request: &WebhookRequest) -> Result<u16, String> {
        let url = url::Url::parse(&request.url).unwrap();
        let host = url.host_str().unwrap().to_owned();
        let before = {
            let mut requests = self.requests.lock();
            requests.push((request.clone(), Instant::now()));
            requests
                .iter()
                .filter(|(l, _)| l.delivery_id == request.delivery_id)
                .count()
                - 1
        };
        {
            let mut concurrency = self.concurrency.lock();
            let (now, most) = concurrency.entry(host.clone()).or_default();
            *now += 1;
            *most = (*most).max(*now);
        }
        let _concurrency_guard = ConcurrencyGuard(self, host.clone());
        tokio::time::sleep(Duration::from_millis(10)).await;
        match host.as_str() {
            "ok" => Ok(204),
            "gone" => Ok(410),
            "moved" => Ok(302),
            "slow" => std::future::pending().await,
            host => match host.strip_prefix("fails-").and_then(|n| n.parse::<usize>().ok()) {
                Some(times) if before >= times => Ok(200),
                Some(times) if times % 2 == 0 => Err("cannot be reached".into()),
                _ => Ok(500),
            },
        }
    }
}

struct DeliveryHarness {
    memory: Arc<FakeStore>,
    ledger: Arc<CommitNotifier>,
    receivers: Arc<FakeReceivers>,
    delivery_task: JoinHandle<()>,
}

impl Drop for DeliveryHarness {
    fn drop(&mut self) {
        self.delivery_task.abort();
    }
}

impl DeliveryHarness {
    fn new(memory: Arc<FakeStore>, receivers: Arc<FakeReceivers>, settings: &Settings) -> Self {
        let ledger = CommitNotifier::new(memory.clone());
        let webhooks = WebhookDelivery::new(
            Arc::clone(&ledger),
            memory.clone(),
            receivers.clone(),
            new_test_claims(memory.clone()),
            settings,
        );
        Self {
            memory,
            ledger,
            receivers,
            delivery_task: tokio::spawn(webhooks.run_delivery_loop()),
        }
    }

    fn with_defaults() -> Self {
        Self::new(Arc::default(), Arc::default(), &Settings::default())
    }

    /// Creates a queued job of a tenant with a webhook to `host`.
    async fn create_job(&self, tenant: &str, host: &str) -> (TenantId, JobId) {
        let (tenant, job): (TenantId, _) = (tenant.parse().unwrap(), JobId::new());
        let job_request = JobRequest {
            job,
            tenant: tenant.clone(),
            lane: None,
            files: Vec::new(),
            options: JobRequestOptions::default(),
            webhook: Some(WebhookTarget {
                url: format!("https://{host}/hook"),
                secret: "secret".into(),
            }),
            traceparent: None,
        };
        self.memory
            .create_job_with_request(&job_record(&tenant, job, JobState::Queued), &job_request, None)
            .await
            .unwrap();
        (tenant, job)
    }

    async fn end_job(&self, (tenant, job): &(TenantId, JobId)) {
        commit_events(self.ledger.as_ref(), tenant, *job, 1, 2, true).await;
    }

    async fn pending_count(&self) -> usize {
        self.memory.list_undelivered_webhooks().await.unwrap().len()
    }

    fn request_times(&self, job: &JobId) -> Vec<Instant> {
        let requests = self.receivers.requests.lock();
        let own = requests.iter().filter(|(l, _)| l.delivery_id == job.to_string());
        own.map(|(_, at)| *at).collect()
    }
}

#[tokio::test(start_paused = true)]
async fn webhook_is_sent_once_when_the_job_ends() {
    let bench = DeliveryHarness::with_defaults();
    let tenant_and_job = bench.create_job("a", "ok").await;
    tokio::time::sleep(Duration::from_secs(200)).await;
    assert!(
        bench.receivers.requests.lock().is_empty(),
        "the job has not ended"
    );
    let ended = Instant::now();
    bench.end_job(&tenant_and_job).await;
    tokio::time::sleep(Duration::from_millis(20)).await;
    assert_eq!(bench.request_times(&tenant_and_job.1), [ended]);
    assert_eq!(bench.pending_count().await, 0);
    tokio::time::sleep(Duration::from_secs(100_000)).await;
    assert_eq!(bench.request_times(&tenant_and_job.1).len(), 1);
}

#[tokio::test(start_paused = true)]
async fn payload_reports_the_outcome_and_is_signed() {
    let bench = DeliveryHarness::with_defaults();
    let (tenant, job) = bench.create_job("a", "ok").await;
    let document = DocumentId::from_content(b"d");
    let event = |seq, document, what| {
        let event = Event {
            seq,
            job,
            document,
            since_job_created_millis: seq,
            kind: what,
        };
        LedgerEntry::Event(tenant.clone(), event)
    };
    let done = EventKind::DocumentDone {
        name: "a.pdf".into(),
        pages: 10,
        searchable: 8,
        skipped: 0,
        failed: vec![weir_core::event::FailedPage {
            page: 3,
            error: ErrorInfo {
                kind: "k".into(),
                message: "m".into(),
            },
        }],
    };
    let failed = EventKind::DocumentFailed {
        name: "b.pdf".into(),
        error: ErrorInfo {
            kind: "not-a-pdf".into(),
            message: "not a PDF".into(),
        },
        done: 0,
    };
    let state = JobState::Failed;
    let entries = vec![
        event(1, Some(document), done),
        event(2, None, failed),
        event(
            3,
            None,
            EventKind::JobEnded {
                state,
                stages: Vec::new(),
            },
        ),
        LedgerEntry::Job(job_record(&tenant, job, state)),
    ];
    bench.ledger.commit_entries(entries).await.unwrap();
    tokio::time::sleep(Duration::from_millis(20)).await;
    let request = bench.receivers.requests.lock()[0].0.clone();
    assert_eq!(
        (request.url.as_str(), request.delivery_id.clone()),
        ("https://ok/hook", job.to_string())
    );
    let body: serde_json::Value = serde_json::from_slice(&request.body).unwrap();
    assert_eq!(body["type"], "job-ended");
    assert_eq!(
        (&body["job"], &body["state"]),
        (&job.to_string().into(), &"failed".into())
    );
    assert_eq!(body["documents"][0]["document"], document.to_string());
    assert_eq!(
        (&body["documents"][0]["done"], &body["documents"][0]["failed"]),
        (&9.into(), &1.into())
    );
    assert_eq!(body["documents"][1]["error"]["kind"], "not-a-pdf");
    assert_eq!(
        body["counts"],
        serde_json::json!({ "documents": 2, "documents_done": 1, "pages_done": 9, "pages_failed": 1 })
    );
    let seconds = request
        .signature
        .strip_prefix("t=")
        .and_then(|s| s.split_once(",v1="))
        .unwrap()
        .0;
    assert_eq!(
        request.signature,
        sign_body("secret", seconds.parse().unwrap(), &request.body)
    );
}

#[test]
fn a_signature_is_the_hmac_of_time_and_body() {
    // echo -n '1700000000.{}' | openssl dgst -sha256 -hmac secret
    assert_eq!(
        sign_body("secret", 1_700_000_000, b"{}"),
        "t=1700000000,v1=b8569b78799ff9e3cbff0fc2d63a33a2b57f3282abd07c37ae5e8e7d79a5f163"
    );
    assert_ne!(sign_body("secret", 1, b"{}"), sign_body("other", 1, b"{}"));
}

#[tokio::test(start_paused = true)]
async fn failed_delivery_is_retried_with_backoff_for_about_a_day() {
    let bench = DeliveryHarness::with_defaults();
    let tenant_and_job = bench.create_job("a", "fails-100").await;
    bench.end_job(&tenant_and_job).await;
    tokio::time::sleep(Duration::from_secs(40 * 3600)).await;
    let times = bench.request_times(&tenant_and_job.1);
    assert_eq!(times.len(), 8);
    assert_eq!(bench.pending_count().await, 0, "the delivery is given up");
    let pauses: Vec<_> = times.windows(2).map(|w| (w[1] - w[0]).as_secs_f64()).collect();
    for (pause, wanted) in pauses
        .iter()
        .zip([15.0, 60.0, 240.0, 960.0, 3840.0, 15_360.0, 61_440.0])
    {
        assert!((0.74 * wanted..1.27 * wanted).contains(pause), "{pauses:?}");
    }
    let whole = pauses.iter().sum::<f64>() / 3600.0;
    assert!((17.0..29.0).contains(&whole), "{whole} hours");
}

#[tokio::test(start_paused = true)]
async fn delivery_succeeds_after_the_receiver_recovers() {
    for (host, tries) in [("fails-2", 3), ("fails-3", 4), ("moved", 8), ("gone", 1)] {
        let bench = DeliveryHarness::with_defaults();
        let tenant_and_job = bench.create_job("a", host).await;
        bench.end_job(&tenant_and_job).await;
        tokio::time::sleep(Duration::from_secs(40 * 3600)).await;
        assert_eq!(bench.request_times(&tenant_and_job.1).len(), tries, "{host}");
        assert_eq!(bench.pending_count().await, 0);
    }
}

#[tokio::test(start_paused = true)]
async fn hanging_receiver_delays_no_other_delivery() {
    let bench = DeliveryHarness::with_defaults();
    let mut tenants_and_jobs = Vec::new();
    for n in 0..60 {
        // Of many tenants, so that the limit of a tenant does not apply.
        tenants_and_jobs.push(bench.create_job(&format!("t{n}"), "slow").await);
    }
    for n in 0..20 {
        tenants_and_jobs.push(bench.create_job(&format!("t{n}"), "ok").await);
    }
    let began = Instant::now();
    for tenant_and_job in &tenants_and_jobs {
        bench.end_job(tenant_and_job).await;
    }
    tokio::time::sleep(Duration::from_secs(1)).await;
    for tenant_and_job in &tenants_and_jobs[60..] {
        let times = bench.request_times(&tenant_and_job.1);
        assert_eq!(times.len(), 1);
        assert!(times[0] - began < Duration::from_millis(200));
    }
    tokio::time::sleep(Duration::from_secs(100)).await;
    let most: HashMap<_, _> = bench
        .receivers
        .concurrency
        .lock()
        .iter()
        .map(|(h, (_, most))| (h.clone(), *most))
        .collect();
    assert_eq!((most["slow"], most["ok"]), (2, 2), "two for each receiver");
    assert!(bench.request_times(&tenants_and_jobs[10].1).len() <= 2);
}

#[tokio::test(start_paused = true)]
async fn tenant_with_bad_receivers_does_not_block_other_tenants() {
    let bench = DeliveryHarness::with_defaults();
    let mut slow = Vec::new();
    for n in 0..40 {
        // Each with another receiver.
        slow.push(bench.create_job("bad", &format!("slow:{}", 1000 + n)).await);
    }
    for tenant_and_job in &slow {
        bench.end_job(tenant_and_job).await;
    }
    tokio::time::sleep(Duration::from_millis(100)).await;
    let tenant_and_job = bench.create_job("good", "ok").await;
    bench.end_job(&tenant_and_job).await;
    tokio::time::sleep(Duration::from_millis(20)).await;
    assert_eq!(bench.request_times(&tenant_and_job.1).len(), 1);
    assert_eq!(
        bench.receivers.requests.lock().len(),
        9,
        "at most eight deliveries of one tenant at a time"
    );
}

#[tokio::test(start_paused = true)]
async fn one_of_two_nodes_sends_each_webhook_and_the_other_takes_over() {
    let settings = Settings {
        storage_ledger: "postgres://db/weir".into(),
        ..Settings::default()
    };
    let first = DeliveryHarness::new(Arc::default(), Arc::default(), &settings);
    tokio::time::sleep(Duration::from_secs(1)).await;
    let second = DeliveryHarness::new(Arc::clone(&first.memory), Arc::clone(&first.receivers), &settings);
    // The job ends on the node that does not send webhooks.
    let job = first.create_job("a", "ok").await;
    second.end_job(&job).await;
    tokio::time::sleep(Duration::from_secs(10)).await;
    assert_eq!(first.request_times(&job.1).len(), 1);

    first.delivery_task.abort();
    let late = second.create_job("a", "ok").await;
    second.end_job(&late).await;
    tokio::time::sleep(TEST_LEASE + Duration::from_secs(10)).await;
    assert_eq!(second.request_times(&late.1).len(), 1);
    assert_eq!(second.request_times(&job.1).len(), 1);
}

#[tokio::test(start_paused = true)]
async fn pending_delivery_survives_a_restart() {
    let bench = DeliveryHarness::with_defaults();
    let (failed, early) = (
        bench.create_job("a", "fails-1").await,
        bench.create_job("a", "ok").await,
    );
    bench.end_job(&failed).await;
    tokio::time::sleep(Duration::from_millis(20)).await;
    assert_eq!(bench.request_times(&failed.1).len(), 1);
    // The host is killed; one job ends just before that.
    bench.delivery_task.abort();
    bench.end_job(&early).await;
    bench.memory.release_all_claims();
    let bench = DeliveryHarness::new(
        Arc::clone(&bench.memory),
        Arc::clone(&bench.receivers),
        &Settings::default(),
    );
    tokio::time::sleep(Duration::from_secs(30)).await;
    assert_eq!(
        (
            bench.request_times(&failed.1).len(),
            bench.request_times(&early.1).len()
        ),
        (2, 1)
    );
    assert_eq!(bench.pending_count().await, 0);
}

#[tokio::test(start_paused = true)]
async fn webhook_settings_take_effect() {
    let settings = Settings {
        webhook_max_attempts: 3,
        webhook_initial_backoff_seconds: 1,
        webhook_response_timeout_seconds: 2,
        ..Settings::default()
    };
    let bench = DeliveryHarness::new(Arc::default(), Arc::default(), &settings);
    let tenant_and_job = bench.create_job("a", "slow").await;
    bench.end_job(&tenant_and_job).await;
    tokio::time::sleep(Duration::from_secs(60)).await;
    let times = bench.request_times(&tenant_and_job.1);
    assert_eq!(times.len(), 3);
    let first = (times[1] - times[0]).as_secs_f64();
    assert!(
        (2.74..3.27).contains(&first),
        "two seconds of timeout and one of backoff: {first}"
    );
}
