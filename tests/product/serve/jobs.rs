//! Jobs over HTTP: uploads, events, usage, repeated requests, cancellation and errors.

use serde_json::json;
use weir_tests::WeirFixture;
use weir_tests::server::{ApiClient, TestServer};

#[test]
fn uploaded_document_is_searched_shown_and_deleted() {
    let weir = WeirFixture::new();
    let server = TestServer::start(&weir, &[]);
    let client = server.admin_client();
    let job = client.submit_file("handbook.pdf", &weir_samples::sample_files()[0].1);
    let events = client.wait_for_job(&job);
    for (seq, event) in (1..).zip(&events) {
        assert_eq!(event["seq"], seq, "{event}");
    }
    let done = events.iter().find(|e| e["type"] == "document-done").unwrap();
    assert_eq!(
        (&done["pages"], &done["searchable"]),
        (&12.into(), &12.into()),
        "{done}"
    );
    let document = done["document"].as_str().unwrap();

    let job_response = client.get(&format!("/v1/jobs/{job}"));
    assert_eq!(
        (job_response.status, &job_response.body["state"]),
        (200, &"done".into()),
        "{}",
        job_response.body
    );
    let listed = client.get("/v1/jobs");
    assert_eq!(listed.body["jobs"][0]["id"], job.as_str(), "{}", listed.body);

    let query = json!({ "query": "Which of the three roller gates is opened first?", "top_k": 3 });
    let found = client.post("/v1/search", &query);
    assert_eq!(found.status, 200, "{}", found.body);
    let hits = found.body["hits"].as_array().unwrap();
    assert!(!hits.is_empty() && hits.len() <= 3, "{}", found.body);
    assert_eq!(hits[0]["document"], document);
    let (status, image) = client.get_bytes(hits[0]["image_url"].as_str().unwrap());
    assert_eq!(
        (status, image.get(..2)),
        (200, Some([0xff, 0xd8].as_slice())),
        "a JPEG"
    );

    let markdown = client.get(&format!("/v1/documents/{document}/markdown"));
    assert!(
        markdown.body.as_str().unwrap().contains("Gate Two"),
        "{}",
        markdown.body
    );

    assert_eq!(client.delete(&format!("/v1/documents/{document}")).status, 204);
    assert_eq!(
        client.get(&format!("/v1/documents/{document}")).problem_type(),
        "not-found"
    );
    assert_eq!(client.post("/v1/search", &query).body["hits"], json!([]));
    assert_eq!(server.stop().exit_code, 0);
}

/// Pages with a text layer are read in a millisecond, scans in one or two seconds, so early measurements of the former do not
/// predict the latter.
#[test]
fn diagnosis_names_the_bottleneck_of_text_and_scanned_pages() {
    let weir = WeirFixture::new();
    let server = TestServer::start(&weir, &[]);
    let client = server.admin_client();
    let (scan, text) = (
        weir_samples::scanned_letter_document(),
        weir_samples::generate_text_document(20, 4),
    );
    let response = client.submit_files(&[("scan.pdf", &scan), ("text.pdf", &text)], &json!({}), &[]);
    let job = response.body["id"].as_str().unwrap();
    client.wait_for_job(job);
    let diagnosis = client.get(&format!("/v1/jobs/{job}/diagnosis")).body;
    let sentence = diagnosis["sentence"].as_str().unwrap();
    assert!(
        sentence.starts_with("read is the bottleneck") || sentence.contains("read has most to do"),
        "{diagnosis}"
    );
    let of = |stage: &str| {
        let stages = diagnosis["stages"].as_array().unwrap();
        stages.iter().find(|evidence| evidence["stage"] == stage).unwrap()
    };
    assert_eq!(of("read")["pages"], 23, "{diagnosis}");
    let busy = |stage: &str| of(stage)["busy_millis"].as_u64().unwrap();
    assert!(busy("read") > busy("embed"), "{diagnosis}");
    server.stop();
}

#[test]
fn usage_of_a_job_is_metered_to_its_tenant() {
    let weir = WeirFixture::new();
    let server = TestServer::start(&weir, &[]);
    let (client, other) = (
        server.create_tenant("one", json!({})),
        server.create_tenant("two", json!({})),
    );
    let file = weir_samples::generate_book(60, 7);
    let began = std::time::Instant::now();
    let job = client.submit_file("a.pdf", &file);
    client.wait_for_job(&job);
    let took = u64::try_from(began.elapsed().as_millis()).unwrap();
    let used = |client: &ApiClient, what: &str| {
        let usage = client.get("/v1/usage").body;
        let days = usage["days"].as_array().unwrap();
        // There are two days if the test runs at midnight.
        days.iter().map(|day| day[what].as_u64().unwrap()).sum::<u64>()
    };
    let of = |field| used(&client, field);
    assert_eq!(
        (of("jobs"), of("pages"), of("upload_bytes")),
        (1, 60, file.len() as u64)
    );
    let (models, components) = (of("inference_millis"), of("guest_millis"));
    let cores = std::thread::available_parallelism().unwrap().get() as u64;
    assert!(
        (1..=took * cores).contains(&models),
        "models were busy for {models} ms in {took} ms"
    );
    assert!(
        (1..=took).contains(&components) && components < models,
        "components ran for {components} ms in {took} ms"
    );
    for what in [
        "jobs",
        "pages",
        "upload_bytes",
        "inference_millis",
        "guest_millis",
    ] {
        assert_eq!(used(&other, what), 0, "{what} of another tenant");
    }
    server.stop();
}

