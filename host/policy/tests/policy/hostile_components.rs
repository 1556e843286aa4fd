//! Components that trap, loop or exceed their limits.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use parking_lot::Mutex;
use weir_core::PolicyError;
use weir_core::manifest::Role;
use weir_core::ports::JobPolicy;
use weir_policy::PolicyHost;

use crate::contract_functions::{CONTRACT_FUNCTIONS, call_function, failed_function};
use crate::support::*;

/// Returns the error of one call of a component without a fallback.
async fn call_error(name: &str, function: &str, role: Role) -> PolicyError {
    let job = open_job(
        &new_host(),
        &single_component_pipeline(&[role], &built_component(name)),
        &Arc::new(FakeCapabilities::default()),
    )
    .await
    .unwrap();
    call_function(&job, function).await.unwrap_err()
}

#[tokio::test]
async fn guest_panic_is_reported_as_trap_with_message_and_function() {
    for (function, role) in CONTRACT_FUNCTIONS {
        let error = call_error("hostile-trap", function, role).await;
        let PolicyError::Trap {
            component, reason, ..
        } = &error
        else {
            panic!("{error}");
        };
        assert_eq!(
            (component.as_str(), failed_function(&error)),
            ("hostile-trap", function)
        );
        assert!(reason.contains("the weir is broken"), "{reason}");
        assert!(reason.contains("attack::trap"), "{reason}");
        assert!(reason.contains("attack.rs:"), "{reason}");
        assert!(!error.to_string().contains('\n'), "{error}");
    }
}

#[tokio::test]
async fn an_endless_loop_ends_at_its_call_timeout() {
    let mut config = test_config();
    config.call_timeout_millis = 5;
    let host = PolicyHost::new(config).unwrap();
    let pipeline = single_component_pipeline(&Role::ALL, &built_component("hostile-loop"));
    let job = open_job(&host, &pipeline, &Arc::new(FakeCapabilities::default()))
        .await
        .unwrap();
    for (function, _) in CONTRACT_FUNCTIONS {
        let error = call_function(&job, function).await.unwrap_err();
        assert!(
            matches!(error, PolicyError::CallTimeout { millis: 5, .. }),
            "{error}"
        );
        assert_eq!(failed_function(&error), function);
    }
    assert_eq!(job.stats().failed_calls, 7);
    // One instance at the start and a new one for each call after the first.
    assert_eq!(host.stats().instances_created, 7);
}

#[tokio::test(flavor = "current_thread")]
async fn a_looping_component_lets_other_tasks_run() {
    let host = new_host();
    let port = Arc::new(FakeCapabilities::default());
    let looping = open_job(
        &host,
        &single_component_pipeline(&[Role::Routing], &built_component("hostile-loop")),
        &port,
    )
    .await
    .unwrap();
    let other = open_job(&host, &pipeline_with_components("", &[]), &port)
        .await
        .unwrap();
    let ended = Mutex::new(Vec::new());
    tokio::join!(
        async {
            call_function(&looping, "routing.page").await.unwrap_err();
            ended.lock().push("loop");
        },
        async {
            for number in 1..=5 {
                // Lets the looping call run between the calls.
                tokio::task::yield_now().await;
                other
                    .route_page(&sample_document_id(), sample_page(number))
                    .await
                    .unwrap();
            }
            ended.lock().push("other");
        }
    );
    assert_eq!(*ended.lock(), ["other", "loop"]);
}

#[tokio::test]
async fn memory_stack_and_output_are_limited() {
    for (name, function, role, limit) in [
        (
            "hostile-memory",
            "batching.plan",
            Role::Batching,
            "33554432 bytes of memory",
        ),
        (
            "hostile-memory",
            "chunking.summarize",
            Role::Chunking,
            "33554432 bytes of memory",
        ),
        ("hostile-stack", "routing.page", Role::Routing, "stack"),
        ("hostile-stack", "progress.observe", Role::Progress, "stack"),
        (
            "hostile-output",
            "routing.document",
            Role::Routing,
            "1048576 bytes of output",
        ),
        (
            "hostile-output",
            "chunking.passages",
            Role::Chunking,
            "1048576 bytes of output",
        ),
        (
            "hostile-output",
            "progress.observe",
            Role::Progress,
            "1048576 bytes of output",
        ),
    ] {
        let error = call_error(name, function, role).await;
        let PolicyError::LimitExceeded {
            limit: exceeded_limit,
            ..
        } = &error
        else {
            panic!("{name} {function}: {error}");
        };
        assert!(
            exceeded_limit.contains(limit),
            "{name} {function}: {exceeded_limit}"
        );
    }
}

#[tokio::test]
async fn manifest_limits_override_host_limits() {
    let own = single_component_pipeline(&[Role::Batching], &built_component("hostile-memory"));
    let mut tight = own.clone();
    tight.manifest.limits.max_memory_bytes = Some(4 << 20);
    let mut short_timeout = single_component_pipeline(&[Role::Batching], &built_component("hostile-loop"));
    short_timeout.manifest.limits.call_timeout_millis = Some(3);
    let mut long_timeout = short_timeout.clone();
    long_timeout.manifest.limits.call_timeout_millis = Some(60_000);
    let mut config = test_config();
    config.call_timeout_millis = 1;
    let host = PolicyHost::new(config).unwrap();
    let port = Arc::new(FakeCapabilities::default());
    for (pipeline, expected) in [
        (tight, "4194304 bytes of memory"),
        (short_timeout, "within 3 ms"),
        // At most 20 times the host's call timeout.
        (long_timeout, "within 20 ms"),
    ] {
        let job = open_job(&host, &pipeline, &port).await.unwrap();
        let error = call_function(&job, "batching.plan")
            .await
            .unwrap_err()
            .to_string();
        assert!(error.contains(expected), "{error}");
    }
}

