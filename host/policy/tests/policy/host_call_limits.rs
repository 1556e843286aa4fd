//! Components that exceed the limits on host calls, handles, output and time.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use rustix::time::{ClockId, clock_gettime};
use weir_core::PolicyError;
use weir_core::manifest::{Capability, ResolvedPipeline, Role};
use weir_core::ports::JobPolicy;
use weir_policy::PolicyHost;

use crate::contract_functions::{CONTRACT_FUNCTIONS, call_function};
use crate::support::*;
use crate::usage_metering::UsageLog;

/// A pipeline of one component, with all capabilities granted.
fn pipeline_with_all_capabilities(name: &str, role: Role) -> ResolvedPipeline {
    let mut pipeline = single_component_pipeline(&[role], &built_component(name));
    pipeline.manifest.capabilities.grant = Capability::ALL.to_vec();
    pipeline
}

fn exceeded_limit(error: &PolicyError) -> &str {
    match error {
        PolicyError::LimitExceeded { limit, .. } => limit,
        other => panic!("{other}"),
    }
}

#[tokio::test]
async fn host_calls_handles_and_output_have_their_own_limits() {
    for (name, expected_limit) in [
        ("hostile-host-calls", "1000 host calls in a policy call"),
        ("hostile-handles", "1024 handles"),
        ("hostile-huge-decision", "1048576 bytes of output"),
    ] {
        let mut pipeline = pipeline_with_all_capabilities(name, Role::Routing);
        pipeline.manifest.limits.call_timeout_millis = Some(1000);
        let job = open_job(&new_host(), &pipeline, &Arc::new(FakeCapabilities::default()))
            .await
            .unwrap();
        for _ in 0..2 {
            let error = call_function(&job, "routing.page").await.unwrap_err();
            assert_eq!(exceeded_limit(&error), expected_limit, "{name}");
        }
        assert!(job.stats().guest_time > Duration::ZERO);
    }
}

#[tokio::test]
async fn host_calls_are_counted_per_policy_call() {
    let port = Arc::new(FakeCapabilities::default());
    let pipeline = pipeline_with_all_capabilities("hostile-inference", Role::Routing);
    let job = open_job(&new_host(), &pipeline, &port).await.unwrap();
    for _ in 0..1001 {
        call_function(&job, "routing.page").await.unwrap();
    }
    assert_eq!(port.generate_calls.load(Ordering::Relaxed), 1001);
}

/// Returns the CPU time of this process. Its other threads are idle during the test.
fn process_cpu_time() -> Duration {
    clock_gettime(ClockId::ProcessCPUTime).try_into().unwrap()
}

#[tokio::test(flavor = "current_thread")]
async fn a_long_instruction_does_not_extend_the_call_timeout() {
    let host = new_host();
    let pipeline = pipeline_with_all_capabilities("hostile-copy", Role::Routing);
    let job = open_job(&host, &pipeline, &Arc::new(FakeCapabilities::default()))
        .await
        .unwrap();
    let began = process_cpu_time();
    let error = call_function(&job, "routing.page").await.unwrap_err();
    assert!(
        matches!(error, PolicyError::CallTimeout { millis: 50, .. }),
        "{error}"
    );
    // One copy takes several ticks. Filling the memory precedes the first tick, and the last copy is not interrupted.
    let took = process_cpu_time() - began;
    assert!(took < Duration::from_millis(50 + 50), "{took:?}");
}

#[tokio::test]
async fn sleeping_in_a_loop_ends_at_the_call_timeout() {
    let mut config = test_config();
    config.call_timeout_millis = 5;
    let host = PolicyHost::new(config).unwrap();
    for (function, role) in CONTRACT_FUNCTIONS {
        let pipeline = pipeline_with_all_capabilities("hostile-sleep", role);
        let job = open_job(&host, &pipeline, &Arc::new(FakeCapabilities::default()))
            .await
            .unwrap();
        let error = call_function(&job, function).await.unwrap_err();
        assert!(
            matches!(error, PolicyError::CallTimeout { millis: 5, .. }),
            "{error}"
        );
    }
}

