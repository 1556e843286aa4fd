//! Memory depends on the number of workers, not on the size of the document.

use weir_tests::processes::MemoryMonitor;
use weir_tests::{WeirFixture, WeirProcess};

fn measure_peak_bytes(pages: usize) -> u64 {
    let weir = WeirFixture::new();
    let file = weir.write_file("book.pdf", &weir_samples::generate_book(pages, 7));
    let running = WeirProcess::start(weir.weir_command(&["run", "--json", file.to_str().unwrap()]));
    let watch = MemoryMonitor::start(running.pid());
    let ended = running.wait_for_exit();
    assert_eq!(
        ended.single_event("document-done")["searchable"],
        pages,
        "{}",
        ended.stderr
    );
    watch.stop_with_peak_bytes()
}

#[test]
fn five_hundred_pages_use_little_more_memory_than_fifty() {
    let (small, large) = (measure_peak_bytes(50), measure_peak_bytes(500));
    let ratio = large as f64 / small as f64;
    eprintln!(
        "peak memory of all processes: 50 pages {} MiB, 500 pages {} MiB, ratio {ratio:.2}",
        small >> 20,
        large >> 20
    );
    assert!(ratio <= 1.2, "{small} bytes for 50 pages, {large} for 500");
}