#[tokio::test]
async fn the_default_component_is_the_fallback() {
    let host = new_host();
    let port = Arc::new(FakeCapabilities::default());
    let own = Role::ALL.map(|role| (role, "hostile-trap"));
    let job = open_job(&host, &pipeline_with_components("", &own), &port)
        .await
        .unwrap();
    for (function, _) in CONTRACT_FUNCTIONS {
        call_function(&job, function).await.unwrap();
        call_function(&job, function).await.unwrap();
    }
    let failed = port.policy_errors.lock().clone();
    assert_eq!(failed.len(), 14);
    for (pair, (function, _)) in failed.chunks(2).zip(CONTRACT_FUNCTIONS) {
        assert!(
            pair.iter()
                .all(|e| failed_function(e) == function && e.kind() == "component-trap")
        );
    }
    let stats = job.stats();
    assert_eq!(
        (stats.failed_calls, stats.fallback_calls, stats.calls),
        (14, 14, 28)
    );
    // Fourteen of the trapping component, including the one created at the start, and four of the fallbacks.
    assert_eq!(host.stats().instances_created, 18);
}

#[tokio::test]
async fn no_fallback_is_used_when_on_component_failure_is_fail() {
    let host = new_host();
    let port = Arc::new(FakeCapabilities::default());
    let own = [(Role::Routing, "hostile-trap")];
    let job = open_job(
        &host,
        &pipeline_with_components("on-component-failure = 'fail'", &own),
        &port,
    )
    .await
    .unwrap();
    let error = call_function(&job, "routing.page").await.unwrap_err();
    assert_eq!(error.kind(), "component-trap");
    call_function(&job, "batching.plan").await.unwrap();
    assert!(port.policy_errors.lock().is_empty());
}

#[tokio::test]
async fn next_call_after_a_dropped_call_gets_a_fresh_instance() {
    let state = Arc::new(FakeComponentState::default());
    let mut config = test_config();
    config.state = Arc::clone(&state) as _;
    let host = PolicyHost::new(config).unwrap();
    let mut pipeline = single_component_pipeline(&[Role::Batching], &built_component("hostile-state"));
    pipeline.manifest.capabilities.grant = vec![weir_core::manifest::Capability::State];
    let job = open_job(&host, &pipeline, &Arc::new(FakeCapabilities::default()))
        .await
        .unwrap();

    state.is_stuck.store(true, Ordering::Relaxed);
    {
        let call = std::pin::pin!(job.plan_batch(sample_batch_context()));
        assert!(futures::poll!(call).is_pending());
    }
    assert_eq!(state.reads.load(Ordering::Relaxed), 1);
    assert_eq!(host.stats().instances_created, 1);
    state.is_stuck.store(false, Ordering::Relaxed);
    job.plan_batch(sample_batch_context()).await.unwrap();
    assert_eq!(host.stats().instances_created, 2);
    // A job that is closed during a call releases its instance as well.
    state.is_stuck.store(true, Ordering::Relaxed);
    {
        let job = Arc::clone(&job);
        let call = std::pin::pin!(async move { job.plan_batch(sample_batch_context()).await });
        assert!(futures::poll!(call).is_pending());
    }
    drop(job);
    assert_eq!(host.stats().free_instances, 16);
}

#[tokio::test(flavor = "current_thread")]
async fn job_log_is_limited_to_1000_lines_of_1000_characters() {
    let lines = Arc::new(LineLengths::default());
    let _guard = tracing::subscriber::set_default(Arc::clone(&lines));
    let pipeline = single_component_pipeline(&[Role::Routing], &built_component("hostile-log"));
    let mut pipeline_with_long_timeout = pipeline.clone();
    pipeline_with_long_timeout.manifest.limits.call_timeout_millis = Some(1000);
    let job = open_job(
        &new_host(),
        &pipeline_with_long_timeout,
        &Arc::new(FakeCapabilities::default()),
    )
    .await
    .unwrap();
    call_function(&job, "routing.page").await.unwrap();
    call_function(&job, "routing.page").await.unwrap();
    let lines = lines.0.lock();
    // The last line says that further lines are dropped.
    assert_eq!(lines.len(), 1001);
    assert!(lines[..1000].iter().all(|&length| length == 1000));
}

/// Collects the lengths of the guests' log lines.
#[derive(Default)]
struct LineLengths(Mutex<Vec<usize>>);

struct LengthVisitor(usize);

impl tracing::field::Visit for LengthVisitor {
    fn record_debug(&mut self, field: &tracing::field::Field, value: &dyn std::fmt::Debug) {
        if field.name() == "message" {
            self.0 = format!("{value:?}").len();
        }
    }
}

impl tracing::Subscriber for LineLengths {
    fn enabled(&self, metadata: &tracing::Metadata<'_>) -> bool {
        metadata.target() == "guest"
    }
    fn new_span(&self, _: &tracing::span::Attributes<'_>) -> tracing::span::Id {
        tracing::span::Id::from_u64(1)
    }
    fn record(&self, _: &tracing::span::Id, _: &tracing::span::Record<'_>) {}
    fn record_follows_from(&self, _: &tracing::span::Id, _: &tracing::span::Id) {}
    fn event(&self, event: &tracing::Event<'_>) {
        let mut length = LengthVisitor(0);
        event.record(&mut length);
        self.0.lock().push(length.0);
    }
    fn enter(&self, _: &tracing::span::Id) {}
    fn exit(&self, _: &tracing::span::Id) {}
}
