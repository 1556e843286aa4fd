//! Jobs of the last process.

use std::time::Duration;

use weir_core::event::EventKind;
use weir_core::ledger::{Entry, JobState};
use weir_core::ports::Ledger as _;
use weir_core::settings::Settings;

use super::{waits, written};
use crate::admission::restore;
use crate::fakes::{Host, eventually, job_record};

#[tokio::test]
async fn they_go_on_oldest_first_under_their_own_ids() {
    let host = Host::with(Settings {
        server_jobs: 1,
        ..Settings::default()
    });
    let (a, _) = host.tenant("a", &[]).await;
    let mut orders = Vec::new();
    for age in [3, 1, 2] {
        orders.push(written(&host, &a, &format!("1 pages {age}"), age).await);
    }
    // One had ended.
    let ended = job_record(&a, weir_core::JobId::new(), JobState::Cancelled);
    host.memory.commit(vec![Entry::Job(ended)]).await.unwrap();
    restore(&host.app).await.unwrap();
    assert_eq!(host.app.admission.counts(&a), (3, 0));
    let _dispatching = host.dispatching();
    host.until(&a, orders[0].job, JobState::Done).await;
    let opened: Vec<_> = host.works.opened().iter().map(|opened| opened.job).collect();
    assert_eq!(opened, [orders[1].job, orders[2].job, orders[0].job]);
}

#[tokio::test]
async fn a_job_in_work_goes_on_where_it_was() {
    let host = Host::new();
    let (a, _) = host.tenant("a", &[]).await;
    host.works.hold();
    let job = waits(&host, &a, "3 pages").await;
    let mut dispatching = host.dispatching();
    host.until(&a, job, JobState::Running).await;
    host.works.let_pages(1);
    let document = weir_core::DocumentId::of(b"3 pages");
    let pages = async || host.memory.pages(&a, &document, None).await.unwrap().len();
    eventually(host.app.ledger.bell(&a), async || pages().await == 1).await;
    host.app.stopping.cancel();
    host.app.engine.suspend(Duration::ZERO).await.unwrap();
    dispatching.join_next().await.unwrap().unwrap();
    let record = host.memory.job(&a, &job).await.unwrap().unwrap();
    assert_eq!(record.state, JobState::Running);

    let next = host.again();
    restore(&next.app).await.unwrap();
    let _dispatching = next.dispatching();
    next.until(&a, job, JobState::Done).await;
    let now = next.memory.job(&a, &job).await.unwrap().unwrap();
    assert_eq!(now.created_millis, record.created_millis);
    assert_eq!(pages().await, 3);
    let events = next.memory.events(&a, &job, 0, 1000).await.unwrap();
    let numbers: Vec<_> = events.iter().map(|event| event.seq).collect();
    assert_eq!(numbers, (1..=events.len() as u64).collect::<Vec<_>>());
    let begun: Vec<_> = events
        .iter()
        .filter_map(|event| match event.what {
            EventKind::DocumentStarted { already_done, .. } => Some(already_done),
            _ => None,
        })
        .collect();
    assert_eq!(begun, [0, 1]);
    let done = |what: &EventKind| matches!(what, EventKind::PageDone { .. });
    assert_eq!(events.iter().filter(|event| done(&event.what)).count(), 3);
}

#[tokio::test]
async fn a_job_that_nobody_ordered_ends() {
    let host = Host::new();
    let (a, _) = host.tenant("a", &[]).await;
    let job = host.job(&a).await;
    host.events(&a, job, 1, 3, false).await;
    restore(&host.app).await.unwrap();
    let record = host.memory.job(&a, &job).await.unwrap().unwrap();
    assert_eq!(record.state, JobState::Failed);
    let events = host.memory.events(&a, &job, 0, 10).await.unwrap();
    assert_eq!((events.len(), events[3].seq), (4, 4));
    assert!(events[3].at_millis >= events[2].at_millis);
    assert_eq!(
        events[3].what,
        EventKind::JobEnded {
            state: JobState::Failed,
            stages: Vec::new(),
        }
    );
    assert_eq!(host.app.admission.counts(&a), (0, 0));
}
