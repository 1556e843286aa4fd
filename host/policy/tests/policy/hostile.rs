//! Components that trap, loop, and take more than they may.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use parking_lot::Mutex;
use weir_core::PolicyError;
use weir_core::manifest::Role;
use weir_core::ports::JobPolicy;
use weir_policy::PolicyHost;

use crate::asking::{FUNCTIONS, ask, function_of};
use crate::support::*;

/// The error of one call of a component that stands alone.
async fn error_of(name: &str, function: &str, role: Role) -> PolicyError {
    let job = open(
        &host(),
        &only(&[role], &component(name)),
        &Arc::new(Port::default()),
    )
    .await
    .unwrap();
    ask(&job, function).await.unwrap_err()
}

#[tokio::test]
async fn a_panic_is_a_trap_with_its_message_and_the_guests_function() {
    for (function, role) in FUNCTIONS {
        let error = error_of("hostile-trap", function, role).await;
        let PolicyError::Trap {
            component, reason, ..
        } = &error
        else {
            panic!("{error}");
        };
        assert_eq!(
            (component.as_str(), function_of(&error)),
            ("hostile-trap", function)
        );
        assert!(reason.contains("the weir is broken"), "{reason}");
        assert!(reason.contains("attack::trap"), "{reason}");
        assert!(reason.contains("attack.rs:"), "{reason}");
        assert!(!error.to_string().contains('\n'), "{error}");
    }
}

#[tokio::test]
async fn an_endless_loop_ends_at_its_deadline() {
    let mut config = config();
    config.call_millis = 5;
    let host = PolicyHost::new(config).unwrap();
    let pipeline = only(&Role::ALL, &component("hostile-loop"));
    let job = open(&host, &pipeline, &Arc::new(Port::default())).await.unwrap();
    for (function, _) in FUNCTIONS {
        let error = ask(&job, function).await.unwrap_err();
        assert!(
            matches!(error, PolicyError::Deadline { millis: 5, .. }),
            "{error}"
        );
        assert_eq!(function_of(&error), function);
    }
    assert_eq!(job.stats().traps, 7);
    // The first instance, and one for each call after the first.
    assert_eq!(host.stats().instances, 7);
}

