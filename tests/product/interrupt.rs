//! Ctrl-C stops a run within two seconds, ends all its processes and keeps the finished pages.

use std::time::{Duration, Instant};

use rustix::process::Signal;
use weir_tests::{WeirFixture, WeirProcess, processes};

/// Interrupts a run after `after_pages` pages. Checks that it stops within two seconds, and that the next run skips the
/// finished pages.
fn assert_interrupt_stops_and_resumes(weir: &WeirFixture, file: &str, after_pages: usize) {
    let mut running = WeirProcess::start(weir.weir_command(&["run", "--json", file]));
    for _ in 0..after_pages {
        running.read_until_event("page-done");
    }
    let pids = processes::process_tree(running.pid());
    let interrupted_at = Instant::now();
    running.send_signal(Signal::INT);
    let ended = running.wait_for_exit();
    assert!(
        interrupted_at.elapsed() < Duration::from_secs(2),
        "stopping took {:?}",
        interrupted_at.elapsed()
    );
    assert_eq!(ended.exit_code, 130, "{}", ended.stderr);
    let left: Vec<_> = pids
        .into_iter()
        .filter(|p| processes::is_process_alive(*p))
        .collect();
    assert!(left.is_empty(), "processes {left:?} are still running");
    ended.assert_valid_event_log();
    let done = ended.single_event("document-cancelled")["done"].as_u64().unwrap();
    assert_eq!(ended.events_of_type("page-done").len() as u64, done);

    let next = weir.ingest_files(&[file]);
    assert_eq!(next.exit_code, 0, "{}", next.stderr);
    assert_eq!(
        next.single_event("document-done")["skipped"],
        done,
        "finished pages must not be processed again"
    );
    assert_eq!(
        next.single_event("document-done")["pages"],
        next.single_event("document-done")["searchable"]
    );
}

#[test]
fn ctrl_c_stops_a_run_of_text_pages() {
    let weir = WeirFixture::new();
    let file = weir.write_file("book.pdf", &weir_samples::generate_book(60, 7));
    assert_interrupt_stops_and_resumes(&weir, file.to_str().unwrap(), 5);
}

#[test]
fn ctrl_c_stops_a_run_of_scanned_pages() {
    let weir = WeirFixture::new();
    let file = weir.write_file("scan.pdf", &weir_samples::generate_scanned_book(8));
    assert_interrupt_stops_and_resumes(&weir, file.to_str().unwrap(), 1);
}
