//! Documents are ingested, each page is searchable as soon as it is done, and searches find the expected passages.

use weir_samples::fonts::Typeface;
use weir_samples::pdf_document::{A4_POINTS, Document, Page};
use weir_tests::{WeirFixture, WeirProcess};

fn write_sample_files(weir: &WeirFixture) -> std::path::PathBuf {
    let folder = weir.folder().join("samples");
    std::fs::create_dir_all(&folder).unwrap();
    for (name, bytes) in weir_samples::sample_files() {
        std::fs::write(folder.join(name), bytes).unwrap();
    }
    folder
}

#[test]
fn searches_find_the_expected_passages_of_the_samples() {
    let weir = WeirFixture::new();
    let folder = write_sample_files(&weir);
    let out = weir.folder().join("out");
    let ended = weir.ingest_files(&[folder.to_str().unwrap(), "--out", out.to_str().unwrap()]);
    assert_eq!(ended.exit_code, 0, "{}", ended.stderr);
    ended.assert_valid_event_log();
    for done in ended.events_of_type("document-done") {
        assert_eq!(done["pages"], done["searchable"], "{done}");
        assert_eq!(
            (&done["skipped"], done["failed"].as_array().unwrap().len()),
            (&0.into(), 0)
        );
    }

    let (mut question_count, mut found) = (0, 0);
    let questions: toml::Table = weir_samples::SAMPLE_QUESTIONS.parse().unwrap();
    for question in questions["question"].as_array().unwrap() {
        let of = |key: &str| question[key].as_str().unwrap();
        let hits = weir.search(of("ask"), &[]);
        question_count += 1;
        let right = |hit: &serde_json::Value| {
            hit["name"] == of("document")
                && hit["page"].as_i64() == question["page"].as_integer()
                && letters_and_digits(hit["text"].as_str().unwrap())
                    .contains(&letters_and_digits(of("phrase")))
        };
        match hits.iter().position(right) {
            Some(_) => found += 1,
            None => eprintln!("not found: {}; first hit: {}", of("ask"), hits[0]["text"]),
        }
        let scores: Vec<_> = hits.iter().map(|h| h["score"].as_f64().unwrap()).collect();
        assert!(scores.is_sorted_by(|a, b| a >= b), "{scores:?}");
        for hit in &hits {
            let b = &hit["box"];
            let share = |k: &str| b[k].as_f64().unwrap();
            assert!(share("x") >= 0.0 && share("y") >= 0.0, "{b}");
            assert!(
                share("width") > 0.0 && share("x") + share("width") <= 1.001,
                "{b}"
            );
            assert!(
                share("height") > 0.0 && share("y") + share("height") <= 1.001,
                "{b}"
            );
        }
    }
    assert!(
        question_count >= 20,
        "{question_count} questions are too few for a result"
    );
    assert!(
        found * 10 >= question_count * 9,
        "{found} of {question_count} questions found their passage in the first five hits"
    );

    let markdown = std::fs::read_to_string(out.join("handbook/document.md")).unwrap();
    assert!(
        markdown.lines().filter(|l| l.starts_with('#')).count() >= 5,
        "{markdown}"
    );
    assert!(out.join("letter-scan/pages/0001.jpg").exists());
    let lines: serde_json::Value =
        serde_json::from_slice(&std::fs::read(out.join("letter-scan/pages/0001.json")).unwrap()).unwrap();
    assert_eq!(lines["source"], "ocr");
    assert!(
        lines["lines"]
            .as_array()
            .unwrap()
            .iter()
            .all(|l| l["text"].is_string() && l["box"]["x"].is_number())
    );
}

/// Returns the letters and digits in lower case, which are the same whatever OCR and line breaks do to a phrase.
fn letters_and_digits(text: &str) -> String {
    text.chars()
        .filter(|c| c.is_alphanumeric())
        .flat_map(char::to_lowercase)
        .collect()
}

/// A page in two columns. The left one has a heading, so its lines are vertically between those of the right one.
fn two_column_pdf() -> Vec<u8> {
    let mut page = Page::new(A4_POINTS);
    page.draw_text(
        Typeface::SansBold,
        16.0,
        170.0,
        720.0,
        "A Paper on Rivers and Mountains",
    );
    page.draw_text(Typeface::SansBold, 12.0, 72.0, 640.0, "Abstract");
    for i in 0..24_u8 {
        let y = f32::from(i) * -12.0;
        page.draw_text(
            Typeface::Serif,
            10.0,
            72.0,
            622.0 + y,
            "The river carries water down to the sea",
        );
        page.draw_text(
            Typeface::Serif,
            10.0,
            310.0,
            640.0 + y,
            "A mountain stands in the south with snow",
        );
    }
    let document = Document {
        pages: vec![page],
        ..Document::default()
    };
    document.to_pdf_bytes()
}

