use std::collections::HashMap;

use super::*;

fn flow(tenant: &str, lane: PriorityLane) -> Flow {
    Flow {
        lane,
        tenant: tenant.parse().unwrap(),
        group: 0,
        weight: 1.0,
    }
}

fn bulk(tenant: &str) -> Flow {
    flow(tenant, PriorityLane::Bulk)
}

fn push_many(queue: &mut FairQueue<&'static str>, flow: &Flow, count: u64, cost: f64, item: &'static str) {
    (0..count).for_each(|order| queue.push(flow, order, cost, item));
}

fn pop_many<T>(queue: &mut FairQueue<T>, count: usize) -> Vec<T> {
    (0..count).map_while(|_| queue.pop()).collect()
}

fn count(items: &[&str], item: &str) -> usize {
    items.iter().filter(|other| **other == item).count()
}

#[test]
fn three_requests_do_not_wait_behind_a_thousand() {
    let mut queue = FairQueue::new();
    push_many(&mut queue, &bulk("crowd"), 1000, 1.0, "crowd");
    pop_many(&mut queue, 100);
    push_many(&mut queue, &bulk("late"), 3, 1.0, "late");
    let next = pop_many(&mut queue, 7);
    assert_eq!(count(&next, "late"), 3, "{next:?}");
    assert_eq!(queue.len(), 1000 - 100 - 4);
    assert_eq!(queue.len_of_tenant(&"crowd".parse().unwrap()), queue.len());
}

#[test]
fn shares_follow_weight() {
    let mut queue = FairQueue::new();
    let heavy = Flow {
        weight: 3.0,
        ..bulk("heavy")
    };
    push_many(&mut queue, &heavy, 1000, 1.0, "heavy");
    push_many(&mut queue, &bulk("light"), 1000, 1.0, "light");
    let heavy = count(&pop_many(&mut queue, 400), "heavy");
    assert!((298..=302).contains(&heavy), "{heavy}");
}

#[test]
fn shares_follow_cost() {
    let mut queue = FairQueue::new();
    push_many(&mut queue, &bulk("long"), 1000, 10.0, "long");
    push_many(&mut queue, &bulk("short"), 1000, 1.0, "short");
    let long = count(&pop_many(&mut queue, 550), "long");
    assert!((48..=52).contains(&long), "{long}");
}

#[test]
fn weights_share_a_lane_and_lanes_share_the_resource() {
    let mut queue = FairQueue::new();
    push_many(&mut queue, &bulk("a"), 1000, 1.0, "a");
    let heavy = Flow {
        weight: 3.0,
        ..bulk("b")
    };
    push_many(&mut queue, &heavy, 1000, 1.0, "b");
    let invalid = Flow {
        weight: f64::NAN,
        ..flow("c", PriorityLane::Interactive)
    };
    push_many(&mut queue, &invalid, 1000, 1.0, "c");
    let mut served: HashMap<_, i32> = HashMap::new();
    for item in pop_many(&mut queue, 900) {
        *served.entry(item).or_default() += 1;
    }
    assert!((served["c"] - 800).abs() <= 2, "{served:?}");
    assert!(
        (served["b"] - 75).abs() <= 2 && (served["a"] - 25).abs() <= 2,
        "{served:?}"
    );
}

#[test]
fn idle_tenant_saves_up_no_share() {
    let mut queue = FairQueue::new();
    push_many(&mut queue, &bulk("busy"), 200, 1.0, "busy");
    pop_many(&mut queue, 100);
    push_many(&mut queue, &bulk("idle"), 100, 1.0, "idle");
    let next = pop_many(&mut queue, 20);
    assert!((9..=11).contains(&count(&next, "idle")), "{next:?}");
}

#[test]
fn tenant_that_empties_its_queue_still_owes_what_it_was_served() {
    let mut queue = FairQueue::new();
    push_many(&mut queue, &bulk("steady"), 10, 1.0, "steady");
    queue.push(&bulk("greedy"), 0, 5.0, "greedy");
    let mut served = pop_many(&mut queue, 2);
    // It comes back at once with the next costly request and must let five cheap ones go first.
    queue.push(&bulk("greedy"), 0, 5.0, "greedy");
    served.extend(pop_many(&mut queue, 6));
    assert_eq!(count(&served, "greedy"), 2, "{served:?}");
    assert_eq!(count(&served[..6], "greedy"), 1, "{served:?}");
}

#[test]
fn interactive_work_goes_first_and_bulk_work_still_moves() {
    let mut queue = FairQueue::new();
    push_many(&mut queue, &bulk("a"), 1000, 1.0, "bulk");
    push_many(
        &mut queue,
        &flow("b", PriorityLane::Interactive),
        1000,
        1.0,
        "interactive",
    );
    let served = count(&pop_many(&mut queue, 900), "bulk");
    assert!((99..=101).contains(&served), "{served}");
    assert_eq!(pop_many(&mut queue, 2000).len(), 1100);
}

