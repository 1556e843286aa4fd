//! Several nodes on one PostgreSQL server, one S3 server and one server of Qdrant's protocol, with the real binary.

use serde_json::{Value, json};
use weir_tests::cluster::{Cluster, Node, NodeSettings, assert_job_is_complete};
use weir_tests::server::ApiClient;
use weir_tests::wait_until;

fn start_two_nodes() -> (Cluster, Node, Node) {
    let cluster = Cluster::start(NodeSettings::default());
    let (a, b) = (cluster.start_node("a"), cluster.start_node("b"));
    (cluster, a, b)
}

fn submit_books(clients: &[&ApiClient], jobs: u64, pages: usize) -> Vec<String> {
    (0..jobs)
        .map(|number| {
            let client = clients[usize::try_from(number).unwrap() % clients.len()];
            client.submit_file(
                &format!("{number}.pdf"),
                &weir_samples::generate_book(pages, number),
            )
        })
        .collect()
}

#[test]
fn jobs_of_a_killed_node_are_finished_by_the_other() {
    let (cluster, mut a, mut b) = start_two_nodes();
    let on_a = a.create_tenant("acme", json!({}));
    let on_b = b.client_with_key(on_a.key());
    let jobs = submit_books(&[&on_a, &on_b], 8, 20);
    wait_until(|| match cluster.owners().as_slice() {
        [first, second] if first == "a" && second == "b" => Ok(()),
        owners => Err(format!("{owners:?} run jobs")),
    });
    let of_a = jobs.iter().find(|job| cluster.owner_of(job) == "a").unwrap();
    cluster.wait_until_page_is_done(of_a);
    a.kill();
    for job in &jobs {
        assert_job_is_complete(&on_b, job, 20);
    }
    assert!(on_b.metric_value("weir_jobs_reclaimed_total") >= 1.0);
    cluster.assert_each_page_is_stored_once(8 * 20);
    let found = on_b.post("/v1/search", &json!({ "query": "chapter", "top_k": 100 }));
    assert_eq!(found.status, 200, "{}", found.body);
    b.stop();
}

#[test]
fn frozen_node_writes_nothing_after_its_lease() {
    let (cluster, a, b) = start_two_nodes();
    let on_a = a.create_tenant("acme", json!({}));
    let on_b = b.client_with_key(on_a.key());
    let jobs = submit_books(&[&on_a], 4, 30);
    wait_until(|| match jobs.iter().any(|job| cluster.owner_of(job) == "a") {
        true => Ok(()),
        false => Err("node a runs no job".into()),
    });
    let of_a = jobs.iter().find(|job| cluster.owner_of(job) == "a").unwrap();
    cluster.wait_until_page_is_done(of_a);
    a.freeze();
    for job in &jobs {
        assert_job_is_complete(&on_b, job, 30);
    }
    let events = || {
        cluster
            .postgres
            .query("SELECT count(*), max(position) FROM events")
    };
    let before = events();
    a.unfreeze();
    // The woken node notices that its claims are gone, and goes on with new work.
    let late = submit_books(&[&on_a], 1, 2);
    wait_until(|| match on_a.metric_value("weir_jobs_running") {
        0.0 => Ok(()),
        running => Err(format!("{running} jobs run on node a")),
    });
    assert_job_is_complete(&on_a, &late[0], 2);
    let of_late = cluster
        .postgres
        .query(&format!("SELECT count(*) FROM events WHERE job = '{}'", late[0]));
    let count = |text: &str| text.split('|').next().unwrap().parse::<u64>().unwrap();
    assert_eq!(count(&events()), count(&before) + count(&of_late));
    for job in &jobs {
        assert_job_is_complete(&on_a, job, 30);
    }
    for mut node in [a, b] {
        node.stop();
    }
}

#[test]
fn link_that_a_node_signed_is_valid_on_the_other() {
    let (_cluster, mut a, mut b) = start_two_nodes();
    let on_a = a.create_tenant("acme", json!({}));
    let jobs = submit_books(&[&on_a], 1, 1);
    assert_job_is_complete(&on_a, &jobs[0], 1);
    let found = on_a.post("/v1/search", &json!({ "query": "chapter" }));
    let link = found.body["hits"][0]["image_url"].as_str().unwrap();
    let without_key = b.client_with_key("");
    let (status, image) = without_key.get_bytes(link);
    assert_eq!((status, image.get(..2)), (200, Some(&b"\xff\xd8"[..])));
    let (status, _) = without_key.get_bytes(&link.replace("expires=", "expires=1"));
    assert_eq!(status, 403);
    a.stop();
    b.stop();
}

#[test]
fn any_node_shows_and_cancels_the_jobs_of_another() {
    let (cluster, a, b) = start_two_nodes();
    let on_a = a.create_tenant("acme", json!({ "quotas": { "concurrent_jobs": 1 } }));
    let on_b = b.client_with_key(on_a.key());
    let jobs = submit_books(&[&on_a], 3, 100);
    wait_until(|| match cluster.owners().len() {
        1 => Ok(()),
        owners => Err(format!("{owners} nodes run jobs")),
    });
    let running = jobs
        .iter()
        .find(|job| !cluster.owner_of(job).is_empty())
        .unwrap()
        .clone();
    let other = if cluster.owner_of(&running) == "a" {
        &on_b
    } else {
        &on_a
    };
    // Events of the other node arrive while they are written.
    let seen = other
        .follow_events(&running, 0)
        .find(|(_, event)| event["type"] == "page-done");
    assert!(seen.is_some());
    let canceled = other.delete(&format!("/v1/jobs/{running}"));
    assert!(canceled.status < 300, "{}: {}", canceled.status, canceled.body);
    let events = other.wait_for_job(&running);
    assert_eq!(events.last().unwrap()["state"], "cancelled");
    // The quota of one running job holds on both nodes together.
    wait_until(|| {
        let claimed = cluster
            .postgres
            .query("SELECT count(*) FROM jobs WHERE owner IS NOT NULL");
        assert!(claimed == "0" || claimed == "1", "{claimed} jobs run at once");
        let started = cluster
            .postgres
            .query("SELECT count(*) FROM jobs WHERE epoch > 0");
        (started.parse::<u32>().unwrap() >= 2)
            .then_some(())
            .ok_or_else(|| "no further job has started".into())
    });
    for job in jobs.iter().filter(|job| **job != running) {
        wait_until(|| match on_b.delete(&format!("/v1/jobs/{job}")) {
            response if response.status < 300 => Ok(()),
            response => Err(response.body.to_string()),
        });
        let end: Value = on_b.wait_for_job(job).pop().unwrap();
        assert!(
            ["cancelled", "done"].contains(&end["state"].as_str().unwrap()),
            "{end}"
        );
    }
    // A node that stops gives its jobs back at once.
    let last = submit_books(&[&on_a], 1, 60);
    wait_until(|| match cluster.owner_of(&last[0]).is_empty() {
        false => Ok(()),
        true => Err("the job does not run".into()),
    });
    let (mut stopped, mut rest) = if cluster.owner_of(&last[0]) == "a" {
        (a, b)
    } else {
        (b, a)
    };
    stopped.stop();
    let client = rest.client_with_key(on_a.key());
    assert_job_is_complete(&client, &last[0], 60);
    assert_eq!(client.metric_value("weir_jobs_reclaimed_total"), 0.0);
    rest.stop();
}
