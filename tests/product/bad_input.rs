//! Bad input is everyday input: a named error on one line, at once, and no harm to the files given with it.

use std::path::Path;
use std::time::Duration;

use serde_json::Value;
use weir_tests::disk::SmallDisk;
use weir_tests::{Ended, Weir};

/// Ingests a bad file together with a good one: the bad one fails by `kind`, the good one is done.
fn fails_alone(weir: &Weir, bad: &Path, kind: &str, more: &[&str]) -> Ended {
    let good = weir.file("good.pdf", &weir_samples::book(2, 7));
    let mut arguments = vec![bad.to_str().unwrap(), good.to_str().unwrap()];
    arguments.extend(more);
    let ended = weir.ingest(&arguments);
    let failed = ended.event("document-failed");
    assert_eq!(failed["error"]["kind"], kind, "{failed}");
    let message = failed["error"]["message"].as_str().unwrap();
    assert!(!message.is_empty() && !message.contains('\n'), "{message}");
    assert_eq!(failed["name"], bad.file_name().unwrap().to_str().unwrap());
    assert_eq!(ended.code, 1);
    let done = ended.event("document-done");
    assert_eq!(
        (&done["name"], &done["searchable"]),
        (&"good.pdf".into(), &2.into()),
        "{}",
        ended.errors
    );
    ended.check_log();
    ended
}

#[test]
fn files_that_are_no_readable_pdf() {
    let weir = Weir::new();
    for (name, bytes, kind) in [
        ("text.pdf", b"just some text".to_vec(), "not-a-pdf"),
        ("empty.pdf", Vec::new(), "empty-file"),
        ("cut.pdf", weir_samples::truncated(), "damaged-pdf"),
        ("none.pdf", weir_samples::zero_pages(), "no-pages"),
    ] {
        let file = weir.file(name, &bytes);
        fails_alone(&weir, &file, kind, &[]);
    }
}

#[test]
fn files_that_are_not_there() {
    let weir = Weir::new();
    fails_alone(&weir, &weir.folder().join("missing.pdf"), "file", &[]);
    let empty = weir.folder().join("nothing-here");
    std::fs::create_dir(&empty).unwrap();
    fails_alone(&weir, &empty, "file", &[]);
}

#[test]
fn encrypted_with_and_without_its_password() {
    let weir = Weir::new();
    let file = weir.file("secret.pdf", &weir_samples::encrypted("open sesame"));
    fails_alone(&weir, &file, "encrypted", &[]);
    fails_alone(&weir, &file, "wrong-password", &["--password", "guess"]);
    let ended = weir.ingest(&[file.to_str().unwrap(), "--password", "open sesame"]);
    assert_eq!(ended.code, 0, "{}", ended.errors);
    assert!(ended.event("document-done")["searchable"].as_u64().unwrap() > 0);
}

#[test]
fn ten_thousand_pages_of_nothing() {
    let weir = Weir::new();
    let file = weir.file("nothing.pdf", &weir_samples::empty_pages(10_000));
    let ended = weir.ingest(&[file.to_str().unwrap()]);
    let done = ended.event("document-done");
    assert_eq!(
        (&done["pages"], &done["searchable"], &done["failed"]),
        (&10_000.into(), &0.into(), &serde_json::json!([]))
    );
    assert_eq!(ended.code, 0);
}

#[test]
fn a_page_of_two_hundred_inches() {
    let weir = Weir::new();
    let file = weir.file("huge.pdf", &weir_samples::huge_page());
    let ended = weir.ingest(&[file.to_str().unwrap()]);
    // Even at the lowest resolution its image is larger than one may be: that page is given up by name, at once.
    assert_eq!(
        ended.event("document-done")["failed"][0]["error"]["kind"],
        "page-too-large",
        "{}",
        ended.errors
    );
    let larger = ended_with_room(&weir, &file);
    assert_eq!(
        larger.event("document-done")["failed"],
        serde_json::json!([]),
        "{}",
        larger.errors
    );
}

/// With room for it, the page is drawn at the resolution that fits.
fn ended_with_room(weir: &Weir, file: &Path) -> Ended {
    let room = [
        "--set",
        "raster.page_bytes=201326592",
        "--set",
        "raster.image_bytes=402653184",
        "--force",
    ];
    let mut arguments = vec![file.to_str().unwrap()];
    arguments.extend(room);
    weir.ingest(&arguments)
}