#[test]
fn requests_of_a_group_keep_their_order_and_a_retry_its_place() {
    let mut queue = FairQueue::new();
    for order in [1, 2, 2, 3] {
        queue.push(&bulk("a"), order, 1.0, order);
        queue.push(&bulk("b"), order + 10, 1.0, order + 10);
    }
    assert_eq!(pop_many(&mut queue, 2), [1, 11]);
    for _ in 0..2 {
        queue.push(&bulk("a"), 1, 1.0, 1);
    }
    let next = pop_many(&mut queue, 8);
    let (a, b): (Vec<u64>, Vec<u64>) = next.iter().partition(|order| **order < 10);
    assert_eq!((a, b), (vec![1, 1, 2, 2, 3], vec![12, 12, 13]));
    // The other tenant is still served every second time.
    assert_eq!(
        next.iter().take(6).filter(|order| **order > 10).count(),
        3,
        "{next:?}"
    );
}

#[test]
fn many_groups_give_a_tenant_no_larger_share() {
    let mut queue = FairQueue::new();
    for group in 0..50 {
        let many = Flow {
            group,
            ..bulk("many")
        };
        push_many(&mut queue, &many, 2, 1.0, "many");
    }
    push_many(&mut queue, &bulk("one"), 3, 1.0, "one");
    assert_eq!(
        pop_many(&mut queue, 6),
        ["many", "one", "many", "one", "many", "one"]
    );

    let mut queue = FairQueue::new();
    for (group, item) in [(1, "a1"), (1, "a2"), (1, "a3"), (2, "b1"), (3, "c1"), (2, "b2")] {
        let flow = Flow { group, ..bulk("a") };
        queue.push(&flow, 0, 1.0, item);
    }
    assert_eq!(pop_many(&mut queue, 6), ["a1", "b1", "c1", "a2", "b2", "a3"]);
}

#[test]
fn next_request_of_each_tenant_is_in_order_of_turns() {
    let mut queue = FairQueue::new();
    for (tenant, group, item) in [(1_u64, 1, "a1"), (1, 2, "a2"), (2, 3, "b1"), (2, 4, "b2")] {
        let flow = Flow {
            lane: PriorityLane::Bulk,
            tenant,
            group,
            weight: 1.0,
        };
        queue.push(&flow, 0, 1.0, item);
    }
    let items = |queue: &FairQueue<&'static str, u64>| {
        let next = queue.next_request_of_each_tenant(PriorityLane::Bulk);
        next.into_iter().map(|(_, item)| *item).collect::<Vec<_>>()
    };
    assert_eq!(items(&queue), ["a1", "b1"]);
    let second = queue.next_request_of_each_tenant(PriorityLane::Bulk)[1].0.clone();
    assert_eq!(queue.take_request_and_charge(&second), Some("b1"));
    assert_eq!(items(&queue), ["a1", "b2"]);
    assert_eq!(queue.pop(), Some("a1"));
    assert_eq!(items(&queue), ["b2", "a2"]);
    assert!(
        queue
            .next_request_of_each_tenant(PriorityLane::Interactive)
            .is_empty()
    );
}

#[test]
fn equal_tenants_are_served_in_order_of_arrival() {
    let mut queue = FairQueue::new();
    for tenant in ["c", "a", "b"] {
        queue.push(&bulk(tenant), 0, 1.0, tenant);
    }
    assert_eq!(pop_many(&mut queue, 3), ["c", "a", "b"]);
}

#[test]
fn idle_bulk_lane_gains_no_credit() {
    let mut queue = FairQueue::with_max_credit(100.0);
    push_many(
        &mut queue,
        &flow("a", PriorityLane::Interactive),
        100,
        1.0,
        "interactive",
    );
    pop_many(&mut queue, 50);
    push_many(&mut queue, &bulk("b"), 20, 1.0, "bulk");
    let bulk = count(&pop_many(&mut queue, 27), "bulk");
    assert!((3..=4).contains(&bulk), "{bulk}");
}

#[test]
fn request_that_is_not_accepted_keeps_its_turn() {
    let mut queue = FairQueue::new();
    let one = bulk("one");
    queue.push(&one, 1, 1.0, "image");
    queue.push(&one, 3, 1.0, "text");
    queue.push(&one, 2, 1.0, "retried");
    let (position, item) = queue.find_next_accepted_request(|item| *item != "image").unwrap();
    assert_eq!(*item, "retried");
    assert_eq!(queue.take_request_and_charge(&position), Some("retried"));
    assert_eq!(queue.pop(), Some("image"));
    assert_eq!(queue.withdraw_uncharged(&one, 3), Some("text"));
    assert_eq!(queue.withdraw_uncharged(&one, 3), None);
    assert!(queue.is_empty() && queue.bulk.tenants.is_empty());
}

