//! A server's process.

use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::{Child, Command};
use std::thread::sleep;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};

/// Time that a server may take to start or stop.
const TIMEOUT: Duration = Duration::from_secs(60);
const POLL_INTERVAL: Duration = Duration::from_millis(20);

/// A running server. Dropping it kills the process.
pub(crate) struct ServerProcess(Child);

impl ServerProcess {
    /// Starts a server in a process group of its own, so that an interrupted test runner does not stop it before the test.
    pub(crate) fn start(command: &mut Command) -> Self {
        Self(command.process_group(0).spawn().unwrap())
    }

    /// Waits until `is_ready`, and panics with the server's log if it ends before.
    pub(crate) fn wait_until_ready(&mut self, log: &Path, mut is_ready: impl FnMut() -> bool) {
        let deadline = Instant::now() + TIMEOUT;
        while !is_ready() {
            let ended = self.0.try_wait().unwrap();
            let log = || std::fs::read_to_string(log).unwrap_or_default();
            assert!(ended.is_none(), "the server ended: {ended:?}\n{}", log());
            assert!(
                Instant::now() < deadline,
                "the server does not respond:\n{}",
                log()
            );
            sleep(POLL_INTERVAL);
        }
    }

    pub(crate) fn send_signal(&self, signal: Signal) {
        kill_process(Pid::from_child(&self.0), signal).unwrap();
    }

    /// Sends a signal and waits until the process has ended.
    pub(crate) fn stop(&mut self, signal: Signal) {
        self.send_signal(signal);
        self.0.wait().unwrap();
    }
}

impl Drop for ServerProcess {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}
