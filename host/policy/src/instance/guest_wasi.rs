//! An empty WASI 0.2, for components whose toolchain always imports it.
//!
//! It has no files, sockets, arguments or environment variables. Clocks and random numbers are deterministic, so that a recorded
//! call can be replayed: they depend only on the number of reads. Each read advances the guest's clock by one millisecond. A
//! sleep advances the clock and returns at once, so a guest cannot block a call by sleeping.
//!
//! The last bytes of the guest's standard output and error are kept, because JavaScript and Python write their exceptions there
//! just before they trap.

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
use wasmtime::component::Resource;
use wasmtime_wasi::cli::{IsTerminal, StdoutStream};
use wasmtime_wasi::p2::{DynPollable, OutputStream, Pollable, StreamError, subscribe};
use wasmtime_wasi::{Deterministic, HostWallClock, ResourceTable, WasiCtx};

/// Bytes of output that are kept; enough for a traceback of twenty or thirty lines.
const MAX_OUTPUT_TAIL_BYTES: usize = 4096;

/// Nanoseconds by which each read advances a guest's clock.
pub(crate) const CLOCK_STEP_NANOS: u64 = 1_000_000;

/// Random bytes before the sequence repeats.
const RANDOM_PERIOD_BYTES: u64 = 509;

/// The WASI state of one instance, created at its first WASI call.
pub(crate) struct GuestWasi {
    pub(crate) context: WasiCtx,
    pub(crate) table: ResourceTable,
    clock: SteppingClock,
    output_tail: OutputTail,
}

impl GuestWasi {
    pub(crate) fn new() -> Self {
        let output = OutputTail::default();
        let clock = SteppingClock::default();
        let mut context = WasiCtx::builder();
        context
            .allow_tcp(false)
            .allow_udp(false)
            .allow_ip_name_lookup(false)
            .secure_random(deterministic_random_bytes(1))
            .insecure_random(deterministic_random_bytes(2))
            .insecure_random_seed(0)
            .max_random_size(1 << 16)
            .wall_clock(clock.clone())
            .stdout(output.clone())
            .stderr(output.clone());
        Self {
            context: context.build(),
            table: ResourceTable::new(),
            clock,
            output_tail: output,
        }
    }

    /// Removes and returns the guest's last output, without empty lines and Rust's hint about `RUST_BACKTRACE`.
    pub(crate) fn take_output_lines(&self) -> Option<String> {
        let output: Vec<u8> = std::mem::take(&mut *self.output_tail.0.lock()).into();
        let text = String::from_utf8_lossy(&output);
        let lines: Vec<&str> = text
            .lines()
            .map(str::trim_end)
            .filter(|line| !line.is_empty() && !line.starts_with("note: run with `RUST_BACKTRACE"))
            .collect();
        (!lines.is_empty()).then(|| lines.join("\n"))
    }

    /// Returns the time of the guest's clock and advances it.
    pub(crate) fn read_and_advance_clock(&self) -> u64 {
        self.clock.read_and_advance()
    }

    /// Advances the guest's clock to a time, unless it is later already.
    pub(crate) fn advance_clock_to(&self, nanos: u64) {
        self.clock.0.fetch_max(nanos, Ordering::Relaxed);
    }

    pub(crate) fn advance_clock_by(&self, nanos: u64) {
        self.clock.0.fetch_add(nanos, Ordering::Relaxed);
    }

    /// Drops the output of the previous call.
    pub(crate) fn clear_output(&self) {
        self.output_tail.0.lock().clear();
    }
}

/// A pollable that is always ready.
struct ReadyPollable;

#[wasmtime_wasi::async_trait]
impl Pollable for ReadyPollable {
    async fn ready(&mut self) {}
}

impl GuestWasi {
    pub(crate) fn new_ready_pollable(&mut self) -> wasmtime::Result<Resource<DynPollable>> {
        let ready = self.table.push(ReadyPollable)?;
        subscribe(&mut self.table, ready)
    }
}

