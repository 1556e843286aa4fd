//! Pages that a vision model at an HTTP endpoint reads: its Markdown becomes the text, and its failures end single pages only.

use serde_json::{Value, json};
use weir_samples::fonts::Typeface;
use weir_samples::pdf_document::{Document, Image, Page};
use weir_tests::WeirFixture;
use weir_tests::server::TestServer;
use weir_tests::vision_server::{VisionRequest, VisionServer};

/// Each page has a width of its own, in points, by which its image can be recognized.
const PAGE_WIDTHS: [f32; 6] = [300.0, 350.0, 400.0, 450.0, 500.0, 550.0];
const PAGE_HEIGHT: f32 = 700.0;
const PAGE_SUBJECTS: [&str; 6] = [
    "sluices",
    "eels",
    "toll keepers",
    "icebreakers",
    "lanterns",
    "surveyors",
];

/// Six pages whose text layer does not contain their subjects.
fn six_page_pdf() -> Vec<u8> {
    let page = |width: &f32| {
        let mut page = Page::new((*width, PAGE_HEIGHT));
        page.draw_text(
            Typeface::Serif,
            12.0,
            40.0,
            600.0,
            "The text layer of this page, which is not to be read.",
        );
        page
    };
    let document = Document {
        title: "Six subjects".into(),
        pages: PAGE_WIDTHS.iter().map(page).collect(),
        ..Document::default()
    };
    document.to_pdf_bytes()
}

/// Returns the number of the page in the image.
fn page_number_of_image(request: &VisionRequest) -> usize {
    let width = request.image_size.0 as f32 * PAGE_HEIGHT / request.image_size.1 as f32;
    let page = PAGE_WIDTHS.iter().position(|known| (known - width).abs() < 2.0);
    page.unwrap_or_else(|| panic!("{request:?} matches no page")) + 1
}

fn transcript_of_page(page: usize) -> String {
    let subject = PAGE_SUBJECTS[page - 1];
    format!(
        "# About {subject}\n\nThis page tells of *{subject}* and how many there were.\n\n| year | {subject} |\n|---|---|\n| 1870 | {page} |"
    )
}

fn join_arguments<'a>(first: &[&'a str], more: &'a [String]) -> Vec<&'a str> {
    first
        .iter()
        .copied()
        .chain(more.iter().map(String::as_str))
        .collect()
}

