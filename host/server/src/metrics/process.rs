//! What the system says of this process, by the names that Prometheus' own clients use.

use metrics::{counter, gauge};

/// Ticks a second in `/proc`: fixed by the kernel's interface, whatever its own clock does.
const TICKS: u64 = 100;

/// Reads it all. What the system does not tell keeps its last value.
pub(super) fn sample() {
    let read = |file: &str| std::fs::read_to_string(format!("/proc/self/{file}")).ok();
    if let Some(bytes) = read("status").as_deref().and_then(resident_bytes) {
        gauge!("process_resident_memory_bytes").set(bytes as f64);
    }
    if let Ok(open) = std::fs::read_dir("/proc/self/fd") {
        gauge!("process_open_fds").set(open.count() as f64);
    }
    if let Some(ticks) = read("stat").as_deref().and_then(cpu_ticks) {
        counter!("process_cpu_seconds_total").absolute(ticks / TICKS);
    }
}

/// The line `VmRSS:     1234 kB`.
fn resident_bytes(status: &str) -> Option<u64> {
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    let kilobytes: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    kilobytes.checked_mul(1024)
}

/// User and system time: the 14th and 15th field. The 2nd is the program's name in brackets and may contain anything.
fn cpu_ticks(stat: &str) -> Option<u64> {
    let (_, fields) = stat.rsplit_once(')')?;
    let mut fields = fields.split_ascii_whitespace().skip(11);
    let (user, system): (u64, u64) = (fields.next()?.parse().ok()?, fields.next()?.parse().ok()?);
    user.checked_add(system)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_kernel_writes_is_understood() {
        assert_eq!(
            resident_bytes("Name:\tweir\nVmRSS:\t   2048 kB\nThreads:\t3\n"),
            Some(2 << 20)
        );
        assert_eq!(resident_bytes("Name:\tweir\n"), None);
        let stat = "42 (a ) b) S 1 42 42 0 -1 4194560 100 0 0 0 250 50 0 0 20 0 3 0 99 1 2";
        assert_eq!(cpu_ticks(stat), Some(300));
        assert_eq!(cpu_ticks("42 (weir"), None);
    }
}
