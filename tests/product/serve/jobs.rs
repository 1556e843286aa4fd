//! Documents in over HTTP, results out as they complete.

use serde_json::json;
use weir_tests::Weir;
use weir_tests::server::{Client, Server};

#[test]
fn a_document_goes_in_and_its_pages_come_out() {
    let weir = Weir::new();
    let server = Server::start(&weir, &[]);
    let client = server.admin();
    let job = client.job("handbook.pdf", &weir_samples::all()[0].1);
    let events = client.wait(&job);
    for (place, event) in (1..).zip(&events) {
        assert_eq!(event["seq"], place, "{event}");
    }
    let done = events.iter().find(|e| e["type"] == "document-done").unwrap();
    assert_eq!(
        (&done["pages"], &done["searchable"]),
        (&12.into(), &12.into()),
        "{done}"
    );
    let document = done["document"].as_str().unwrap();

    let standing = client.get(&format!("/v1/jobs/{job}"));
    assert_eq!(
        (standing.status, &standing.body["state"]),
        (200, &"done".into()),
        "{}",
        standing.body
    );
    let listed = client.get("/v1/jobs");
    assert_eq!(listed.body["jobs"][0]["id"], job.as_str(), "{}", listed.body);

    let query = json!({ "query": "Which of the three roller gates is opened first?", "top_k": 3 });
    let found = client.post("/v1/search", &query);
    assert_eq!(found.status, 200, "{}", found.body);
    let hits = found.body["hits"].as_array().unwrap();
    assert!(!hits.is_empty() && hits.len() <= 3, "{}", found.body);
    assert_eq!(hits[0]["document"], document);
    let (status, image) = client.bytes(hits[0]["image_url"].as_str().unwrap());
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
        client.get(&format!("/v1/documents/{document}")).problem(),
        "not-found"
    );
    assert_eq!(client.post("/v1/search", &query).body["hits"], json!([]));
    assert_eq!(server.stop().code, 0);
}

/// Pages with text are read in a millisecond, scans in a second or two: what was seen while the former were drawn says nothing
/// of the latter.
#[test]
fn a_diagnosis_is_not_misled_by_pages_of_two_kinds() {
    let weir = Weir::new();
    let server = Server::start(&weir, &[]);
    let client = server.admin();
    let (scan, text) = (weir_samples::letter_scan(), weir_samples::text_document(20, 4));
    let answer = client.submit(&[("scan.pdf", &scan), ("text.pdf", &text)], &json!({}), &[]);
    let job = answer.body["id"].as_str().unwrap();
    client.wait(job);
    let diagnosis = client.get(&format!("/v1/jobs/{job}/diagnosis")).body;
    let sentence = diagnosis["sentence"].as_str().unwrap();
    assert!(
        sentence.starts_with("read is the bottleneck") || sentence.contains("read has most to do"),
        "{diagnosis}"
    );
    let of = |stage: &str| {
        let stages = diagnosis["stages"].as_array().unwrap();
        stages.iter().find(|seen| seen["stage"] == stage).unwrap()
    };
    assert_eq!(of("read")["pages"], 23, "{diagnosis}");
    let busy = |stage: &str| of(stage)["busy_millis"].as_u64().unwrap();
    assert!(busy("read") > busy("embed"), "{diagnosis}");
    server.stop();
}

