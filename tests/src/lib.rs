//! Drives the real `weir` binary as a person or a program would, and looks at what it leaves behind.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    missing_docs
)]

pub mod collector;
pub mod crowd;
pub mod disk;
pub mod holdings;
pub mod listening;
pub mod misuse;
pub mod model;
pub mod processes;
pub mod registry;
pub mod seer;
pub mod server;
pub mod stuck;
pub mod tls;
pub mod wire;

use std::io::{BufRead as _, BufReader, Read as _};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::Value;
use tempfile::TempDir;

/// Waits until something holds. If it does not within a time that is enough for anything, fails with what it lacked last.
pub fn eventually(mut holds: impl FnMut() -> Result<(), String>) {
    let deadline = Instant::now() + Duration::from_secs(60);
    while let Err(lacking) = holds() {
        assert!(Instant::now() < deadline, "{lacking}");
        std::thread::sleep(Duration::from_millis(10));
    }
}

/// The binary under test: `WEIR_BIN`, or the one beside the running test.
pub fn binary() -> PathBuf {
    if let Some(path) = std::env::var_os("WEIR_BIN") {
        return path.into();
    }
    let test = std::env::current_exe().unwrap();
    let path = test.parent().and_then(Path::parent).unwrap().join("weir");
    assert!(
        path.exists(),
        "{} is not there: run `make build` first",
        path.display()
    );
    path
}

/// Answers, events and webhooks name no folder of the host: neither a test's data folder, nor the assets, nor the binary's.
pub fn assert_no_host_path(said: &str) {
    let temporary = std::env::temp_dir().join(".tmp");
    let folders = [Some(temporary), binary().parent().map(Path::to_owned)];
    let configured =
        ["WEIR_PATHS_ASSETS", "WEIR_PATHS_COMPONENTS"].map(|name| std::env::var_os(name).map(PathBuf::from));
    for folder in folders.into_iter().chain(configured).flatten() {
        let folder = folder.display().to_string();
        assert!(!said.contains(&folder), "{folder} is in: {said}");
    }
}

/// A built component that is not among the defaults.
pub fn component(name: &str) -> PathBuf {
    let folder = std::env::var_os("WEIR_HOSTILE_COMPONENTS").map_or_else(
        || Path::new(env!("CARGO_MANIFEST_DIR")).join("../target/components"),
        PathBuf::from,
    );
    let path = folder.join(format!("{name}.wasm"));
    assert!(
        path.exists(),
        "{} is not there: run `make components`",
        path.display()
    );
    path
}

/// A weir with a data folder of its own.
pub struct Weir {
    folder: TempDir,
}

impl Default for Weir {
    fn default() -> Self {
        Self {
            folder: TempDir::new().unwrap(),
        }
    }
}

impl Weir {
    pub fn new() -> Self {
        Self::default()
    }

    /// A folder for the test's files.
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    pub fn data(&self) -> PathBuf {
        self.folder().join("data")
    }

    /// Writes a file for the test and gives its path.
    pub fn file(&self, name: &str, bytes: &[u8]) -> PathBuf {
        let path = self.folder().join(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(&path, bytes).unwrap();
        path
    }

    /// A command with the data folder set; the environment's own settings do not reach it.
    pub fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(binary());
        for (name, _) in std::env::vars() {
            let kept = ["WEIR_PATHS_ASSETS", "WEIR_PATHS_COMPONENTS"].contains(&name.as_str());
            if name.starts_with("WEIR_") && !kept {
                command.env_remove(name);
            }
        }
        command
            .args(arguments)
            .arg("--data")
            .arg(self.data())
            .current_dir(self.folder());
        command
    }

    /// Runs to the end.
    pub fn run(&self, arguments: &[&str]) -> Ended {
        Running::start(self.command(arguments)).wait()
    }

    /// `weir run … --json`.
    pub fn ingest(&self, arguments: &[&str]) -> Ended {
        let mut all = vec!["run", "--json"];
        all.extend(arguments);
        self.run(&all)
    }

