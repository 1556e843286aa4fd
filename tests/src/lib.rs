//! Test support that runs the real `weir` binary as a user or a client would, and inspects the results.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    missing_docs
)]

pub mod abusive_requests;
pub mod cluster;
pub mod connection_flood;
pub mod event_follower;
pub mod http_server;
pub mod model_server;
pub mod oci_registry;
pub mod processes;
pub mod raw_connection;
pub mod server;
pub mod server_resources;
pub mod small_disk;
pub mod tls;
pub mod trace_collector;
pub mod vision_server;

use std::io::{BufRead as _, BufReader, Read as _};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::Value;
use tempfile::TempDir;

/// Polls a condition until it returns `Ok`. Panics with its last error after 60 seconds.
pub fn wait_until(holds: impl FnMut() -> Result<(), String>) {
    wait_until_within(Duration::from_secs(60), holds);
}

/// Polls a condition until it returns `Ok`. Panics with its last error after the time.
pub fn wait_until_within(time: Duration, mut holds: impl FnMut() -> Result<(), String>) {
    let deadline = Instant::now() + time;
    while let Err(reason) = holds() {
        assert!(Instant::now() < deadline, "{reason}");
        std::thread::sleep(Duration::from_millis(10));
    }
}

/// Returns the path of the binary under test: `WEIR_BIN`, or the one beside the running test.
pub fn weir_binary_path() -> PathBuf {
    if let Some(path) = std::env::var_os("WEIR_BIN") {
        return path.into();
    }
    let test = std::env::current_exe().unwrap();
    let path = test.parent().and_then(Path::parent).unwrap().join("weir");
    assert!(
        path.exists(),
        "{} does not exist: run `make build` first",
        path.display()
    );
    path
}

/// Panics if a response, event or webhook names a folder of the host: the test's data folder, the assets' or the binary's.
pub fn assert_no_host_path(text: &str) {
    let temporary = std::env::temp_dir().join(".tmp");
    let folders = [Some(temporary), weir_binary_path().parent().map(Path::to_owned)];
    let configured = ["WEIR_PATHS_ASSETS", "WEIR_PATHS_DEFAULT_COMPONENTS"]
        .map(|name| std::env::var_os(name).map(PathBuf::from));
    for folder in folders.into_iter().chain(configured).flatten() {
        let folder = folder.display().to_string();
        assert!(!text.contains(&folder), "{folder} is in: {text}");
    }
}

/// Returns the path of a built component, for example a hostile one.
pub fn test_component_path(name: &str) -> PathBuf {
    let folder = std::env::var_os("WEIR_HOSTILE_COMPONENTS").map_or_else(
        || Path::new(env!("CARGO_MANIFEST_DIR")).join("../target/components"),
        PathBuf::from,
    );
    let path = folder.join(format!("{name}.wasm"));
    assert!(
        path.exists(),
        "{} does not exist: run `make components`",
        path.display()
    );
    path
}

/// A temporary data folder and the `weir` commands that run on it.
pub struct WeirFixture {
    folder: TempDir,
    binary: PathBuf,
    environment: Vec<(String, String)>,
}

impl Default for WeirFixture {
    fn default() -> Self {
        Self {
            folder: TempDir::new().unwrap(),
            binary: weir_binary_path(),
            environment: Vec::new(),
        }
    }
}

impl WeirFixture {
    pub fn new() -> Self {
        Self::default()
    }

    /// Returns the temporary folder for the test's files.
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    pub fn data_folder(&self) -> PathBuf {
        self.folder().join("data")
    }

    /// Sets the binary of later commands.
    pub fn set_binary(&mut self, binary: PathBuf) {
        self.binary = binary;
    }

    /// Sets an environment variable of later commands.
    pub fn set_variable(&mut self, name: &str, value: &str) {
        self.environment.push((name.to_owned(), value.to_owned()));
    }

    /// Writes a file into the temporary folder and returns its path.
    pub fn write_file(&self, name: &str, bytes: &[u8]) -> PathBuf {
        let path = self.folder().join(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(&path, bytes).unwrap();
        path
    }

    /// Builds a `weir` command for the data folder, without the settings (`WEIR_…`) of this process's environment.
    pub fn weir_command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(&self.binary);
        for (name, _) in std::env::vars() {
            let is_kept = ["WEIR_PATHS_ASSETS", "WEIR_PATHS_DEFAULT_COMPONENTS"].contains(&name.as_str());
            if name.starts_with("WEIR_") && !is_kept {
                command.env_remove(name);
            }
        }
        command
            .envs(self.environment.iter().map(|(name, value)| (name, value)))
            .args(arguments)
            .arg("--data")
            .arg(self.data_folder())
            .current_dir(self.folder());
        command
    }

    /// Runs a command and waits until it ends.
    pub fn run_command(&self, arguments: &[&str]) -> CommandOutput {
        WeirProcess::start(self.weir_command(arguments)).wait_for_exit()
    }

    /// Runs `weir run … --json`.
    pub fn ingest_files(&self, arguments: &[&str]) -> CommandOutput {
        let mut all = vec!["run", "--json"];
        all.extend(arguments);
        self.run_command(&all)
    }

