//! What the system says of processes: who is whose child, and how much memory they hold together.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

/// Processes below `root`, and `root` itself.
pub fn family(root: u32) -> HashSet<u32> {
    let mut children: HashMap<u32, Vec<u32>> = HashMap::new();
    for entry in std::fs::read_dir("/proc").into_iter().flatten().flatten() {
        let Some(pid) = entry.file_name().to_str().and_then(|n| n.parse::<u32>().ok()) else {
            continue;
        };
        let Ok(stat) = std::fs::read_to_string(entry.path().join("stat")) else {
            continue;
        };
        let parent = stat
            .rsplit(')')
            .next()
            .and_then(|r| r.split_whitespace().nth(1))
            .and_then(|p| p.parse().ok());
        children.entry(parent.unwrap_or(0)).or_default().push(pid);
    }
    let mut family = HashSet::from([root]);
    let mut next = vec![root];
    while let Some(pid) = next.pop() {
        for child in children.get(&pid).into_iter().flatten() {
            if family.insert(*child) {
                next.push(*child);
            }
        }
    }
    family
}

/// Whether a process is there and is no zombie.
pub fn alive(pid: u32) -> bool {
    std::fs::read_to_string(format!("/proc/{pid}/stat")).is_ok_and(|stat| {
        !stat
            .rsplit(')')
            .next()
            .unwrap_or("")
            .trim_start()
            .starts_with('Z')
    })
}

/// How far the memory of one process grows, to the byte that was there for an instant.
pub struct Growth {
    pid: u32,
    before: u64,
}

impl Growth {
    /// Counted from now on.
    pub fn of(pid: u32) -> Self {
        // Makes the largest size so far the present one (proc_pid_clear_refs(5)).
        std::fs::write(format!("/proc/{pid}/clear_refs"), "5").unwrap();
        let before = largest_resident_bytes(pid);
        Self { pid, before }
    }

    /// The most that it grew by, in bytes.
    pub fn most(&self) -> u64 {
        largest_resident_bytes(self.pid).saturating_sub(self.before)
    }
}

fn largest_resident_bytes(pid: u32) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = status.lines().find_map(|l| l.strip_prefix("VmHWM:")).unwrap();
    let kibibytes = line.trim().strip_suffix(" kB").unwrap();
    kibibytes.parse::<u64>().unwrap() * 1024
}

/// Kilobytes that a file of /proc says behind `name`, in bytes.
fn said(pid: u32, file: &str, name: &str) -> u64 {
    let text = std::fs::read_to_string(format!("/proc/{pid}/{file}")).unwrap_or_default();
    let line = text
        .lines()
        .find_map(|line| line.strip_prefix(name))
        .unwrap_or("0");
    let number = line.split_whitespace().next().and_then(|n| n.parse::<u64>().ok());
    number.unwrap_or(0) * 1024
}

/// Bytes that processes hold together: each page of their own once, also where several of them share it, and of code and models,
/// which are files that strangers may share, what the one with most has. (A page of a file that is divided by all who share it would
/// make these seem smaller whenever something else of Weir runs beside them.)
fn bytes(family: &HashSet<u32>) -> u64 {
    let own = |pid: &u32| said(*pid, "smaps_rollup", "Pss_Anon:") + said(*pid, "smaps_rollup", "Pss_Shmem:");
    let files = |pid: &u32| said(*pid, "status", "RssFile:");
    family.iter().map(own).sum::<u64>() + family.iter().map(files).max().unwrap_or(0)
}

/// Watches the memory of a process and of all below it.
pub struct MemoryWatch {
    stop: Arc<AtomicBool>,
    thread: JoinHandle<u64>,
}

impl MemoryWatch {
    pub fn start(root: u32) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = Arc::clone(&stop);
        let thread = std::thread::spawn(move || {
            let mut peak = 0;
            while !stopped.load(Ordering::Relaxed) {
                peak = peak.max(bytes(&family(root)));
                std::thread::sleep(Duration::from_millis(50));
            }
            peak
        });
        Self { stop, thread }
    }

    /// The largest sum seen, in bytes.
    pub fn peak(self) -> u64 {
        self.stop.store(true, Ordering::Relaxed);
        self.thread.join().unwrap()
    }
}
