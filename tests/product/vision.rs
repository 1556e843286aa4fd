//! Pages read by a vision model at a real endpoint: shown each page, believed for what it writes down, and outlived when it fails.

use serde_json::{Value, json};
use weir_samples::fonts::Face;
use weir_samples::pdf::{Document, Image, Page};
use weir_tests::Weir;
use weir_tests::seer::{Look, Seer};
use weir_tests::server::Server;

/// A page's width tells which it is, in the PDF and in every image of it.
const WIDTHS: [f32; 6] = [300.0, 350.0, 400.0, 450.0, 500.0, 550.0];
const HEIGHT: f32 = 700.0;
const SUBJECTS: [&str; 6] = [
    "sluices",
    "eels",
    "toll keepers",
    "icebreakers",
    "lanterns",
    "surveyors",
];

/// Six pages whose own text says nothing of their subjects.
fn document() -> Vec<u8> {
    let page = |width: &f32| {
        let mut page = Page::new((*width, HEIGHT));
        page.text(
            Face::Serif,
            12.0,
            40.0,
            600.0,
            "The text layer of this page, which is not to be read.",
        );
        page
    };
    let document = Document {
        title: "Six subjects".into(),
        pages: WIDTHS.iter().map(page).collect(),
        ..Document::default()
    };
    document.write()
}

/// The number of the page that is shown.
fn page_of(look: &Look) -> usize {
    let width = look.size.0 as f32 * HEIGHT / look.size.1 as f32;
    let page = WIDTHS.iter().position(|known| (known - width).abs() < 2.0);
    page.unwrap_or_else(|| panic!("{look:?} is no page")) + 1
}

fn written(page: usize) -> String {
    let subject = SUBJECTS[page - 1];
    format!(
        "# About {subject}\n\nThis page tells of *{subject}* and how many there were.\n\n| year | {subject} |\n|---|---|\n| 1870 | {page} |"
    )
}

fn arguments<'a>(first: &[&'a str], more: &'a [String]) -> Vec<&'a str> {
    first
        .iter()
        .copied()
        .chain(more.iter().map(String::as_str))
        .collect()
}

#[test]
fn pages_are_read_found_and_kept_in_order_and_one_that_fails_is_reported() {
    let seer = Seer::new(|look| match page_of(look) {
        4 => Err(500),
        2 => Ok(format!("```markdown\n{}\n```", written(2))),
        page => Ok(written(page)),
    });
    let weir = Weir::new();
    let file = weir.file("six.pdf", &document());
    let out = weir.folder().join("out");
    let more = seer.arguments(&[
        "llm.when_down=fail",
        "llm.tries=2",
        "llm.pause_millis=1",
        "vision.workers=3",
    ]);
    let first = [
        "--vision",
        "always",
        "--out",
        out.to_str().unwrap(),
        file.to_str().unwrap(),
    ];
    let all = arguments(&first, &more);
    let ended = weir.ingest(&all);
    assert_eq!(ended.code, 0, "{}", ended.errors);
    ended.check_log();
    let done = ended.event("document-done");
    assert_eq!((&done["pages"], &done["searchable"]), (&json!(6), &json!(5)));
    let failed = done["failed"].as_array().unwrap();
    assert_eq!((failed.len(), &failed[0]["page"]), (1, &json!(4)), "{done}");
    let error = &failed[0]["error"];
    assert_eq!(error["kind"], "language-down");
    let message = error["message"].as_str().unwrap();
    assert!(message.contains("seer failed with status 500"), "{message}");

    // Each page was shown once, the bad one as often as is tried, each as large as was said and never more at once.
    let looks = seer.looks();
    let mut shown: Vec<_> = looks.iter().map(page_of).collect();
    shown.sort_unstable();
    assert_eq!(shown, [1, 2, 3, 4, 4, 5, 6]);
    for look in &looks {
        assert!((1550..=1568).contains(&look.size.1), "{look:?}");
        assert!(
            look.max_tokens == 4096 && look.prompt.contains("Markdown"),
            "{look:?}"
        );
    }
    assert!((1..=3).contains(&seer.most()), "{}", seer.most());

    let markdown = std::fs::read_to_string(out.join("six/document.md")).unwrap();
    let parts: Vec<&str> = markdown.split("<!-- page ").skip(1).collect();
    assert_eq!(parts.len(), 6, "{markdown}");
    for (page, part) in (1..).zip(&parts) {
        assert!(part.starts_with(&format!("{page} -->")), "{markdown}");
        match page {
            4 => assert!(
                part.contains("> **Page 4 could not be read:** no language model answers"),
                "{part}"
            ),
            _ => assert!(part.contains(&written(page)), "{part}"),
        }
    }
    assert!(
        !markdown.contains("text layer") && !markdown.contains("```"),
        "{markdown}"
    );
    let lines = std::fs::read_to_string(out.join("six/pages/0003.json")).unwrap();
    let lines: Value = serde_json::from_str(&lines).unwrap();
    assert_eq!(lines["source"], "vision-model");
    let whole = json!({ "x": 0.0, "y": 0.0, "width": 1.0, "height": 1.0 });
    assert!(
        lines["lines"]
            .as_array()
            .unwrap()
            .iter()
            .all(|line| line["box"] == whole)
    );
    for page in [1, 2, 3, 5, 6] {
        let hits = weir.search(&format!("how many {} were there", SUBJECTS[page - 1]), &[]);
        assert_eq!(
            (&hits[0]["page"], &hits[0]["box"]),
            (&json!(page), &whole),
            "{hits:?}"
        );
    }

    // What is done is not asked again, what failed is.
    assert_eq!(weir.ingest(&all).event("document-done")["skipped"], 5);
    assert_eq!(seer.looks().len(), looks.len() + 2);
}

