use std::collections::HashMap;
use std::time::Duration;

use super::*;

fn party(tenant: &str, lane: Lane, weight: f64) -> Party {
    let account = Account {
        tenant: tenant.parse().unwrap(),
        lane,
        linger: Duration::ZERO,
        weight,
    };
    Party { account, room: 0 }
}

const fn ms(n: u64) -> Duration {
    Duration::from_millis(n)
}

/// Places that are always taken, by parties who stay for a time each.
struct Places {
    line: Line<(Party, Duration)>,
    inside: Vec<(Instant, Party)>,
    now: Instant,
    places: usize,
    /// The tenant that alone may go in, if there is one.
    only: Option<&'static str>,
    had: HashMap<TenantId, Duration>,
    entered: Vec<String>,
}

impl Places {
    fn new(places: usize) -> Self {
        let now = Instant::now();
        Self {
            line: Line::new(now),
            inside: Vec::new(),
            now,
            places,
            only: None,
            had: HashMap::new(),
            entered: Vec::new(),
        }
    }

    fn come(&mut self, count: usize, party: &Party, stay: Duration) {
        for _ in 0..count {
            self.line.push(party, (party.clone(), stay), self.now);
        }
        self.fill();
    }

    fn fill(&mut self) {
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

    /// Lets whoever is done by `end` leave, and others in.
    fn until(&mut self, end: Duration) {
        let end = self.now + end;
        while let Some(first) = (0..self.inside.len()).min_by_key(|i| self.inside[*i].0)
            && self.inside[first].0 <= end
        {
            let (at, party) = self.inside.remove(first);
            self.now = at;
            self.line.leave(&party, at);
            self.fill();
        }
        self.now = end;
    }

    fn had(&self, tenant: &str) -> f64 {
        self.had[&tenant.parse().unwrap()].as_secs_f64()
    }
}

#[test]
fn the_next_places_are_a_newcomers_until_it_holds_its_share() {
    let mut places = Places::new(4);
    let (crowd, late) = (party("crowd", Lane::Bulk, 1.0), party("late", Lane::Bulk, 1.0));
    // Four places that fall free one after the other.
    for i in 1..=4 {
        places.come(1, &crowd, ms(250 * i));
    }
    places.come(1000, &crowd, ms(1000));
    places.until(ms(10_100));
    places.entered.clear();
    places.come(10, &late, ms(1000));
    places.until(ms(2000));
    assert_eq!(places.entered[..2], ["late", "late"]);
    let late = places.entered.iter().filter(|t| *t == "late").count();
    assert!((4..=5).contains(&late), "{:?}", places.entered);
}

#[test]
fn time_is_shared_by_weight_whatever_a_page_takes() {
    for places in [1, 3, 8] {
        for (weight, heavy_stay, light_stay) in [(3.0, 10, 10), (3.0, 40, 10), (0.5, 7, 30)] {
            let mut places = Places::new(places);
            places.come(20_000, &party("heavy", Lane::Bulk, weight), ms(heavy_stay));
            places.come(20_000, &party("light", Lane::Bulk, 1.0), ms(light_stay));
            places.until(ms(20_000));
            let ratio = places.had("heavy") / places.had("light");
            assert!((ratio / weight - 1.0).abs() < 0.02, "{ratio} for {weight}");
        }
    }
}

#[test]
fn interactive_work_goes_first_and_bulk_work_still_moves() {
    let mut places = Places::new(2);
    places.come(20_000, &party("a", Lane::Bulk, 1.0), ms(10));
    places.come(20_000, &party("b", Lane::Interactive, 1.0), ms(10));
    places.until(ms(20_000));
    let ratio = places.had("b") / places.had("a");
    assert!((ratio / 8.0 - 1.0).abs() < 0.02, "{ratio}");
}

#[test]
fn who_was_idle_has_saved_up_nothing_and_nobody_sheds_its_past() {
    let mut places = Places::new(2);
    let (steady, other) = (party("steady", Lane::Bulk, 1.0), party("other", Lane::Bulk, 1.0));
    places.come(10_000, &steady, ms(10));
    places.until(ms(10_000));
    // After ten seconds without anything it gets its share from now on.
    places.entered.clear();
    places.come(1000, &other, ms(10));
    places.until(ms(1000));
    let others = places.entered.iter().filter(|t| *t == "other").count();
    assert!((98..=102).contains(&others), "{others}");

    // One page of a second, then away for a moment: it has had its share until the others have had as much.
    let mut places = Places::new(1);
    let greedy = party("greedy", Lane::Bulk, 1.0);
    places.come(200, &steady, ms(10));
    places.come(1, &greedy, ms(1000));
    places.until(ms(1500));
    places.entered.clear();
    places.come(1, &greedy, ms(1000));
    places.until(ms(490));
    assert!(
        places.entered.iter().all(|t| t == "steady"),
        "{:?}",
        places.entered
    );
    places.until(ms(1100));
    assert!(places.entered.iter().any(|t| t == "greedy"));
}

#[test]
fn a_newcomer_gives_back_the_time_it_was_ahead() {
    for lane in [Lane::Bulk, Lane::Interactive] {
        let mut places = Places::new(2);
        let (flood, late) = (party("flood", Lane::Bulk, 1.0), party("late", lane, 1.0));
        places.come(10_000, &flood, ms(100));
        places.until(ms(1000));
        places.had.clear();
        places.come(10_000, &late, ms(100));
        places.only = Some("late");
        places.until(ms(2000));
        assert!(places.had("late") >= 3.8);
        // While it is ahead the others' clock stands still; they have their turns until both have had their share.
        places.only = None;
        places.until(ms(40_000));
        let (flood, late) = (places.had("flood"), places.had("late"));
        let share = if lane == Lane::Bulk { 1.0 } else { 8.0 };
        assert!((late / flood / share - 1.0).abs() < 0.03, "{flood} and {late}");
    }
}

#[test]
fn places_that_nobody_waited_for_are_no_debt_and_no_credit() {
    let mut line = Line::<()>::new(Instant::now());
    let (early, late) = (party("early", Lane::Bulk, 1.0), party("late", Lane::Bulk, 1.0));
    let mut now = Instant::now();
    for _ in 0..100 {
        line.enter(&early, now);
        now += ms(1000);
        line.leave(&early, now);
    }
    // Now it gets busy.
    line.enter(&early, now);
    let mut served = Vec::new();
    for _ in 0..10 {
        line.push(&early, (), now);
        line.push(&late, (), now);
    }
    let mut inside = early.clone();
    for _ in 0..10 {
        now += ms(1000);
        line.leave(&inside, now);
        let early_waits = line.bulk.tenants[&early.account.tenant].turns[0].waiting.len();
        line.pop(|_| true, |()| true, now).unwrap();
        let early_left = line.bulk.tenants[&early.account.tenant]
            .turns
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
fn who_gave_up_costs_nobody_a_turn() {
    let mut line = Line::new(Instant::now());
    let now = Instant::now();
    for (tenant, name) in [
        ("a", "a1"),
        ("a", "gone"),
        ("b", "gone"),
        ("b", "b1"),
        ("c", "gone"),
    ] {
        line.push(&party(tenant, Lane::Bulk, 1.0), name, now);
    }
    let order: Vec<_> = std::iter::from_fn(|| line.pop(|_| true, |name| *name != "gone", now)).collect();
    assert_eq!(order, ["a1", "b1"]);
    assert!(line.is_empty());
}

#[test]
fn who_may_not_go_in_waits_and_keeps_its_turn() {
    let mut line = Line::new(Instant::now());
    let now = Instant::now();
    for (tenant, lane) in [("a", Lane::Interactive), ("b", Lane::Bulk), ("c", Lane::Bulk)] {
        line.push(&party(tenant, lane, 1.0), tenant, now);
    }
    let only_c = |id: &TenantId| id.to_string() == "c";
    assert_eq!(line.pop(only_c, |_| true, now), Some("c"));
    assert_eq!(line.pop(only_c, |_| true, now), None);
    let rest: Vec<_> = std::iter::from_fn(|| line.pop(|_| true, |_| true, now)).collect();
    assert_eq!(rest, ["a", "b"]);
}

#[test]
fn tenants_who_left_are_forgotten() {
    let mut line = Line::new(Instant::now());
    let mut now = Instant::now();
    for tenant in 0..500 {
        let party = party(&format!("t{tenant}"), Lane::Interactive, f64::NAN);
        line.push(&party, (), now);
        assert_eq!(line.pop(|_| true, |()| true, now), Some(()));
        now += ms(10);
        line.leave(&party, now);
    }
    assert!(line.interactive.tenants.is_empty());
}