#[test]
fn vision_model_pages_keep_their_order_and_failures_are_reported() {
    let vision_server = VisionServer::new(|request| match page_number_of_image(request) {
        4 => Err(500),
        2 => Ok(format!("```markdown\n{}\n```", transcript_of_page(2))),
        page => Ok(transcript_of_page(page)),
    });
    let weir = WeirFixture::new();
    let file = weir.write_file("six.pdf", &six_page_pdf());
    let out = weir.folder().join("out");
    let more = vision_server.provider_arguments(&[
        "llm.when_all_providers_fail=fail",
        "llm.max_attempts=2",
        "llm.initial_backoff_millis=1",
        "vision.max_concurrent_pages=3",
    ]);
    let first = [
        "--vision",
        "always",
        "--out",
        out.to_str().unwrap(),
        file.to_str().unwrap(),
    ];
    let all = join_arguments(&first, &more);
    let ended = weir.ingest_files(&all);
    assert_eq!(ended.exit_code, 0, "{}", ended.stderr);
    ended.assert_valid_event_log();
    let done = ended.single_event("document-done");
    assert_eq!((&done["pages"], &done["searchable"]), (&json!(6), &json!(5)));
    let failed = done["failed"].as_array().unwrap();
    assert_eq!((failed.len(), &failed[0]["page"]), (1, &json!(4)), "{done}");
    let error = &failed[0]["error"];
    assert_eq!(error["kind"], "llm-down");
    let message = error["message"].as_str().unwrap();
    assert!(message.contains("vision failed with status 500"), "{message}");

    // Each page is sent once and the failing page once for each attempt, at the configured size and concurrency.
    let requests = vision_server.requests();
    let mut page_numbers: Vec<_> = requests.iter().map(page_number_of_image).collect();
    page_numbers.sort_unstable();
    assert_eq!(page_numbers, [1, 2, 3, 4, 4, 5, 6]);
    for request in &requests {
        assert!((1550..=1568).contains(&request.image_size.1), "{request:?}");
        assert!(
            request.max_tokens == 4096 && request.prompt.contains("Markdown"),
            "{request:?}"
        );
    }
    assert!(
        (1..=3).contains(&vision_server.max_in_flight()),
        "{}",
        vision_server.max_in_flight()
    );

    let markdown = std::fs::read_to_string(out.join("six/document.md")).unwrap();
    let parts: Vec<&str> = markdown.split("<!-- page ").skip(1).collect();
    assert_eq!(parts.len(), 6, "{markdown}");
    for (page, part) in (1..).zip(&parts) {
        assert!(part.starts_with(&format!("{page} -->")), "{markdown}");
        match page {
            4 => assert!(
                part.contains("> **Page 4 could not be read:** no language model responds"),
                "{part}"
            ),
            _ => assert!(part.contains(&transcript_of_page(page)), "{part}"),
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
        let hits = weir.search(&format!("how many {} were there", PAGE_SUBJECTS[page - 1]), &[]);
        assert_eq!(
            (&hits[0]["page"], &hits[0]["box"]),
            (&json!(page), &whole),
            "{hits:?}"
        );
    }

    // A second run repeats only the page that failed.
    assert_eq!(
        weir.ingest_files(&all).single_event("document-done")["skipped"],
        5
    );
    assert_eq!(vision_server.requests().len(), requests.len() + 2);
}

/// A page with a text layer and a page that is only an image.
fn text_and_scan_pdf() -> Vec<u8> {
    let mut text = Page::new((PAGE_WIDTHS[0], PAGE_HEIGHT));
    text.draw_text(
        Typeface::Serif,
        12.0,
        40.0,
        600.0,
        "This page has a text layer that speaks of herons.",
    );
    let mut scan = Page::new((PAGE_WIDTHS[1], PAGE_HEIGHT));
    scan.draw_image(0, 0.0, 0.0, PAGE_WIDTHS[1], PAGE_HEIGHT);
    let document = Document {
        pages: vec![text, scan],
        images: vec![Image {
            width: 1,
            height: 1,
            is_color: false,
            is_jpeg: false,
            bytes: vec![0x40],
        }],
        ..Document::default()
    };
    document.to_pdf_bytes()
}

#[test]
fn without_a_vision_model_only_pages_routed_to_it_fail() {
    let weir = WeirFixture::new();
    let file = weir.write_file("mixed.pdf", &text_and_scan_pdf());
    let manifest = weir.write_file(
        "pipeline.toml",
        b"name = \"seen\"\n[settings]\nvision = \"auto\"\n",
    );
    let first = [file.to_str().unwrap(), "--pipeline", manifest.to_str().unwrap()];
    let ended = weir.ingest_files(&first);
    assert_eq!(ended.exit_code, 0, "{}", ended.stderr);
    let done = ended.single_event("document-done");
    assert_eq!(
        (&done["searchable"], &done["failed"][0]["page"]),
        (&json!(1), &json!(2)),
        "{done}"
    );
    let error = &done["failed"][0]["error"];
    assert_eq!(error["kind"], "model-unavailable");
    assert!(
        error["message"]
            .as_str()
            .unwrap()
            .contains("set supports_images = true"),
        "{error}"
    );

    // With a vision model, the next run does the missing page.
    let vision_server = VisionServer::new(|request| Ok(transcript_of_page(page_number_of_image(request))));
    let more = vision_server.provider_arguments(&[]);
    let done = weir
        .ingest_files(&join_arguments(&first, &more))
        .single_event("document-done")
        .clone();
    assert_eq!(
        (&done["skipped"], &done["searchable"]),
        (&json!(1), &json!(2)),
        "{done}"
    );
    assert_eq!(
        vision_server
            .requests()
            .iter()
            .map(page_number_of_image)
            .collect::<Vec<_>>(),
        [2]
    );
    assert_eq!(weir.search("herons", &[])[0]["page"], 1);

    // A run that needs the model for all pages fails before any work.
    let ended = weir.ingest_files(&[file.to_str().unwrap(), "--vision", "always"]);
    assert_eq!(
        (ended.exit_code, ended.stdout_lines.len()),
        (1, 0),
        "{:?}",
        ended.stdout_lines
    );
    assert!(ended.stderr.contains("[[llm.provider]]"), "{}", ended.stderr);
}

#[test]
fn http_job_has_its_pages_read_by_a_vision_model() {
    let vision_server = VisionServer::new(|request| Ok(transcript_of_page(page_number_of_image(request))));
    let weir = WeirFixture::new();
    let more = vision_server.provider_arguments(&[]);
    let server = TestServer::start(&weir, &join_arguments(&[], &more));
    let client = server.admin_client();
    let options = json!({ "vision": "always", "pages": { "first": 2, "last": 3 } });
    let response = client.submit_files(&[("six.pdf", &six_page_pdf())], &options, &[]);
    assert_eq!(response.status, 202, "{}", response.body);
    let events = client.wait_for_job(response.body["id"].as_str().unwrap());
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
    let (two, three) = (
        markdown.find(&transcript_of_page(2)),
        markdown.find(&transcript_of_page(3)),
    );
    assert!(two.is_some() && two < three, "{markdown}");
    let hits = client
        .post("/v1/search", &json!({ "query": "eels", "top_k": 1 }))
        .body["hits"]
        .clone();
    assert_eq!(hits[0]["page"], 2, "{hits}");
    assert_eq!(client.metric_value("weir_stage_workers{stage=\"vision\"}"), 5.0);
    assert_eq!(server.stop().exit_code, 0);
}
