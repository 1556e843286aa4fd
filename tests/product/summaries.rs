//! Extractive summaries of real documents: every sentence is a quote from the page that the summary names.

use std::collections::HashSet;

use serde_json::{Value, json};
use weir_tests::WeirFixture;
use weir_tests::server::TestServer;

/// Returns the letters and digits, which are the same however a text is broken into lines.
fn letters_and_digits(text: &str) -> String {
    text.chars().filter(|c| c.is_alphanumeric()).collect()
}

fn slice_at<'a>(text: &'a str, at: &Value) -> &'a str {
    let of = |key: &str| at[key].as_u64().unwrap() as usize;
    &text[of("start")..of("end")]
}

/// Returns whether the sentence is on the first page, or begins there and ends on the next. Headers and footers may be in between.
fn contains_sentence(pages: &[String], sentence: &str) -> bool {
    let here = letters_and_digits(&pages[0]);
    let next = pages
        .get(1)
        .map(|page| letters_and_digits(page))
        .unwrap_or_default();
    let mut ends = sentence.char_indices().map(|(at, c)| at + c.len_utf8()).rev();
    let begun = ends.find(|end| here.contains(&sentence[..*end]));
    begun.is_some_and(|end| end >= 8 && next.contains(&sentence[end..]))
}

/// Checks that a summary consists of quotes from the pages.
fn assert_summary_is_quoted(summary: &Value, pages: &[String]) {
    let text = summary["text"].as_str().unwrap();
    let quotes = summary["quotes"].as_array().unwrap();
    let (mut quoted, mut seen_sentences) = (String::new(), HashSet::new());
    for quote in quotes {
        let sentence = slice_at(text, &quote["at"]);
        let page = quote["page"].as_u64().unwrap() as usize;
        assert!(
            contains_sentence(&pages[page - 1..], &letters_and_digits(sentence)),
            "page {page} does not contain: {sentence}"
        );
        let of = |key: &str| quote["box"][key].as_f64().unwrap();
        assert!(
            of("width") > 0.0 && of("height") > 0.0 && of("y") + of("height") <= 1.001,
            "{quote}"
        );
        assert!(
            seen_sentences.insert(letters_and_digits(sentence)),
            "the summary repeats: {sentence}"
        );
        quoted.push_str(sentence);
    }
    assert_eq!(
        letters_and_digits(&quoted),
        letters_and_digits(text),
        "the summary consists of its quotes"
    );
    // The default component requests 300 tokens.
    let chars = text.chars().count();
    assert!((20..=1500).contains(&chars), "{chars} characters: {text}");
    assert_eq!(summary["ungrounded"], json!([]), "{text}");
    assert!(
        !text.contains("Summarize") && !text.contains("---"),
        "the summary must not contain the prompt: {text}"
    );
    assert!(text.starts_with(summary["preview"].as_str().unwrap().trim_end_matches('…')));
}

#[test]
fn summary_sentences_are_quotes_from_the_named_pages() {
    let weir = WeirFixture::new();
    let out = weir.folder().join("out");
    for (name, least) in [("handbook.pdf", 8), ("survey.pdf", 5), ("letter-scan.pdf", 1)] {
        let bytes = &weir_samples::sample_files()
            .into_iter()
            .find(|(n, _)| *n == name)
            .unwrap()
            .1;
        let file = weir.write_file(name, bytes);
        let ended = weir.ingest_files(&[
            file.to_str().unwrap(),
            "--summarize",
            "--out",
            out.to_str().unwrap(),
        ]);
        assert_eq!(ended.exit_code, 0, "{}", ended.stderr);
        ended.assert_valid_event_log();
        let folder = out.join(name.trim_end_matches(".pdf"));
        let read = |file: &str| std::fs::read_to_string(folder.join(file)).unwrap();
        let document_summary: Value = serde_json::from_str(&read("summary.json")).unwrap();
        let pages: Vec<String> = (1..=document_summary["pages"].as_u64().unwrap())
            .map(|page| {
                let lines: Value = serde_json::from_str(&read(&format!("pages/{page:04}.json"))).unwrap();
                let lines = lines["lines"].as_array().unwrap().clone();
                lines
                    .iter()
                    .map(|line| line["text"].as_str().unwrap().to_owned() + "\n")
                    .collect()
            })
            .collect();
        let sections = document_summary["sections"].as_array().unwrap();
        let summaries: Vec<_> = sections
            .iter()
            .filter(|section| !section["summary"].is_null())
            .collect();
        assert!(summaries.len() >= least, "{name}: {} summaries", summaries.len());
        for section in &summaries {
            assert_summary_is_quoted(&section["summary"], &pages);
            assert!(
                section["title"].as_str().is_some_and(|title| !title.is_empty()),
                "{section}"
            );
        }
        assert_summary_is_quoted(&document_summary["summary"], &pages);
        let event_count = ended.events_of_type("section-summarized").len();
        assert_eq!(event_count, sections.len());
        assert_eq!(
            ended.single_event("document-summarized")["sections"],
            sections.len()
        );
        let markdown = read("document.md");
        assert!(markdown.contains("## Summary"), "{markdown}");
    }
}

#[test]
fn summary_is_requested_read_and_searched_over_http() {
    let weir = WeirFixture::new();
    let server = TestServer::start(&weir, &[]);
    let client = server.admin_client();
    let survey = &weir_samples::sample_files()
        .into_iter()
        .find(|(n, _)| *n == "survey.pdf")
        .unwrap()
        .1;
    let plain_job = client.wait_for_job(&client.submit_file("survey.pdf", survey));
    let document = plain_job
        .iter()
        .find_map(|e| e["document"].as_str())
        .unwrap()
        .to_owned();
    let path = format!("/v1/documents/{document}/summary");
    let none = client.get(&path);
    assert_eq!(
        (none.status, none.problem_type()),
        (404, "not-found"),
        "{}",
        none.body
    );

    // The pages are done; only the summary is missing.
    let response = client.submit_files(&[("survey.pdf", survey)], &json!({ "summarize": true }), &[]);
    assert_eq!(response.status, 202, "{}", response.body);
    let events = client.wait_for_job(response.body["id"].as_str().unwrap());
    let done = events.iter().find(|e| e["type"] == "document-done").unwrap();
    assert_eq!(done["skipped"], done["pages"], "{done}");
    let stored = client.get(&path);
    assert_eq!(stored.status, 200, "{}", stored.body);
    let sections = stored.body["sections"].as_array().unwrap();
    let results = sections
        .iter()
        .find(|s| s["title"].as_str().unwrap_or("").contains("Results"))
        .unwrap();
    let text = results["summary"]["text"].as_str().unwrap();
    assert_eq!(results["summary"]["provider"], "extractive");

    let query = json!({ "query": text, "top_k": 3 });
    let hits = client.post("/v1/search", &query).body["hits"].clone();
    let hits = hits.as_array().unwrap();
    let summary = hits.iter().find(|hit| hit["summary"] == true).unwrap();
    assert_eq!(
        (&summary["page"], &summary["text"]),
        (&results["first_page"], &json!(text))
    );
    let markdown = client.get(&format!("/v1/documents/{document}/markdown"));
    assert!(markdown.body.as_str().unwrap().contains("## Summary"));

    assert_eq!(client.delete(&format!("/v1/documents/{document}")).status, 204);
    assert_eq!(client.get(&path).status, 404);
    assert_eq!(client.post("/v1/search", &query).body["hits"], json!([]));
    assert_eq!(server.stop().exit_code, 0);
}
