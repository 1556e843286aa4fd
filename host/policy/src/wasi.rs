//! WASI 0.2 with nothing in it, for components whose toolchain imports it whether they use it or not.
//!
//! There is no file, socket, argument or variable behind it. Clocks and randomness are functions of how often they were
//! asked, so that a recorded call can be replayed: a guest's clock moves one millisecond with each reading. What a guest
//! writes to its standard output and error is kept, the last of it, because that is where the exceptions of JavaScript
//! and Python go just before the trap.

use std::collections::VecDeque;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use parking_lot::Mutex;
use tokio::io::AsyncWrite;
use wasmtime_wasi::cli::{IsTerminal, StdoutStream};
use wasmtime_wasi::p2::{OutputStream, Pollable, StreamError};
use wasmtime_wasi::{Deterministic, HostMonotonicClock, HostWallClock, ResourceTable, WasiCtx};

/// Bytes of output that are kept.
const KEPT: usize = 2048;

/// Bytes of randomness a guest gets before they repeat.
const SEED: u64 = 509;

/// A guest's WASI, made when it first asks for any of it.
pub(crate) struct Wasi {
    pub(crate) context: WasiCtx,
    pub(crate) table: ResourceTable,
    said: Said,
}

impl Wasi {
    pub(crate) fn new() -> Self {
        let said = Said::default();
        let clock = Clock::default();
        let mut context = WasiCtx::builder();
        context
            .allow_tcp(false)
            .allow_udp(false)
            .allow_ip_name_lookup(false)
            .secure_random(numbers(1))
            .insecure_random(numbers(2))
            .insecure_random_seed(0)
            .max_random_size(1 << 16)
            .wall_clock(clock.clone())
            .monotonic_clock(clock)
            .stdout(said.clone())
            .stderr(said.clone());
        Self {
            context: context.build(),
            table: ResourceTable::new(),
            said,
        }
    }

    /// Takes what the guest wrote last, on one line.
    pub(crate) fn take_said(&self) -> Option<String> {
        let said: Vec<u8> = std::mem::take(&mut *self.said.0.lock()).into();
        let text = String::from_utf8_lossy(&said);
        let lines: Vec<&str> = text.lines().map(str::trim).filter(|l| !l.is_empty()).collect();
        (!lines.is_empty()).then(|| lines.join(" | "))
    }
}

/// Bytes that look random and are always the same.
fn numbers(seed: u64) -> Deterministic {
    // SplitMix64: Steele, Lea, Flood, "Fast splittable pseudorandom number generators", OOPSLA 2014.
    let byte = |n: u64| {
        let mut z = (seed << 32 | n).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (z ^ (z >> 31)).to_le_bytes()[0]
    };
    Deterministic::new((0..SEED).map(byte).collect())
}

/// Counts its readings.
#[derive(Clone, Default)]
struct Clock(Arc<AtomicU64>);

impl Clock {
    fn read(&self) -> Duration {
        Duration::from_millis(self.0.fetch_add(1, Ordering::Relaxed))
    }
}

impl HostWallClock for Clock {
    fn resolution(&self) -> Duration {
        Duration::from_millis(1)
    }
    fn now(&self) -> Duration {
        self.read()
    }
}

impl HostMonotonicClock for Clock {
    fn resolution(&self) -> u64 {
        1_000_000
    }
    fn now(&self) -> u64 {
        u64::try_from(self.read().as_nanos()).unwrap_or(u64::MAX)
    }
}

/// The last bytes written.
#[derive(Clone, Default)]
struct Said(Arc<Mutex<VecDeque<u8>>>);

impl Said {
    fn keep(&self, bytes: &[u8]) {
        let mut kept = self.0.lock();
        kept.extend(bytes.iter().skip(bytes.len().saturating_sub(KEPT)));
        let excess = kept.len().saturating_sub(KEPT);
        kept.drain(..excess);
    }
}

impl IsTerminal for Said {
    fn is_terminal(&self) -> bool {
        false
    }
}

impl StdoutStream for Said {
    fn async_stream(&self) -> Box<dyn AsyncWrite + Send + Sync> {
        Box::new(self.clone())
    }
    fn p2_stream(&self) -> Box<dyn OutputStream> {
        Box::new(self.clone())
    }
}

#[wasmtime_wasi::async_trait]
impl Pollable for Said {
    async fn ready(&mut self) {}
}

impl OutputStream for Said {
    fn write(&mut self, bytes: Bytes) -> Result<(), StreamError> {
        self.keep(&bytes);
        Ok(())
    }
    fn flush(&mut self) -> Result<(), StreamError> {
        Ok(())
    }
    fn check_write(&mut self) -> Result<usize, StreamError> {
        Ok(1 << 16)
    }
}

impl AsyncWrite for Said {
    fn poll_write(self: Pin<&mut Self>, _: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        self.keep(bytes);
        Poll::Ready(Ok(bytes.len()))
    }
    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_lines_are_kept_on_one_line() {
        let wasi = Wasi::new();
        wasi.said.keep(&[b'x'; 5000]);
        wasi.said.keep(b"\nTraceback:\n\n  ValueError: no\n");
        let said = wasi.take_said().unwrap();
        assert!(said.ends_with(" | Traceback: | ValueError: no"), "{said}");
        assert!(said.len() <= KEPT + 8);
        assert_eq!(wasi.take_said(), None);
    }

    #[test]
    fn clocks_depend_on_nothing_but_how_often_they_were_read() {
        let (a, b) = (Clock::default(), Clock::default());
        for _ in 0..3 {
            assert_eq!(HostMonotonicClock::now(&a), HostMonotonicClock::now(&b));
        }
        assert_eq!(HostWallClock::now(&a), Duration::from_millis(3));
    }
}
