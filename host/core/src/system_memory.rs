//! Memory that this process can use: that of the machine, or less in a control group (cgroup) with a limit, such as a
//! container.

/// Memory in bytes; `None` if the system does not report it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct SystemMemory {
    /// Total memory.
    pub total_bytes: Option<u64>,
    /// Memory that can be used without swapping and within all limits.
    pub available_bytes: Option<u64>,
}

/// File names of one cgroup version.
struct CgroupVersionFiles {
    mount_path: &'static str,
    limit_files: &'static [&'static str],
    usage_file: &'static str,
    /// Name of the statistic for memory that the kernel frees on demand: file pages that were not read recently.
    reclaimable_stat: &'static str,
}

const CGROUP_V1: CgroupVersionFiles = CgroupVersionFiles {
    mount_path: "/sys/fs/cgroup/memory",
    limit_files: &["memory.limit_in_bytes"],
    usage_file: "memory.usage_in_bytes",
    reclaimable_stat: "total_inactive_file",
};
const CGROUP_V2: CgroupVersionFiles = CgroupVersionFiles {
    mount_path: "/sys/fs/cgroup",
    limit_files: &["memory.max", "memory.high"],
    usage_file: "memory.current",
    reclaimable_stat: "inactive_file",
};

impl SystemMemory {
    /// Reads the current values from files of the kernel.
    pub fn read() -> Self {
        Self::read_from_files(|path| std::fs::read_to_string(path).ok())
    }

    fn read_from_files(read: impl Fn(&str) -> Option<String>) -> Self {
        let machine = read("/proc/meminfo").unwrap_or_default();
        let mut memory = Self {
            total_bytes: parse_meminfo_bytes(&machine, "MemTotal:"),
            available_bytes: parse_meminfo_bytes(&machine, "MemAvailable:"),
        };
        for line in read("/proc/self/cgroup").unwrap_or_default().lines() {
            let mut fields = line.splitn(3, ':').skip(1);
            let (Some(controllers), Some(path)) = (fields.next(), fields.next()) else {
                continue;
            };
            let hierarchy = if controllers.is_empty() {
                CGROUP_V2
            } else if controllers.split(',').any(|name| name == "memory") {
                CGROUP_V1
            } else {
                continue;
            };
            // The limits of all parent groups apply, too. In a container the path can be that of the host, of which
            // only the mount point is visible.
            let mut path = path.trim_end_matches('/');
            loop {
                memory.apply_cgroup_limit(&hierarchy, path, &read);
                let Some((above, _)) = path.rsplit_once('/') else {
                    break;
                };
                path = above;
            }
        }
        memory
    }

    /// Applies the limit of one cgroup.
    fn apply_cgroup_limit(
        &mut self,
        hierarchy: &CgroupVersionFiles,
        path: &str,
        read: &impl Fn(&str) -> Option<String>,
    ) {
        let read = |name: &str| read(&format!("{}{path}/{name}", hierarchy.mount_path));
        let number = |name: &str| read(name)?.trim().parse::<u64>().ok();
        let Some(limit) = hierarchy.limit_files.iter().filter_map(|name| number(name)).min() else {
            return;
        };
        if let Some(total) = &mut self.total_bytes {
            *total = (*total).min(limit);
        }
        let (Some(available), Some(used)) = (&mut self.available_bytes, number(hierarchy.usage_file)) else {
            return;
        };
        let reclaimable = read("memory.stat").and_then(|text| {
            let mut lines = text.lines().filter_map(|line| line.split_once(' '));
            let (_, bytes) = lines.find(|(name, _)| *name == hierarchy.reclaimable_stat)?;
            bytes.trim().parse().ok()
        });
        let held = used.saturating_sub(reclaimable.unwrap_or(0));
        *available = (*available).min(limit.saturating_sub(held));
    }
}

/// Returns a value of `/proc/meminfo` in bytes.
fn parse_meminfo_bytes(meminfo: &str, name: &str) -> Option<u64> {
    let line = meminfo.lines().find_map(|line| line.strip_prefix(name))?;
    let kib: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    kib.checked_mul(1024)
}

#[cfg(test)]
mod tests {
    use super::*;

    const MEMINFO: &str =
        "MemTotal:       24000000 kB\nMemFree:          321 kB\nMemAvailable:   18000000 kB\n";

    fn read_memory(files: &[(&str, &str)]) -> (Option<u64>, Option<u64>) {
        let read = |path: &str| {
            let file = files.iter().find(|(name, _)| *name == path)?;
            Some(file.1.to_owned())
        };
        let memory = SystemMemory::read_from_files(read);
        (memory.total_bytes, memory.available_bytes)
    }

    #[test]
    fn without_cgroup_limit_the_machine_memory_counts() {
        let whole = (Some(24_000_000 * 1024), Some(18_000_000 * 1024));
        assert_eq!(read_memory(&[("/proc/meminfo", MEMINFO)]), whole);
        let unlimited = [
            ("/proc/meminfo", MEMINFO),
            ("/proc/self/cgroup", "0::/a\n"),
            ("/sys/fs/cgroup/a/memory.max", "max\n"),
            ("/sys/fs/cgroup/a/memory.current", "1\n"),
        ];
        assert_eq!(read_memory(&unlimited), whole);
        assert_eq!(read_memory(&[]), (None, None));
        assert_eq!(
            read_memory(&[("/proc/meminfo", "MemAvailable: many kB\n")]),
            (None, None)
        );
        let here = SystemMemory::read();
        assert!(here.available_bytes.is_some_and(|bytes| bytes > 0), "{here:?}");
    }

    #[test]
    fn container_limit_counts_in_cgroup_v1_and_v2() {
        let limited = (Some(1000), Some(1000 - (900 - 300)));
        let version_2 = [
            ("/proc/meminfo", MEMINFO),
            ("/proc/self/cgroup", "0::/\n"),
            ("/sys/fs/cgroup/memory.max", "1000\n"),
            ("/sys/fs/cgroup/memory.high", "max\n"),
            ("/sys/fs/cgroup/memory.current", "900\n"),
            (
                "/sys/fs/cgroup/memory.stat",
                "anon 500\nactive_file 100\ninactive_file 300\n",
            ),
        ];
        assert_eq!(read_memory(&version_2), limited);
        let version_1 = [
            ("/proc/meminfo", MEMINFO),
            (
                "/proc/self/cgroup",
                "5:cpu,cpuacct:/x\n4:memory:/docker/1234\n0::/\n",
            ),
            ("/sys/fs/cgroup/memory/memory.limit_in_bytes", "1000\n"),
            ("/sys/fs/cgroup/memory/memory.usage_in_bytes", "900\n"),
            (
                "/sys/fs/cgroup/memory/memory.stat",
                "inactive_file 1\ntotal_inactive_file 300\n",
            ),
        ];
        assert_eq!(read_memory(&version_1), limited);
    }

    #[test]
    fn tightest_parent_cgroup_limit_counts() {
        let nested = [
            ("/proc/meminfo", MEMINFO),
            ("/proc/self/cgroup", "0::/slice/unit\n"),
            ("/sys/fs/cgroup/slice/unit/memory.max", "5000\n"),
            ("/sys/fs/cgroup/slice/unit/memory.high", "4000\n"),
            ("/sys/fs/cgroup/slice/unit/memory.current", "100\n"),
            ("/sys/fs/cgroup/slice/memory.max", "4500\n"),
            ("/sys/fs/cgroup/slice/memory.current", "4600\n"),
        ];
        assert_eq!(read_memory(&nested), (Some(4000), Some(0)));
    }
}
