use std::collections::HashMap;
use std::time::Duration;

use super::*;

fn test_flow(tenant: &str, lane: Lane, weight: f64) -> Flow {
    let account = SchedulingContext {
        tenant: tenant.parse().unwrap(),
        lane,
        group: 0,
        batch_linger: Duration::ZERO,
        tenant_weight: weight,
    };
    Flow { account, queue_id: 0 }
}

const fn millis(n: u64) -> Duration {
    Duration::from_millis(n)
}

/// A simulation of slots that are always in use. Each item holds its slot for a given time.
struct SimulatedWorkers {
    line: FairQueue<(Flow, Duration)>,
    inside: Vec<(Instant, Flow)>,
    now: Instant,
    places: usize,
    /// The only eligible tenant, if there is one.
    only: Option<&'static str>,
    had: HashMap<TenantId, Duration>,
    entered: Vec<String>,
}

impl SimulatedWorkers {
    fn new(places: usize) -> Self {
        let now = Instant::now();
        Self {
            line: FairQueue::new(now),
            inside: Vec::new(),
            now,
            places,
            only: None,
            had: HashMap::new(),
            entered: Vec::new(),
        }
    }

    fn submit_items(&mut self, count: usize, party: &Flow, stay: Duration) {
        for _ in 0..count {
            self.line.push(party, (party.clone(), stay), self.now);
        }
        self.fill_slots();
    }

    fn fill_slots(&mut self) {
        while self.inside.len() < self.places {
            let may = |tenant: &TenantId| self.only.is_none_or(|only| tenant.as_str() == only);
            let Some((party, stay)) = self.line.pop(may, |_| true, self.now) else {
                return;
            };
            *self.had.entry(party.account.tenant.clone()).or_default() += stay;
            self.entered.push(party.account.tenant.to_string());
            self.inside.push((self.now + stay, party));
        }
    }

    /// Advances the time by `end`, frees the slots of items that are done and fills them again.
    fn run_for(&mut self, end: Duration) {
        let end = self.now + end;
        while let Some(first) = (0..self.inside.len()).min_by_key(|i| self.inside[*i].0)
            && self.inside[first].0 <= end
        {
            let (at, party) = self.inside.remove(first);
            self.now = at;
            self.line.record_exit(&party, at);
            self.fill_slots();
        }
        self.now = end;
    }

    fn service_seconds(&self, tenant: &str) -> f64 {
        self.had[&tenant.parse().unwrap()].as_secs_f64()
    }
}

#[test]
fn new_tenant_gets_next_slots_until_it_holds_its_share() {
    let mut places = SimulatedWorkers::new(4);
    let (crowd, late) = (
        test_flow("crowd", Lane::Bulk, 1.0),
        test_flow("late", Lane::Bulk, 1.0),
    );
    // Four slots that become free one after the other.
    for i in 1..=4 {
        places.submit_items(1, &crowd, millis(250 * i));
    }
    places.submit_items(1000, &crowd, millis(1000));
    places.run_for(millis(10_100));
    places.entered.clear();
    places.submit_items(10, &late, millis(1000));
    places.run_for(millis(2000));
    assert_eq!(places.entered[..2], ["late", "late"]);
    let late = places.entered.iter().filter(|t| *t == "late").count();
    assert!((4..=5).contains(&late), "{:?}", places.entered);
}

#[test]
fn service_time_is_shared_by_weight_not_by_page_cost() {
    for places in [1, 3, 8] {
        for (weight, heavy_stay, light_stay) in [(3.0, 10, 10), (3.0, 40, 10), (0.5, 7, 30)] {
            let mut places = SimulatedWorkers::new(places);
            places.submit_items(
                20_000,
                &test_flow("heavy", Lane::Bulk, weight),
                millis(heavy_stay),
            );
            places.submit_items(20_000, &test_flow("light", Lane::Bulk, 1.0), millis(light_stay));
            places.run_for(millis(20_000));
            let ratio = places.service_seconds("heavy") / places.service_seconds("light");
            assert!((ratio / weight - 1.0).abs() < 0.02, "{ratio} for {weight}");
        }
    }
}

#[test]
fn interactive_work_goes_first_and_bulk_work_still_moves() {
    let mut places = SimulatedWorkers::new(2);
    places.submit_items(20_000, &test_flow("a", Lane::Bulk, 1.0), millis(10));
    places.submit_items(20_000, &test_flow("b", Lane::Interactive, 1.0), millis(10));
    places.run_for(millis(20_000));
    let ratio = places.service_seconds("b") / places.service_seconds("a");
    assert!((ratio / 8.0 - 1.0).abs() < 0.02, "{ratio}");
}