    /// Returns the hits of `weir search … --json`.
    pub fn search(&self, text: &str, arguments: &[&str]) -> Vec<Value> {
        let mut all = vec!["search", "--json", text];
        all.extend(arguments);
        let ended = self.run_command(&all);
        assert_eq!(ended.exit_code, 0, "{}", ended.stderr);
        ended.stdout_lines[0]["hits"].as_array().expect("hits").clone()
    }

    /// Returns the rows of `weir documents --json`.
    pub fn list_documents(&self) -> Vec<Value> {
        let ended = self.run_command(&["documents", "--json"]);
        assert_eq!(ended.exit_code, 0, "{}", ended.stderr);
        ended.stdout_lines[0]["documents"]
            .as_array()
            .expect("documents")
            .clone()
    }
}

/// A running `weir` process. It is killed on drop, so that a failed test leaves no process.
pub struct WeirProcess {
    child: Child,
    stdout: BufReader<std::process::ChildStdout>,
    stderr_reader: Option<std::thread::JoinHandle<String>>,
    started: Instant,
    stdout_lines: Vec<Value>,
    /// For each line, the milliseconds from the process's start until it was read.
    line_millis: Vec<u128>,
}

impl WeirProcess {
    pub fn start(mut command: Command) -> Self {
        let mut child = command
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("the weir binary starts");
        let mut errors = child.stderr.take().unwrap();
        let errors = std::thread::spawn(move || {
            let mut text = String::new();
            let _ = errors.read_to_string(&mut text);
            text
        });
        let output = BufReader::new(child.stdout.take().unwrap());
        Self {
            child,
            stdout: output,
            stderr_reader: Some(errors),
            started: Instant::now(),
            stdout_lines: Vec::new(),
            line_millis: Vec::new(),
        }
    }

    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Reads the next line of standard output, as JSON or else as a string. Returns `None` at the end.
    pub fn read_line(&mut self) -> Option<Value> {
        let mut line = String::new();
        if self.stdout.read_line(&mut line).unwrap_or(0) == 0 {
            return None;
        }
        let line = line.trim_end();
        let value = serde_json::from_str(line).unwrap_or_else(|_| Value::String(line.to_owned()));
        self.stdout_lines.push(value.clone());
        self.line_millis.push(self.started.elapsed().as_millis());
        Some(value)
    }

    /// Reads lines until an event of this type. Panics at the end of the output.
    pub fn read_until_event(&mut self, kind: &str) -> Value {
        loop {
            match self.read_line() {
                Some(value) if value["type"] == kind => return value,
                Some(_) => {}
                None => panic!(
                    "no event '{kind}' was printed; the last lines: {:?}",
                    self.stdout_lines.iter().rev().take(3)
                ),
            }
        }
    }

    pub fn send_signal(&self, signal: rustix::process::Signal) {
        let pid = rustix::process::Pid::from_raw(self.pid() as i32).unwrap();
        rustix::process::kill_process(pid, signal).unwrap();
    }

    pub fn wait_for_exit(mut self) -> CommandOutput {
        while self.read_line().is_some() {}
        let status = self.child.wait().unwrap();
        let took = self.started.elapsed();
        let errors = self.stderr_reader.take().map(|errors| errors.join().unwrap());
        CommandOutput {
            exit_code: status.code().unwrap_or(-1),
            stdout_lines: std::mem::take(&mut self.stdout_lines),
            line_millis: std::mem::take(&mut self.line_millis),
            stderr: errors.unwrap_or_default(),
            duration: took,
        }
    }
}

impl Drop for WeirProcess {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The output and exit code of a finished command.
#[derive(Debug)]
pub struct CommandOutput {
    /// The exit code; -1 if a signal ended the process.
    pub exit_code: i32,
    /// The lines of standard output, as JSON or else as strings.
    pub stdout_lines: Vec<Value>,
    /// For each line, the milliseconds from the process's start until it was read.
    pub line_millis: Vec<u128>,
    /// The text of standard error.
    pub stderr: String,
    pub duration: Duration,
}

impl CommandOutput {
    /// Returns the events of a type.
    pub fn events_of_type(&self, kind: &str) -> Vec<&Value> {
        self.stdout_lines.iter().filter(|e| e["type"] == kind).collect()
    }

    /// Returns the only event of a type. Panics if there are none or several.
    pub fn single_event(&self, kind: &str) -> &Value {
        let found = self.events_of_type(kind);
        assert_eq!(
            found.len(),
            1,
            "'{kind}' in {:#?}\n{}",
            self.stdout_lines,
            self.stderr
        );
        found[0]
    }

    /// Checks the event log: sequence numbers without gaps, one job, and all common fields in every event.
    pub fn assert_valid_event_log(&self) {
        let job = &self.stdout_lines[0]["job"];
        for (i, event) in self.stdout_lines.iter().enumerate() {
            assert_eq!(event["seq"], i as u64 + 1, "{event}");
            assert_eq!(&event["job"], job);
            assert!(
                event["type"].is_string() && event.get("document").is_some(),
                "{event}"
            );
        }
    }
}