#[tokio::test]
async fn a_host_call_times_out_after_a_minute() {
    let state = Arc::new(FakeComponentState::default());
    let mut config = test_config();
    config.state = Arc::clone(&state) as _;
    let host = PolicyHost::new(config).unwrap();
    let pipeline = pipeline_with_all_capabilities("hostile-state", Role::Batching);
    let job = open_job(&host, &pipeline, &Arc::new(FakeCapabilities::default()))
        .await
        .unwrap();
    state.is_stuck.store(true, Ordering::Relaxed);
    tokio::time::pause();
    let began = tokio::time::Instant::now();
    let error = job.plan_batch(sample_batch_context()).await.unwrap_err();
    assert!(
        matches!(error, PolicyError::CallTimeout { millis: 60_000, .. }),
        "{error}"
    );
    assert!(began.elapsed() >= Duration::from_secs(60));
    // The wait used virtual time and hardly any CPU time, so the next call succeeds.
    state.is_stuck.store(false, Ordering::Relaxed);
    job.plan_batch(sample_batch_context()).await.unwrap();
}

/// Adds a module whose start function never returns to a component.
fn add_endless_start_function(component: &[u8]) -> Vec<u8> {
    // A section is its kind, its length in LEB128, and its content.
    let (mut modules, mut offset) = (0, 8);
    while offset < component.len() {
        modules += u8::from(component[offset] == 1);
        let (mut length, mut shift) = (0, 0);
        loop {
            offset += 1;
            length |= usize::from(component[offset] & 0x7f) << shift;
            shift += 7;
            if component[offset] & 0x80 == 0 {
                break;
            }
        }
        offset += 1 + length;
    }
    let module = [
        b"\0asm\x01\0\0\0".as_slice(),
        &[1, 4, 1, 0x60, 0, 0], // a function type without parameters and results
        &[3, 2, 1, 0],          // a function of this type
        &[8, 1, 0],             // the start section, which calls it
        &[10, 9, 1, 7, 0, 0x03, 0x40, 0x0c, 0, 0x0b, 0x0b], // loop { continue }
    ]
    .concat();
    [
        component,
        &[1, u8::try_from(module.len()).unwrap()],
        &module,
        &[2, 4, 1, 0, modules, 0], // an instance of that module, without arguments
    ]
    .concat()
}

#[tokio::test]
async fn an_endless_start_function_times_out_and_is_metered() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("starting.wasm");
    let routing = std::fs::read(built_component("routing").file).unwrap();
    std::fs::write(&path, add_endless_start_function(&routing)).unwrap();
    let usage_log = Arc::new(UsageLog::default());
    let mut config = test_config();
    config.call_timeout_millis = 20;
    config.usage_meter = Some(Arc::clone(&usage_log) as _);
    let host = PolicyHost::new(config).unwrap();
    let error = open_job(
        &host,
        &single_component_pipeline(&[Role::Routing], &component_file(&path)),
        &Arc::default(),
    )
    .await
    .err()
    .unwrap();
    assert!(
        matches!(
            error,
            PolicyError::CallTimeout {
                function: "start",
                millis: 20,
                ..
            }
        ),
        "{error}"
    );
    assert!(
        usage_log.total_guest_micros() >= 20_000,
        "{}",
        usage_log.total_guest_micros()
    );
}

#[tokio::test]
async fn instance_is_replaced_after_each_trap() {
    let mut pipeline = pipeline_with_all_capabilities("hostile-second-page", Role::Routing);
    pipeline.manifest.settings.insert("attack".into(), "trap".into());
    let job = open_job(&new_host(), &pipeline, &Arc::new(FakeCapabilities::default()))
        .await
        .unwrap();
    for _ in 0..3 {
        call_function(&job, "routing.page").await.unwrap();
        let error = call_function(&job, "routing.page").await.unwrap_err();
        assert_eq!(error.kind(), "component-trap");
    }
    assert_eq!((job.stats().calls, job.stats().failed_calls), (6, 3));
}
