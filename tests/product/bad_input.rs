//! Bad input fails at once with an error kind and a one-line message, and does not affect the other files of the run.

use std::path::Path;
use std::time::Duration;

use serde_json::Value;
use weir_tests::small_disk::SmallDisk;
use weir_tests::{CommandOutput, WeirFixture};

/// Ingests a bad file together with a good one. Checks that the bad one fails with error kind `kind` and the good one is done.
fn assert_only_bad_file_fails(weir: &WeirFixture, bad: &Path, kind: &str, more: &[&str]) -> CommandOutput {
    let good = weir.write_file("good.pdf", &weir_samples::generate_book(2, 7));
    let mut arguments = vec![bad.to_str().unwrap(), good.to_str().unwrap()];
    arguments.extend(more);
    let ended = weir.ingest_files(&arguments);
    let failed = ended.single_event("document-failed");
    assert_eq!(failed["error"]["kind"], kind, "{failed}");
    let message = failed["error"]["message"].as_str().unwrap();
    assert!(!message.is_empty() && !message.contains('\n'), "{message}");
    assert_eq!(failed["name"], bad.file_name().unwrap().to_str().unwrap());
    assert_eq!(ended.exit_code, 1);
    let done = ended.single_event("document-done");
    assert_eq!(
        (&done["name"], &done["searchable"]),
        (&"good.pdf".into(), &2.into()),
        "{}",
        ended.stderr
    );
    ended.assert_valid_event_log();
    ended
}

#[test]
fn unreadable_pdf_fails_with_error_kind() {
    let weir = WeirFixture::new();
    for (name, bytes, kind) in [
        ("text.pdf", b"just some text".to_vec(), "not-a-pdf"),
        ("empty.pdf", Vec::new(), "empty-file"),
        ("cut.pdf", weir_samples::truncated_document(), "damaged-pdf"),
        ("none.pdf", weir_samples::document_without_pages(), "no-pages"),
    ] {
        let file = weir.write_file(name, &bytes);
        assert_only_bad_file_fails(&weir, &file, kind, &[]);
    }
}

#[test]
fn missing_file_and_empty_folder_fail_with_error_kind_file() {
    let weir = WeirFixture::new();
    assert_only_bad_file_fails(&weir, &weir.folder().join("missing.pdf"), "file", &[]);
    let empty = weir.folder().join("nothing-here");
    std::fs::create_dir(&empty).unwrap();
    assert_only_bad_file_fails(&weir, &empty, "file", &[]);
}

#[test]
fn encrypted_pdf_is_read_only_with_its_password() {
    let weir = WeirFixture::new();
    let file = weir.write_file("secret.pdf", &weir_samples::encrypted_document("open sesame"));
    assert_only_bad_file_fails(&weir, &file, "encrypted", &[]);
    assert_only_bad_file_fails(&weir, &file, "wrong-password", &["--password", "guess"]);
    let ended = weir.ingest_files(&[file.to_str().unwrap(), "--password", "open sesame"]);
    assert_eq!(ended.exit_code, 0, "{}", ended.stderr);
    assert!(
        ended.single_event("document-done")["searchable"]
            .as_u64()
            .unwrap()
            > 0
    );
}

#[test]
fn ten_thousand_empty_pages_are_done_without_passages() {
    let weir = WeirFixture::new();
    let file = weir.write_file("nothing.pdf", &weir_samples::document_of_empty_pages(10_000));
    let ended = weir.ingest_files(&[file.to_str().unwrap()]);
    let done = ended.single_event("document-done");
    assert_eq!(
        (&done["pages"], &done["searchable"], &done["failed"]),
        (&10_000.into(), &0.into(), &serde_json::json!([]))
    );
    assert_eq!(ended.exit_code, 0);
}

#[test]
fn page_of_two_hundred_inches_fails_unless_the_limit_is_raised() {
    let weir = WeirFixture::new();
    let file = weir.write_file("huge.pdf", &weir_samples::document_with_huge_page());
    let ended = weir.ingest_files(&[file.to_str().unwrap()]);
    // Even at the lowest resolution its image is over the limit, so the page fails at once.
    assert_eq!(
        ended.single_event("document-done")["failed"][0]["error"]["kind"],
        "page-too-large",
        "{}",
        ended.stderr
    );
    let larger = ingest_with_larger_page_limit(&weir, &file);
    assert_eq!(
        larger.single_event("document-done")["failed"],
        serde_json::json!([]),
        "{}",
        larger.stderr
    );
}

/// Ingests with a larger limit, under which the page is rasterized at a resolution that fits.
fn ingest_with_larger_page_limit(weir: &WeirFixture, file: &Path) -> CommandOutput {
    let larger_limits = [
        "--set",
        "raster.max_page_image_bytes=201326592",
        "--set",
        "raster.max_total_image_bytes=402653184",
        "--force",
    ];
    let mut arguments = vec![file.to_str().unwrap()];
    arguments.extend(larger_limits);
    weir.ingest_files(&arguments)
}