#[test]
fn what_a_job_uses_is_metered_to_its_tenant() {
    let weir = Weir::new();
    let server = Server::start(&weir, &[]);
    let (client, other) = (server.tenant("one", json!({})), server.tenant("two", json!({})));
    let file = weir_samples::book(60, 7);
    let began = std::time::Instant::now();
    let job = client.job("a.pdf", &file);
    client.wait(&job);
    let took = u64::try_from(began.elapsed().as_millis()).unwrap();
    let used = |client: &Client, what: &str| {
        let usage = client.get("/v1/usage").body;
        let days = usage["days"].as_array().unwrap();
        // More than one, if it is midnight.
        days.iter().map(|day| day[what].as_u64().unwrap()).sum::<u64>()
    };
    let of = |what| used(&client, what);
    assert_eq!(
        (of("jobs"), of("pages"), of("upload_bytes")),
        (1, 60, file.len() as u64)
    );
    let (models, components) = (of("inference_millis"), of("guest_millis"));
    let cores = std::thread::available_parallelism().unwrap().get() as u64;
    assert!(
        (1..=took * cores).contains(&models),
        "models worked {models} ms within {took} ms"
    );
    assert!(
        (1..=took).contains(&components) && components < models,
        "components ran {components} ms within {took} ms"
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
fn thirty_files_in_one_request_come_back_page_by_page() {
    let weir = Weir::new();
    let server = Server::start(&weir, &[]);
    let client = server.admin();
    let files: Vec<(String, Vec<u8>)> = (0..30)
        .map(|n| (format!("file-{n}.pdf"), weir_samples::text_document(6, n)))
        .collect();
    let given: Vec<_> = files
        .iter()
        .map(|(name, bytes)| (name.as_str(), bytes.as_slice()))
        .collect();
    let answer = client.submit(&given, &json!({}), &[]);
    assert_eq!(answer.status, 202, "{}", answer.body);
    let events = client.wait(answer.body["id"].as_str().unwrap());
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
        "first page after {} of {ended} ms",
        pages[0]
    );
    assert!(
        at("document-done")[0] * 2 <= ended,
        "the first file is told when it is done, not with the last"
    );
    server.stop();
}

#[test]
fn a_request_sent_twice_counts_once() {
    let weir = Weir::new();
    let server = Server::start(&weir, &[]);
    let client = server.admin();
    let file = weir_samples::text_document(2, 1);
    let word = [("idempotency-key", "the-same-request")];
    let submit = || {
        let (client, file) = (client.clone(), file.clone());
        std::thread::spawn(move || client.submit(&[("a.pdf", &file)], &json!({}), &word))
    };
    let both = [submit(), submit()].map(|sent| sent.join().unwrap());
    assert_eq!(
        (both[0].status, &both[0].body["id"]),
        (202, &both[1].body["id"]),
        "{both:?}"
    );
    client.wait(both[0].body["id"].as_str().unwrap());
    assert_eq!(client.get("/v1/jobs").body["jobs"].as_array().unwrap().len(), 1);

    let other = client.submit(
        &[("b.pdf", &weir_samples::text_document(3, 2))],
        &json!({}),
        &word,
    );
    assert_eq!((other.status, other.problem()), (422, "idempotency-key-reused"));
    server.stop();
}

#[test]
fn a_cancelled_job_keeps_what_is_done_and_can_be_tried_again() {
    let weir = Weir::new();
    let server = Server::start(&weir, &[]);
    let client = server.admin();
    let job = client.job("long.pdf", &weir_samples::book(120, 3));
    let mut events = client.events(&job, 0);
    events.find(|(_, e)| e["type"] == "page-done").expect("a page");
    let cancelled = client.delete(&format!("/v1/jobs/{job}"));
    assert!([200, 202, 204].contains(&cancelled.status), "{}", cancelled.body);
    let (_, last) = events.last().unwrap();
    assert_eq!(
        (&last["type"], &last["state"]),
        (&"job-ended".into(), &"cancelled".into())
    );

    let again = client.post(&format!("/v1/jobs/{job}/retry"), &json!({}));
    assert_eq!(again.status, 202, "{}", again.body);
    let events = client.wait(again.body["id"].as_str().unwrap());
    let started = events.iter().find(|e| e["type"] == "document-started").unwrap();
    assert!(started["already_done"].as_u64().unwrap() > 0, "{started}");
    let done = events.iter().find(|e| e["type"] == "document-done").unwrap();
    assert_eq!(done["searchable"], 120);
    server.stop();
}

#[test]
fn a_file_that_is_no_pdf_fails_by_name_and_harms_no_other() {
    let weir = Weir::new();
    let server = Server::start(&weir, &["--set", "log.format=json"]);
    let client = server.admin();
    let good = weir_samples::text_document(2, 5);
    let answer = client.submit(
        &[("bad.pdf", b"no PDF at all"), ("good.pdf", &good)],
        &json!({}),
        &[],
    );
    assert_eq!(answer.status, 202, "{}", answer.body);
    let job = answer.body["id"].as_str().unwrap();
    let events = client.wait(job);
    let failed = events.iter().find(|e| e["type"] == "document-failed").unwrap();
    assert_eq!(
        (&failed["name"], &failed["error"]["kind"]),
        (&"bad.pdf".into(), &"not-a-pdf".into())
    );
    let done = events.iter().find(|e| e["type"] == "document-done").unwrap();
    assert_eq!(done["name"], "good.pdf");

    // The log says whose it was.
    let log = server.stop().errors;
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
