//! Killed at any moment and started again, a run ends with every page exactly once in vectors, blobs and ledger.

use std::time::{Duration, Instant};

use rustix::process::Signal;
use weir_tests::{Running, Weir, processes};

/// Twenty moments spread over a run, none of them twice the same.
fn moments(whole: Duration) -> impl Iterator<Item = Duration> {
    let mut state = 0x2545_f491_4f6c_dd1d_u64;
    (0..20).map(move |_| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        whole.mul_f64((state % 1000) as f64 / 1000.0)
    })
}

#[test]
fn nothing_is_lost_by_twenty_kills() {
    let book = weir_samples::book(40, 7);
    let calm = Weir::new();
    let file = calm.file("book.pdf", &book);
    let undisturbed = calm.ingest(&[file.to_str().unwrap()]);
    assert_eq!(
        undisturbed.event("document-done")["searchable"],
        40,
        "{}",
        undisturbed.errors
    );

    let weir = Weir::new();
    let file = weir.file("book.pdf", &book);
    let arguments = ["run", "--json", file.to_str().unwrap()];
    for moment in moments(undisturbed.took.div_f64(4.0)) {
        let running = Running::start(weir.command(&arguments));
        std::thread::sleep(moment);
        let family = processes::family(running.pid());
        running.signal(Signal::KILL);
        running.wait();
        let deadline = Instant::now() + Duration::from_secs(5);
        while family.iter().any(|p| processes::alive(*p)) {
            assert!(
                Instant::now() < deadline,
                "a process outlived the host that was killed"
            );
            std::thread::sleep(Duration::from_millis(10));
        }
    }
    let last = weir.ingest(&[file.to_str().unwrap()]);
    let done = last.event("document-done");
    assert_eq!(
        (&done["pages"], &done["searchable"], &done["failed"]),
        (&40.into(), &40.into(), &serde_json::json!([]))
    );

    for query in ["chapter", "river", "the first of them"] {
        let hits = |w: &Weir| {
            let mut hits: Vec<_> = w
                .search(query, &["--top-k", "1000"])
                .iter()
                .map(|h| (h["page"].as_u64().unwrap(), h["text"].to_string()))
                .collect();
            hits.sort();
            hits
        };
        let (calm, disturbed) = (hits(&calm), hits(&weir));
        assert!(calm.len() > 40, "{} passages are too few to compare", calm.len());
        assert_eq!(
            calm, disturbed,
            "passages after the kills differ from those of an undisturbed run"
        );
    }
    let blobs = |w: &Weir| {
        let mut names = Vec::new();
        let mut folders = vec![w.data().join("blobs")];
        while let Some(folder) = folders.pop() {
            for entry in std::fs::read_dir(folder).unwrap().flatten() {
                if entry.path().is_dir() {
                    folders.push(entry.path());
                } else {
                    names.push(entry.path().strip_prefix(w.data()).unwrap().to_owned());
                }
            }
        }
        names.sort();
        names
    };
    assert_eq!(
        blobs(&calm),
        blobs(&weir),
        "files after the kills differ from those of an undisturbed run"
    );
    assert_eq!(weir.documents()[0]["done"], 40);
}
