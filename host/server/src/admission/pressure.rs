//! How much memory the machine has left.

/// Bytes that can be used without swapping, by the kernel's own estimate; `None` where it gives none.
pub(crate) fn available_bytes() -> Option<u64> {
    available(&std::fs::read_to_string("/proc/meminfo").ok()?)
}

fn available(meminfo: &str) -> Option<u64> {
    let line = meminfo
        .lines()
        .find_map(|line| line.strip_prefix("MemAvailable:"))?;
    let kib: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    kib.checked_mul(1024)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kernels_table_is_read() {
        let table = "MemTotal:       24689748 kB\nMemFree:          321 kB\nMemAvailable:   18000000 kB\n";
        assert_eq!(available(table), Some(18_000_000 * 1024));
        assert_eq!(available("MemTotal: 1 kB\n"), None);
        assert_eq!(available("MemAvailable: many kB\n"), None);
        assert!(
            available_bytes().is_some_and(|bytes| bytes > 0),
            "this machine says nothing"
        );
    }
}