#[test]
fn thirty_files_in_one_request_report_each_page_when_done() {
    let weir = WeirFixture::new();
    let server = TestServer::start(&weir, &[]);
    let client = server.admin_client();
    let files: Vec<(String, Vec<u8>)> = (0..30)
        .map(|n| {
            (
                format!("file-{n}.pdf"),
                weir_samples::generate_text_document(6, n),
            )
        })
        .collect();
    let uploads: Vec<_> = files
        .iter()
        .map(|(name, bytes)| (name.as_str(), bytes.as_slice()))
        .collect();
    let response = client.submit_files(&uploads, &json!({}), &[]);
    assert_eq!(response.status, 202, "{}", response.body);
    let events = client.wait_for_job(response.body["id"].as_str().unwrap());
    let at = |kind: &str| {
        let of: Vec<u64> = events
            .iter()
            .filter(|e| e["type"] == kind)
            .map(|e| e["at_millis"].as_u64().unwrap())
            .collect();
        of
    };
    let (pages, ended) = (at("page-done"), at("job-ended")[0]);
    assert_eq!((pages.len(), at("document-done").len()), (180, 30));
    assert!(
        pages[0] * 10 <= ended,
        "the first page is done after {} of {ended} ms",
        pages[0]
    );
    assert!(
        at("document-done")[0] * 2 <= ended,
        "the first file must be reported when it is done, not with the last"
    );
    server.stop();
}

#[test]
fn request_sent_twice_creates_one_job() {
    let weir = WeirFixture::new();
    let server = TestServer::start(&weir, &[]);
    let client = server.admin_client();
    let file = weir_samples::generate_text_document(2, 1);
    let key_header = [("idempotency-key", "the-same-request")];
    let submit = || {
        let (client, file) = (client.clone(), file.clone());
        std::thread::spawn(move || client.submit_files(&[("a.pdf", &file)], &json!({}), &key_header))
    };
    let both = [submit(), submit()].map(|sent| sent.join().unwrap());
    assert_eq!(
        (both[0].status, &both[0].body["id"]),
        (202, &both[1].body["id"]),
        "{both:?}"
    );
    client.wait_for_job(both[0].body["id"].as_str().unwrap());
    assert_eq!(client.get("/v1/jobs").body["jobs"].as_array().unwrap().len(), 1);

    let other = client.submit_files(
        &[("b.pdf", &weir_samples::generate_text_document(3, 2))],
        &json!({}),
        &key_header,
    );
    assert_eq!(
        (other.status, other.problem_type()),
        (422, "idempotency-key-reused")
    );
    server.stop();
}

#[test]
fn cancelled_job_keeps_done_pages_and_can_be_retried() {
    let weir = WeirFixture::new();
    let server = TestServer::start(&weir, &[]);
    let client = server.admin_client();
    let job = client.submit_file("long.pdf", &weir_samples::generate_book(120, 3));
    let mut events = client.follow_events(&job, 0);
    events
        .find(|(_, e)| e["type"] == "page-done")
        .expect("a page is done");
    let cancelled = client.delete(&format!("/v1/jobs/{job}"));
    assert!([200, 202, 204].contains(&cancelled.status), "{}", cancelled.body);
    let (_, last) = events.last().unwrap();
    assert_eq!(
        (&last["type"], &last["state"]),
        (&"job-ended".into(), &"cancelled".into())
    );

    let again = client.post(&format!("/v1/jobs/{job}/retry"), &json!({}));
    assert_eq!(again.status, 202, "{}", again.body);
    let events = client.wait_for_job(again.body["id"].as_str().unwrap());
    let started = events.iter().find(|e| e["type"] == "document-started").unwrap();
    assert!(started["already_done"].as_u64().unwrap() > 0, "{started}");
    let done = events.iter().find(|e| e["type"] == "document-done").unwrap();
    assert_eq!(done["searchable"], 120);
    server.stop();
}

#[test]
fn file_that_is_no_pdf_fails_alone_with_its_error_kind() {
    let weir = WeirFixture::new();
    let server = TestServer::start(&weir, &["--set", "log.format=json"]);
    let client = server.admin_client();
    let good = weir_samples::generate_text_document(2, 5);
    let response = client.submit_files(
        &[("bad.pdf", b"no PDF at all"), ("good.pdf", &good)],
        &json!({}),
        &[],
    );
    assert_eq!(response.status, 202, "{}", response.body);
    let job = response.body["id"].as_str().unwrap();
    let events = client.wait_for_job(job);
    let failed = events.iter().find(|e| e["type"] == "document-failed").unwrap();
    assert_eq!(
        (&failed["name"], &failed["error"]["kind"]),
        (&"bad.pdf".into(), &"not-a-pdf".into())
    );
    let done = events.iter().find(|e| e["type"] == "document-done").unwrap();
    assert_eq!(done["name"], "good.pdf");

    // The log line names the job and the tenant.
    let log = server.stop().stderr;
    let line = log
        .lines()
        .find(|line| line.contains("document failed"))
        .expect(&log);
    let line: serde_json::Value = serde_json::from_str(line).unwrap();
    let span = &line["spans"][0];
    assert_eq!(
        (&span["job"], &span["tenant"]),
        (&job.into(), &"default".into()),
        "{line}"
    );
}
