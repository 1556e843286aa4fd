//! Headers without end and headers that never come: refused early, held nowhere, by no matter how many at once.

use std::net::SocketAddr;
use std::time::Duration;

use weir_tests::Weir;
use weir_tests::misuse::{continuation_without_end, header_without_end, headers_without_end, trickle};
use weir_tests::processes::Growth;
use weir_tests::server::Server;
use weir_tests::wire::Said;

type Flood = fn(SocketAddr) -> (u64, Said);

/// What the buffers of the kernel hold between two ends on one machine is sent before a client can know that it is refused.
const SENT_AT_MOST: u64 = 16 << 20;
const CLIENTS: usize = 8;
/// A connection may hold 64 KiB of headers; this is for all of them.
const GROWTH_AT_MOST: u64 = 4 << 20;

#[test]
fn a_gibibyte_of_headers_is_refused_early_and_held_nowhere() {
    let weir = Weir::new();
    let server = Server::start(&weir, &[]);
    let client = server.admin();
    // What is loaded for the first work, or still being loaded, is no growth.
    client.wait(&client.job("a.pdf", &weir_samples::text_document(2, 1)));
    let floods: [(&str, Flood); 3] = [
        ("many headers", headers_without_end),
        ("a long header", header_without_end),
        ("HTTP/2 continuations", continuation_without_end),
    ];
    for (what, flood) in floods {
        let address = server.address;
        flood(address);
        let growth = Growth::of(server.pid());
        let clients: Vec<_> = (0..CLIENTS)
            .map(|_| std::thread::spawn(move || flood(address)))
            .collect();
        let mut most = 0;
        for client in clients {
            let (sent, said) = client.join().unwrap();
            assert!(sent <= SENT_AT_MOST, "{what}: {sent} bytes were taken");
            let refused = said.status().is_none_or(|status| status == 431);
            assert!(refused, "{what}: {said:?}");
            most = most.max(sent);
        }
        let grown = growth.most();
        eprintln!(
            "{what}: hung up on after {} KiB at most; memory grew by {} KiB for {CLIENTS} clients",
            most >> 10,
            grown >> 10
        );
        assert!(grown <= GROWTH_AT_MOST, "{what}: memory grew by {grown} bytes");
        assert_eq!(client.get("/v1/jobs").status, 200);
    }
    server.stop();
}

#[test]
fn headers_that_never_come_are_not_waited_for() {
    let weir = Weir::new();
    let server = Server::start(&weir, &["--set", "server.header_seconds=1"]);
    // Each byte comes in time, the headers do not.
    let (listened, said) = trickle(server.address);
    assert!(listened < Duration::from_secs(5), "{listened:?}");
    assert!(said.status().is_none_or(|status| status == 408), "{said:?}");
    assert_eq!(server.admin().get("/v1/jobs").status, 200);
    server.stop();
}
