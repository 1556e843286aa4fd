//! A host that is killed under load goes on where it was.

use weir_tests::processes::{alive, family};
use weir_tests::server::Server;
use weir_tests::{Weir, eventually};

#[test]
fn killed_in_mid_load_nothing_is_lost_and_nobody_stays_behind() {
    let weir = Weir::new();
    let server = Server::start(&weir, &[]);
    let client = server.admin();
    let key = client.key().to_owned();
    let jobs: Vec<String> = (0..6)
        .map(|n| client.job(&format!("{n}.pdf"), &weir_samples::book(30, n)))
        .collect();
    client
        .events(&jobs[0], 0)
        .find(|(_, e)| e["type"] == "page-done")
        .expect("a page");
    let family = family(server.pid());
    server.kill();
    eventually(|| {
        let left: Vec<_> = family.iter().filter(|pid| alive(**pid)).collect();
        left.is_empty()
            .then_some(())
            .ok_or_else(|| format!("{left:?} outlived their host"))
    });

    let server = Server::start(&weir, &[]);
    let client = server.client(&key);
    for job in &jobs {
        let events = client.wait(job);
        let done: Vec<_> = events.iter().filter(|e| e["type"] == "document-done").collect();
        assert_eq!((done.len(), &done[0]["searchable"]), (1, &30.into()), "{job}");
    }
    let documents = client.get("/v1/documents");
    assert_eq!(documents.body["documents"].as_array().unwrap().len(), 6);
    server.stop();
}
