//! A `weir` with models in its process tells OpenMP how to wait, unless its user has.

#![cfg(target_os = "linux")]
#![allow(clippy::unwrap_used)]

use std::io::{BufRead as _, BufReader};
use std::process::{Child, Command, Stdio};

/// A server that ends with the test.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        self.0.kill().unwrap();
        self.0.wait().unwrap();
    }
}

/// What the process has in its environment, of what OpenMP reads, when the server says where it is.
fn waits(said: &[(&str, &str)]) -> Vec<String> {
    let data = tempfile::tempdir().unwrap();
    let mut command = Command::new(env!("CARGO_BIN_EXE_weir"));
    command
        .args(["serve", "--json", "--listen", "127.0.0.1:0", "--data"])
        .arg(data.path())
        .env_remove("GOMP_SPINCOUNT")
        .env_remove("OMP_WAIT_POLICY")
        .envs(said.iter().copied())
        .stdout(Stdio::piped())
        .stderr(Stdio::null());
    let mut running = Running(command.spawn().unwrap());
    let mut line = String::new();
    let output = running.0.stdout.take().unwrap();
    BufReader::new(output).read_line(&mut line).unwrap();
    assert!(line.contains("address"), "the server did not begin: {line}");
    // The process that was started, by its number, and no child of it.
    let environment = std::fs::read(format!("/proc/{}/environ", running.0.id())).unwrap();
    environment
        .split(|byte| *byte == 0)
        .map(|entry| String::from_utf8_lossy(entry).into_owned())
        .filter(|entry| entry.starts_with("GOMP_") || entry.starts_with("OMP_"))
        .collect()
}

#[test]
fn threads_wait_briefly_unless_it_is_said_otherwise() {
    assert_eq!(waits(&[]), ["GOMP_SPINCOUNT=2000"]);
    let said = [("OMP_WAIT_POLICY", "passive")];
    assert_eq!(waits(&said), ["OMP_WAIT_POLICY=passive"]);
}
