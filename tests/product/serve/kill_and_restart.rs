//! A server that is killed under load resumes its jobs after a restart.

use weir_tests::processes::{is_process_alive, process_tree};
use weir_tests::server::TestServer;
use weir_tests::{WeirFixture, wait_until};

#[test]
fn server_killed_under_load_loses_nothing_and_leaves_no_process() {
    let weir = WeirFixture::new();
    let server = TestServer::start(&weir, &[]);
    let client = server.admin_client();
    let key = client.key().to_owned();
    let jobs: Vec<String> = (0..6)
        .map(|n| client.submit_file(&format!("{n}.pdf"), &weir_samples::generate_book(30, n)))
        .collect();
    client
        .follow_events(&jobs[0], 0)
        .find(|(_, e)| e["type"] == "page-done")
        .expect("a page is done");
    let pids = process_tree(server.pid());
    server.kill();
    wait_until(|| {
        let left: Vec<_> = pids.iter().filter(|pid| is_process_alive(**pid)).collect();
        left.is_empty()
            .then_some(())
            .ok_or_else(|| format!("processes {left:?} are still running after their host was killed"))
    });

    let server = TestServer::start(&weir, &[]);
    let client = server.client_with_key(&key);
    for job in &jobs {
        let events = client.wait_for_job(job);
        let done: Vec<_> = events.iter().filter(|e| e["type"] == "document-done").collect();
        assert_eq!((done.len(), &done[0]["searchable"]), (1, &30.into()), "{job}");
    }
    let documents = client.get("/v1/documents");
    assert_eq!(documents.body["documents"].as_array().unwrap().len(), 6);
    server.stop();
}
