//! What a server holds of the machine: descriptors, processes, shared memory, files of uploads.

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::fs;
use std::path::Path;

use crate::eventually;
use crate::processes::family;

const CONNECTION: &str = "a client's connection";

/// Descriptors of the ledger's files at most. Its connections are a pool that grows with how many reads ever met, so their
/// number may be another at any time: up to 4 for the server's and 4 for the tenants' reads, and one each that writes,
/// with two files each and one more for all.
const LEDGER: usize = 2 * (4 + 1) * 2 + 1;

/// What there is, by kind, and how many of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Holdings(BTreeMap<String, usize>);

impl Holdings {
    /// Of a server with this data folder, and of all processes below it.
    pub fn of(pid: u32, data: &Path) -> Self {
        let mut all = BTreeMap::new();
        let mut one_more = |kind: String| *all.entry(kind).or_default() += 1;
        let connections = connections();
        let (ledger, others): (Vec<_>, Vec<_>) = targets(&format!("/proc/{pid}/fd"))
            .into_iter()
            .partition(|descriptor| descriptor.contains("/ledger.db"));
        assert!(
            ledger.len() <= LEDGER,
            "{} descriptors of the ledger",
            ledger.len()
        );
        for descriptor in others {
            one_more(format!("descriptor of {}", kind_of(&descriptor, &connections)));
        }
        for child in family(pid).into_iter().filter(|child| *child != pid) {
            one_more("process".into());
            let maps = fs::read_to_string(format!("/proc/{child}/maps")).unwrap_or_default();
            for _ in maps.lines().filter(|map| map.contains("/memfd:")) {
                one_more("piece of shared memory in a worker".into());
            }
        }
        for name in names("/dev/shm") {
            one_more(format!("/dev/shm/{name}"));
        }
        for folder in [".unfinished", ".staged"] {
            for _ in names(data.join("originals").join(folder)) {
                one_more(format!("file in originals/{folder}"));
            }
        }
        Self(all)
    }

    /// Of a server that nobody is connected to, that reads and writes no upload and owes no blob a sync; waits until it is so.
    pub fn at_rest(pid: u32, data: &Path) -> Self {
        let mut at_rest = None;
        eventually(|| {
            let now = Self::of(pid, data);
            let busy = now.0.keys().find(|kind| {
                kind.contains(CONNECTION) || kind.contains("originals") || kind.contains("/blobs/")
            });
            let lacking = busy.map(|kind| format!("the server does not come to rest: {kind}"));
            at_rest = Some(now);
            lacking.map_or(Ok(()), Err)
        });
        at_rest.expect("it was looked at")
    }

    /// Waits until a server holds what it held.
    pub fn come_back(&self, pid: u32, data: &Path) {
        eventually(|| match Self::of(pid, data) {
            now if now == *self => Ok(()),
            now => Err(format!(
                "the server does not hold what it held:\n{}",
                self.difference(&now)
            )),
        });
    }

    fn difference(&self, now: &Self) -> String {
        let kinds: BTreeSet<_> = self.0.keys().chain(now.0.keys()).collect();
        let count = |of: &Self, kind: &String| of.0.get(kind).copied().unwrap_or(0);
        kinds
            .into_iter()
            .filter(|kind| count(self, kind) != count(now, kind))
            .map(|kind| format!("{kind}: {} before, {} now\n", count(self, kind), count(now, kind)))
            .collect()
    }
}

/// Where the descriptors in a folder of `/proc` lead.
fn targets(folder: &str) -> Vec<String> {
    let links = fs::read_dir(folder).into_iter().flatten().flatten();
    links
        .filter_map(|link| fs::read_link(link.path()).ok())
        .map(|target| target.display().to_string())
        .collect()
}

fn names(folder: impl AsRef<Path>) -> Vec<String> {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    entries
        .map(|entry| entry.file_name().to_string_lossy().into_owned())
        .collect()
}

/// The sockets of this machine's connections, also those that one side has closed, each as a descriptor's link names it.
fn connections() -> HashSet<String> {
    const LISTENING: &str = "0A";
    let table = fs::read_to_string("/proc/net/tcp").unwrap();
    let rows = table
        .lines()
        .map(|row| row.split_whitespace().collect::<Vec<_>>());
    rows.filter(|row| row.get(3) != Some(&LISTENING))
        .filter_map(|row| Some(format!("socket:[{}]", row.get(9)?)))
        .collect()
}

/// Sockets and pipes have numbers that say nothing.
fn kind_of<'a>(target: &'a str, connections: &HashSet<String>) -> &'a str {
    if connections.contains(target) {
        return CONNECTION;
    }
    target.split_once(":[").map_or(target, |(kind, _)| kind)
}
