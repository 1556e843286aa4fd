//! Tries operations that the sandbox must block, so that tests and `doctor` can verify that it blocks them.

#![allow(unsafe_code)]

use std::fs::File;
use std::process::Command;

use memmap2::MmapOptions;

use crate::protocol::SandboxProbe;

/// Returns whether the operation succeeded, in a worker with at most `heap_bytes` of private memory. The sandbox may also kill the
/// worker, which counts as blocked.
pub(super) fn probe_is_unblocked(probe: SandboxProbe, heap_bytes: u64) -> bool {
    match probe {
        SandboxProbe::OpenFile => {
            File::open("/proc/self/status").is_ok() || File::open("/etc/passwd").is_ok()
        }
        SandboxProbe::CreateSocket => std::net::UdpSocket::bind(("127.0.0.1", 0)).is_ok(),
        SandboxProbe::SpawnProcess => Command::new("/bin/true").spawn().is_ok(),
        SandboxProbe::SignalProcess => {
            let host = rustix::process::getppid();
            host.is_some_and(|host| rustix::process::test_kill_process(host).is_ok())
        }
        SandboxProbe::MapExecutableMemory => MmapOptions::new()
            .len(4096)
            .map_anon()
            .is_ok_and(|map| map.make_exec().is_ok()),
        SandboxProbe::ExceedMemoryLimit => {
            // The limit is a parameter because the sandbox forbids reading it. `black_box` hides the allocation from the optimizer, which
            // would otherwise remove it as unused and report success.
            let mut room = std::hint::black_box(Vec::<u8>::new());
            usize::try_from(heap_bytes)
                .is_ok_and(|bytes| std::hint::black_box(&mut room).try_reserve_exact(bytes).is_ok())
                && std::hint::black_box(&room).capacity() > 0
        }
    }
}
