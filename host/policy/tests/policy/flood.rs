//! Components that want too much of the host: of its time, its answers, its handles.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use rustix::time::{ClockId, clock_gettime};
use weir_core::PolicyError;
use weir_core::manifest::{Capability, Pipeline, Role};
use weir_core::ports::JobPolicy;
use weir_policy::PolicyHost;

use crate::asking::{FUNCTIONS, ask};
use crate::metering::Book;
use crate::support::*;

/// A pipeline of one component that may import everything.
fn granted(name: &str, role: Role) -> Pipeline {
    let mut pipeline = only(&[role], &component(name));
    pipeline.manifest.capabilities.grant = Capability::ALL.to_vec();
    pipeline
}

fn limit(error: &PolicyError) -> &str {
    match error {
        PolicyError::Limit { limit, .. } => limit,
        other => panic!("{other}"),
    }
}

#[tokio::test]
async fn each_flood_ends_at_a_limit_of_its_own() {
    for (name, said) in [
        ("hostile-questions", "1000 questions to the host in a call"),
        ("hostile-handles", "1024 handles"),
        ("hostile-answer", "1048576 bytes of output"),
    ] {
        let mut pipeline = granted(name, Role::Routing);
        pipeline.manifest.limits.call_millis = Some(1000);
        let job = open(&host(), &pipeline, &Arc::new(Port::default()))
            .await
            .unwrap();
        for _ in 0..2 {
            let error = ask(&job, "routing.page").await.unwrap_err();
            assert_eq!(limit(&error), said, "{name}");
        }
        assert!(job.stats().guest_time > Duration::ZERO);
    }
}

#[tokio::test]
async fn questions_are_counted_for_each_call() {
    let port = Arc::new(Port::default());
    let pipeline = granted("hostile-inference", Role::Routing);
    let job = open(&host(), &pipeline, &port).await.unwrap();
    for _ in 0..1001 {
        ask(&job, "routing.page").await.unwrap();
    }
    assert_eq!(port.generated.load(Ordering::Relaxed), 1001);
}

/// CPU time of this process, whose other threads have nothing to do meanwhile.
fn cpu() -> Duration {
    clock_gettime(ClockId::ProcessCPUTime).try_into().unwrap()
}

#[tokio::test(flavor = "current_thread")]
async fn an_instruction_that_takes_long_does_not_stretch_the_deadline() {
    let host = host();
    let pipeline = granted("hostile-copy", Role::Routing);
    let job = open(&host, &pipeline, &Arc::new(Port::default())).await.unwrap();
    let began = cpu();
    let error = ask(&job, "routing.page").await.unwrap_err();
    assert!(
        matches!(error, PolicyError::Deadline { millis: 50, .. }),
        "{error}"
    );
    // A copy takes several ticks. The memory is filled before the first, and the last is not interrupted.
    let took = cpu() - began;
    assert!(took < Duration::from_millis(50 + 50), "{took:?}");
}

#[tokio::test]
async fn who_sleeps_by_the_clock_is_woken_at_once_and_late_all_the_same() {
    let mut config = config();
    config.call_millis = 5;
    let host = PolicyHost::new(config).unwrap();
    for (function, role) in FUNCTIONS {
        let pipeline = granted("hostile-sleep", role);
        let job = open(&host, &pipeline, &Arc::new(Port::default())).await.unwrap();
        let error = ask(&job, function).await.unwrap_err();
        assert!(
            matches!(error, PolicyError::Deadline { millis: 5, .. }),
            "{error}"
        );
    }
}

#[tokio::test]
async fn who_waits_for_the_host_waits_for_a_minute_at_most_and_uses_none_of_its_time() {
    let state = Arc::new(MemoryState::default());
    let mut config = config();
    config.state = Arc::clone(&state) as _;
    let host = PolicyHost::new(config).unwrap();
    let pipeline = granted("hostile-state", Role::Batching);
    let job = open(&host, &pipeline, &Arc::new(Port::default())).await.unwrap();
    state.stuck.store(true, Ordering::Relaxed);
    tokio::time::pause();
    let began = tokio::time::Instant::now();
    let error = job.plan(situation()).await.unwrap_err();
    assert!(
        matches!(error, PolicyError::Deadline { millis: 60_000, .. }),
        "{error}"
    );
    assert!(began.elapsed() >= Duration::from_secs(60));
    // By the clock of the machine it was hardly a moment, and the next call finds everything as it should be.
    state.stuck.store(false, Ordering::Relaxed);
    job.plan(situation()).await.unwrap();
}

/// A component with a module more, which never ends to start: what it is for a component to have much to do before it is asked.
fn starting_without_end(component: &[u8]) -> Vec<u8> {
    // A section is its kind, its length in seven bits a byte, the low ones first, and what is in it.
    let (mut modules, mut at) = (0, 8);
    while at < component.len() {
        modules += u8::from(component[at] == 1);
        let (mut length, mut shift) = (0, 0);
        loop {
            at += 1;
            length |= usize::from(component[at] & 0x7f) << shift;
            shift += 7;
            if component[at] & 0x80 == 0 {
                break;
            }
        }
        at += 1 + length;
    }
    let module = [
        b"\0asm\x01\0\0\0".as_slice(),
        &[1, 4, 1, 0x60, 0, 0], // a function type without anything
        &[3, 2, 1, 0],          // a function of it
        &[8, 1, 0],             // which is called at the start
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
async fn a_start_that_never_ends_is_late_and_metered() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("starting.wasm");
    let routing = std::fs::read(component("routing").path).unwrap();
    std::fs::write(&path, starting_without_end(&routing)).unwrap();
    let book = Arc::new(Book::default());
    let mut config = config();
    config.call_millis = 20;
    config.meter = Some(Arc::clone(&book) as _);
    let host = PolicyHost::new(config).unwrap();
    let error = open(&host, &only(&[Role::Routing], &file(&path)), &Arc::default())
        .await
        .err()
        .unwrap();
    assert!(
        matches!(
            error,
            PolicyError::Deadline {
                function: "start",
                millis: 20,
                ..
            }
        ),
        "{error}"
    );
    assert!(book.micros() >= 20_000, "{}", book.micros());
}

#[tokio::test]
async fn trapping_now_and_then_does_not_help() {
    let mut pipeline = granted("hostile-later", Role::Routing);
    pipeline.manifest.settings.insert("attack".into(), "trap".into());
    let job = open(&host(), &pipeline, &Arc::new(Port::default()))
        .await
        .unwrap();
    for _ in 0..3 {
        ask(&job, "routing.page").await.unwrap();
        let error = ask(&job, "routing.page").await.unwrap_err();
        assert_eq!(error.kind(), "component-trap");
    }
    assert_eq!((job.stats().calls, job.stats().traps), (6, 3));
}