/// Returns pseudorandom bytes that depend only on the seed.
fn deterministic_random_bytes(seed: u64) -> Deterministic {
    // SplitMix64: Steele, Lea, Flood, "Fast splittable pseudorandom number generators", OOPSLA 2014.
    let byte = |n: u64| {
        let mut z = (seed << 32 | n).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (z ^ (z >> 31)).to_le_bytes()[0]
    };
    Deterministic::new((0..RANDOM_PERIOD_BYTES).map(byte).collect())
}

/// A guest's clock in nanoseconds, which advances only by reads and sleeps.
#[derive(Clone, Default)]
struct SteppingClock(Arc<AtomicU64>);

impl SteppingClock {
    fn read_and_advance(&self) -> u64 {
        self.0.fetch_add(CLOCK_STEP_NANOS, Ordering::Relaxed)
    }
}

impl HostWallClock for SteppingClock {
    fn resolution(&self) -> Duration {
        Duration::from_nanos(CLOCK_STEP_NANOS)
    }
    fn now(&self) -> Duration {
        Duration::from_nanos(self.read_and_advance())
    }
}

/// Keeps the last bytes of a guest's standard output and error.
#[derive(Clone, Default)]
struct OutputTail(Arc<Mutex<VecDeque<u8>>>);

impl OutputTail {
    fn append_output(&self, bytes: &[u8]) {
        let mut tail = self.0.lock();
        tail.extend(
            bytes
                .iter()
                .skip(bytes.len().saturating_sub(MAX_OUTPUT_TAIL_BYTES)),
        );
        let excess = tail.len().saturating_sub(MAX_OUTPUT_TAIL_BYTES);
        tail.drain(..excess);
    }
}

impl IsTerminal for OutputTail {
    fn is_terminal(&self) -> bool {
        false
    }
}

impl StdoutStream for OutputTail {
    fn async_stream(&self) -> Box<dyn AsyncWrite + Send + Sync> {
        Box::new(self.clone())
    }
    fn p2_stream(&self) -> Box<dyn OutputStream> {
        Box::new(self.clone())
    }
}

#[wasmtime_wasi::async_trait]
impl Pollable for OutputTail {
    async fn ready(&mut self) {}
}

impl OutputStream for OutputTail {
    fn write(&mut self, bytes: Bytes) -> Result<(), StreamError> {
        self.append_output(&bytes);
        Ok(())
    }
    fn flush(&mut self) -> Result<(), StreamError> {
        Ok(())
    }
    fn check_write(&mut self) -> Result<usize, StreamError> {
        Ok(1 << 16)
    }
}

impl AsyncWrite for OutputTail {
    fn poll_write(self: Pin<&mut Self>, _: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        self.append_output(bytes);
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
    fn output_keeps_the_last_lines() {
        let wasi = GuestWasi::new();
        wasi.output_tail.append_output(&[b'x'; 5000]);
        wasi.output_tail
            .append_output(b"\nTraceback:\n\n  ValueError: no\n");
        let output = wasi.take_output_lines().unwrap();
        assert!(output.ends_with("x\nTraceback:\n  ValueError: no"), "{output}");
        assert!(output.len() < MAX_OUTPUT_TAIL_BYTES);
        assert_eq!(wasi.take_output_lines(), None);
    }

    #[test]
    fn clocks_depend_only_on_the_number_of_reads() {
        let (a, b) = (SteppingClock::default(), SteppingClock::default());
        for _ in 0..3 {
            assert_eq!(a.read_and_advance(), b.read_and_advance());
        }
        assert_eq!(HostWallClock::now(&a), Duration::from_millis(3));
    }

    #[test]
    fn a_sleeping_guest_wakes_at_once() {
        assert_eq!(futures::FutureExt::now_or_never(ReadyPollable.ready()), Some(()));
        assert!(GuestWasi::new().new_ready_pollable().is_ok());
    }
}
