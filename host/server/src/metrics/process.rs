//! Metrics of this process from `/proc`, named as in the official Prometheus clients.

use metrics::{counter, gauge};

/// Clock ticks per second in `/proc`. The kernel interface fixes this value, independent of the kernel's timer frequency.
const CLOCK_TICKS_PER_SECOND: u64 = 100;

/// Reads and records all process metrics. A value that cannot be read keeps its last value.
pub(super) fn record_process_metrics() {
    let read = |file: &str| std::fs::read_to_string(format!("/proc/self/{file}")).ok();
    if let Some(bytes) = read("status").as_deref().and_then(parse_vm_rss_bytes) {
        gauge!("process_resident_memory_bytes").set(bytes as f64);
    }
    if let Ok(open) = std::fs::read_dir("/proc/self/fd") {
        gauge!("process_open_fds").set(open.count() as f64);
    }
    if let Some(ticks) = read("stat").as_deref().and_then(parse_cpu_ticks) {
        counter!("process_cpu_seconds_total").absolute(ticks / CLOCK_TICKS_PER_SECOND);
    }
}

/// Parses the line `VmRSS:     1234 kB` of `/proc/self/status`.
fn parse_vm_rss_bytes(status: &str) -> Option<u64> {
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    let kilobytes: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    kilobytes.checked_mul(1024)
}

/// Parses user and system time from `/proc/self/stat`: the sum of fields 14 and 15. Field 2 is the program name in parentheses and
/// may contain any characters.
fn parse_cpu_ticks(stat: &str) -> Option<u64> {
    let (_, fields) = stat.rsplit_once(')')?;
    let mut fields = fields.split_ascii_whitespace().skip(11);
    let (user, system): (u64, u64) = (fields.next()?.parse().ok()?, fields.next()?.parse().ok()?);
    user.checked_add(system)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn proc_files_are_parsed() {
        assert_eq!(
            parse_vm_rss_bytes("Name:\tweir\nVmRSS:\t   2048 kB\nThreads:\t3\n"),
            Some(2 << 20)
        );
        assert_eq!(parse_vm_rss_bytes("Name:\tweir\n"), None);
        let stat = "42 (a ) b) S 1 42 42 0 -1 4194560 100 0 0 0 250 50 0 0 20 0 3 0 99 1 2";
        assert_eq!(parse_cpu_ticks(stat), Some(300));
        assert_eq!(parse_cpu_ticks("42 (weir"), None);
    }
}
