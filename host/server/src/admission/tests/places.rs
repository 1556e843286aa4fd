//! How many wait and how many are in work.

use weir_core::Lane;
use weir_core::settings::Settings;
use weir_core::tenancy::Scope;

use super::{Bench, order_of, tenant};
use crate::admission::{Cancelled, Refusal, Standing};
use crate::fakes::{Host, eventually, refusal};

#[test]
fn a_tenant_has_so_many_jobs_in_work() {
    let mut bench = Bench::of(100);
    bench.terms.insert(tenant("a"), (1.0, Some(2)));
    bench.many("a", 5);
    bench.many("b", 3);
    let mut slots = bench.start_all();
    assert_eq!(bench.admission.counts(&tenant("a")), (3, 2));
    assert_eq!(
        bench.admission.counts(&tenant("b")),
        (0, 3),
        "who has no such limit"
    );
    slots.retain(|slot| slot.job.tenant == tenant("a"));
    assert!(bench.start().is_none());
    slots.pop();
    let next = bench.start().unwrap();
    assert_eq!(next.job.tenant, tenant("a"));
    assert!(bench.start().is_none());
}

#[test]
fn the_last_quarter_of_the_places_is_for_who_has_none() {
    let bench = Bench::of(8);
    bench.many("flood", 20);
    let mut flood = bench.start_all();
    assert_eq!(flood.len(), 6);
    bench.many("x", 2);
    let x = bench.start_all();
    assert_eq!(x.len(), 1, "its second has to wait as the flood's do");
    bench.many("y", 1);
    let y = bench.start_all();
    assert_eq!(y.len(), 1);
    bench.many("z", 1);
    assert!(bench.start().is_none(), "eight is all there are");
    flood.pop();
    let z = bench.start().unwrap();
    assert_eq!(z.job.tenant, tenant("z"));
    assert!(bench.start().is_none());
    drop((x, y, z));
    let next = bench.start_all();
    assert_eq!(next.len(), 2, "the second of x, and one more of the flood");
}

#[test]
fn no_more_jobs_wait_than_may_with_those_that_are_still_coming() {
    let bench = Bench::with(&Settings {
        server_queue: 4,
        ..Settings::default()
    });
    let (a, b) = (tenant("a"), tenant("b"));
    let reserve = |tenant, limit| bench.admission.reserve(tenant, limit);
    let first = reserve(&a, Some(2)).unwrap();
    let second = reserve(&a, Some(2)).unwrap();
    assert_eq!(reserve(&a, Some(2)).err(), Some(Refusal::Tenant));
    // One becomes a job, which counts on; one breaks off, which does not.
    first.fill(&order_of("a", 1, None));
    assert_eq!(bench.admission.counts(&a), (1, 0));
    drop(second);
    let third = reserve(&a, Some(2)).unwrap();
    assert_eq!(reserve(&a, Some(2)).err(), Some(Refusal::Tenant));
    let others = [reserve(&b, None).unwrap(), reserve(&b, None).unwrap()];
    assert_eq!(reserve(&b, None).err(), Some(Refusal::Host));
    // What has begun does not wait.
    let begun = bench.start().unwrap();
    assert!(reserve(&b, None).is_ok());
    drop((third, others, begun));
    assert_eq!(bench.admission.counts(&a), (0, 0));
}

#[tokio::test]
async fn a_full_queue_says_whose_and_when_to_come_again() {
    let host = Host::with(Settings {
        server_queue: 3,
        ..Settings::default()
    });
    let (a, key) = host.tenant("a", &[Scope::Ingest]).await;
    let (_, other) = host.tenant("b", &[Scope::Ingest]).await;
    host.quota(&a, "queued_jobs", 2).await;
    let first = host.submitted(&key, "1 pages 1").await;
    host.submitted(&key, "1 pages 2").await;
    let refused = refusal(host.submit(&key, "1 pages 3").await).await;
    assert_eq!(
        (refused.status, refused.retry_after),
        (429, Some(5)),
        "{refused:?}"
    );
    assert_eq!(refused.quota.as_deref(), Some("queued_jobs"));
    host.submitted(&other, "1 pages").await;
    let refused = refusal(host.submit(&other, "1 pages").await).await;
    assert_eq!(
        (refused.status, refused.kind.as_str(), refused.retry_after),
        (503, "overloaded", Some(10))
    );
    assert_eq!(refused.quota, None);
    assert!(matches!(
        host.app.admission.cancel(&a, first),
        Cancelled::Waiting(_)
    ));
    assert_eq!(host.submit(&key, "1 pages 3").await.status(), 202);
}

#[test]
fn a_job_stands_among_its_tenants_own() {
    let bench = Bench::of(1);
    bench.many("b", 10);
    let first = bench.waits("a", 1, Lane::Bulk);
    let second = bench.waits("a", 1, Lane::Bulk);
    let (a, b) = (tenant("a"), tenant("b"));
    let waits = |position| Some(Standing::Waiting { position, held: None });
    assert_eq!(bench.admission.standing(&a, first), waits(1));
    assert_eq!(bench.admission.standing(&a, second), waits(2));
    assert_eq!(bench.admission.standing(&b, second), None, "it is not his");
    let slot = bench.start().unwrap();
    assert_eq!(slot.job.job, first, "of tenants who are equal the first by name");
    let running = |cancelling| match bench.admission.standing(&a, first) {
        Some(Standing::Running {
            cancelling: is_it, ..
        }) => is_it == cancelling,
        _ => false,
    };
    assert!(running(false));
    assert_eq!(bench.admission.standing(&b, first), None);
    assert_eq!(bench.admission.cancel(&b, first), Cancelled::Unknown);
    assert!(running(false));
    assert_eq!(bench.admission.cancel(&a, first), Cancelled::Running);
    assert!(running(true) && slot.cancel.is_cancelled());
    drop(slot);
    assert_eq!(bench.admission.standing(&a, first), None);
    assert_eq!(bench.admission.standing(&a, second), waits(1));
}

#[tokio::test]
async fn a_tenant_leaves_when_nothing_of_it_is_under_way_and_gets_nothing_in_meanwhile() {
    let bench = Bench::of(2);
    let a = tenant("a");
    bench.many("a", 3);
    bench.many("b", 1);
    let slots = bench.start_all();
    let upload = bench.admission.reserve(&a, None).unwrap();
    let admission = std::sync::Arc::clone(&bench.admission);
    let leaving = tokio::spawn({
        let a = a.clone();
        async move { admission.leave(&a).await }
    });
    let cancelled = async || slots.iter().any(|slot| slot.cancel.is_cancelled());
    eventually(bench.admission.moves(), cancelled).await;
    assert_eq!(bench.admission.counts(&a), (0, 1));
    assert_eq!(bench.admission.reserve(&a, None).err(), Some(Refusal::Leaving));
    let others: Vec<_> = slots.iter().filter(|slot| slot.job.tenant != a).collect();
    assert!(others.len() == 1 && !others[0].cancel.is_cancelled());

    drop(slots);
    tokio::task::yield_now().await;
    assert!(!leaving.is_finished(), "a file of it is still coming in");
    // It comes to its end, and nothing comes of it.
    upload.fill(&order_of("a", 1, None));
    let left = leaving.await.unwrap();
    assert_eq!(bench.admission.counts(&a), (0, 0));
    drop(left);
    assert!(bench.admission.reserve(&a, None).is_ok());
}
