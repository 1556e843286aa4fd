//! What a person is told: each fault once, by its reason, and nothing about what went as it should.

use weir_tests::Weir;

/// The lines of standard error that have this part.
fn lines<'a>(errors: &'a str, part: &str) -> Vec<&'a str> {
    errors.lines().filter(|line| line.contains(part)).collect()
}

#[test]
fn doctor_prints_no_warnings_about_its_own_probes() {
    let ended = Weir::new().run(&["doctor"]);
    assert_eq!(ended.code, 0, "{}", ended.errors);
    assert!(!ended.errors.contains("WARN"), "{}", ended.errors);
}

#[test]
fn failed_file_is_reported_once() {
    let weir = Weir::new();
    let file = weir.file("text.pdf", b"just some text");
    let ended = weir.run(&["run", file.to_str().unwrap()]);
    assert_eq!(ended.code, 1);
    assert_eq!(lines(&ended.errors, "text.pdf").len(), 1, "{}", ended.errors);
    assert!(!ended.errors.contains("WARN"), "{}", ended.errors);
}

#[test]
fn failed_page_is_reported_once() {
    let weir = Weir::new();
    let file = weir.file("one-bad.pdf", &weir_samples::one_bad_page(6, 3));
    let skip = weir.file(
        "skip.toml",
        b"name = \"skip\"\n[settings]\non-page-failure = \"skip\"\n",
    );
    let ended = weir.run(&[
        "run",
        file.to_str().unwrap(),
        "--pipeline",
        skip.to_str().unwrap(),
    ]);
    assert_eq!(ended.code, 0, "{}", ended.errors);
    assert_eq!(lines(&ended.errors, "page 3 failed").len(), 1, "{}", ended.errors);
    assert_eq!(
        lines(&ended.errors, "pages searchable after").len(),
        1,
        "{}",
        ended.errors
    );
    assert!(!ended.errors.contains("WARN"), "{}", ended.errors);
}

#[test]
fn folder_without_pdf_is_reported_as_such() {
    let weir = Weir::new();
    let empty = weir.folder().join("nothing-here");
    std::fs::create_dir(&empty).unwrap();
    let ended = weir.run(&["run", empty.to_str().unwrap()]);
    assert_eq!(ended.code, 1);
    assert_eq!(
        lines(&ended.errors, "there is no PDF in this folder").len(),
        1,
        "{}",
        ended.errors
    );
    assert!(!ended.errors.contains("regular file"), "{}", ended.errors);
}

#[test]
fn search_for_nonsense_finds_nothing() {
    let weir = Weir::new();
    let file = weir.file("book.pdf", &weir_samples::book(2, 7));
    assert_eq!(weir.run(&["run", file.to_str().unwrap()]).code, 0);
    let nonsense = "zqxv brontosaurus karaoke";
    let ended = weir.run(&["search", nonsense]);
    assert_eq!((ended.code, ended.lines.len()), (0, 1), "{:?}", ended.lines);
    assert!(
        ended.lines[0].as_str().unwrap().starts_with("nothing found"),
        "{:?}",
        ended.lines
    );
    let hits = weir.search(nonsense, &[]);
    assert!(
        !hits.is_empty() && hits.iter().all(|hit| hit["weak"] == true),
        "{hits:?}"
    );
}

#[test]
fn search_names_positions_in_words() {
    let weir = Weir::new();
    let (name, bytes) = weir_samples::all().into_iter().next().unwrap();
    let file = weir.file(name, &bytes);
    assert_eq!(weir.run(&["run", file.to_str().unwrap()]).code, 0);
    let ended = weir.run(&["search", "roller gate"]);
    let text: Vec<_> = ended
        .lines
        .iter()
        .map(|line| line.as_str().unwrap_or_default())
        .collect();
    assert!(
        text[0].starts_with("1. handbook.pdf, page ") && text[0].contains("score"),
        "{text:?}"
    );
    assert!(!text.iter().any(|line| line.contains(" % ")), "{text:?}");
}
