//! Sizes of the tests, which environment variables change.

use std::fmt::Debug;
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use weir_tests::cluster::NodeSettings;
use weir_tests::weir_binary_path;

/// Reads `WEIR_CLUSTER_TEST_<name>`.
fn read_variable<T: FromStr<Err: Debug>>(name: &str, default: T) -> T {
    let name = format!("WEIR_CLUSTER_TEST_{name}");
    std::env::var(&name).map_or(default, |value| {
        value
            .parse()
            .unwrap_or_else(|error| panic!("{name}={value}: {error:?}"))
    })
}

/// Number of jobs whose nodes are killed.
pub(crate) fn jobs() -> usize {
    read_variable("JOBS", 60)
}

/// Number of nodes that are killed.
pub(crate) fn kills() -> usize {
    read_variable("KILLS", 20)
}

/// Pages of each job.
pub(crate) fn pages() -> usize {
    read_variable("PAGES", 40)
}

/// Time for which a store is stopped or fails.
pub(crate) fn outage() -> Duration {
    Duration::from_secs(read_variable("OUTAGE_SECONDS", 60))
}

/// Number of revisions that are pushed and activated.
pub(crate) fn swaps() -> usize {
    read_variable("SWAPS", 100)
}

/// The binary of another version, from which nodes are upgraded; by default the one under test.
pub(crate) fn previous_binary() -> PathBuf {
    read_variable("PREVIOUS_BINARY", weir_binary_path())
}

/// The seed of random choices. It is printed, so that a failed test can be repeated.
pub(crate) fn seed() -> u64 {
    let seed = read_variable("SEED", fastrand::u64(..1_000_000));
    eprintln!("WEIR_CLUSTER_TEST_SEED={seed}");
    seed
}

/// Settings of the nodes.
pub(crate) fn nodes() -> NodeSettings {
    NodeSettings {
        lease_seconds: read_variable("LEASE_SECONDS", 6),
        ..NodeSettings::default()
    }
}
