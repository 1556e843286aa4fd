//! Whose job is next.

use std::time::Duration;

use weir_core::Lane;
use weir_core::order::Order;
use weir_core::settings::Settings;

use super::{Bench, order_of, tenant};
use crate::fakes::Host;

#[test]
fn who_has_three_times_the_weight_has_three_times_the_turns() {
    let mut bench = Bench::of(1);
    bench.terms.insert(tenant("heavy"), (3.0, None));
    bench.many("heavy", 60);
    bench.many("light", 60);
    let heavy = (0..40)
        .filter(|_| bench.start().unwrap().job.tenant == tenant("heavy"))
        .count();
    assert!((29..=31).contains(&heavy), "{heavy}");
}

#[test]
fn a_flood_is_one_tenant_among_others() {
    let bench = Bench::of(1);
    bench.many("flood", 500);
    drop(bench.start());
    bench.many("late", 1);
    let next: Vec<_> = (0..2)
        .map(|_| bench.start().unwrap().job.tenant.clone())
        .collect();
    assert!(next.contains(&tenant("late")), "{next:?}");
}

#[tokio::test(start_paused = true)]
async fn what_someone_waits_for_goes_first_and_the_rest_still_moves() {
    let bench = Bench::of(1);
    // Ten pages, so eleven seconds by its measure.
    let bulk = bench.waits("a", 900_000, Lane::Bulk);
    let mut before = 0;
    loop {
        bench.waits("a", 900_000, Lane::Interactive);
        if bench.start().unwrap().job.job == bulk {
            break;
        }
        before += 1;
        tokio::time::advance(Duration::from_secs(1)).await;
    }
    assert!(
        (76..=79).contains(&before),
        "{before}: seven times its eleven seconds"
    );
}

#[tokio::test(start_paused = true)]
async fn small_jobs_overtake_a_large_one_for_a_while() {
    let bench = Bench::of(1);
    let large = bench.waits("a", 10_000_000, Lane::Bulk);
    let mut before = 0;
    loop {
        let small = bench.waits("a", 100_000, Lane::Bulk);
        tokio::time::advance(Duration::from_secs(5)).await;
        let next = bench.start().unwrap().job.job;
        if next == large {
            break;
        }
        assert_eq!(next, small);
        before += 1;
    }
    assert!((30..=40).contains(&before), "{before}");
}

#[tokio::test]
async fn size_says_what_a_job_costs_and_how_urgent_it_is() {
    let host = Host::with(Settings {
        server_interactive_bytes: 1_000_000,
        ..Settings::default()
    });
    let waiting = |bytes, lane| {
        let waiting = host
            .app
            .admission
            .waiting(&order_of("a", bytes, lane), Duration::ZERO);
        (waiting.lane, waiting.cost.round())
    };
    assert_eq!(waiting(1_000_000, None), (Lane::Interactive, 11.0));
    assert_eq!(waiting(1_000_001, None), (Lane::Bulk, 11.0));
    assert_eq!(waiting(1, Some(Lane::Bulk)).0, Lane::Bulk);
    // Who wants three pages of a long document has three pages done.
    let mut order = order_of("a", 50_000_000, None);
    order.options.pages = Some((100, 102));
    let cost = |order: &Order| host.app.admission.waiting(order, Duration::ZERO).cost;
    assert_eq!(cost(&order), 3.0);
    order.files.push(order.files[0].clone());
    assert_eq!(cost(&order), 6.0);
    order.files.clear();
    assert_eq!(cost(&order), 1.0);
}
