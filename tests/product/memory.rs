//! Memory grows with the workers, not with the document.

use weir_tests::processes::MemoryWatch;
use weir_tests::{Running, Weir};

fn peak(pages: usize) -> u64 {
    let weir = Weir::new();
    let file = weir.file("book.pdf", &weir_samples::book(pages, 7));
    let running = Running::start(weir.command(&["run", "--json", file.to_str().unwrap()]));
    let watch = MemoryWatch::start(running.pid());
    let ended = running.wait();
    assert_eq!(
        ended.event("document-done")["searchable"],
        pages,
        "{}",
        ended.errors
    );
    watch.peak()
}

#[test]
fn five_hundred_pages_take_hardly_more_than_fifty() {
    let (small, large) = (peak(50), peak(500));
    let ratio = large as f64 / small as f64;
    eprintln!(
        "peak of all processes: 50 pages {} MiB, 500 pages {} MiB, ratio {ratio:.2}",
        small >> 20,
        large >> 20
    );
    assert!(ratio <= 1.2, "{small} bytes for 50 pages, {large} for 500");
}
