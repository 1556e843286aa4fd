//! Where worker processes are started and buried.
//!
//! One thread starts them all and lives as long as the pool: the kernel sends a worker its parent-death signal when the
//! *thread* that started it ends, so a thread of the runtime's pool, which may end at any time, will not do. The same
//! thread reaps what it started, so that no worker is left behind as a zombie or as a process, whatever becomes of the
//! runtime.

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

enum Errand {
    Start {
        socket: OwnedFd,
        reply: oneshot::Sender<io::Result<u32>>,
    },
    Bury {
        pid: u32,
        reply: oneshot::Sender<Option<ExitStatus>>,
    },
}

/// The living workers. Dropping it kills and reaps them all.
#[derive(Debug)]
pub(crate) struct Nursery {
    errands: Mutex<Option<mpsc::Sender<Errand>>>,
    thread: Mutex<Option<JoinHandle<()>>>,
    has_warned: AtomicBool,
}

impl Nursery {
    /// `command` is the program and its arguments.
    pub(crate) fn new(command: Vec<OsString>) -> io::Result<Self> {
        let (errands, orders) = mpsc::channel();
        let thread = std::thread::Builder::new()
            .name("weir-raster".into())
            .spawn(move || tend(&command, &orders))?;
        Ok(Self {
            errands: Mutex::new(Some(errands)),
            thread: Mutex::new(Some(thread)),
            has_warned: AtomicBool::new(false),
        })
    }

    /// Says once, for all workers, that they are not locked in.
    pub(crate) fn warn_of_sandbox(&self, missing: &str) {
        if !self.has_warned.swap(true, Ordering::Relaxed) {
            tracing::warn!(
                missing,
                "PDF workers run without a part of their sandbox, as raster.sandbox=best-effort allows"
            );
        }
    }

    fn send(&self, errand: Errand) {
        if let Some(errands) = &*self.errands.lock() {
            drop(errands.send(errand));
        }
    }

    /// Starts a worker with `socket` as its standard input; its process id.
    pub(crate) async fn start(&self, socket: OwnedFd) -> io::Result<u32> {
        let (reply, started) = oneshot::channel();
        self.send(Errand::Start { socket, reply });
        started
            .await
            .unwrap_or_else(|_| Err(io::Error::other("the rasterizer has been shut down")))
    }

    /// Kills a worker, if it still lives, and says how it ended.
    pub(crate) async fn bury(&self, pid: u32) -> String {
        let (reply, ended) = oneshot::channel();
        self.send(Errand::Bury { pid, reply });
        match ended.await {
            Ok(Some(status)) => end_of(status),
            _ => "it is gone".into(),
        }
    }

    /// As [`Nursery::bury`], for those who cannot wait.
    pub(crate) fn bury_unseen(&self, pid: u32) {
        let (reply, _) = oneshot::channel();
        self.send(Errand::Bury { pid, reply });
    }

    /// Kills and reaps all workers. It blocks for as long as the kernel takes to end them, milliseconds.
    pub(crate) fn close(&self) {
        drop(self.errands.lock().take());
        if let Some(thread) = self.thread.lock().take() {
            drop(thread.join());
        }
    }
}

impl Drop for Nursery {
    fn drop(&mut self) {
        self.close();
    }
}

fn tend(command: &[OsString], orders: &mpsc::Receiver<Errand>) {
    let mut children: HashMap<u32, Child> = HashMap::new();
    while let Ok(errand) = orders.recv() {
        match errand {
            Errand::Start { socket, reply } => {
                let started = start(command, socket).map(|child| {
                    let pid = child.id();
                    children.insert(pid, child);
                    pid
                });
                if let Err(Ok(pid)) = reply.send(started) {
                    children.remove(&pid).map(end);
                }
            }
            Errand::Bury { pid, reply } => {
                let _gone = reply.send(children.remove(&pid).and_then(end));
            }
        }
    }
    for child in children.values_mut() {
        drop(child.kill());
    }
    for child in children.into_values() {
        end(child);
    }
}

fn start(command: &[OsString], socket: OwnedFd) -> io::Result<Child> {
    let Some((program, arguments)) = command.split_first() else {
        return Err(io::Error::other("no worker command is set"));
    };
    let mut command = Command::new(program);
    // The environment holds what the worker has no business with, API keys above all.
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

fn end(mut child: Child) -> Option<ExitStatus> {
    drop(child.kill());
    child.wait().ok()
}

/// How a process ended, in words. A worker that was killed for being stuck has ended by signal 9, too; its keeper knows.
fn end_of(status: ExitStatus) -> String {
    let Some(signal) = status.signal() else {
        return format!("it ended by itself, {status}");
    };
    match signal {
        libc::SIGSYS => "it made a system call that the sandbox forbids".into(),
        libc::SIGKILL => "it was killed".into(),
        libc::SIGBUS => "the file changed while it was read".into(),
        libc::SIGABRT | libc::SIGILL | libc::SIGTRAP => {
            format!("it gave up, out of memory or on a check of its own (signal {signal})")
        }
        libc::SIGSEGV => "it crashed (signal 11)".into(),
        _ => format!("it ended by signal {signal}"),
    }
}