#[test]
fn uneven_columns_are_read_one_after_the_other() {
    for ocr in ["never", "always"] {
        let weir = WeirFixture::new();
        let file = weir.write_file("paper.pdf", &two_column_pdf());
        let out = weir.folder().join("out");
        let arguments = [
            file.to_str().unwrap(),
            "--out",
            out.to_str().unwrap(),
            "--ocr",
            ocr,
        ];
        let ended = weir.ingest_files(&arguments);
        assert_eq!(ended.exit_code, 0, "{}", ended.stderr);
        let is_in_order = |text: &str| {
            let text = letters_and_digits(text);
            let (left, right) = (text.rfind("sea"), text.find("mountainstands"));
            left.zip(right).is_none_or(|(left, right)| left < right)
        };
        let markdown = std::fs::read_to_string(out.join("paper/document.md")).unwrap();
        assert!(
            letters_and_digits(&markdown).contains("mountainstands"),
            "{markdown}"
        );
        assert!(is_in_order(&markdown), "{ocr}: {markdown}");
        let lines = std::fs::read(out.join("paper/pages/0001.json")).unwrap();
        let lines: serde_json::Value = serde_json::from_slice(&lines).unwrap();
        let lines = lines["lines"].as_array().unwrap();
        let text: String = lines.iter().map(|line| line["text"].as_str().unwrap()).collect();
        assert!(is_in_order(&text), "{ocr}: {text}");
        let hits = weir.search("river", &[]);
        assert!(!hits.is_empty());
        for hit in hits {
            let text = hit["text"].as_str().unwrap();
            assert!(is_in_order(text), "{ocr}: {text}");
        }
    }
}

#[test]
fn repeated_ingest_does_no_work_and_force_redoes_it() {
    let weir = WeirFixture::new();
    let file = weir.write_file("book.pdf", &weir_samples::generate_book(6, 7));
    let file = file.to_str().unwrap();
    let first = weir.ingest_files(&[file]);
    assert_eq!(
        first.single_event("document-done")["searchable"],
        6,
        "{}",
        first.stderr
    );
    let hits = weir.search("chapter", &["--top-k", "50"]);

    let again = weir.ingest_files(&[file]);
    let done = again.single_event("document-done");
    assert_eq!(
        (&done["pages"], &done["skipped"], &done["searchable"]),
        (&6.into(), &6.into(), &6.into())
    );
    assert!(
        again.events_of_type("page-done").is_empty() && again.events_of_type("batch-rasterized").is_empty()
    );

    let forced = weir.ingest_files(&[file, "--force"]);
    assert_eq!(forced.single_event("document-done")["skipped"], 0);
    assert_eq!(forced.events_of_type("page-done").len(), 6);
    assert_eq!(
        weir.search("chapter", &["--top-k", "50"]).len(),
        hits.len(),
        "no passage is stored twice"
    );
}

#[test]
fn labels_and_collection_of_a_run_filter_searches() {
    let weir = WeirFixture::new();
    let file = weir.write_file("book.pdf", &weir_samples::generate_book(2, 7));
    let file = file.to_str().unwrap();
    let north = ["--label", "team=north", "--collection", "minutes"];
    let ended = weir.ingest_files(&[&[file, "--summarize"], &north[..]].concat());
    assert_eq!(ended.exit_code, 0, "{}", ended.stderr);
    let hits = weir.search("chapter", &[&north[..], &["--top-k", "50"]].concat());
    assert!(hits.iter().any(|hit| hit["summary"] == true) && hits.len() > 2);
    assert!(
        hits.iter().all(|hit| hit["labels"]["team"] == "north"),
        "{hits:?}"
    );
    assert!(weir.search("chapter", &["--label", "team=south"]).is_empty());
    let documents = weir.list_documents();
    assert_eq!(documents[0]["labels"]["team"], "north");
    assert_eq!(documents[0]["collection"], "minutes");
    assert_eq!(weir.run_command(&["run", file, "--label", "team"]).exit_code, 2);
}

#[test]
fn page_range_is_ingested_first_and_the_rest_later() {
    let weir = WeirFixture::new();
    let file = weir.write_file("book.pdf", &weir_samples::generate_book(8, 7));
    let file = file.to_str().unwrap();
    let part = weir.ingest_files(&[file, "--pages", "3-5"]);
    assert_eq!(part.single_event("document-done")["pages"], 3);
    let whole = weir.ingest_files(&[file]);
    assert_eq!(
        (
            &whole.single_event("document-done")["pages"],
            &whole.single_event("document-done")["skipped"]
        ),
        (&8.into(), &3.into())
    );
    let beyond = weir.ingest_files(&[file, "--pages", "90-95"]);
    assert_eq!(beyond.exit_code, 1);
    assert_eq!(
        beyond.single_event("document-failed")["error"]["kind"],
        "no-such-page"
    );
}

#[test]
fn the_first_page_is_searchable_long_before_the_last() {
    let weir = WeirFixture::new();
    let file = weir.write_file("book.pdf", &weir_samples::generate_book(120, 7));
    let mut running = WeirProcess::start(weir.weir_command(&["run", "--json", file.to_str().unwrap()]));
    let first = loop {
        let event = running.read_until_event("page-done");
        if event["searchable"] == true {
            break event;
        }
    };
    // Another process finds the page while the other pages are being processed.
    let hits = weir.search("chapter", &["--top-k", "50"]);
    assert!(
        !hits.is_empty(),
        "the search found nothing while the document was being processed"
    );
    let ended = running.wait_for_exit();
    assert_eq!(ended.exit_code, 0, "{}", ended.stderr);
    let done = ended.single_event("document-done");
    let (first, last) = (
        first["at_millis"].as_f64().unwrap(),
        done["at_millis"].as_f64().unwrap(),
    );
    assert!(
        first < 0.1 * last,
        "the first page is searchable after {first} of {last} ms"
    );
    assert_eq!(ended.events_of_type("page-done").len(), 120);
    // Each page is reported when it is done, so the events are spread over the run.
    let mut at: Vec<_> = ended
        .events_of_type("page-done")
        .iter()
        .map(|e| e["at_millis"].as_u64().unwrap())
        .collect();
    let before = at.iter().filter(|at| (**at as f64) < 0.5 * last).count();
    at.dedup();
    assert!(before >= 20 && at.len() >= 20, "{at:?}, {last}");
}
