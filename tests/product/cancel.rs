//! Ctrl-C: no new pages, an end within two seconds, no process left, what is done kept.

use std::time::{Duration, Instant};

use rustix::process::Signal;
use weir_tests::{Running, Weir, processes};

fn interrupted(weir: &Weir, file: &str, after_pages: usize) {
    let mut running = Running::start(weir.command(&["run", "--json", file]));
    for _ in 0..after_pages {
        running.until("page-done");
    }
    let family = processes::family(running.pid());
    let asked = Instant::now();
    running.signal(Signal::INT);
    let ended = running.wait();
    assert!(
        asked.elapsed() < Duration::from_secs(2),
        "it took {:?} to stop",
        asked.elapsed()
    );
    assert_eq!(ended.code, 130, "{}", ended.errors);
    let left: Vec<_> = family.into_iter().filter(|p| processes::alive(*p)).collect();
    assert!(left.is_empty(), "processes {left:?} stayed behind");
    ended.check_log();
    let done = ended.event("document-cancelled")["done"].as_u64().unwrap();
    assert_eq!(ended.events("page-done").len() as u64, done);

    let next = weir.ingest(&[file]);
    assert_eq!(next.code, 0, "{}", next.errors);
    assert_eq!(
        next.event("document-done")["skipped"],
        done,
        "what was done is not done again"
    );
    assert_eq!(
        next.event("document-done")["pages"],
        next.event("document-done")["searchable"]
    );
}

#[test]
fn text_pages() {
    let weir = Weir::new();
    let file = weir.file("book.pdf", &weir_samples::book(60, 7));
    interrupted(&weir, file.to_str().unwrap(), 5);
}

#[test]
fn scanned_pages() {
    let weir = Weir::new();
    let file = weir.file("scan.pdf", &weir_samples::scanned_book(8));
    interrupted(&weir, file.to_str().unwrap(), 1);
}
