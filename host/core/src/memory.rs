//! Memory that this process may use: that of the machine, or less where control groups (cgroups) limit it, as containers do.

/// Memory in bytes; `None` where the system does not say.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct SystemMemory {
    /// All that there is.
    pub total_bytes: Option<u64>,
    /// What can be used without swapping and without reaching a limit.
    pub available_bytes: Option<u64>,
}

/// Where a version of control groups keeps its numbers.
struct Hierarchy {
    mount: &'static str,
    limits: &'static [&'static str],
    used: &'static str,
    /// The part of what is used that the kernel frees when it is needed: file pages that were not read lately.
    reclaimable: &'static str,
}

const VERSION_1: Hierarchy = Hierarchy {
    mount: "/sys/fs/cgroup/memory",
    limits: &["memory.limit_in_bytes"],
    used: "memory.usage_in_bytes",
    reclaimable: "total_inactive_file",
};
const VERSION_2: Hierarchy = Hierarchy {
    mount: "/sys/fs/cgroup",
    limits: &["memory.max", "memory.high"],
    used: "memory.current",
    reclaimable: "inactive_file",
};

impl SystemMemory {
    /// As it is now. Reads a few files of the kernel.
    pub fn read() -> Self {
        Self::read_with(|path| std::fs::read_to_string(path).ok())
    }

    fn read_with(read: impl Fn(&str) -> Option<String>) -> Self {
        let machine = read("/proc/meminfo").unwrap_or_default();
        let mut memory = Self {
            total_bytes: kibibytes(&machine, "MemTotal:"),
            available_bytes: kibibytes(&machine, "MemAvailable:"),
        };
        for line in read("/proc/self/cgroup").unwrap_or_default().lines() {
            let mut fields = line.splitn(3, ':').skip(1);
            let (Some(controllers), Some(path)) = (fields.next(), fields.next()) else {
                continue;
            };
            let hierarchy = if controllers.is_empty() {
                VERSION_2
            } else if controllers.split(',').any(|name| name == "memory") {
                VERSION_1
            } else {
                continue;
            };
            // Each group above counts as well. Within a container the path may be that of the machine, of which only the mount is
            // to be seen.
            let mut path = path.trim_end_matches('/');
            loop {
                memory.limit(&hierarchy, path, &read);
                let Some((above, _)) = path.rsplit_once('/') else {
                    break;
                };
                path = above;
            }
        }
        memory
    }

    /// Takes the limit of one group into account.
    fn limit(&mut self, hierarchy: &Hierarchy, path: &str, read: &impl Fn(&str) -> Option<String>) {
        let read = |name: &str| read(&format!("{}{path}/{name}", hierarchy.mount));
        let number = |name: &str| read(name)?.trim().parse::<u64>().ok();
        let Some(limit) = hierarchy.limits.iter().filter_map(|name| number(name)).min() else {
            return;
        };
        if let Some(total) = &mut self.total_bytes {
            *total = (*total).min(limit);
        }
        let (Some(available), Some(used)) = (&mut self.available_bytes, number(hierarchy.used)) else {
            return;
        };
        let reclaimable = read("memory.stat").and_then(|text| {
            let mut lines = text.lines().filter_map(|line| line.split_once(' '));
            let (_, bytes) = lines.find(|(name, _)| *name == hierarchy.reclaimable)?;
            bytes.trim().parse().ok()
        });
        let held = used.saturating_sub(reclaimable.unwrap_or(0));
        *available = (*available).min(limit.saturating_sub(held));
    }
}

/// A line of `/proc/meminfo`, in bytes.
fn kibibytes(meminfo: &str, name: &str) -> Option<u64> {
    let line = meminfo.lines().find_map(|line| line.strip_prefix(name))?;
    let kib: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    kib.checked_mul(1024)
}

#[cfg(test)]
mod tests {
    use super::*;

    const MEMINFO: &str =
        "MemTotal:       24000000 kB\nMemFree:          321 kB\nMemAvailable:   18000000 kB\n";

    fn memory(files: &[(&str, &str)]) -> (Option<u64>, Option<u64>) {
        let read = |path: &str| {
            let file = files.iter().find(|(name, _)| *name == path)?;
            Some(file.1.to_owned())
        };
        let memory = SystemMemory::read_with(read);
        (memory.total_bytes, memory.available_bytes)
    }

    #[test]
    fn machine_without_groups_has_what_the_kernel_says() {
        let whole = (Some(24_000_000 * 1024), Some(18_000_000 * 1024));
        assert_eq!(memory(&[("/proc/meminfo", MEMINFO)]), whole);
        let unlimited = [
            ("/proc/meminfo", MEMINFO),
            ("/proc/self/cgroup", "0::/a\n"),
            ("/sys/fs/cgroup/a/memory.max", "max\n"),
            ("/sys/fs/cgroup/a/memory.current", "1\n"),
        ];
        assert_eq!(memory(&unlimited), whole);
        assert_eq!(memory(&[]), (None, None));
        assert_eq!(
            memory(&[("/proc/meminfo", "MemAvailable: many kB\n")]),
            (None, None)
        );
        let here = SystemMemory::read();
        assert!(here.available_bytes.is_some_and(|bytes| bytes > 0), "{here:?}");
    }

    #[test]
    fn limit_of_a_container_counts_in_both_versions() {
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
        assert_eq!(memory(&version_2), limited);
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
        assert_eq!(memory(&version_1), limited);
    }

    #[test]
    fn tightest_group_above_the_process_counts() {
        let nested = [
            ("/proc/meminfo", MEMINFO),
            ("/proc/self/cgroup", "0::/slice/unit\n"),
            ("/sys/fs/cgroup/slice/unit/memory.max", "5000\n"),
            ("/sys/fs/cgroup/slice/unit/memory.high", "4000\n"),
            ("/sys/fs/cgroup/slice/unit/memory.current", "100\n"),
            ("/sys/fs/cgroup/slice/memory.max", "4500\n"),
            ("/sys/fs/cgroup/slice/memory.current", "4600\n"),
        ];
        assert_eq!(memory(&nested), (Some(4000), Some(0)));
    }
}