#[tokio::test(flavor = "current_thread")]
async fn a_loop_lets_others_run() {
    let host = host();
    let port = Arc::new(Port::default());
    let looping = open(&host, &only(&[Role::Routing], &component("hostile-loop")), &port)
        .await
        .unwrap();
    let other = open(&host, &pipeline("", &[]), &port).await.unwrap();
    let ended = Mutex::new(Vec::new());
    tokio::join!(
        async {
            ask(&looping, "routing.page").await.unwrap_err();
            ended.lock().push("loop");
        },
        async {
            for number in 1..=5 {
                // Gives the loop its turn again and again.
                tokio::task::yield_now().await;
                other.route_page(&document(), page(number)).await.unwrap();
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
        let error = error_of(name, function, role).await;
        let PolicyError::Limit { limit: said, .. } = &error else {
            panic!("{name} {function}: {error}");
        };
        assert!(said.contains(limit), "{name} {function}: {said}");
    }
}

#[tokio::test]
async fn a_manifest_sets_limits_of_its_own() {
    let own = only(&[Role::Batching], &component("hostile-memory"));
    let mut tight = own.clone();
    tight.manifest.limits.memory_bytes = Some(4 << 20);
    let mut hurried = only(&[Role::Batching], &component("hostile-loop"));
    hurried.manifest.limits.call_millis = Some(3);
    let mut endless = hurried.clone();
    endless.manifest.limits.call_millis = Some(60_000);
    let mut config = config();
    config.call_millis = 1;
    let host = PolicyHost::new(config).unwrap();
    let port = Arc::new(Port::default());
    for (pipeline, said) in [
        (tight, "4194304 bytes of memory"),
        (hurried, "within 3 ms"),
        // At most 20 times the host's.
        (endless, "within 20 ms"),
    ] {
        let job = open(&host, &pipeline, &port).await.unwrap();
        let error = ask(&job, "batching.plan").await.unwrap_err().to_string();
        assert!(error.contains(said), "{error}");
    }
}

#[tokio::test]
async fn the_default_stands_in_where_the_manifest_says_so() {
    let host = host();
    let port = Arc::new(Port::default());
    let own = Role::ALL.map(|role| (role, "hostile-trap"));
    let job = open(&host, &pipeline("", &own), &port).await.unwrap();
    for (function, _) in FUNCTIONS {
        ask(&job, function).await.unwrap();
        ask(&job, function).await.unwrap();
    }
    let failed = port.failed.lock().clone();
    assert_eq!(failed.len(), 14);
    for (pair, (function, _)) in failed.chunks(2).zip(FUNCTIONS) {
        assert!(
            pair.iter()
                .all(|e| function_of(e) == function && e.kind() == "component-trap")
        );
    }
    let stats = job.stats();
    assert_eq!((stats.traps, stats.stood_in, stats.calls), (14, 14, 28));
    // Fourteen of the one that traps (the first was there already), four that stand in.
    assert_eq!(host.stats().instances, 18);
}

#[tokio::test]
async fn nobody_stands_in_where_the_manifest_says_fail() {
    let host = host();
    let port = Arc::new(Port::default());
    let own = [(Role::Routing, "hostile-trap")];
    let job = open(&host, &pipeline("on-trap = 'fail'", &own), &port)
        .await
        .unwrap();
    let error = ask(&job, "routing.page").await.unwrap_err();
    assert_eq!(error.kind(), "component-trap");
    ask(&job, "batching.plan").await.unwrap();
    assert!(port.failed.lock().is_empty());
}

#[tokio::test]
async fn a_call_that_is_dropped_leaves_a_fresh_instance() {
    let state = Arc::new(MemoryState::default());
    let mut config = config();
    config.state = Arc::clone(&state) as _;
    let host = PolicyHost::new(config).unwrap();
    let mut pipeline = only(&[Role::Batching], &component("hostile-state"));
    pipeline.manifest.capabilities.grant = vec![weir_core::manifest::Capability::State];
    let job = open(&host, &pipeline, &Arc::new(Port::default())).await.unwrap();

    state.stuck.store(true, Ordering::Relaxed);
    {
        let call = std::pin::pin!(job.plan(situation()));
        assert!(futures::poll!(call).is_pending());
    }
    assert_eq!(state.asked.load(Ordering::Relaxed), 1);
    assert_eq!(host.stats().instances, 1);
    state.stuck.store(false, Ordering::Relaxed);
    job.plan(situation()).await.unwrap();
    assert_eq!(host.stats().instances, 2);
    // A job that is closed in the middle of a call gives its place back as well.
    state.stuck.store(true, Ordering::Relaxed);
    {
        let job = Arc::clone(&job);
        let call = std::pin::pin!(async move { job.plan(situation()).await });
        assert!(futures::poll!(call).is_pending());
    }
    drop(job);
    assert_eq!(host.stats().free_places, 16);
}

#[tokio::test(flavor = "current_thread")]
async fn a_job_logs_a_thousand_lines_of_a_thousand_characters() {
    let lines = Arc::new(Lines::default());
    let _guard = tracing::subscriber::set_default(Arc::clone(&lines));
    let pipeline = only(&[Role::Routing], &component("hostile-log"));
    let mut roomy = pipeline.clone();
    roomy.manifest.limits.call_millis = Some(1000);
    let job = open(&host(), &roomy, &Arc::new(Port::default())).await.unwrap();
    ask(&job, "routing.page").await.unwrap();
    ask(&job, "routing.page").await.unwrap();
    let lines = lines.0.lock();
    // And one that says that there are no more.
    assert_eq!(lines.len(), 1001);
    assert!(lines[..1000].iter().all(|&length| length == 1000));
}

/// Lengths of the guests' lines.
#[derive(Default)]
struct Lines(Mutex<Vec<usize>>);

struct Length(usize);

impl tracing::field::Visit for Length {
    fn record_debug(&mut self, field: &tracing::field::Field, value: &dyn std::fmt::Debug) {
        if field.name() == "message" {
            self.0 = format!("{value:?}").len();
        }
    }
}

impl tracing::Subscriber for Lines {
    fn enabled(&self, metadata: &tracing::Metadata<'_>) -> bool {
        metadata.target() == "guest"
    }
    fn new_span(&self, _: &tracing::span::Attributes<'_>) -> tracing::span::Id {
        tracing::span::Id::from_u64(1)
    }
    fn record(&self, _: &tracing::span::Id, _: &tracing::span::Record<'_>) {}
    fn record_follows_from(&self, _: &tracing::span::Id, _: &tracing::span::Id) {}
    fn event(&self, event: &tracing::Event<'_>) {
        let mut length = Length(0);
        event.record(&mut length);
        self.0.lock().push(length.0);
    }
    fn enter(&self, _: &tracing::span::Id) {}
    fn exit(&self, _: &tracing::span::Id) {}
}
