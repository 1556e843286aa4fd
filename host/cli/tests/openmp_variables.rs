//! Tests that `weir` sets the OpenMP variables for local language models, unless the user has set them.

#![cfg(target_os = "linux")]
#![allow(clippy::unwrap_used)]

use std::io::{BufRead as _, BufReader};
use std::process::{Child, Command, Stdio};

/// A server process that is killed at the end of the test.
struct ServerProcess(Child);

impl Drop for ServerProcess {
    fn drop(&mut self) {
        self.0.kill().unwrap();
        self.0.wait().unwrap();
    }
}

/// Starts a server with these variables and returns the OpenMP variables in its environment after it has started.
fn openmp_variables_of_server(variables: &[(&str, &str)]) -> Vec<String> {
    let data = tempfile::tempdir().unwrap();
    let mut command = Command::new(env!("CARGO_BIN_EXE_weir"));
    command
        .args(["serve", "--json", "--listen", "127.0.0.1:0", "--data"])
        .arg(data.path())
        .env_remove("GOMP_SPINCOUNT")
        .env_remove("OMP_WAIT_POLICY")
        .envs(variables.iter().copied())
        .stdout(Stdio::piped())
        .stderr(Stdio::null());
    let mut running = ServerProcess(command.spawn().unwrap());
    let mut line = String::new();
    let output = running.0.stdout.take().unwrap();
    BufReader::new(output).read_line(&mut line).unwrap();
    assert!(line.contains("address"), "the server did not start: {line}");
    // The restart keeps the process id, so this is the process that the test started.
    let environment = std::fs::read(format!("/proc/{}/environ", running.0.id())).unwrap();
    environment
        .split(|byte| *byte == 0)
        .map(|entry| String::from_utf8_lossy(entry).into_owned())
        .filter(|entry| entry.starts_with("GOMP_") || entry.starts_with("OMP_"))
        .collect()
}

#[test]
fn server_sets_the_openmp_spin_count_unless_the_user_does() {
    assert_eq!(openmp_variables_of_server(&[]), ["GOMP_SPINCOUNT=2000"]);
    let variables = [("OMP_WAIT_POLICY", "passive")];
    assert_eq!(
        openmp_variables_of_server(&variables),
        ["OMP_WAIT_POLICY=passive"]
    );
}
