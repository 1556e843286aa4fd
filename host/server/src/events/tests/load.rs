//! A load test with a thousand readers of one host.

use std::time::{Duration, Instant};

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::task::JoinSet;
use weir_core::settings::Settings;
use weir_core::tenancy::KeyScope;

use crate::fakes::{TestHost, commit_events};
use crate::listener::Listener;

const READERS: usize = 1000;
const TENANTS: usize = 4;
const EVENTS: u64 = 200;

/// Returns the resident memory of this process in bytes.
fn resident_bytes() -> usize {
    let statm = std::fs::read_to_string("/proc/self/statm").unwrap();
    statm.split(' ').nth(1).unwrap().parse::<usize>().unwrap() * 4096
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_thousand_readers_get_every_event_within_bounded_memory() {
    let limit = getrlimit(Resource::Nofile);
    setrlimit(
        Resource::Nofile,
        Rlimit {
            current: limit.maximum,
            ..limit
        },
    )
    .unwrap();
    let settings = Settings {
        server_listen_address: "127.0.0.1:0".parse().unwrap(),
        ..Settings::default()
    };
    let (server, host) = TestHost::with_server(settings.clone());
    let listener = Listener::bind(&settings).await.unwrap();
    let address = listener.local_address().unwrap();
    let (stop, stopped) = tokio::sync::oneshot::channel::<()>();
    let serving = tokio::spawn(server.serve(listener, async { drop(stopped.await) }));

    // The server responds once it has recovered the jobs of an earlier process. The jobs below must not be among them.
    let mut probe = TcpStream::connect(address).await.unwrap();
    probe
        .write_all(b"GET /healthz HTTP/1.1\r\nhost: x\r\n\r\n")
        .await
        .unwrap();
    assert!(probe.read(&mut [0; 64]).await.unwrap() > 0);
    drop(probe);

    let mut jobs = Vec::new();
    for n in 0..TENANTS {
        let (tenant, key) = host.create_tenant(&format!("t{n}"), &[KeyScope::Read]).await;
        let job = weir_core::JobId::new();
        commit_events(host.control.ledger.as_ref(), &tenant, job, 1, 1, false).await;
        let record = crate::fakes::job_record(&tenant, job, weir_core::ledger::JobState::Running);
        let record = weir_core::ledger::LedgerEntry::Job(record);
        weir_core::ports::Ledger::commit_entries(host.control.ledger.as_ref(), vec![record])
            .await
            .unwrap();
        jobs.push((tenant, key, job));
    }
    let before = resident_bytes();
    let mut readers = JoinSet::new();
    for n in 0..READERS {
        let (_, key, job) = &jobs[n % TENANTS];
        let request =
            format!("GET /v1/jobs/{job}/events HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {key}\r\n\r\n");
        readers.spawn(async move {
            let mut stream = TcpStream::connect(address).await.unwrap();
            stream.write_all(request.as_bytes()).await.unwrap();
            let (mut buffer, mut rest, mut next) = ([0; 4096], String::new(), 1);
            loop {
                let read = stream.read(&mut buffer).await.unwrap();
                assert!(read > 0, "cut off before event {next}");
                rest.push_str(std::str::from_utf8(&buffer[..read]).unwrap());
                let whole = rest.rfind('\n').map_or(0, |at| at + 1);
                for line in rest[..whole].lines() {
                    if let Some(id) = line.strip_prefix("id: ") {
                        assert_eq!(id.parse::<u64>().unwrap(), next);
                        next += 1;
                    }
                }
                rest.drain(..whole);
                if next > EVENTS {
                    return next - 1;
                }
            }
        });
    }
    while host.app.event_stream_limiter.open_stream_count() < READERS {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    let connected = resident_bytes();
    let began = Instant::now();
    for from in (2..=EVENTS).step_by(20) {
        for (tenant, _, job) in &jobs {
            let to = (from + 19).min(EVENTS);
            commit_events(host.control.ledger.as_ref(), tenant, *job, from, to, to == EVENTS).await;
        }
    }
    let mut delivered = 0;
    while let Some(seen) = readers.join_next().await {
        delivered += seen.unwrap();
    }
    let (took, after) = (began.elapsed(), resident_bytes());
    assert_eq!(delivered, READERS as u64 * EVENTS);
    let per_reader = after.saturating_sub(before) / READERS;
    eprintln!(
        "{READERS} readers, client and server in this process: {} KiB each when connected, {} KiB each at the end; \
         {delivered} events in {took:?}",
        connected.saturating_sub(before) / READERS / 1024,
        per_reader / 1024,
    );
    assert!(per_reader < 256 << 10, "{per_reader} bytes a reader");
    stop.send(()).unwrap();
    serving.await.unwrap().unwrap();
    assert_eq!(host.app.event_stream_limiter.open_stream_count(), 0);
}