#[test]
fn idle_tenant_gains_no_credit_and_keeps_its_debt() {
    let mut places = SimulatedWorkers::new(2);
    let (steady, other) = (
        test_flow("steady", Lane::Bulk, 1.0),
        test_flow("other", Lane::Bulk, 1.0),
    );
    places.submit_items(10_000, &steady, millis(10));
    places.run_for(millis(10_000));
    // After ten idle seconds, the tenant gets its share from now on.
    places.entered.clear();
    places.submit_items(1000, &other, millis(10));
    places.run_for(millis(1000));
    let others = places.entered.iter().filter(|t| *t == "other").count();
    assert!((98..=102).contains(&others), "{others}");

    // After one page of a second and a short idle time, it waits until the other tenant has had as much time.
    let mut places = SimulatedWorkers::new(1);
    let greedy = test_flow("greedy", Lane::Bulk, 1.0);
    places.submit_items(200, &steady, millis(10));
    places.submit_items(1, &greedy, millis(1000));
    places.run_for(millis(1500));
    places.entered.clear();
    places.submit_items(1, &greedy, millis(1000));
    places.run_for(millis(490));
    assert!(
        places.entered.iter().all(|t| t == "steady"),
        "{:?}",
        places.entered
    );
    places.run_for(millis(1100));
    assert!(places.entered.iter().any(|t| t == "greedy"));
}

#[test]
fn boosted_tenant_repays_the_boost() {
    for lane in [Lane::Bulk, Lane::Interactive] {
        let mut places = SimulatedWorkers::new(2);
        let (flood, late) = (test_flow("flood", Lane::Bulk, 1.0), test_flow("late", lane, 1.0));
        places.submit_items(10_000, &flood, millis(100));
        places.run_for(millis(1000));
        places.had.clear();
        places.submit_items(10_000, &late, millis(100));
        places.only = Some("late");
        places.run_for(millis(2000));
        assert!(places.service_seconds("late") >= 3.8);
        // Now the other tenant goes first until both have had their share.
        places.only = None;
        places.run_for(millis(40_000));
        let (flood, late) = (places.service_seconds("flood"), places.service_seconds("late"));
        let share = if lane == Lane::Bulk { 1.0 } else { 8.0 };
        assert!((late / flood / share - 1.0).abs() < 0.03, "{flood} and {late}");
    }
}

#[test]
fn uncontended_slots_create_no_debt_and_no_credit() {
    let mut line = FairQueue::<()>::new(Instant::now());
    let (early, late) = (
        test_flow("early", Lane::Bulk, 1.0),
        test_flow("late", Lane::Bulk, 1.0),
    );
    let mut now = Instant::now();
    for _ in 0..100 {
        line.record_unqueued_entry(&early, now);
        now += millis(1000);
        line.record_exit(&early, now);
    }
    // Both tenants have waiters from here on.
    line.record_unqueued_entry(&early, now);
    let mut served = Vec::new();
    for _ in 0..10 {
        line.push(&early, (), now);
        line.push(&late, (), now);
    }
    let mut inside = early.clone();
    for _ in 0..10 {
        now += millis(1000);
        line.record_exit(&inside, now);
        let early_waits = line.bulk.tenants[&early.account.tenant].flows[0].waiting.len();
        line.pop(|_| true, |()| true, now).unwrap();
        let early_left = line.bulk.tenants[&early.account.tenant]
            .flows
            .front()
            .map_or(0, |turn| turn.waiting.len());
        inside = if early_left < early_waits {
            early.clone()
        } else {
            late.clone()
        };
        served.push(inside.account.tenant.to_string());
    }
    let early = served.iter().filter(|t| *t == "early").count();
    assert!((4..=6).contains(&early), "{served:?}");
}

#[test]
fn cancelled_item_costs_no_turn() {
    let mut line = FairQueue::new(Instant::now());
    let now = Instant::now();
    for (tenant, name) in [
        ("a", "a1"),
        ("a", "gone"),
        ("b", "gone"),
        ("b", "b1"),
        ("c", "gone"),
    ] {
        line.push(&test_flow(tenant, Lane::Bulk, 1.0), name, now);
    }
    let order: Vec<_> = std::iter::from_fn(|| line.pop(|_| true, |name| *name != "gone", now)).collect();
    assert_eq!(order, ["a1", "b1"]);
    assert!(line.is_empty());
}

#[test]
fn ineligible_tenant_waits_and_keeps_its_turn() {
    let mut line = FairQueue::new(Instant::now());
    let now = Instant::now();
    for (tenant, lane) in [("a", Lane::Interactive), ("b", Lane::Bulk), ("c", Lane::Bulk)] {
        line.push(&test_flow(tenant, lane, 1.0), tenant, now);
    }
    let only_c = |id: &TenantId| id.to_string() == "c";
    assert_eq!(line.pop(only_c, |_| true, now), Some("c"));
    assert_eq!(line.pop(only_c, |_| true, now), None);
    let rest: Vec<_> = std::iter::from_fn(|| line.pop(|_| true, |_| true, now)).collect();
    assert_eq!(rest, ["a", "b"]);
}

#[test]
fn idle_tenants_are_removed() {
    let mut line = FairQueue::new(Instant::now());
    let mut now = Instant::now();
    for tenant in 0..500 {
        let party = test_flow(&format!("t{tenant}"), Lane::Interactive, f64::NAN);
        line.push(&party, (), now);
        assert_eq!(line.pop(|_| true, |()| true, now), Some(()));
        now += millis(10);
        line.record_exit(&party, now);
    }
    assert!(line.interactive.tenants.is_empty());
}
