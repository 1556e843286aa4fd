//! Documents that are deleted while a client uploads them again.

use std::time::Duration;

use serde_json::json;
use weir_tests::WeirFixture;
use weir_tests::server::TestServer;

/// The number of races unless `WEIR_TEST_RACES` is set.
const DEFAULT_RACES: usize = 60;

#[test]
fn upload_during_deletion_is_ingested() {
    let races = std::env::var("WEIR_TEST_RACES").map_or(DEFAULT_RACES, |races| races.parse().unwrap());
    let weir = WeirFixture::new();
    let server = TestServer::start(&weir, &[]);
    let client = server.admin_client();
    let pdf = weir_samples::sample_files()[0].1.clone();
    let submit = || {
        let options = json!({ "pages": { "first": 1, "last": 1 } });
        let response = client.submit_files(&[("handbook.pdf", &pdf)], &options, &[]);
        assert_eq!(response.status, 202, "{}", response.body);
        response.body["id"].as_str().unwrap().to_owned()
    };
    let document = {
        let events = client.wait_for_job(&submit());
        let done = events.iter().find(|e| e["type"] == "document-done").unwrap();
        done["document"].as_str().unwrap().to_owned()
    };
    let path = format!("/v1/documents/{document}");
    let (mut failed, mut statuses) = (Vec::new(), std::collections::BTreeMap::new());
    for race in 0..races {
        let (job, status) = std::thread::scope(|scope| {
            let deleting = scope.spawn(|| {
                std::thread::sleep(Duration::from_micros(500 * (race as u64 % 40)));
                client.delete(&path).status
            });
            (submit(), deleting.join().unwrap())
        });
        *statuses.entry(status).or_insert(0) += 1;
        let ended = client.wait_for_job(&job).pop().unwrap();
        if ended["state"] != "done" {
            failed.push((race, status, ended));
        }
        if client.get(&path).status != 200 {
            // The next race needs the document.
            client.wait_for_job(&submit());
        }
    }
    println!("{} of {races} jobs failed; deletions: {statuses:?}", failed.len());
    assert!(failed.is_empty(), "{failed:?}");
    assert!(statuses.contains_key(&204), "no deletion succeeded: {statuses:?}");
    // A job that names the stored document instead of uploading it.
    let named = json!({ "documents": [{ "document": document }] });
    let (response, status) = std::thread::scope(|scope| {
        let deleting = scope.spawn(|| client.delete(&path).status);
        (client.post("/v1/jobs", &named), deleting.join().unwrap())
    });
    match response.status {
        202 => {
            let ended = client
                .wait_for_job(response.body["id"].as_str().unwrap())
                .pop()
                .unwrap();
            assert_eq!(ended["state"], "done", "deletion: {status}");
        }
        404 => assert_eq!(status, 204),
        _ => panic!("{}", response.body),
    }
    let ended = server.stop();
    assert_eq!(ended.exit_code, 0, "{}", ended.stderr);
}
