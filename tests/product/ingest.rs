//! A document goes in, its pages become searchable as they complete, and questions find their answers.

use weir_samples::fonts::Face;
use weir_samples::pdf::{A4, Document, Page};
use weir_tests::{Running, Weir};

fn samples(weir: &Weir) -> std::path::PathBuf {
    let folder = weir.folder().join("samples");
    std::fs::create_dir_all(&folder).unwrap();
    for (name, bytes) in weir_samples::all() {
        std::fs::write(folder.join(name), bytes).unwrap();
    }
    folder
}

#[test]
fn the_samples_answer_their_questions() {
    let weir = Weir::new();
    let folder = samples(&weir);
    let out = weir.folder().join("out");
    let ended = weir.ingest(&[folder.to_str().unwrap(), "--out", out.to_str().unwrap()]);
    assert_eq!(ended.code, 0, "{}", ended.errors);
    ended.check_log();
    for done in ended.events("document-done") {
        assert_eq!(done["pages"], done["searchable"], "{done}");
        assert_eq!(
            (&done["skipped"], done["failed"].as_array().unwrap().len()),
            (&0.into(), 0)
        );
    }

    let (mut asked, mut found) = (0, 0);
    let questions: toml::Table = weir_samples::QUESTIONS.parse().unwrap();
    for question in questions["question"].as_array().unwrap() {
        let of = |key: &str| question[key].as_str().unwrap();
        let hits = weir.search(of("ask"), &[]);
        asked += 1;
        let right = |hit: &serde_json::Value| {
            hit["name"] == of("document")
                && hit["page"].as_i64() == question["page"].as_integer()
                && plain(hit["text"].as_str().unwrap()).contains(&plain(of("phrase")))
        };
        match hits.iter().position(right) {
            Some(_) => found += 1,
            None => eprintln!("not found: {} — best: {}", of("ask"), hits[0]["text"]),
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
    assert!(asked >= 20, "{asked} questions are too few to say anything");
    assert!(
        found * 10 >= asked * 9,
        "{found} of {asked} questions found their passage among five"
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

/// Letters and digits in lower case: what OCR and line breaks leave of a phrase.
fn plain(text: &str) -> String {
    text.chars()
        .filter(|c| c.is_alphanumeric())
        .flat_map(char::to_lowercase)
        .collect()
}

/// A page in two columns: the left one has a heading, so its lines stand between those of the right one.
fn two_columns() -> Vec<u8> {
    let mut page = Page::new(A4);
    page.text(
        Face::SansBold,
        16.0,
        170.0,
        720.0,
        "A Paper on Rivers and Mountains",
    );
    page.text(Face::SansBold, 12.0, 72.0, 640.0, "Abstract");
    for i in 0..24_u8 {
        let y = f32::from(i) * -12.0;
        page.text(
            Face::Serif,
            10.0,
            72.0,
            622.0 + y,
            "The river carries water down to the sea",
        );
        page.text(
            Face::Serif,
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
    document.write()
}

#[test]
fn columns_with_uneven_lines_are_read_one_by_one() {
    for ocr in ["never", "always"] {
        let weir = Weir::new();
        let file = weir.file("paper.pdf", &two_columns());
        let out = weir.folder().join("out");
        let arguments = [
            file.to_str().unwrap(),
            "--out",
            out.to_str().unwrap(),
            "--ocr",
            ocr,
        ];
        let ended = weir.ingest(&arguments);
        assert_eq!(ended.code, 0, "{}", ended.errors);
        let is_in_order = |text: &str| {
            let text = plain(text);
            let (left, right) = (text.rfind("sea"), text.find("mountainstands"));
            left.zip(right).is_none_or(|(left, right)| left < right)
        };
        let markdown = std::fs::read_to_string(out.join("paper/document.md")).unwrap();
        assert!(plain(&markdown).contains("mountainstands"), "{markdown}");
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
fn the_same_document_again_does_no_work_and_force_redoes_it() {
    let weir = Weir::new();
    let file = weir.file("book.pdf", &weir_samples::book(6, 7));
    let file = file.to_str().unwrap();
    let first = weir.ingest(&[file]);
    assert_eq!(first.event("document-done")["searchable"], 6, "{}", first.errors);
    let hits = weir.search("chapter", &["--top-k", "50"]);

    let again = weir.ingest(&[file]);
    let done = again.event("document-done");
    assert_eq!(
        (&done["pages"], &done["skipped"], &done["searchable"]),
        (&6.into(), &6.into(), &6.into())
    );
    assert!(again.events("page-done").is_empty() && again.events("batch-rasterized").is_empty());

    let forced = weir.ingest(&[file, "--force"]);
    assert_eq!(forced.event("document-done")["skipped"], 0);
    assert_eq!(forced.events("page-done").len(), 6);
    assert_eq!(
        weir.search("chapter", &["--top-k", "50"]).len(),
        hits.len(),
        "no passage is doubled"
    );
}

#[test]
fn labels_and_collection_of_a_run_filter_searches() {
    let weir = Weir::new();
    let file = weir.file("book.pdf", &weir_samples::book(2, 7));
    let file = file.to_str().unwrap();
    let north = ["--label", "team=north", "--collection", "minutes"];
    let ended = weir.ingest(&[&[file, "--summarize"], &north[..]].concat());
    assert_eq!(ended.code, 0, "{}", ended.errors);
    let hits = weir.search("chapter", &[&north[..], &["--top-k", "50"]].concat());
    assert!(hits.iter().any(|hit| hit["summary"] == true) && hits.len() > 2);
    assert!(
        hits.iter().all(|hit| hit["labels"]["team"] == "north"),
        "{hits:?}"
    );
    assert!(weir.search("chapter", &["--label", "team=south"]).is_empty());
    let documents = weir.documents();
    assert_eq!(documents[0]["labels"]["team"], "north");
    assert_eq!(documents[0]["collection"], "minutes");
    assert_eq!(weir.run(&["run", file, "--label", "team"]).code, 2);
}

#[test]
fn a_range_of_pages_and_then_the_rest() {
    let weir = Weir::new();
    let file = weir.file("book.pdf", &weir_samples::book(8, 7));
    let file = file.to_str().unwrap();
    let part = weir.ingest(&[file, "--pages", "3-5"]);
    assert_eq!(part.event("document-done")["pages"], 3);
    let whole = weir.ingest(&[file]);
    assert_eq!(
        (
            &whole.event("document-done")["pages"],
            &whole.event("document-done")["skipped"]
        ),
        (&8.into(), &3.into())
    );
    let beyond = weir.ingest(&[file, "--pages", "90-95"]);
    assert_eq!(beyond.code, 1);
    assert_eq!(beyond.event("document-failed")["error"]["kind"], "no-such-page");
}

#[test]
fn the_first_page_is_searchable_long_before_the_last() {
    let weir = Weir::new();
    let file = weir.file("book.pdf", &weir_samples::book(120, 7));
    let mut running = Running::start(weir.command(&["run", "--json", file.to_str().unwrap()]));
    let first = loop {
        let event = running.until("page-done");
        if event["searchable"] == true {
            break event;
        }
    };
    // Another process finds the page while the rest is in work.
    let hits = weir.search("chapter", &["--top-k", "50"]);
    assert!(
        !hits.is_empty(),
        "nothing was found while the document was in work"
    );
    let ended = running.wait();
    assert_eq!(ended.code, 0, "{}", ended.errors);
    let done = ended.event("document-done");
    let (first, last) = (
        first["at_millis"].as_f64().unwrap(),
        done["at_millis"].as_f64().unwrap(),
    );
    assert!(
        first < 0.1 * last,
        "first page searchable after {first} of {last} ms"
    );
    assert_eq!(ended.events("page-done").len(), 120);
    // Each page's result comes when it is done: they are spread over the run, not held for its end.
    let mut at: Vec<_> = ended
        .events("page-done")
        .iter()
        .map(|e| e["at_millis"].as_u64().unwrap())
        .collect();
    let before = at.iter().filter(|at| (**at as f64) < 0.5 * last).count();
    at.dedup();
    assert!(before >= 20 && at.len() >= 20, "{at:?}, {last}");
}