#[test]
fn a_decompression_bomb() {
    let weir = Weir::new();
    let bomb = weir.file("bomb.pdf", &weir_samples::decompression_bomb());
    let good = weir.file("good.pdf", &weir_samples::book(2, 7));
    let ended = weir.ingest(&[bomb.to_str().unwrap(), good.to_str().unwrap()]);
    // Whether the bomb's page fails or is drawn without what does not fit, it is said, and nobody else is harmed.
    assert_eq!(
        ended.events("document-done").len() + ended.events("document-failed").len(),
        2,
        "{}",
        ended.errors
    );
    let good = ended
        .events("document-done")
        .into_iter()
        .find(|e| e["name"] == "good.pdf")
        .unwrap();
    assert_eq!(good["searchable"], 2);
    assert!(ended.took < Duration::from_secs(150), "{:?}", ended.took);
}

#[test]
fn one_bad_page_is_reported_or_stops_the_document_as_the_tenant_rules() {
    let weir = Weir::new();
    let file = weir.file("one-bad.pdf", &weir_samples::one_bad_page(6, 3));
    let file = file.to_str().unwrap();
    let skip = weir.file(
        "skip.toml",
        b"name = \"skip\"\n[settings]\non-page-failure = \"skip\"\n",
    );
    let ended = weir.ingest(&[file, "--pipeline", skip.to_str().unwrap()]);
    let done = ended.event("document-done");
    assert_eq!(
        (&done["pages"], &done["searchable"]),
        (&6.into(), &5.into()),
        "{}",
        ended.errors
    );
    assert_eq!(done["failed"][0]["page"], 3);
    assert_eq!(done["failed"][0]["error"]["kind"], "page-unreadable");
    assert_eq!(ended.code, 0);

    let fail = weir.file(
        "fail.toml",
        b"name = \"fail\"\n[settings]\non-page-failure = \"fail\"\n",
    );
    let ended = weir.ingest(&[file, "--pipeline", fail.to_str().unwrap()]);
    let failed = ended.event("document-failed");
    assert_eq!(failed["error"]["kind"], "page-unreadable");
    assert!(
        failed["error"]["message"].as_str().unwrap().contains("page 3"),
        "{failed}"
    );
    assert_eq!(ended.code, 1);
}

#[test]
fn an_output_folder_without_rights() {
    let weir = Weir::new();
    let file = weir.file("good.pdf", &weir_samples::book(1, 7));
    // A file where the folder should be stops even the superuser.
    let place = weir.file("place", b"");
    let ended = weir.ingest(&[
        file.to_str().unwrap(),
        "--out",
        place.join("out").to_str().unwrap(),
    ]);
    assert_eq!(ended.code, 1);
    one_line(&ended, "cannot write");
    assert!(ended.lines.is_empty(), "no work is begun");
}

#[test]
fn a_missing_model() {
    let weir = Weir::new();
    let file = weir.file("good.pdf", &weir_samples::book(1, 7));
    let assets = weir.folder().join("assets");
    std::fs::create_dir(&assets).unwrap();
    let mut command = weir.command(&["run", "--json", file.to_str().unwrap()]);
    command.env("WEIR_PATHS_ASSETS", &assets);
    let ended = weir_tests::Running::start(command).wait();
    assert_eq!(ended.code, 1);
    one_line(&ended, "make setup");
}

#[test]
fn wrong_use() {
    let weir = Weir::new();
    for (arguments, part) in [
        (&["run"][..], "FILE"),
        (&["run", "a.pdf", "--pages", "9-2"], "range of pages"),
        (&["run", "a.pdf", "--dpi", "9"], "36"),
        (&["run", "a.pdf", "--set", "raster.workers=x"], "raster.workers"),
        (
            &["run", "a.pdf", "--set", "raster.worker=1"],
            "did you mean 'raster.workers'",
        ),
        (&["run", "a.pdf", "--ocr", "perhaps"], "auto"),
        (&["search"], "TEXT"),
    ] {
        let ended = weir.run(arguments);
        assert_eq!(ended.code, 2, "{arguments:?}: {}", ended.errors);
        assert!(ended.errors.contains(part), "{arguments:?}: {}", ended.errors);
    }
}

#[test]
fn a_disk_that_is_full() {
    let weir = Weir::new();
    let disk = SmallDisk::at(&weir.data(), 256);
    let file = weir.file("book.pdf", &weir_samples::book(30, 7));
    disk.fill();
    let ended = weir.ingest(&[file.to_str().unwrap()]);
    assert_eq!(ended.code, 1);
    one_line(&ended, "no space left");
    disk.free();
    let after = weir.ingest(&[file.to_str().unwrap()]);
    assert_eq!(after.code, 0, "with room again the run goes on: {}", after.errors);
    assert_eq!(after.event("document-done")["searchable"], 30);
}

fn one_line(ended: &Ended, part: &str) {
    let lines: Vec<_> = ended.errors.lines().collect();
    let told = ended.errors.clone() + &ended.lines.iter().map(Value::to_string).collect::<String>();
    assert!(told.contains(part), "{told}");
    assert!(lines.len() <= 1, "{lines:?}");
}
