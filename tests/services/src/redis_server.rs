//! Redis from the system's package.

use std::fs::File;
use std::net::{Ipv4Addr, TcpStream};
use std::process::{Command, Stdio};

use rustix::process::Signal;
use tempfile::TempDir;

use crate::free_port::find_free_port;
use crate::server_process::ServerProcess;

/// A Redis server without a password that keeps its data in memory only.
pub struct RedisServer {
    folder: TempDir,
    port: u16,
    /// `None` while it is stopped.
    process: Option<ServerProcess>,
}

impl RedisServer {
    /// Starts a server. Panics if the package is not installed.
    #[must_use]
    pub fn start() -> Self {
        let mut server = Self {
            folder: tempfile::tempdir().unwrap(),
            port: find_free_port(),
            process: None,
        };
        server.start_again();
        server
    }

    /// Returns the URL of the server.
    #[must_use]
    pub fn url(&self) -> String {
        format!("redis://127.0.0.1:{}", self.port)
    }

    /// Stops the server. All its data is lost.
    pub fn stop(&mut self) {
        if let Some(mut process) = self.process.take() {
            process.stop(Signal::TERM);
        }
    }

    /// Starts a stopped server at the same port, without data.
    pub fn start_again(&mut self) {
        let log = self.folder.path().join("log");
        let output = File::options().create(true).append(true).open(&log).unwrap();
        let mut process = ServerProcess::start(
            Command::new("redis-server")
                .args(["--port", &self.port.to_string(), "--bind", "127.0.0.1"])
                .args(["--save", "", "--appendonly", "no"])
                .current_dir(self.folder.path())
                .stdout(output)
                .stderr(Stdio::null()),
        );
        let port = self.port;
        process.wait_until_ready(&log, || TcpStream::connect((Ipv4Addr::LOCALHOST, port)).is_ok());
        self.process = Some(process);
    }

    /// Freezes the server: it accepts connections and does not respond.
    pub fn freeze(&self) {
        self.send_signal(Signal::STOP);
    }

    /// Ends the effect of [`freeze`](Self::freeze).
    pub fn unfreeze(&self) {
        self.send_signal(Signal::CONT);
    }

    /// Runs a command with `redis-cli` and returns its output.
    pub fn command(&self, arguments: &[&str]) -> String {
        let output = Command::new("redis-cli")
            .args(["-p", &self.port.to_string()])
            .args(arguments)
            .output()
            .unwrap();
        let errors = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{arguments:?}: {errors}");
        String::from_utf8(output.stdout).unwrap().trim_end().to_owned()
    }

    fn send_signal(&self, signal: Signal) {
        if let Some(process) = &self.process {
            process.send_signal(signal);
        }
    }
}
