//! Trying what the sandbox must refuse, so that tests and `doctor` see it refuse.

#![allow(unsafe_code)]

use std::fs::File;
use std::process::Command;

use memmap2::MmapOptions;

use crate::protocol::Probe;

/// Whether the system let it happen. A probe may also cost the worker its life, which is a refusal.
pub(super) fn got_through(probe: Probe) -> bool {
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
            let bytes = match rustix::process::getrlimit(rustix::process::Resource::Data).maximum {
                Some(limit) => limit,
                None => return true,
            };
            // Hidden from the optimizer, which would leave out an allocation that nobody uses and call it a success.
            let mut room = std::hint::black_box(Vec::<u8>::new());
            usize::try_from(bytes)
                .is_ok_and(|bytes| std::hint::black_box(&mut room).try_reserve_exact(bytes).is_ok())
                && std::hint::black_box(&room).capacity() > 0
        }
    }
}
