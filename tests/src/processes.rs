//! Reads `/proc`: process trees and their memory.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

/// Returns `root` and all of its descendants.
pub fn process_tree(root: u32) -> HashSet<u32> {
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
    let mut pids = HashSet::from([root]);
    let mut next = vec![root];
    while let Some(pid) = next.pop() {
        for child in children.get(&pid).into_iter().flatten() {
            if pids.insert(*child) {
                next.push(*child);
            }
        }
    }
    pids
}

/// Returns whether a process exists and is not a zombie.
pub fn is_process_alive(pid: u32) -> bool {
    std::fs::read_to_string(format!("/proc/{pid}/stat")).is_ok_and(|stat| {
        !stat
            .rsplit(')')
            .next()
            .unwrap_or("")
            .trim_start()
            .starts_with('Z')
    })
}

/// Measures by how much the peak memory of one process grows, including short peaks.
pub struct PeakMemoryGrowth {
    pid: u32,
    baseline_bytes: u64,
}

impl PeakMemoryGrowth {
    /// Starts the measurement.
    pub fn start(pid: u32) -> Self {
        // Resets the recorded peak to the current size (proc_pid_clear_refs(5)).
        std::fs::write(format!("/proc/{pid}/clear_refs"), "5").unwrap();
        let before = peak_resident_bytes(pid);
        Self {
            pid,
            baseline_bytes: before,
        }
    }

    /// Returns the peak growth since the start, in bytes.
    pub fn peak_growth_bytes(&self) -> u64 {
        peak_resident_bytes(self.pid).saturating_sub(self.baseline_bytes)
    }
}

fn peak_resident_bytes(pid: u32) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = status.lines().find_map(|l| l.strip_prefix("VmHWM:")).unwrap();
    let kibibytes = line.trim().strip_suffix(" kB").unwrap();
    kibibytes.parse::<u64>().unwrap() * 1024
}

/// Reads the kilobytes that follow `name` in a file of /proc and returns them as bytes.
fn read_proc_bytes(pid: u32, file: &str, name: &str) -> u64 {
    let text = std::fs::read_to_string(format!("/proc/{pid}/{file}")).unwrap_or_default();
    let line = text
        .lines()
        .find_map(|line| line.strip_prefix(name))
        .unwrap_or("0");
    let number = line.split_whitespace().next().and_then(|n| n.parse::<u64>().ok());
    number.unwrap_or(0) * 1024
}

/// Returns the memory of the processes together, in bytes: every anonymous or shared page once, plus the mapped file pages (code and
/// models) of the process that has most of them. The proportional set size of file pages would be smaller while another Weir process
/// runs on the machine.
fn total_memory_bytes(pids: &HashSet<u32>) -> u64 {
    let own = |pid: &u32| {
        read_proc_bytes(*pid, "smaps_rollup", "Pss_Anon:")
            + read_proc_bytes(*pid, "smaps_rollup", "Pss_Shmem:")
    };
    let files = |pid: &u32| read_proc_bytes(*pid, "status", "RssFile:");
    pids.iter().map(own).sum::<u64>() + pids.iter().map(files).max().unwrap_or(0)
}

/// Samples the memory of a process and its descendants in a thread.
pub struct MemoryMonitor {
    stop: Arc<AtomicBool>,
    thread: JoinHandle<u64>,
}

impl MemoryMonitor {
    pub fn start(root: u32) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = Arc::clone(&stop);
        let thread = std::thread::spawn(move || {
            let mut peak = 0;
            while !stopped.load(Ordering::Relaxed) {
                peak = peak.max(total_memory_bytes(&process_tree(root)));
                std::thread::sleep(Duration::from_millis(50));
            }
            peak
        });
        Self { stop, thread }
    }

    /// Stops sampling and returns the largest sum, in bytes.
    pub fn stop_with_peak_bytes(self) -> u64 {
        self.stop.store(true, Ordering::Relaxed);
        self.thread.join().unwrap()
    }
}