/// A page with text and one that is a picture.
fn mixed() -> Vec<u8> {
    let mut text = Page::new((WIDTHS[0], HEIGHT));
    text.text(
        Face::Serif,
        12.0,
        40.0,
        600.0,
        "This page has a text layer that speaks of herons.",
    );
    let mut scan = Page::new((WIDTHS[1], HEIGHT));
    scan.image(0, 0.0, 0.0, WIDTHS[1], HEIGHT);
    let document = Document {
        pages: vec![text, scan],
        images: vec![Image {
            width: 1,
            height: 1,
            color: false,
            jpeg: false,
            bytes: vec![0x40],
        }],
        ..Document::default()
    };
    document.write()
}

#[test]
fn a_pipeline_chooses_page_by_page_and_without_a_model_only_those_pages_fail() {
    let weir = Weir::new();
    let file = weir.file("mixed.pdf", &mixed());
    let manifest = weir.file(
        "pipeline.toml",
        b"name = \"seen\"\n[settings]\nvision = \"auto\"\n",
    );
    let first = [file.to_str().unwrap(), "--pipeline", manifest.to_str().unwrap()];
    let ended = weir.ingest(&first);
    assert_eq!(ended.code, 0, "{}", ended.errors);
    let done = ended.event("document-done");
    assert_eq!(
        (&done["searchable"], &done["failed"][0]["page"]),
        (&json!(1), &json!(2)),
        "{done}"
    );
    let error = &done["failed"][0]["error"];
    assert_eq!(error["kind"], "model-unavailable");
    assert!(
        error["message"].as_str().unwrap().contains("set vision = true"),
        "{error}"
    );

    // With one, what is missing is done.
    let seer = Seer::new(|look| Ok(written(page_of(look))));
    let more = seer.arguments(&[]);
    let done = weir
        .ingest(&arguments(&first, &more))
        .event("document-done")
        .clone();
    assert_eq!(
        (&done["skipped"], &done["searchable"]),
        (&json!(1), &json!(2)),
        "{done}"
    );
    assert_eq!(seer.looks().iter().map(page_of).collect::<Vec<_>>(), [2]);
    assert_eq!(weir.search("herons", &[])[0]["page"], 1);

    // Who asks for it for all pages is told before any work.
    let ended = weir.ingest(&[file.to_str().unwrap(), "--vision", "always"]);
    assert_eq!((ended.code, ended.lines.len()), (1, 0), "{:?}", ended.lines);
    assert!(ended.errors.contains("[[llm.provider]]"), "{}", ended.errors);
}

#[test]
fn a_job_over_http_has_its_pages_read_by_a_vision_model() {
    let seer = Seer::new(|look| Ok(written(page_of(look))));
    let weir = Weir::new();
    let more = seer.arguments(&[]);
    let server = Server::start(&weir, &arguments(&[], &more));
    let client = server.admin();
    let options = json!({ "vision": "always", "pages": { "first": 2, "last": 3 } });
    let answer = client.submit(&[("six.pdf", &document())], &options, &[]);
    assert_eq!(answer.status, 202, "{}", answer.body);
    let events = client.wait(answer.body["id"].as_str().unwrap());
    let document = events
        .iter()
        .find_map(|e| e["document"].as_str())
        .unwrap()
        .to_owned();
    let page = client.get(&format!("/v1/documents/{document}/pages/2"));
    assert_eq!(
        (&page.body["state"], &page.body["source"]),
        (&json!("done"), &json!("vision-model")),
        "{}",
        page.body
    );
    let markdown = client.get(&format!("/v1/documents/{document}/markdown"));
    let markdown = markdown.body.as_str().unwrap();
    let (two, three) = (markdown.find(&written(2)), markdown.find(&written(3)));
    assert!(two.is_some() && two < three, "{markdown}");
    let hits = client
        .post("/v1/search", &json!({ "query": "eels", "top_k": 1 }))
        .body["hits"]
        .clone();
    assert_eq!(hits[0]["page"], 2, "{hits}");
    assert_eq!(client.measured("weir_workers{stage=\"vision\"}"), 5.0);
    assert_eq!(server.stop().code, 0);
}
