//! CPU time of components in the usage sink and in the metrics.

use std::sync::Arc;

use metrics_exporter_prometheus::PrometheusBuilder;
use parking_lot::Mutex;
use weir_core::TenantId;
use weir_core::component::ComponentValidator as _;
use weir_core::manifest::Role;
use weir_core::usage::{Usage, UsageMeter};
use weir_policy::PolicyHost;

use crate::contract_functions::call_function;
use crate::support::*;

#[derive(Default)]
pub(crate) struct UsageLog(Mutex<Vec<(TenantId, Usage)>>);

impl UsageLog {
    pub(crate) fn total_guest_micros(&self) -> u64 {
        self.0.lock().iter().map(|(_, usage)| usage.guest_micros).sum()
    }
}

impl UsageMeter for UsageLog {
    fn record_usage(&self, tenant: &TenantId, usage: &Usage) {
        self.0.lock().push((tenant.clone(), *usage));
    }
}

#[tokio::test]
async fn the_time_components_run_is_metered_to_the_tenant() {
    let usage_log = Arc::new(UsageLog::default());
    let mut config = test_config();
    config.call_timeout_millis = 20;
    config.usage_meter = Some(Arc::clone(&usage_log) as _);
    let host = PolicyHost::new(config).unwrap();
    let pipeline = pipeline_with_components("", &[(Role::Progress, "hostile-loop")]);
    let job = open_job(&host, &pipeline, &Arc::new(FakeCapabilities::default()))
        .await
        .unwrap();
    for _ in 0..100 {
        call_function(&job, "routing.page").await.unwrap();
    }
    // A hundred short calls are below the reporting threshold. A loop of twenty milliseconds is reported before the job ends.
    assert_eq!(usage_log.total_guest_micros(), 0);
    call_function(&job, "progress.observe").await.unwrap();
    assert!(
        usage_log.total_guest_micros() >= 20_000,
        "{}",
        usage_log.total_guest_micros()
    );
    for _ in 0..100 {
        call_function(&job, "routing.page").await.unwrap();
    }
    let ran = job.stats().guest_time.as_micros() as u64;
    assert!(usage_log.total_guest_micros() < ran);
    drop(job);
    assert_eq!(usage_log.total_guest_micros(), ran);
    assert!(
        usage_log
            .0
            .lock()
            .iter()
            .all(|(tenant, _)| *tenant == TenantId::default_tenant())
    );
}

#[tokio::test]
async fn inspection_time_is_metered_to_the_pushing_tenant() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("bomb.wasm");
    std::fs::write(&path, crate::compile_bomb::compile_bomb_component()).unwrap();
    let usage_log = Arc::new(UsageLog::default());
    let mut config = test_config();
    config.cache_folder = folder.path().join("compiled");
    config.max_compile_cpu_seconds = 1;
    config.call_timeout_millis = 20;
    config.usage_meter = Some(Arc::clone(&usage_log) as _);
    let host = PolicyHost::new(config).unwrap();
    let tenant: TenantId = "pushes".parse().unwrap();
    host.inspect_component(&tenant, &component_file(&path))
        .await
        .unwrap_err();
    // The limit counts whole clock ticks, and the charged time is exact, so that it can be less than 1 s on a busy machine.
    assert!(
        usage_log.total_guest_micros() >= 750_000,
        "{}",
        usage_log.total_guest_micros()
    );
    let before = usage_log.total_guest_micros();
    host.inspect_component(&tenant, &built_component("hostile-loop"))
        .await
        .unwrap_err();
    assert!(
        usage_log.total_guest_micros() >= before + 20_000,
        "{}",
        usage_log.total_guest_micros()
    );
    assert!(
        usage_log
            .0
            .lock()
            .iter()
            .all(|(metered_tenant, _)| *metered_tenant == tenant)
    );
}

#[tokio::test]
async fn metrics_count_calls_and_failures_by_role() {
    let recorder = PrometheusBuilder::new().build_recorder();
    let mut config = test_config();
    config.call_timeout_millis = 5;
    let host = metrics::with_local_recorder(&recorder, || PolicyHost::new(config)).unwrap();
    let own = [
        (Role::Routing, "hostile-trap"),
        (Role::Progress, "hostile-loop"),
        (Role::Batching, "hostile-invalid-batching"),
    ];
    let job = open_job(
        &host,
        &pipeline_with_components("", &own),
        &Arc::new(FakeCapabilities::default()),
    )
    .await
    .unwrap();
    for _ in 0..3 {
        call_function(&job, "routing.page").await.unwrap();
    }
    call_function(&job, "progress.observe").await.unwrap();
    call_function(&job, "batching.plan").await.unwrap();
    call_function(&job, "chunking.passages").await.unwrap();
    let value = |name: &str| -> f64 {
        let text = recorder.handle().render();
        let line = text.lines().find_map(|line| line.strip_prefix(name));
        line.unwrap_or_else(|| panic!("no metric {name} in\n{text}"))
            .trim()
            .parse()
            .unwrap()
    };
    // After each failed call the default component is called, which counts as a call as well.
    for (role, calls) in [
        ("routing", 6.0),
        ("progress", 2.0),
        ("batching", 2.0),
        ("chunking", 1.0),
    ] {
        assert_eq!(
            value(&format!("weir_policy_call_cpu_seconds_count{{role=\"{role}\"}} ")),
            calls,
            "{role}"
        );
    }
    for (role, kind, times) in [
        ("routing", "component-trap", 3.0),
        ("progress", "component-timeout", 1.0),
        ("batching", "component-invalid-decision", 1.0),
        ("chunking", "component-trap", 0.0),
    ] {
        let name = format!("weir_policy_call_failures_total{{role=\"{role}\",kind=\"{kind}\"}} ");
        assert_eq!(value(&name), times, "{name}");
    }
}
