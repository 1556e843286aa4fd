//! What components cost is told to meters and recorders.

use std::sync::Arc;

use metrics_exporter_prometheus::PrometheusBuilder;
use parking_lot::Mutex;
use weir_core::TenantId;
use weir_core::component::Gate as _;
use weir_core::manifest::Role;
use weir_core::usage::{Meter, Usage};
use weir_policy::PolicyHost;

use crate::asking::ask;
use crate::support::*;

#[derive(Default)]
pub(crate) struct Book(Mutex<Vec<(TenantId, Usage)>>);

impl Book {
    pub(crate) fn micros(&self) -> u64 {
        self.0.lock().iter().map(|(_, usage)| usage.guest_micros).sum()
    }
}

impl Meter for Book {
    fn used(&self, tenant: &TenantId, usage: &Usage) {
        self.0.lock().push((tenant.clone(), *usage));
    }
}

#[tokio::test]
async fn the_time_components_run_is_metered_to_the_tenant() {
    let book = Arc::new(Book::default());
    let mut config = config();
    config.call_millis = 20;
    config.meter = Some(Arc::clone(&book) as _);
    let host = PolicyHost::new(config).unwrap();
    let pipeline = pipeline("", &[(Role::Progress, "hostile-loop")]);
    let job = open(&host, &pipeline, &Arc::new(Port::default())).await.unwrap();
    for _ in 0..100 {
        ask(&job, "routing.page").await.unwrap();
    }
    // A hundred decisions are not worth telling, a loop of twenty milliseconds is told before the job has ended.
    assert_eq!(book.micros(), 0);
    ask(&job, "progress.observe").await.unwrap();
    assert!(book.micros() >= 20_000, "{}", book.micros());
    for _ in 0..100 {
        ask(&job, "routing.page").await.unwrap();
    }
    let ran = job.stats().guest_time.as_micros() as u64;
    assert!(book.micros() < ran);
    drop(job);
    assert_eq!(book.micros(), ran);
    assert!(
        book.0
            .lock()
            .iter()
            .all(|(tenant, _)| *tenant == TenantId::single())
    );
}

#[tokio::test]
async fn what_a_component_takes_at_the_gate_is_metered_to_who_pushes_it() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("bomb.wasm");
    std::fs::write(&path, crate::bomb::bomb()).unwrap();
    let book = Arc::new(Book::default());
    let mut config = config();
    config.cache = folder.path().join("compiled");
    config.compile_seconds = 1;
    config.call_millis = 20;
    config.meter = Some(Arc::clone(&book) as _);
    let host = PolicyHost::new(config).unwrap();
    let tenant: TenantId = "pushes".parse().unwrap();
    host.inspect(&tenant, &file(&path)).await.unwrap_err();
    assert!(book.micros() >= 900_000, "{}", book.micros());
    let before = book.micros();
    host.inspect(&tenant, &component("hostile-loop"))
        .await
        .unwrap_err();
    assert!(book.micros() >= before + 20_000, "{}", book.micros());
    assert!(book.0.lock().iter().all(|(who, _)| *who == tenant));
}

#[tokio::test]
async fn recorders_hear_of_calls_and_of_their_failures_by_role() {
    let recorder = PrometheusBuilder::new().build_recorder();
    let mut config = config();
    config.call_millis = 5;
    let host = metrics::with_local_recorder(&recorder, || PolicyHost::new(config)).unwrap();
    let own = [
        (Role::Routing, "hostile-trap"),
        (Role::Progress, "hostile-loop"),
        (Role::Batching, "hostile-nonsense-batching"),
    ];
    let job = open(&host, &pipeline("", &own), &Arc::new(Port::default()))
        .await
        .unwrap();
    for _ in 0..3 {
        ask(&job, "routing.page").await.unwrap();
    }
    ask(&job, "progress.observe").await.unwrap();
    ask(&job, "batching.plan").await.unwrap();
    ask(&job, "chunking.passages").await.unwrap();
    let value = |name: &str| -> f64 {
        let text = recorder.handle().render();
        let line = text.lines().find_map(|line| line.strip_prefix(name));
        line.unwrap_or_else(|| panic!("no {name} in\n{text}"))
            .trim()
            .parse()
            .unwrap()
    };
    // The default component stands in for each call that failed, and that is a call as well.
    for (role, calls) in [
        ("routing", 6.0),
        ("progress", 2.0),
        ("batching", 2.0),
        ("chunking", 1.0),
    ] {
        assert_eq!(
            value(&format!("weir_guest_call_seconds_count{{role=\"{role}\"}} ")),
            calls,
            "{role}"
        );
    }
    for (role, kind, times) in [
        ("routing", "component-trap", 3.0),
        ("progress", "component-deadline", 1.0),
        ("batching", "component-nonsense", 1.0),
        ("chunking", "component-trap", 0.0),
    ] {
        let name = format!("weir_guest_traps_total{{role=\"{role}\",kind=\"{kind}\"}} ");
        assert_eq!(value(&name), times, "{name}");
    }
}
