//! A run that is killed at any time and started again stores every page exactly once in vectors, blobs and ledger.

use std::time::{Duration, Instant};

use rusqlite::Connection;
use rustix::process::Signal;
use weir_tests::{WeirFixture, WeirProcess, processes};

/// Returns twenty different pseudo-random delays within `whole`.
fn kill_delays(whole: Duration) -> impl Iterator<Item = Duration> {
    let mut state = 0x2545_f491_4f6c_dd1d_u64;
    (0..20).map(move |_| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        whole.mul_f64((state % 1000) as f64 / 1000.0)
    })
}

#[test]
fn run_killed_twenty_times_loses_and_duplicates_nothing() {
    let book = weir_samples::generate_book(40, 7);
    let calm = WeirFixture::new();
    let file = calm.write_file("book.pdf", &book);
    let undisturbed = calm.ingest_files(&[file.to_str().unwrap()]);
    assert_eq!(
        undisturbed.single_event("document-done")["searchable"],
        40,
        "{}",
        undisturbed.stderr
    );

    let weir = WeirFixture::new();
    let file = weir.write_file("book.pdf", &book);
    let arguments = ["run", "--json", file.to_str().unwrap()];
    for moment in kill_delays(undisturbed.duration.div_f64(4.0)) {
        let running = WeirProcess::start(weir.weir_command(&arguments));
        std::thread::sleep(moment);
        let pids = processes::process_tree(running.pid());
        running.send_signal(Signal::KILL);
        running.wait_for_exit();
        let deadline = Instant::now() + Duration::from_secs(5);
        while pids.iter().any(|p| processes::is_process_alive(*p)) {
            assert!(
                Instant::now() < deadline,
                "a child process is still running after its host was killed"
            );
            std::thread::sleep(Duration::from_millis(10));
        }
    }
    let last = weir.ingest_files(&[file.to_str().unwrap()]);
    let done = last.single_event("document-done");
    assert_eq!(
        (&done["pages"], &done["searchable"], &done["failed"]),
        (&40.into(), &40.into(), &serde_json::json!([]))
    );

    for query in ["chapter", "river", "the first of them"] {
        let hits = |w: &WeirFixture| {
            let mut hits: Vec<_> = w
                .search(query, &["--top-k", "1000"])
                .iter()
                .map(|h| (h["page"].as_u64().unwrap(), h["text"].to_string()))
                .collect();
            hits.sort();
            hits
        };
        let (calm, disturbed) = (hits(&calm), hits(&weir));
        assert!(
            calm.len() > 40,
            "{} passages are too few to compare the runs",
            calm.len()
        );
        assert_eq!(
            calm, disturbed,
            "the passages differ from those of an uninterrupted run"
        );
    }
    let blobs = |w: &WeirFixture| {
        let mut names = Vec::new();
        let mut folders = vec![w.data_folder().join("blobs")];
        while let Some(folder) = folders.pop() {
            for entry in std::fs::read_dir(folder).unwrap().flatten() {
                if entry.path().is_dir() {
                    folders.push(entry.path());
                } else {
                    names.push(entry.path().strip_prefix(w.data_folder()).unwrap().to_owned());
                }
            }
        }
        // The lines of the pages are in a database.
        let lines = Connection::open(w.data_folder().join("blobs.db")).unwrap();
        let mut keys = lines.prepare("SELECT key FROM blobs").unwrap();
        let keys = keys.query_map([], |row| row.get::<_, String>(0)).unwrap();
        names.extend(keys.map(|key| key.unwrap().into()));
        names.sort();
        assert!(names.len() >= 80, "an image and lines for each page");
        names
    };
    assert_eq!(
        blobs(&calm),
        blobs(&weir),
        "the files differ from those of an uninterrupted run"
    );
    assert_eq!(weir.list_documents()[0]["done"], 40);
}
