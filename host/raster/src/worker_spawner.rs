//! Starts, kills and reaps worker processes.
//!
//! One thread starts all workers and lives as long as the pool. The kernel sends a worker its parent-death signal when the *thread*
//! that started it ends, so a thread of the async runtime, which may end at any time, cannot start them. The same thread reaps the
//! workers, so that none is left behind, running or as a zombie, whatever happens to the runtime.

use std::collections::HashMap;
use std::ffi::OsString;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::process::ExitStatusExt;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc;
use std::thread::JoinHandle;

use parking_lot::Mutex;
use tokio::sync::oneshot;

enum SpawnerCommand {
    Spawn {
        socket: OwnedFd,
        reply: oneshot::Sender<io::Result<u32>>,
    },
    KillAndReap {
        pid: u32,
        reply: oneshot::Sender<Option<ExitStatus>>,
    },
}

/// The running worker processes. Dropping it kills and reaps them all.
#[derive(Debug)]
pub(crate) struct WorkerSpawner {
    commands: Mutex<Option<mpsc::Sender<SpawnerCommand>>>,
    thread: Mutex<Option<JoinHandle<()>>>,
    has_warned_about_sandbox: AtomicBool,
}

impl WorkerSpawner {
    /// `command` is the program with its arguments.
    pub(crate) fn new(command: Vec<OsString>) -> io::Result<Self> {
        let (sender, receiver) = mpsc::channel();
        let thread = std::thread::Builder::new()
            .name("weir-raster".into())
            .spawn(move || run_spawner_thread(&command, &receiver))?;
        Ok(Self {
            commands: Mutex::new(Some(sender)),
            thread: Mutex::new(Some(thread)),
            has_warned_about_sandbox: AtomicBool::new(false),
        })
    }

    /// Logs once for the pool that workers run without their full sandbox.
    pub(crate) fn warn_about_sandbox_once(&self, missing: &str) {
        if !self.has_warned_about_sandbox.swap(true, Ordering::Relaxed) {
            tracing::warn!(
                missing,
                "PDF workers run with an incomplete sandbox because raster.sandbox_mode=best-effort"
            );
        }
    }

    fn send_command(&self, request: SpawnerCommand) {
        if let Some(sender) = &*self.commands.lock() {
            drop(sender.send(request));
        }
    }

    /// Starts a worker with `socket` as its standard input and returns its process id.
    pub(crate) async fn spawn_worker(&self, socket: OwnedFd) -> io::Result<u32> {
        let (reply, started) = oneshot::channel();
        self.send_command(SpawnerCommand::Spawn { socket, reply });
        started
            .await
            .unwrap_or_else(|_| Err(io::Error::other("the rasterizer has been shut down")))
    }

    /// Kills a worker if it still runs, and describes how it ended.
    pub(crate) async fn kill_and_reap(&self, pid: u32) -> String {
        let (reply, ended) = oneshot::channel();
        self.send_command(SpawnerCommand::KillAndReap { pid, reply });
        match ended.await {
            Ok(Some(status)) => describe_exit_status(status),
            _ => "it is gone".into(),
        }
    }

    /// Like [`WorkerSpawner::kill_and_reap`], without waiting for the end.
    pub(crate) fn kill_and_reap_in_background(&self, pid: u32) {
        let (reply, _) = oneshot::channel();
        self.send_command(SpawnerCommand::KillAndReap { pid, reply });
    }

    /// Kills and reaps all workers. Blocks until the kernel has ended them, which takes milliseconds.
    pub(crate) fn close(&self) {
        drop(self.commands.lock().take());
        if let Some(thread) = self.thread.lock().take() {
            drop(thread.join());
        }
    }
}

impl Drop for WorkerSpawner {
    fn drop(&mut self) {
        self.close();
    }
}

fn run_spawner_thread(command: &[OsString], requests: &mpsc::Receiver<SpawnerCommand>) {
    let mut children: HashMap<u32, Child> = HashMap::new();
    while let Ok(request) = requests.recv() {
        match request {
            SpawnerCommand::Spawn { socket, reply } => {
                let started = spawn_worker_child(command, socket).map(|child| {
                    let pid = child.id();
                    children.insert(pid, child);
                    pid
                });
                if let Err(Ok(pid)) = reply.send(started) {
                    children.remove(&pid).map(kill_and_wait);
                }
            }
            SpawnerCommand::KillAndReap { pid, reply } => {
                let _gone = reply.send(children.remove(&pid).and_then(kill_and_wait));
            }
        }
    }
    for child in children.values_mut() {
        drop(child.kill());
    }
    for child in children.into_values() {
        kill_and_wait(child);
    }
}

fn spawn_worker_child(command: &[OsString], socket: OwnedFd) -> io::Result<Child> {
    let Some((program, arguments)) = command.split_first() else {
        return Err(io::Error::other("no worker command is set"));
    };
    let mut command = Command::new(program);
    // The environment holds secrets that the worker must not see, above all API keys.
    command
        .args(arguments)
        .env_clear()
        .stdin(Stdio::from(socket))
        .stdout(Stdio::null())
        .stderr(Stdio::null());
    if let Some(libraries) = std::env::var_os("LD_LIBRARY_PATH") {
        command.env("LD_LIBRARY_PATH", libraries);
    }
    command.spawn()
}

fn kill_and_wait(mut child: Child) -> Option<ExitStatus> {
    drop(child.kill());
    child.wait().ok()
}

/// Describes how a process ended. A worker that hung is also killed with signal 9; the supervisor distinguishes the two.
fn describe_exit_status(status: ExitStatus) -> String {
    let Some(signal) = status.signal() else {
        return format!("it exited with {status}");
    };
    match signal {
        libc::SIGSYS => "it made a system call that the sandbox forbids".into(),
        libc::SIGKILL => "it was killed".into(),
        libc::SIGBUS => "the file changed while it was read".into(),
        libc::SIGABRT | libc::SIGILL | libc::SIGTRAP => {
            format!("it aborted, because memory ran out or an internal check failed (signal {signal})")
        }
        libc::SIGSEGV => "it crashed (signal 11)".into(),
        _ => format!("it ended by signal {signal}"),
    }
}