#[test]
fn decompression_bomb_does_not_harm_other_documents() {
    let weir = WeirFixture::new();
    let bomb = weir.write_file("bomb.pdf", &weir_samples::decompression_bomb_document());
    let good = weir.write_file("good.pdf", &weir_samples::generate_book(2, 7));
    let ended = weir.ingest_files(&[bomb.to_str().unwrap(), good.to_str().unwrap()]);
    // The bomb's page may fail or be rasterized without the part over the limit. Either way an event reports it, and the other
    // document is done.
    assert_eq!(
        ended.events_of_type("document-done").len() + ended.events_of_type("document-failed").len(),
        2,
        "{}",
        ended.stderr
    );
    let good = ended
        .events_of_type("document-done")
        .into_iter()
        .find(|e| e["name"] == "good.pdf")
        .unwrap();
    assert_eq!(good["searchable"], 2);
    assert!(ended.duration < Duration::from_secs(150), "{:?}", ended.duration);
}

#[test]
fn bad_page_is_skipped_or_fails_the_document_as_the_manifest_says() {
    let weir = WeirFixture::new();
    let file = weir.write_file("one-bad.pdf", &weir_samples::document_with_bad_page(6, 3));
    let file = file.to_str().unwrap();
    let skip = weir.write_file(
        "skip.toml",
        b"name = \"skip\"\n[settings]\non-page-failure = \"skip\"\n",
    );
    let ended = weir.ingest_files(&[file, "--pipeline", skip.to_str().unwrap()]);
    let done = ended.single_event("document-done");
    assert_eq!(
        (&done["pages"], &done["searchable"]),
        (&6.into(), &5.into()),
        "{}",
        ended.stderr
    );
    assert_eq!(done["failed"][0]["page"], 3);
    assert_eq!(done["failed"][0]["error"]["kind"], "page-unreadable");
    assert_eq!(ended.exit_code, 0);

    let fail = weir.write_file(
        "fail.toml",
        b"name = \"fail\"\n[settings]\non-page-failure = \"fail\"\n",
    );
    let ended = weir.ingest_files(&[file, "--pipeline", fail.to_str().unwrap()]);
    let failed = ended.single_event("document-failed");
    assert_eq!(failed["error"]["kind"], "page-unreadable");
    assert!(
        failed["error"]["message"].as_str().unwrap().contains("page 3"),
        "{failed}"
    );
    assert_eq!(ended.exit_code, 1);
}

#[test]
fn unwritable_output_folder_fails_before_any_work() {
    let weir = WeirFixture::new();
    let file = weir.write_file("good.pdf", &weir_samples::generate_book(1, 7));
    // A file in place of the parent folder is an error even for the superuser.
    let blocking_file = weir.write_file("place", b"");
    let ended = weir.ingest_files(&[
        file.to_str().unwrap(),
        "--out",
        blocking_file.join("out").to_str().unwrap(),
    ]);
    assert_eq!(ended.exit_code, 1);
    assert_one_line_error(&ended, "cannot write");
    assert!(ended.stdout_lines.is_empty(), "no work is started");
}

#[test]
fn missing_model_file_error_names_make_setup() {
    let weir = WeirFixture::new();
    let file = weir.write_file("good.pdf", &weir_samples::generate_book(1, 7));
    let assets = weir.folder().join("assets");
    std::fs::create_dir(&assets).unwrap();
    let mut command = weir.weir_command(&["run", "--json", file.to_str().unwrap()]);
    command.env("WEIR_PATHS_ASSETS", &assets);
    let ended = weir_tests::WeirProcess::start(command).wait_for_exit();
    assert_eq!(ended.exit_code, 1);
    assert_one_line_error(&ended, "make setup");
}

#[test]
fn wrong_arguments_exit_with_code_2_and_a_hint() {
    let weir = WeirFixture::new();
    for (arguments, part) in [
        (&["run"][..], "FILE"),
        (&["run", "a.pdf", "--pages", "9-2"], "range of pages"),
        (&["run", "a.pdf", "--dpi", "9"], "36"),
        (
            &["run", "a.pdf", "--set", "raster.worker_processes=x"],
            "raster.worker_processes",
        ),
        (
            &["run", "a.pdf", "--set", "raster.worker=1"],
            "did you mean 'raster.worker_processes'",
        ),
        (&["run", "a.pdf", "--ocr", "perhaps"], "auto"),
        (&["search"], "TEXT"),
    ] {
        let ended = weir.run_command(arguments);
        assert_eq!(ended.exit_code, 2, "{arguments:?}: {}", ended.stderr);
        assert!(ended.stderr.contains(part), "{arguments:?}: {}", ended.stderr);
    }
}

#[test]
fn full_disk_fails_the_run_and_freed_space_lets_it_finish() {
    let weir = WeirFixture::new();
    let disk = SmallDisk::mount(&weir.data_folder(), 256);
    let file = weir.write_file("book.pdf", &weir_samples::generate_book(30, 7));
    disk.fill();
    let ended = weir.ingest_files(&[file.to_str().unwrap()]);
    assert_eq!(ended.exit_code, 1);
    assert_one_line_error(&ended, "no space left");
    disk.free_space();
    let after = weir.ingest_files(&[file.to_str().unwrap()]);
    assert_eq!(
        after.exit_code, 0,
        "the run continues once there is free space: {}",
        after.stderr
    );
    assert_eq!(after.single_event("document-done")["searchable"], 30);
}

fn assert_one_line_error(ended: &CommandOutput, part: &str) {
    let lines: Vec<_> = ended.stderr.lines().collect();
    let output = ended.stderr.clone()
        + &ended
            .stdout_lines
            .iter()
            .map(Value::to_string)
            .collect::<String>();
    assert!(output.contains(part), "{output}");
    assert!(lines.len() <= 1, "{lines:?}");
}
