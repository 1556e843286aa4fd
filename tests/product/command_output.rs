//! The command line's output reports each error once, with its reason, and does not warn about normal conditions.

use weir_tests::WeirFixture;

/// Returns the lines of standard error that contain this text.
fn lines_containing<'a>(errors: &'a str, part: &str) -> Vec<&'a str> {
    errors.lines().filter(|line| line.contains(part)).collect()
}

#[test]
fn doctor_prints_no_warnings_about_its_own_probes() {
    let ended = WeirFixture::new().run_command(&["doctor"]);
    assert_eq!(ended.exit_code, 0, "{}", ended.stderr);
    assert!(!ended.stderr.contains("WARN"), "{}", ended.stderr);
}

#[test]
fn failed_file_is_reported_once() {
    let weir = WeirFixture::new();
    let file = weir.write_file("text.pdf", b"just some text");
    let ended = weir.run_command(&["run", file.to_str().unwrap()]);
    assert_eq!(ended.exit_code, 1);
    assert_eq!(
        lines_containing(&ended.stderr, "text.pdf").len(),
        1,
        "{}",
        ended.stderr
    );
    assert!(!ended.stderr.contains("WARN"), "{}", ended.stderr);
}

#[test]
fn failed_page_is_reported_once() {
    let weir = WeirFixture::new();
    let file = weir.write_file("one-bad.pdf", &weir_samples::document_with_bad_page(6, 3));
    let skip = weir.write_file(
        "skip.toml",
        b"name = \"skip\"\n[settings]\non-page-failure = \"skip\"\n",
    );
    let ended = weir.run_command(&[
        "run",
        file.to_str().unwrap(),
        "--pipeline",
        skip.to_str().unwrap(),
    ]);
    assert_eq!(ended.exit_code, 0, "{}", ended.stderr);
    assert_eq!(
        lines_containing(&ended.stderr, "page 3 failed").len(),
        1,
        "{}",
        ended.stderr
    );
    assert_eq!(
        lines_containing(&ended.stderr, "pages searchable after").len(),
        1,
        "{}",
        ended.stderr
    );
    assert!(!ended.stderr.contains("WARN"), "{}", ended.stderr);
}

#[test]
fn folder_without_pdf_is_reported_as_such() {
    let weir = WeirFixture::new();
    let empty = weir.folder().join("nothing-here");
    std::fs::create_dir(&empty).unwrap();
    let ended = weir.run_command(&["run", empty.to_str().unwrap()]);
    assert_eq!(ended.exit_code, 1);
    assert_eq!(
        lines_containing(&ended.stderr, "there is no PDF in this folder").len(),
        1,
        "{}",
        ended.stderr
    );
    assert!(!ended.stderr.contains("regular file"), "{}", ended.stderr);
}

#[test]
fn search_for_nonsense_finds_nothing() {
    let weir = WeirFixture::new();
    let file = weir.write_file("book.pdf", &weir_samples::generate_book(2, 7));
    assert_eq!(weir.run_command(&["run", file.to_str().unwrap()]).exit_code, 0);
    let nonsense = "zqxv brontosaurus karaoke";
    let ended = weir.run_command(&["search", nonsense]);
    assert_eq!(
        (ended.exit_code, ended.stdout_lines.len()),
        (0, 1),
        "{:?}",
        ended.stdout_lines
    );
    assert!(
        ended.stdout_lines[0]
            .as_str()
            .unwrap()
            .starts_with("nothing found"),
        "{:?}",
        ended.stdout_lines
    );
    let hits = weir.search(nonsense, &[]);
    assert!(
        !hits.is_empty() && hits.iter().all(|hit| hit["weak"] == true),
        "{hits:?}"
    );
}

#[test]
fn search_names_positions_in_words() {
    let weir = WeirFixture::new();
    let (name, bytes) = weir_samples::sample_files().into_iter().next().unwrap();
    let file = weir.write_file(name, &bytes);
    assert_eq!(weir.run_command(&["run", file.to_str().unwrap()]).exit_code, 0);
    let ended = weir.run_command(&["search", "roller gate"]);
    let text: Vec<_> = ended
        .stdout_lines
        .iter()
        .map(|line| line.as_str().unwrap_or_default())
        .collect();
    assert!(
        text[0].starts_with("1. handbook.pdf, page ") && text[0].contains("score"),
        "{text:?}"
    );
    assert!(!text.iter().any(|line| line.contains(" % ")), "{text:?}");
}
