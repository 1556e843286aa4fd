//! Thousands of idle connections must neither keep other clients from a response nor end connections that are in use.

use std::io::{BufReader, Read as _, Write as _};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use weir_tests::WeirFixture;
use weir_tests::abusive_requests::RawUpload;
use weir_tests::connection_flood::{ConnectionAttack, ConnectionFlood, measure_health_latency};
use weir_tests::raw_connection::RawConnection;
use weir_tests::server::TestServer;
use weir_tests::tls::{self, FIRST_CERTIFICATE, SECOND_CERTIFICATE};

/// More than the default of `server.max_connections`.
const CONNECTIONS: usize = 4200;
const RESPONSE_TIMEOUT: Duration = Duration::from_secs(1);

/// Probes a host under an attack. Returns a description of the attack if it had an effect.
fn probe_under_attack(
    attack: ConnectionAttack,
    address: SocketAddr,
    encrypted: bool,
    sources: Vec<Ipv4Addr>,
) -> Vec<String> {
    let from = sources.len();
    let client = encrypted.then(tls::client_config);
    let mut flood = ConnectionFlood::new(attack, address, sources);
    let all_were_accepted = flood.open_connections(CONNECTIONS);
    let took: Vec<_> = (0..5)
        .map(|_| {
            let took = measure_health_latency(address, client.as_ref(), RESPONSE_TIMEOUT);
            flood.open_connections(CONNECTIONS / 10);
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
            eprintln!("{what}: {unanswered} of 5 requests not answered within {RESPONSE_TIMEOUT:?}");
            vec![what]
        }
    }
}

fn single_source_address() -> Vec<Ipv4Addr> {
    vec![Ipv4Addr::LOCALHOST]
}

fn many_source_addresses() -> Vec<Ipv4Addr> {
    (2..=201).map(|last| Ipv4Addr::new(127, 0, 0, last)).collect()
}

#[test]
fn clients_are_answered_within_a_second_under_attack() {
    let weir = WeirFixture::new();
    let server = TestServer::start(&weir, &["--set", "server.heartbeat_interval_seconds=1"]);
    let (address, client) = (server.address, server.admin_client());

    // An event stream and a slow upload, both started before the attack and used during it.
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
        let (over, upload) = (Arc::clone(&over), RawUpload::new(address, &key, &[b'x'; 1 << 20]));
        thread::spawn(move || {
            let mut wire = upload.begin_with_length(upload.body.len());
            // Slightly faster than the minimum rate of a request body.
            for piece in upload.body.chunks(512) {
                assert!(wire.send(piece), "the upload was cut off");
                if !over.load(Ordering::Relaxed) {
                    thread::sleep(Duration::from_millis(200));
                }
            }
            wire.read_response()
        })
    };

    let mut failed = Vec::new();
    for attack in ConnectionAttack::ALL {
        for sources in [single_source_address(), many_source_addresses()] {
            failed.extend(probe_under_attack(attack, address, false, sources));
        }
    }
    over.store(true, Ordering::Relaxed);
    assert_eq!(upload.join().unwrap().status(), Some(202));
    assert_eq!(failed, Vec::<String>::new());
    let closed = client.metric_value("weir_http_connections_closed_total{reason=\"evicted-idle\"}");
    assert!(closed > 0.0);

    // Read the events that arrived during the attack, and then new ones.
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
fn unfinished_tls_handshakes_do_not_block_clients() {
    let weir = WeirFixture::new();
    FIRST_CERTIFICATE.write_files(weir.folder());
    let server = TestServer::start(&weir, &tls_arguments());
    let mut failed = Vec::new();
    for attack in [ConnectionAttack::Silent, ConnectionAttack::HalfHandshake] {
        for sources in [single_source_address(), many_source_addresses()] {
            failed.extend(probe_under_attack(attack, server.address, true, sources));
        }
    }
    assert_eq!(failed, Vec::<String>::new());
    server.stop();
}

#[test]
fn connection_without_a_request_is_closed_after_the_timeout() {
    let weir = WeirFixture::new();
    let server = TestServer::start(&weir, &["--set", "server.header_timeout_seconds=1"]);
    let openings: [&[u8]; 3] = [
        b"",
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0",
        b"GET /healthz HTTP/1.1\r\nHost: weir\r\n\r\n",
    ];
    for opening in openings {
        let mut wire = RawConnection::connect(server.address);
        wire.send(opening);
        let began = std::time::Instant::now();
        wire.read_to_end();
        let took = began.elapsed();
        assert!(took < Duration::from_secs(5), "{took:?} after {opening:?}");
    }
    server.stop();
}

fn tls_arguments() -> [&'static str; 4] {
    [
        "--set",
        "server.tls_certificate_file=chain.pem",
        "--set",
        "server.tls_key_file=key.pem",
    ]
}

/// Returns the certificate that the server presents on a new connection.
fn served_certificate(address: SocketAddr) -> Vec<u8> {
    let stream = TcpStream::connect(address).unwrap();
    let mut stream = tls::wrap_stream(&tls::client_config(), stream);
    while stream.conn.is_handshaking() {
        stream.conn.complete_io(&mut stream.sock).unwrap();
    }
    stream.conn.peer_certificates().unwrap()[0].to_vec()
}

#[test]
fn renewed_tls_certificate_is_used_without_a_restart() {
    let weir = WeirFixture::new();
    FIRST_CERTIFICATE.write_files(weir.folder());
    let server = TestServer::start(&weir, &tls_arguments());
    let key = server.admin_client().key().to_owned();
    let wait_for_reload_failed = |value: u8| {
        let line = format!("weir_tls_certificate_reload_failed {value}");
        weir_tests::wait_until(|| {
            let measured = tls::get_over_tls(server.address, "/metrics", &key);
            let is_reported = measured.lines().any(|found| found == line);
            is_reported.then_some(()).ok_or(format!("no {line}"))
        });
    };
    assert_eq!(
        served_certificate(server.address),
        FIRST_CERTIFICATE.to_der().to_vec()
    );
    // In the middle of a renewal the certificate and the key do not match.
    weir.write_file("chain.pem", SECOND_CERTIFICATE.chain.as_bytes());
    wait_for_reload_failed(1);
    assert_eq!(
        served_certificate(server.address),
        FIRST_CERTIFICATE.to_der().to_vec()
    );
    weir.write_file("key.pem", SECOND_CERTIFICATE.key.as_bytes());
    wait_for_reload_failed(0);
    weir_tests::wait_until(|| {
        let is_used = served_certificate(server.address) == SECOND_CERTIFICATE.to_der().to_vec();
        is_used
            .then_some(())
            .ok_or("the server still presents the first certificate".into())
    });
    let ended = server.stop();
    let message = "the changed TLS certificate cannot be used";
    assert!(ended.stderr.contains(message), "{}", ended.stderr);
}
