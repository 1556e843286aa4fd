use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use parking_lot::Mutex;
use tokio::task::JoinHandle;
use tokio::time::Instant;
use weir_core::event::{ErrorNote, Event, EventKind};
use weir_core::ledger::{Entry, JobState};
use weir_core::order::{Order, OrderOptions, Orders as _, Webhook};
use weir_core::ports::Ledger as _;
use weir_core::settings::Settings;
use weir_core::{DocumentId, JobId, TenantId};

use super::letter::{Letter, signature};
use super::{Post, Webhooks};
use crate::fakes::{Memory, commit_events, job_record};
use crate::hub::Announced;

/// Receivers by the host in the address: `ok` receives, `gone` wants no more, `slow` never answers, others fail so many times.
#[derive(Default)]
struct World {
    letters: Mutex<Vec<(Letter, Instant)>>,
    under_way: Mutex<HashMap<String, (usize, usize)>>,
}

struct UnderWay<'a>(&'a World, String);

impl Drop for UnderWay<'_> {
    fn drop(&mut self) {
        self.0.under_way.lock().get_mut(&self.1).unwrap().0 -= 1;
    }
}

#[async_trait]
impl Post for World {
    async fn post(&self, letter: &Letter) -> Result<u16, String> {
        let url = url::Url::parse(&letter.url).unwrap();
        let host = url.host_str().unwrap().to_owned();
        let before = {
            let mut letters = self.letters.lock();
            letters.push((letter.clone(), Instant::now()));
            letters
                .iter()
                .filter(|(l, _)| l.delivery == letter.delivery)
                .count()
                - 1
        };
        {
            let mut under_way = self.under_way.lock();
            let (now, most) = under_way.entry(host.clone()).or_default();
            *now += 1;
            *most = (*most).max(*now);
        }
        let _under_way = UnderWay(self, host.clone());
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

struct Bench {
    memory: Arc<Memory>,
    ledger: Arc<Announced>,
    world: Arc<World>,
    running: JoinHandle<()>,
}

impl Drop for Bench {
    fn drop(&mut self) {
        self.running.abort();
    }
}

impl Bench {
    fn new(memory: Arc<Memory>, world: Arc<World>, settings: &Settings) -> Self {
        let ledger = Announced::new(memory.clone());
        let webhooks = Webhooks::new(Arc::clone(&ledger), memory.clone(), world.clone(), settings);
        Self {
            memory,
            ledger,
            world,
            running: tokio::spawn(webhooks.run()),
        }
    }

    fn fresh() -> Self {
        Self::new(Arc::default(), Arc::default(), &Settings::default())
    }

    /// A job of a tenant that is to be told to `host`, queued.
    async fn order(&self, tenant: &str, host: &str) -> (TenantId, JobId) {
        let (tenant, job): (TenantId, _) = (tenant.parse().unwrap(), JobId::new());
        let order = Order {
            job,
            tenant: tenant.clone(),
            lane: None,
            files: Vec::new(),
            options: OrderOptions::default(),
            webhook: Some(Webhook {
                url: format!("https://{host}/hook"),
                secret: "secret".into(),
            }),
            trace: None,
        };
        self.memory
            .put(&job_record(&tenant, job, JobState::Queued), &order, None)
            .await
            .unwrap();
        (tenant, job)
    }

    async fn end(&self, (tenant, job): &(TenantId, JobId)) {
        commit_events(self.ledger.as_ref(), tenant, *job, 1, 2, true).await;
    }

    async fn owed(&self) -> usize {
        self.memory.owed_webhooks().await.unwrap().len()
    }

    fn times(&self, job: &JobId) -> Vec<Instant> {
        let letters = self.world.letters.lock();
        let own = letters.iter().filter(|(l, _)| l.delivery == job.to_string());
        own.map(|(_, at)| *at).collect()
    }
}

#[tokio::test(start_paused = true)]
async fn a_letter_is_sent_when_the_job_ends_and_once() {
    let bench = Bench::fresh();
    let order = bench.order("a", "ok").await;
    tokio::time::sleep(Duration::from_secs(200)).await;
    assert!(bench.world.letters.lock().is_empty(), "it has not ended");
    let ended = Instant::now();
    bench.end(&order).await;
    tokio::time::sleep(Duration::from_millis(20)).await;
    assert_eq!(bench.times(&order.1), [ended]);
    assert_eq!(bench.owed().await, 0);
    tokio::time::sleep(Duration::from_secs(100_000)).await;
    assert_eq!(bench.times(&order.1).len(), 1);
}

#[tokio::test(start_paused = true)]
async fn what_it_says_is_signed() {
    let bench = Bench::fresh();
    let (tenant, job) = bench.order("a", "ok").await;
    let document = DocumentId::of(b"d");
    let event = |seq, document, what| {
        let event = Event {
            seq,
            job,
            document,
            at_millis: seq,
            what,
        };
        Entry::Event(tenant.clone(), event)
    };
    let done = EventKind::DocumentDone {
        name: "a.pdf".into(),
        pages: 10,
        searchable: 8,
        skipped: 0,
        failed: vec![weir_core::event::FailedPage {
            page: 3,
            error: ErrorNote {
                kind: "k".into(),
                message: "m".into(),
            },
        }],
    };
    let failed = EventKind::DocumentFailed {
        name: "b.pdf".into(),
        error: ErrorNote {
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
        Entry::Job(job_record(&tenant, job, state)),
    ];
    bench.ledger.commit(entries).await.unwrap();
    tokio::time::sleep(Duration::from_millis(20)).await;
    let letter = bench.world.letters.lock()[0].0.clone();
    assert_eq!(
        (letter.url.as_str(), letter.delivery.clone()),
        ("https://ok/hook", job.to_string())
    );
    let body: serde_json::Value = serde_json::from_slice(&letter.body).unwrap();
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
    let seconds = letter
        .signature
        .strip_prefix("t=")
        .and_then(|s| s.split_once(",v1="))
        .unwrap()
        .0;
    assert_eq!(
        letter.signature,
        signature("secret", seconds.parse().unwrap(), &letter.body)
    );
}

#[test]
fn a_signature_is_the_hmac_of_time_and_body() {
    // echo -n '1700000000.{}' | openssl dgst -sha256 -hmac secret
    assert_eq!(
        signature("secret", 1_700_000_000, b"{}"),
        "t=1700000000,v1=b8569b78799ff9e3cbff0fc2d63a33a2b57f3282abd07c37ae5e8e7d79a5f163"
    );
    assert_ne!(signature("secret", 1, b"{}"), signature("other", 1, b"{}"));
}

#[tokio::test(start_paused = true)]
async fn one_that_fails_is_tried_again_after_growing_pauses_for_about_a_day() {
    let bench = Bench::fresh();
    let order = bench.order("a", "fails-100").await;
    bench.end(&order).await;
    tokio::time::sleep(Duration::from_secs(40 * 3600)).await;
    let times = bench.times(&order.1);
    assert_eq!(times.len(), 8);
    assert_eq!(bench.owed().await, 0, "it is given up");
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
async fn one_that_recovers_is_delivered() {
    for (host, tries) in [("fails-2", 3), ("fails-3", 4), ("moved", 8), ("gone", 1)] {
        let bench = Bench::fresh();
        let order = bench.order("a", host).await;
        bench.end(&order).await;
        tokio::time::sleep(Duration::from_secs(40 * 3600)).await;
        assert_eq!(bench.times(&order.1).len(), tries, "{host}");
        assert_eq!(bench.owed().await, 0);
    }
}

#[tokio::test(start_paused = true)]
async fn one_that_hangs_holds_nobody_up() {
    let bench = Bench::fresh();
    let mut orders = Vec::new();
    for n in 0..60 {
        // Of many tenants, so that the places of a tenant are not what bounds them.
        orders.push(bench.order(&format!("t{n}"), "slow").await);
    }
    for n in 0..20 {
        orders.push(bench.order(&format!("t{n}"), "ok").await);
    }
    let began = Instant::now();
    for order in &orders {
        bench.end(order).await;
    }
    tokio::time::sleep(Duration::from_secs(1)).await;
    for order in &orders[60..] {
        let times = bench.times(&order.1);
        assert_eq!(times.len(), 1);
        assert!(times[0] - began < Duration::from_millis(200));
    }
    tokio::time::sleep(Duration::from_secs(100)).await;
    let most: HashMap<_, _> = bench
        .world
        .under_way
        .lock()
        .iter()
        .map(|(h, (_, most))| (h.clone(), *most))
        .collect();
    assert_eq!((most["slow"], most["ok"]), (2, 2), "two a host");
    assert!(bench.times(&orders[10].1).len() <= 2);
}

#[tokio::test(start_paused = true)]
async fn a_tenant_with_many_bad_receivers_leaves_places_to_others() {
    let bench = Bench::fresh();
    let mut slow = Vec::new();
    for n in 0..40 {
        // One host each.
        slow.push(bench.order("bad", &format!("slow:{}", 1000 + n)).await);
    }
    for order in &slow {
        bench.end(order).await;
    }
    tokio::time::sleep(Duration::from_millis(100)).await;
    let order = bench.order("good", "ok").await;
    bench.end(&order).await;
    tokio::time::sleep(Duration::from_millis(20)).await;
    assert_eq!(bench.times(&order.1).len(), 1);
    assert_eq!(
        bench.world.letters.lock().len(),
        9,
        "eight of one tenant at a time"
    );
}

#[tokio::test(start_paused = true)]
async fn what_is_owed_is_delivered_after_a_restart() {
    let bench = Bench::fresh();
    let (failed, early) = (bench.order("a", "fails-1").await, bench.order("a", "ok").await);
    bench.end(&failed).await;
    tokio::time::sleep(Duration::from_millis(20)).await;
    assert_eq!(bench.times(&failed.1).len(), 1);
    // The host dies; one job ends in its last moment.
    bench.running.abort();
    bench.end(&early).await;
    let bench = Bench::new(
        Arc::clone(&bench.memory),
        Arc::clone(&bench.world),
        &Settings::default(),
    );
    tokio::time::sleep(Duration::from_secs(30)).await;
    assert_eq!(
        (bench.times(&failed.1).len(), bench.times(&early.1).len()),
        (2, 1)
    );
    assert_eq!(bench.owed().await, 0);
}

#[tokio::test(start_paused = true)]
async fn settings_have_an_effect() {
    let settings = Settings {
        webhook_tries: 3,
        webhook_pause_seconds: 1,
        webhook_seconds: 2,
        ..Settings::default()
    };
    let bench = Bench::new(Arc::default(), Arc::default(), &settings);
    let order = bench.order("a", "slow").await;
    bench.end(&order).await;
    tokio::time::sleep(Duration::from_secs(60)).await;
    let times = bench.times(&order.1);
    assert_eq!(times.len(), 3);
    let first = (times[1] - times[0]).as_secs_f64();
    assert!(
        (2.74..3.27).contains(&first),
        "two seconds for an answer and one for the pause: {first}"
    );
}