#[test]
fn withdrawn_requests_are_gone_and_charge_nobody() {
    let mut queue = FairQueue::new();
    for order in 0..10 {
        queue.push(&bulk("a"), order, 1.0, order);
        queue.push(&flow("b", PriorityLane::Interactive), order, 1.0, order);
    }
    assert_eq!(
        queue.withdraw_matching_uncharged(|order| order % 2 == 0).len(),
        10
    );
    assert_eq!((queue.len(), queue.iter().count()), (10, 10));
    assert!(pop_many(&mut queue, 20).iter().all(|order| order % 2 == 1));
}

#[test]
fn tags_of_tenants_without_requests_are_dropped() {
    let mut queue = FairQueue::new();
    for n in 0..500 {
        queue.push(&bulk(&format!("t{n}")), n, 1.0, n);
    }
    pop_many(&mut queue, 500);
    assert!(queue.bulk.tenants.is_empty() && queue.bulk.clock.is_empty());
}

#[test]
fn corrected_charge_equals_actual_cost() {
    let mut queue = FairQueue::new();
    push_many(&mut queue, &bulk("modest"), 100, 1.0, "modest");
    push_many(&mut queue, &bulk("costly"), 100, 1.0, "costly");
    let mut costly = 0;
    for _ in 0..44 {
        if queue.pop() == Some("costly") {
            costly += 1;
            queue.correct_charge_to_actual_cost(&bulk("costly"), 1.0, 10.0);
        }
    }
    assert!((4..=5).contains(&costly), "{costly}");
}

#[test]
fn newcomer_goes_ahead_until_its_credit_is_used() {
    let mut queue = FairQueue::with_max_credit(5.0);
    push_many(&mut queue, &bulk("flood"), 1000, 1.0, "flood");
    pop_many(&mut queue, 50);
    push_many(&mut queue, &bulk("newcomer"), 100, 1.0, "newcomer");
    let next = pop_many(&mut queue, 20);
    // The tag of the flood's next request is one request later than the virtual time.
    assert!(next[..5].iter().all(|item| *item == "newcomer"), "{next:?}");
    let later = count(&next[6..], "newcomer");
    assert!((6..=8).contains(&later), "{next:?}");
}

#[test]
fn credit_grows_only_with_unused_share() {
    let mut queue = FairQueue::with_max_credit(5.0);
    push_many(&mut queue, &bulk("flood"), 10_000, 1.0, "flood");
    pop_many(&mut queue, 50);
    // A tenant that comes back for one request after each served request of the other gets no more than half.
    let mut order = 0;
    let mut returning = 0;
    for _ in 0..1000 {
        if queue.len_of_tenant(&"returning".parse().unwrap()) == 0 {
            order += 1;
            queue.push(&bulk("returning"), order, 1.0, "returning");
        }
        returning += usize::from(queue.pop() == Some("returning"));
    }
    assert!((495..=508).contains(&returning), "{returning}");
}

#[test]
fn credit_of_many_newcomers_moves_no_other_tag() {
    let mut queue = FairQueue::with_max_credit(5.0);
    push_many(&mut queue, &bulk("flood"), 1000, 1.0, "flood");
    pop_many(&mut queue, 50);
    for n in 0..10 {
        push_many(&mut queue, &bulk(&format!("newcomer{n}")), 5, 1.0, "newcomer");
    }
    let next = pop_many(&mut queue, 51);
    assert_eq!(count(&next, "newcomer"), 50, "{next:?}");
    assert_eq!(next[50], "flood");
}

#[test]
fn request_taken_out_of_turn_is_repaid() {
    for late in [bulk("late"), flow("late", PriorityLane::Interactive)] {
        let mut queue = FairQueue::new();
        push_many(&mut queue, &bulk("flood"), 1000, 1.0, "flood");
        pop_many(&mut queue, 50);
        push_many(&mut queue, &late, 1000, 1.0, "late");
        for _ in 0..20 {
            let (position, _) = queue.find_next_accepted_request(|item| *item == "late").unwrap();
            queue.take_request_out_of_turn(&position);
        }
        let repaid = match late.lane {
            PriorityLane::Bulk => 19,
            PriorityLane::Interactive => 2,
        };
        let next = pop_many(&mut queue, 400);
        assert_eq!(count(&next[..repaid], "flood"), repaid, "{next:?}");
        let share = (count(&next, "late") + 20) as f64 / count(&next, "flood") as f64;
        let expected = late.lane.lane_weight();
        assert!((share / expected - 1.0).abs() < 0.1, "{share}");
    }
}
