//! A node that is frozen for longer than its lease.

use weir_test_services::PostgresSession;
use weir_tests::cluster::{BookJobs, ClaimLog, Cluster, Node};
use weir_tests::wait_until;

use crate::settings;

/// When the frozen node continues.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Thaw {
    WhileTheJobRunsElsewhere,
    AfterTheJobHasEnded,
}

/// Blocks the commits of a tenant until it is dropped.
fn lock_tenant(cluster: &Cluster, tenant: &str) -> PostgresSession {
    let mut session = cluster.postgres.open_session();
    session.query(&format!(
        "SELECT pg_advisory_lock(hashtextextended('tenant {tenant}', 0))"
    ));
    session
}

/// Freezes the node while a commit of its job waits for the tenant's lock. So it tries this commit again when it continues.
fn freeze_within_a_commit(cluster: &Cluster, node: &Node) {
    let lock = lock_tenant(cluster, "tenant-1");
    wait_until(|| {
        let waiting = cluster
            .postgres
            .query("SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND NOT granted");
        match waiting.as_str() {
            "0" => Err("no commit waits for the tenant's lock".into()),
            _ => Ok(()),
        }
    });
    node.freeze();
    drop(lock);
}

fn count_events(cluster: &Cluster) -> String {
    cluster
        .postgres
        .query("SELECT count(*), max(position) FROM events")
}

fn check_frozen_node(thaw: Thaw) {
    let cluster = Cluster::start_with_redis(settings::nodes());
    let nodes = cluster.start_nodes(2);
    let log = ClaimLog::install(&cluster.postgres);
    let mut books = BookJobs::create_tenants(&nodes[0], 1, settings::pages());
    let job = books.submit(&nodes[0]).id;
    cluster.wait_until_page_is_done(&job);
    let owner = cluster.owner_of(&job);
    let (frozen, other) = match owner.as_str() {
        "node-1" => (&nodes[0], &nodes[1]),
        _ => (&nodes[1], &nodes[0]),
    };
    assert_eq!(frozen.name(), owner);
    let key = books.keys()[0].clone();
    let fenced = |node: &Node| {
        node.client_with_key(&key)
            .metric_value("weir_fenced_writes_total")
    };
    assert_eq!(fenced(frozen), 0.0);

    freeze_within_a_commit(&cluster, frozen);
    wait_until(|| match cluster.owner_of(&job) {
        owner if owner == other.name() => Ok(()),
        owner => Err(format!("the job runs on '{owner}'")),
    });
    match thaw {
        Thaw::AfterTheJobHasEnded => books.wait_until_all_have_ended(&cluster),
        Thaw::WhileTheJobRunsElsewhere => {
            let before = count_events(&cluster);
            wait_until(|| match count_events(&cluster) != before {
                true => Ok(()),
                false => Err("the other node writes no event".into()),
            });
        }
    }
    let at_thaw = count_events(&cluster);
    let is_running = !cluster.owner_of(&job).is_empty();
    assert_eq!(is_running, thaw == Thaw::WhileTheJobRunsElsewhere);
    frozen.unfreeze();
    wait_until(|| match fenced(frozen) {
        0.0 => Err("no late write was refused".into()),
        _ => Ok(()),
    });
    wait_until(
        || match frozen.client_with_key(&key).metric_value("weir_jobs_running") {
            0.0 => Ok(()),
            running => Err(format!("{running} jobs run on the node")),
        },
    );
    books.wait_until_all_have_ended(&cluster);
    if thaw == Thaw::AfterTheJobHasEnded {
        assert_eq!(count_events(&cluster), at_thaw);
    }
    let claims = &log.read(&cluster.postgres)[&job];
    let owners: Vec<&str> = claims
        .iter()
        .map(|claim| claim.owner.split('/').next().unwrap())
        .collect();
    assert_eq!(owners, [frozen.name(), other.name()]);
    assert_eq!(fenced(other), 0.0);
    eprintln!("{} late writes were refused", fenced(frozen));
    for node in &nodes {
        books.assert_all_are_complete(&cluster, |job| node.client_with_key(&job.key));
    }
    // The node that continues takes part again.
    books.submit(frozen);
    books.wait_until_all_have_ended(&cluster);
    books.assert_all_are_complete(&cluster, |job| frozen.client_with_key(&job.key));
}

#[test]
#[ignore = "takes minutes: make cluster-test"]
fn late_writes_are_refused_while_the_job_runs_elsewhere() {
    check_frozen_node(Thaw::WhileTheJobRunsElsewhere);
}

#[test]
#[ignore = "takes minutes: make cluster-test"]
fn late_writes_are_refused_after_the_job_has_ended() {
    check_frozen_node(Thaw::AfterTheJobHasEnded);
}