    /// The hits of `weir search … --json`.
    pub fn search(&self, text: &str, arguments: &[&str]) -> Vec<Value> {
        let mut all = vec!["search", "--json", text];
        all.extend(arguments);
        let ended = self.run(&all);
        assert_eq!(ended.code, 0, "{}", ended.errors);
        ended.lines[0]["hits"].as_array().expect("hits").clone()
    }

    /// The rows of `weir documents --json`.
    pub fn documents(&self) -> Vec<Value> {
        let ended = self.run(&["documents", "--json"]);
        assert_eq!(ended.code, 0, "{}", ended.errors);
        ended.lines[0]["documents"].as_array().expect("documents").clone()
    }
}

/// A weir in work.
pub struct Running {
    child: Child,
    output: BufReader<std::process::ChildStdout>,
    errors: Option<std::thread::JoinHandle<String>>,
    started: Instant,
    lines: Vec<Value>,
    /// Milliseconds from the start at which each line came.
    at: Vec<u128>,
}

impl Running {
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
            output,
            errors: Some(errors),
            started: Instant::now(),
            lines: Vec::new(),
            at: Vec::new(),
        }
    }

    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// The next line of output, as JSON or as a string; `None` at the end.
    pub fn line(&mut self) -> Option<Value> {
        let mut line = String::new();
        if self.output.read_line(&mut line).unwrap_or(0) == 0 {
            return None;
        }
        let line = line.trim_end();
        let value = serde_json::from_str(line).unwrap_or_else(|_| Value::String(line.to_owned()));
        self.lines.push(value.clone());
        self.at.push(self.started.elapsed().as_millis());
        Some(value)
    }

    /// Reads on until an event of this type.
    pub fn until(&mut self, kind: &str) -> Value {
        loop {
            match self.line() {
                Some(value) if value["type"] == kind => return value,
                Some(_) => {}
                None => panic!(
                    "no event '{kind}' came; the last lines: {:?}",
                    self.lines.iter().rev().take(3)
                ),
            }
        }
    }

    pub fn signal(&self, signal: rustix::process::Signal) {
        let pid = rustix::process::Pid::from_raw(self.pid() as i32).unwrap();
        rustix::process::kill_process(pid, signal).unwrap();
    }

    pub fn wait(mut self) -> Ended {
        while self.line().is_some() {}
        let status = self.child.wait().unwrap();
        let took = self.started.elapsed();
        let errors = self.errors.take().map(|errors| errors.join().unwrap());
        Ended {
            code: status.code().unwrap_or(-1),
            lines: std::mem::take(&mut self.lines),
            at: std::mem::take(&mut self.at),
            errors: errors.unwrap_or_default(),
            took,
        }
    }
}

/// A test that fails leaves nothing running.
impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A weir that has ended.
#[derive(Debug)]
pub struct Ended {
    /// Exit code; -1 if a signal ended it.
    pub code: i32,
    /// Standard output.
    pub lines: Vec<Value>,
    /// When each line came, in milliseconds since the start.
    pub at: Vec<u128>,
    /// Standard error.
    pub errors: String,
    pub took: Duration,
}

impl Ended {
    /// Events of a type.
    pub fn events(&self, kind: &str) -> Vec<&Value> {
        self.lines.iter().filter(|e| e["type"] == kind).collect()
    }

    /// The only event of a type.
    pub fn event(&self, kind: &str) -> &Value {
        let found = self.events(kind);
        assert_eq!(found.len(), 1, "'{kind}' in {:#?}\n{}", self.lines, self.errors);
        found[0]
    }

    /// The log holds with its own rules: numbers without a gap, one job, every event with its fields.
    pub fn check_log(&self) {
        let job = &self.lines[0]["job"];
        for (i, event) in self.lines.iter().enumerate() {
            assert_eq!(event["seq"], i as u64 + 1, "{event}");
            assert_eq!(&event["job"], job);
            assert!(
                event["type"].is_string() && event.get("document").is_some(),
                "{event}"
            );
        }
    }
}
