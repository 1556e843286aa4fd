//! Thousands of connections that hold a place and want nothing: clients are answered all the same, and what is in use goes on.

use std::io::{BufReader, Read as _, Write as _};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use weir_tests::Weir;
use weir_tests::crowd::{Attack, Crowd, probe};
use weir_tests::misuse::Upload;
use weir_tests::server::Server;
use weir_tests::tls::{self, FIRST, SECOND};
use weir_tests::wire::Wire;

/// More than `server.connections` is by default.
const CONNECTIONS: usize = 4200;
const PATIENCE: Duration = Duration::from_secs(1);

/// Probes a host under an attack: what went wrong.
fn under_attack(attack: Attack, address: SocketAddr, encrypted: bool, sources: Vec<Ipv4Addr>) -> Vec<String> {
    let from = sources.len();
    let client = encrypted.then(tls::client);
    let mut crowd = Crowd::new(attack, address, sources);
    let all_were_accepted = crowd.grow(CONNECTIONS);
    let took: Vec<_> = (0..5)
        .map(|_| {
            let took = probe(address, client.as_ref(), PATIENCE);
            crowd.grow(CONNECTIONS / 10);
            took
        })
        .collect();
    let what = format!("{attack:?} from {from} addresses");
    match took.iter().copied().collect::<Option<Vec<_>>>() {
        Some(all) => {
            eprintln!("{what}: answered after {:?} at most", all.iter().max().unwrap());
            (!all_were_accepted).then_some(what).into_iter().collect()
        }
        None => {
            let unanswered = took.iter().filter(|took| took.is_none()).count();
            eprintln!("{what}: {unanswered} of 5 requests not answered within {PATIENCE:?}");
            vec![what]
        }
    }
}

fn one() -> Vec<Ipv4Addr> {
    vec![Ipv4Addr::LOCALHOST]
}

fn many() -> Vec<Ipv4Addr> {
    (2..=201).map(|last| Ipv4Addr::new(127, 0, 0, last)).collect()
}

#[test]
fn clients_are_answered_within_a_second_under_attack() {
    let weir = Weir::new();
    let server = Server::start(&weir, &["--set", "server.heartbeat_seconds=1"]);
    let (address, client) = (server.address, server.admin());

    // A stream of events and an upload that comes slowly, both begun before and in use all the time.
    let mut stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
    let key = client.key().to_owned();
    write!(
        stream,
        "GET /v1/events HTTP/1.1\r\nHost: weir\r\nAuthorization: Bearer {key}\r\n\r\n"
    )
    .unwrap();
    let over = Arc::new(AtomicBool::new(false));
    let upload = {
        let (over, upload) = (Arc::clone(&over), Upload::of(address, &key, &[b'x'; 1 << 20]));
        thread::spawn(move || {
            let mut wire = upload.saying(upload.body.len());
            // A little more than the least that a body may come with.
            for piece in upload.body.chunks(512) {
                assert!(wire.send(piece), "the upload was cut off");
                if !over.load(Ordering::Relaxed) {
                    thread::sleep(Duration::from_millis(200));
                }
            }
            wire.answer()
        })
    };

    let mut failed = Vec::new();
    for attack in Attack::ALL {
        for sources in [one(), many()] {
            failed.extend(under_attack(attack, address, false, sources));
        }
    }
    over.store(true, Ordering::Relaxed);
    assert_eq!(upload.join().unwrap().status(), Some(202));
    assert_eq!(failed, Vec::<String>::new());
    let closed = client.measured("weir_connections_closed_total{reason=\"pressure\"}");
    assert!(closed > 0.0);

    // All that has come meanwhile is read, and then what comes now.
    let mut stream = BufReader::new(stream);
    let mut drained = vec![0; 1 << 20];
    assert!(stream.read(&mut drained).unwrap() > 0);
    for _ in 0..3 {
        let read = stream.read(&mut drained).unwrap();
        assert!(read > 0, "the stream of events was cut off");
    }
    server.stop();
}

#[test]
fn half_tls_handshakes_keep_no_client_out() {
    let weir = Weir::new();
    FIRST.write(weir.folder());
    let server = Server::start(&weir, &encrypted());
    let mut failed = Vec::new();
    for attack in [Attack::Silent, Attack::HalfHandshake] {
        for sources in [one(), many()] {
            failed.extend(under_attack(attack, server.address, true, sources));
        }
    }
    assert_eq!(failed, Vec::<String>::new());
    server.stop();
}

#[test]
fn connection_without_a_request_ends_in_time() {
    let weir = Weir::new();
    let server = Server::start(&weir, &["--set", "server.header_seconds=1"]);
    let openings: [&[u8]; 3] = [
        b"",
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0",
        b"GET /healthz HTTP/1.1\r\nHost: weir\r\n\r\n",
    ];
    for opening in openings {
        let mut wire = Wire::open(server.address);
        wire.send(opening);
        let began = std::time::Instant::now();
        wire.bytes();
        let took = began.elapsed();
        assert!(took < Duration::from_secs(5), "{took:?} after {opening:?}");
    }
    server.stop();
}

fn encrypted() -> [&'static str; 4] {
    [
        "--set",
        "server.tls_certificate=chain.pem",
        "--set",
        "server.tls_key=key.pem",
    ]
}

/// The certificate that a new connection is shown.
fn shown(address: SocketAddr) -> Vec<u8> {
    let stream = TcpStream::connect(address).unwrap();
    let mut stream = tls::connect(&tls::client(), stream);
    while stream.conn.is_handshaking() {
        stream.conn.complete_io(&mut stream.sock).unwrap();
    }
    stream.conn.peer_certificates().unwrap()[0].to_vec()
}

#[test]
fn renewed_tls_certificate_is_used_without_a_restart() {
    let weir = Weir::new();
    FIRST.write(weir.folder());
    let server = Server::start(&weir, &encrypted());
    let key = server.admin().key().to_owned();
    let stale = |value: u8| {
        let line = format!("weir_tls_certificate_stale {value}");
        weir_tests::eventually(|| {
            let measured = tls::get(server.address, "/metrics", &key);
            let said = measured.lines().any(|found| found == line);
            said.then_some(()).ok_or(format!("no {line}"))
        });
    };
    assert_eq!(shown(server.address), FIRST.der().to_vec());
    // Half of a renewal: the certificate and the key do not belong together.
    weir.file("chain.pem", SECOND.chain.as_bytes());
    stale(1);
    assert_eq!(shown(server.address), FIRST.der().to_vec());
    weir.file("key.pem", SECOND.key.as_bytes());
    stale(0);
    weir_tests::eventually(|| {
        let is_used = shown(server.address) == SECOND.der().to_vec();
        is_used
            .then_some(())
            .ok_or("the first certificate is shown".into())
    });
    let ended = server.stop();
    let said = "the changed TLS certificate cannot be used";
    assert!(ended.errors.contains(said), "{}", ended.errors);
}
