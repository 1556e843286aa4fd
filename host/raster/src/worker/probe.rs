//! Trying what the sandbox must refuse, so that tests and `doctor` see it refuse.

#![allow(unsafe_code)]

use std::fs::File;
use std::process::Command;

use memmap2::MmapOptions;

use crate::protocol::Probe;

/// Whether the system let it happen, in a worker that may have `heap_bytes` of memory. A probe may also cost the worker its
/// life, which is a refusal.
pub(super) fn got_through(probe: Probe, heap_bytes: u64) -> bool {
    match probe {
        Probe::OpenFile => File::open("/proc/self/status").is_ok() || File::open("/etc/passwd").is_ok(),
        Probe::Socket => std::net::UdpSocket::bind(("127.0.0.1", 0)).is_ok(),
        Probe::Execute => Command::new("/bin/true").spawn().is_ok(),
        Probe::Signal => {
            let host = rustix::process::getppid();
            host.is_some_and(|host| rustix::process::test_kill_process(host).is_ok())
        }
        Probe::ExecutableMemory => MmapOptions::new()
            .len(4096)
            .map_anon()
            .is_ok_and(|map| map.make_exec().is_ok()),
        Probe::Memory => {
            // The limit is not asked for, since the sandbox refuses that, too. The allocation is hidden from the optimizer,
            // which would leave out what nobody uses and call it a success.
            let mut room = std::hint::black_box(Vec::<u8>::new());
            usize::try_from(heap_bytes)
                .is_ok_and(|bytes| std::hint::black_box(&mut room).try_reserve_exact(bytes).is_ok())
                && std::hint::black_box(&room).capacity() > 0
        }
    }
}
