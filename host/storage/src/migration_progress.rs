//! What a migration reports while it runs, and at its end.

use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

/// What a migration does with a store.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MigrationStep {
    /// Copies what the target does not have.
    Copy,
    /// Compares both sides.
    Verify,
}

/// The progress of one step.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MigrationProgress {
    /// The step.
    pub step: MigrationStep,
    /// What is copied or compared, such as `table events` or `blobs`.
    pub subject: String,
    /// Rows, objects or points that are done.
    pub done: u64,
    /// All of them; `None` if they are not counted.
    pub total: Option<u64>,
}

/// Called while a migration runs. It must not block.
pub type ReportProgress = dyn Fn(&MigrationProgress) + Send + Sync;

/// Counts one step and reports it.
pub(crate) struct ProgressCounter<'a> {
    report: &'a ReportProgress,
    progress: MigrationProgress,
}

impl<'a> ProgressCounter<'a> {
    pub(crate) fn start(
        report: &'a ReportProgress,
        step: MigrationStep,
        subject: impl Into<String>,
        total: Option<u64>,
    ) -> Self {
        let counter = Self {
            report,
            progress: MigrationProgress {
                step,
                subject: subject.into(),
                done: 0,
                total,
            },
        };
        (counter.report)(&counter.progress);
        counter
    }

    pub(crate) fn add(&mut self, count: usize) {
        self.progress.done += count as u64;
        (self.report)(&self.progress);
    }
}

/// The number of rows, objects or points of one kind, with their bytes and a digest that does not depend on their order.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct ContentDigest {
    pub(crate) count: u64,
    pub(crate) bytes: u64,
    /// The sum of the SHA-256 of all items, as four numbers that wrap around.
    sum: [u64; 4],
}

impl ContentDigest {
    pub(crate) fn add_item(&mut self, hash: [u8; 32], bytes: u64) {
        self.count += 1;
        self.bytes += bytes;
        for (sum, part) in self.sum.iter_mut().zip(hash.as_chunks::<8>().0) {
            *sum = sum.wrapping_add(u64::from_le_bytes(*part));
        }
    }

    pub(crate) fn merge(&mut self, other: &Self) {
        self.count += other.count;
        self.bytes += other.bytes;
        for (sum, part) in self.sum.iter_mut().zip(other.sum) {
            *sum = sum.wrapping_add(part);
        }
    }

    pub(crate) fn to_hex(&self) -> String {
        self.sum
            .iter()
            .map(|part| format!("{:016x}", part.swap_bytes()))
            .collect()
    }
}

/// Hashes the parts of an item. The length of each part is hashed too, so that no other division gives the same hash.
pub(crate) fn hash_parts<'a>(parts: impl IntoIterator<Item = &'a [u8]>) -> [u8; 32] {
    let mut hash = Sha256::new();
    for part in parts {
        hash.update((part.len() as u64).to_le_bytes());
        hash.update(part);
    }
    hash.finalize().into()
}

/// What a migration copied of one kind.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct MigratedContent {
    /// The store: `ledger`, `blobs` or `vectors`.
    pub store: String,
    /// The table, the kind of object, or `points`.
    pub name: String,
    /// Rows, objects or points.
    pub count: u64,
    /// Bytes of objects.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bytes: Option<u64>,
    /// Digest of the content, which is equal on both sides. `None` before the migration.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub digest: Option<String>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn digest_does_not_depend_on_the_order_and_shows_each_difference() {
        let hash = |text: &str| hash_parts([text.as_bytes()]);
        let digest = |texts: &[&str]| {
            let mut digest = ContentDigest::default();
            texts.iter().for_each(|text| digest.add_item(hash(text), 1));
            digest
        };
        assert_eq!(digest(&["a", "b", "c"]), digest(&["c", "a", "b"]));
        for different in [
            &["a", "b"][..],
            &["a", "b", "d"],
            &["a", "a", "c"],
            &["a", "b", "c", "c"],
        ] {
            assert_ne!(digest(&["a", "b", "c"]), digest(different), "{different:?}");
        }
        let mut halves = digest(&["a"]);
        halves.merge(&digest(&["b", "c"]));
        assert_eq!(halves, digest(&["a", "b", "c"]));
        assert_eq!(halves.to_hex().len(), 64);
    }

    #[test]
    fn parts_are_hashed_with_their_lengths() {
        let hash = |parts: &[&[u8]]| hash_parts(parts.iter().copied());
        assert_ne!(hash(&[b"ab", b"c"]), hash(&[b"a", b"bc"]));
        assert_ne!(hash(&[b"a"]), hash(&[b"a", b""]));
    }
}
