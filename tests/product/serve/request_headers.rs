//! Endless and incomplete request headers are refused early and use little memory, also from several clients at once.

use std::net::SocketAddr;
use std::time::Duration;

use weir_tests::WeirFixture;
use weir_tests::abusive_requests::{
    send_endless_continuation, send_endless_header, send_endless_headers, trickle_header_bytes,
};
use weir_tests::processes::PeakMemoryGrowth;
use weir_tests::raw_connection::RawResponse;
use weir_tests::server::TestServer;

type FloodFn = fn(SocketAddr) -> (u64, RawResponse);

/// Largest number of bytes a client may send. The kernel's buffers on the loopback interface take some before the client sees the refusal.
const MAX_SENT_BYTES: u64 = 16 << 20;
const CLIENT_COUNT: usize = 8;
/// Largest growth for all clients together. One connection may buffer 64 KiB of headers.
const MAX_MEMORY_GROWTH_BYTES: u64 = 4 << 20;

#[test]
fn endless_headers_are_refused_without_memory_growth() {
    let weir = WeirFixture::new();
    let server = TestServer::start(&weir, &[]);
    let client = server.admin_client();
    // The first job loads models and starts workers, which must not count as growth.
    client.wait_for_job(&client.submit_file("a.pdf", &weir_samples::generate_text_document(2, 1)));
    let floods: [(&str, FloodFn); 3] = [
        ("many headers", send_endless_headers),
        ("a long header", send_endless_header),
        ("HTTP/2 continuations", send_endless_continuation),
    ];
    for (what, flood) in floods {
        let address = server.address;
        flood(address);
        let growth = PeakMemoryGrowth::start(server.pid());
        let clients: Vec<_> = (0..CLIENT_COUNT)
            .map(|_| std::thread::spawn(move || flood(address)))
            .collect();
        let mut most = 0;
        for client in clients {
            let (sent, response) = client.join().unwrap();
            assert!(sent <= MAX_SENT_BYTES, "{what}: {sent} bytes were accepted");
            let refused = response.status().is_none_or(|status| status == 431);
            assert!(refused, "{what}: {response:?}");
            most = most.max(sent);
        }
        let grown = growth.peak_growth_bytes();
        eprintln!(
            "{what}: closed after {} KiB at most; memory grew by {} KiB for {CLIENT_COUNT} clients",
            most >> 10,
            grown >> 10
        );
        assert!(
            grown <= MAX_MEMORY_GROWTH_BYTES,
            "{what}: memory grew by {grown} bytes"
        );
        assert_eq!(client.get("/v1/jobs").status, 200);
    }
    server.stop();
}

#[test]
fn slow_headers_end_at_the_header_timeout() {
    let weir = WeirFixture::new();
    let server = TestServer::start(&weir, &["--set", "server.header_timeout_seconds=1"]);
    // The pause between two bytes is short, but the whole headers take longer than the timeout.
    let (elapsed, response) = trickle_header_bytes(server.address);
    assert!(elapsed < Duration::from_secs(5), "{elapsed:?}");
    assert!(
        response.status().is_none_or(|status| status == 408),
        "{response:?}"
    );
    assert_eq!(server.admin_client().get("/v1/jobs").status, 200);
    server.stop();
}
