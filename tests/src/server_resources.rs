//! Counts the operating system resources of a server: descriptors, processes, shared memory and upload files.

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::fs;
use std::path::Path;

use crate::processes::process_tree;
use crate::wait_until;

const CONNECTION_KIND: &str = "a client's connection";

/// The databases and the largest number of descriptors of their files. The connection pools grow with concurrent reads, so the numbers
/// vary. Each connection has two files, and one more descriptor is shared by all connections. The server and the tenants have up to 4
/// connections for reading and 1 for writing to the ledger each; the index has up to 8 and 1, and the small blobs 4 and 1.
const DATABASES: [(&str, usize); 3] = [
    ("/ledger.db", 2 * (4 + 1) * 2 + 1),
    ("/vectors/passages.db", (8 + 1) * 2 + 1),
    ("/blobs.db", (4 + 1) * 2 + 1),
];

/// The number of resources of each kind.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ResourceCounts(BTreeMap<String, usize>);

impl ResourceCounts {
    /// Counts the resources of a server with this data folder and of its child processes.
    pub fn count_resources(pid: u32, data: &Path) -> Self {
        let mut all = BTreeMap::new();
        let mut one_more = |kind: String| *all.entry(kind).or_default() += 1;
        let connections = list_connection_sockets();
        let mut others = read_link_targets(&format!("/proc/{pid}/fd"));
        for (database, max_descriptors) in DATABASES {
            let before = others.len();
            others.retain(|descriptor| !descriptor.contains(database));
            let count = before - others.len();
            assert!(count <= max_descriptors, "{count} descriptors of {database}");
        }
        for descriptor in others {
            one_more(format!(
                "descriptor of {}",
                descriptor_kind(&descriptor, &connections)
            ));
        }
        for child in process_tree(pid).into_iter().filter(|child| *child != pid) {
            one_more("process".into());
            let maps = fs::read_to_string(format!("/proc/{child}/maps")).unwrap_or_default();
            for _ in maps.lines().filter(|map| map.contains("/memfd:")) {
                one_more("piece of shared memory in a worker".into());
            }
        }
        for name in list_file_names("/dev/shm") {
            one_more(format!("/dev/shm/{name}"));
        }
        for folder in [".unfinished", ".staged"] {
            for _ in list_file_names(data.join("uploads").join(folder)) {
                one_more(format!("file in uploads/{folder}"));
            }
        }
        Self(all)
    }

    /// Counts the resources of an idle server. Waits until it has no connection, no open upload and no blob to sync.
    pub fn count_when_idle(pid: u32, data: &Path) -> Self {
        let mut idle_counts = None;
        wait_until(|| {
            let now = Self::count_resources(pid, data);
            let busy = now.0.keys().find(|kind| {
                kind.contains(CONNECTION_KIND) || kind.contains("uploads") || kind.contains("/blobs/")
            });
            let problem = busy.map(|kind| format!("the server does not become idle: {kind}"));
            idle_counts = Some(now);
            problem.map_or(Ok(()), Err)
        });
        idle_counts.expect("the resources were counted at least once")
    }

    /// Waits until a server has the same resources as in this count.
    pub fn wait_until_restored(&self, pid: u32, data: &Path) {
        wait_until(|| match Self::count_resources(pid, data) {
            now if now == *self => Ok(()),
            now => Err(format!(
                "the server's resources differ from the first count:\n{}",
                self.describe_difference(&now)
            )),
        });
    }

    fn describe_difference(&self, now: &Self) -> String {
        let kinds: BTreeSet<_> = self.0.keys().chain(now.0.keys()).collect();
        let count = |of: &Self, kind: &String| of.0.get(kind).copied().unwrap_or(0);
        kinds
            .into_iter()
            .filter(|kind| count(self, kind) != count(now, kind))
            .map(|kind| format!("{kind}: {} before, {} now\n", count(self, kind), count(now, kind)))
            .collect()
    }
}

/// Returns the targets of the links in a folder of `/proc`.
fn read_link_targets(folder: &str) -> Vec<String> {
    let links = fs::read_dir(folder).into_iter().flatten().flatten();
    links
        .filter_map(|link| fs::read_link(link.path()).ok())
        .map(|target| target.display().to_string())
        .collect()
}

fn list_file_names(folder: impl AsRef<Path>) -> Vec<String> {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    entries
        .map(|entry| entry.file_name().to_string_lossy().into_owned())
        .collect()
}

/// Returns the sockets of this machine's TCP connections, also of half-closed ones, in the form of a descriptor's link target.
fn list_connection_sockets() -> HashSet<String> {
    const LISTENING: &str = "0A";
    let table = fs::read_to_string("/proc/net/tcp").unwrap();
    let rows = table
        .lines()
        .map(|row| row.split_whitespace().collect::<Vec<_>>());
    rows.filter(|row| row.get(3) != Some(&LISTENING))
        .filter_map(|row| Some(format!("socket:[{}]", row.get(9)?)))
        .collect()
}

/// Returns the kind of a descriptor: its link target without the number of a socket or pipe.
fn descriptor_kind<'a>(target: &'a str, connections: &HashSet<String>) -> &'a str {
    if connections.contains(target) {
        return CONNECTION_KIND;
    }
    target.split_once(":[").map_or(target, |(kind, _)| kind)
}
