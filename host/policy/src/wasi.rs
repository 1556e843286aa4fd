//! WASI 0.2 with nothing in it, for components whose toolchain imports it whether they use it or not.
//!
//! There is no file, socket, argument or variable behind it. Clocks and randomness are functions of how often they were
//! asked, so that a recorded call can be replayed: a guest's clock moves one millisecond with each reading, and a guest
//! that sleeps finds its clock moved on at once, so that it cannot hold a call by sleeping through its deadline. What it
//! writes to its standard output and error is kept, the last of it, because that is where the exceptions of JavaScript and
//! Python go just before the trap.

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
use wasmtime::component::{HasSelf, Linker, Resource};
use wasmtime_wasi::cli::{IsTerminal, StdoutStream};
use wasmtime_wasi::p2::bindings::clocks::monotonic_clock;
use wasmtime_wasi::p2::{DynPollable, OutputStream, Pollable, StreamError, subscribe};
use wasmtime_wasi::{Deterministic, HostWallClock, ResourceTable, WasiCtx, WasiCtxView, WasiView};

use crate::guest::Guest;

/// Bytes of output that are kept: a traceback of twenty or thirty lines.
const KEPT: usize = 4096;

/// What a guest's clock moves with each reading, in nanoseconds.
const STEP: u64 = 1_000_000;

/// Bytes of randomness a guest gets before they repeat.
const SEED: u64 = 509;

/// A guest's WASI, made when it first asks for any of it.
pub(crate) struct Wasi {
    pub(crate) context: WasiCtx,
    pub(crate) table: ResourceTable,
    clock: Clock,
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
            .stdout(said.clone())
            .stderr(said.clone());
        Self {
            context: context.build(),
            table: ResourceTable::new(),
            clock,
            said,
        }
    }

    /// Takes what the guest wrote last: its lines, without those that say nothing.
    pub(crate) fn take_said(&self) -> Option<String> {
        let said: Vec<u8> = std::mem::take(&mut *self.said.0.lock()).into();
        let text = String::from_utf8_lossy(&said);
        let lines: Vec<&str> = text
            .lines()
            .map(str::trim_end)
            .filter(|line| !line.is_empty() && !line.starts_with("note: run with `RUST_BACKTRACE"))
            .collect();
        (!lines.is_empty()).then(|| lines.join("\n"))
    }

    /// Forgets it, since it was about an earlier call.
    pub(crate) fn forget_said(&self) {
        self.said.0.lock().clear();
    }
}

/// Adds WASI to a linker.
pub(crate) fn add_to_linker(linker: &mut Linker<Guest>) -> wasmtime::Result<()> {
    wasmtime_wasi::p2::add_to_linker_async(linker)?;
    // In place of the one that sleeps.
    linker.allow_shadowing(true);
    monotonic_clock::add_to_linker::<_, HasSelf<Guest>>(linker, |guest| guest)?;
    linker.allow_shadowing(false);
    Ok(())
}

impl WasiView for Guest {
    fn ctx(&mut self) -> WasiCtxView<'_> {
        let wasi = self.wasi();
        WasiCtxView {
            ctx: &mut wasi.context,
            table: &mut wasi.table,
        }
    }
}

impl monotonic_clock::Host for Guest {
    fn now(&mut self) -> wasmtime::Result<u64> {
        Ok(self.wasi().clock.read())
    }

    fn resolution(&mut self) -> wasmtime::Result<u64> {
        Ok(STEP)
    }

    fn subscribe_instant(&mut self, when: u64) -> wasmtime::Result<Resource<DynPollable>> {
        let wasi = self.wasi();
        wasi.clock.0.fetch_max(when, Ordering::Relaxed);
        wasi.passed()
    }

    fn subscribe_duration(&mut self, nanos: u64) -> wasmtime::Result<Resource<DynPollable>> {
        let wasi = self.wasi();
        wasi.clock.0.fetch_add(nanos, Ordering::Relaxed);
        wasi.passed()
    }
}

/// A time that has come.
struct Passed;

#[wasmtime_wasi::async_trait]
impl Pollable for Passed {
    async fn ready(&mut self) {}
}

impl Wasi {
    fn passed(&mut self) -> wasmtime::Result<Resource<DynPollable>> {
        let passed = self.table.push(Passed)?;
        subscribe(&mut self.table, passed)
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

/// Nanoseconds on a guest's clock.
#[derive(Clone, Default)]
struct Clock(Arc<AtomicU64>);

impl Clock {
    fn read(&self) -> u64 {
        self.0.fetch_add(STEP, Ordering::Relaxed)
    }
}

impl HostWallClock for Clock {
    fn resolution(&self) -> Duration {
        Duration::from_nanos(STEP)
    }
    fn now(&self) -> Duration {
        Duration::from_nanos(self.read())
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
    fn the_last_lines_are_kept() {
        let wasi = Wasi::new();
        wasi.said.keep(&[b'x'; 5000]);
        wasi.said.keep(b"\nTraceback:\n\n  ValueError: no\n");
        let said = wasi.take_said().unwrap();
        assert!(said.ends_with("x\nTraceback:\n  ValueError: no"), "{said}");
        assert!(said.len() < KEPT);
        assert_eq!(wasi.take_said(), None);
    }

    #[test]
    fn clocks_depend_on_nothing_but_how_often_they_were_read() {
        let (a, b) = (Clock::default(), Clock::default());
        for _ in 0..3 {
            assert_eq!(a.read(), b.read());
        }
        assert_eq!(HostWallClock::now(&a), Duration::from_millis(3));
    }

    #[test]
    fn whoever_sleeps_wakes_at_once() {
        assert_eq!(futures::FutureExt::now_or_never(Passed.ready()), Some(()));
        assert!(Wasi::new().passed().is_ok());
    }
}
