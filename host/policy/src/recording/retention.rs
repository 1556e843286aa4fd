//! Removes recordings that are too old or take too much space.
//!
//! The age of a recording is the time since its last call. If all recordings together exceed the byte limit, the oldest are
//! removed first, of any tenant. Recordings serve to test changes, and the latest jobs are the most useful for that.

use std::collections::HashSet;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use weir_core::JobId;

const SECONDS_PER_DAY: u64 = 86_400;

/// How long recordings are kept, and how many bytes of them. A value of 0 means no limit.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Retention {
    /// Days since the job's last call.
    pub max_days: u32,
    /// Bytes of all tenants' recordings.
    pub max_bytes: u64,
}

impl Retention {
    fn max_age(self) -> Option<Duration> {
        (self.max_days > 0).then(|| Duration::from_secs(u64::from(self.max_days) * SECONDS_PER_DAY))
    }

    /// Explains why a job's recording is gone, if the job is older than the limit. The age is taken from the job id, which
    /// contains the time of its creation.
    pub fn explain_expiry(self, job: &JobId) -> Option<String> {
        let (seconds, _) = job.0.get_timestamp()?.to_unix();
        let began = SystemTime::UNIX_EPOCH.checked_add(Duration::from_secs(seconds))?;
        let age = began.elapsed().ok()?;
        (age > self.max_age()?).then(|| {
            format!(
                "it ran {} days ago, and policy.recording_retention_days is {}",
                age.as_secs() / SECONDS_PER_DAY,
                self.max_days
            )
        })
    }
}

struct FoundRecording {
    path: PathBuf,
    bytes: u64,
    last_modified: SystemTime,
}

/// Removes the expired recordings of a folder, except those in `open`, which are still being written. Returns the number of
/// removed recordings.
pub(super) fn remove_old_and_excess_recordings(
    folder: &Path,
    retention: Retention,
    open: &HashSet<PathBuf>,
    now: SystemTime,
) -> io::Result<usize> {
    let mut found = list_recordings(folder)?;
    found.sort_by_key(|recording| recording.last_modified);
    let mut total_bytes: u64 = found.iter().map(|recording| recording.bytes).sum();
    let mut removed = 0;
    for recording in found {
        let age = now.duration_since(recording.last_modified).unwrap_or_default();
        let is_too_old = retention.max_age().is_some_and(|most| age > most);
        let is_over_byte_limit = retention.max_bytes > 0 && total_bytes > retention.max_bytes;
        if !(is_too_old || is_over_byte_limit) {
            break;
        }
        if open.contains(&recording.path) {
            continue;
        }
        fs::remove_file(&recording.path)?;
        total_bytes = total_bytes.saturating_sub(recording.bytes);
        removed += 1;
        if let Some(tenant) = recording.path.parent() {
            // Fails while the folder is not empty.
            let _ = fs::remove_dir(tenant);
        }
    }
    Ok(removed)
}

/// Lists the files in a folder; none if the folder does not exist.
pub(super) fn list_files_in_folder(folder: &Path) -> io::Result<Vec<PathBuf>> {
    match fs::read_dir(folder) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Vec::new()),
        files => files?.map(|file| Ok(file?.path())).collect(),
    }
}

/// Removes files. A missing file is not an error.
pub(super) fn remove_files(files: &[PathBuf]) -> io::Result<()> {
    files.iter().try_for_each(|path| match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    })
}

/// Lists all recordings. There is a folder for each tenant and a file for each job.
fn list_recordings(folder: &Path) -> io::Result<Vec<FoundRecording>> {
    let mut found = Vec::new();
    for tenant in fs::read_dir(folder)? {
        let tenant = tenant?;
        if !tenant.file_type()?.is_dir() {
            continue;
        }
        for file in fs::read_dir(tenant.path())? {
            let file = file?;
            let metadata = file.metadata()?;
            if metadata.is_file() && file.path().extension().is_some_and(|end| end == "calls") {
                found.push(FoundRecording {
                    path: file.path(),
                    bytes: metadata.len(),
                    last_modified: metadata.modified()?,
                });
            }
        }
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Creates recordings of 1000 bytes with these names and ages in days.
    fn create_recordings(files: &[(&str, u64)]) -> (tempfile::TempDir, SystemTime) {
        let folder = tempfile::tempdir().unwrap();
        let now = SystemTime::now();
        for (name, days) in files {
            let path = folder.path().join(name);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(&path, [0; 1000]).unwrap();
            let file = fs::File::options().write(true).open(&path).unwrap();
            file.set_modified(now - Duration::from_secs(days * SECONDS_PER_DAY))
                .unwrap();
        }
        (folder, now)
    }

    fn remaining_recordings(folder: &Path) -> Vec<String> {
        let mut remaining: Vec<String> = list_recordings(folder)
            .unwrap()
            .into_iter()
            .map(|found| {
                found
                    .path
                    .strip_prefix(folder)
                    .unwrap()
                    .to_string_lossy()
                    .into_owned()
            })
            .collect();
        remaining.sort();
        remaining
    }

    const SAMPLE_FILES: [(&str, u64); 4] = [
        ("a/1.calls", 40),
        ("a/2.calls", 10),
        ("b/3.calls", 31),
        ("b/4.calls", 1),
    ];

    #[test]
    fn recordings_over_max_days_are_removed() {
        let (folder, now) = create_recordings(&SAMPLE_FILES);
        let retention = Retention {
            max_days: 30,
            max_bytes: 0,
        };
        assert_eq!(
            remove_old_and_excess_recordings(folder.path(), retention, &HashSet::new(), now).unwrap(),
            2
        );
        assert_eq!(remaining_recordings(folder.path()), ["a/2.calls", "b/4.calls"]);
    }

    #[test]
    fn oldest_recordings_are_removed_over_max_bytes() {
        let (folder, now) = create_recordings(&SAMPLE_FILES);
        let retention = Retention {
            max_days: 0,
            max_bytes: 1500,
        };
        assert_eq!(
            remove_old_and_excess_recordings(folder.path(), retention, &HashSet::new(), now).unwrap(),
            3
        );
        assert_eq!(remaining_recordings(folder.path()), ["b/4.calls"]);
        assert!(!folder.path().join("a").exists());
    }

    #[test]
    fn a_recording_being_written_is_not_removed() {
        let (folder, now) = create_recordings(&SAMPLE_FILES);
        let open = HashSet::from([folder.path().join("a/1.calls")]);
        let retention = Retention {
            max_days: 30,
            max_bytes: 1000,
        };
        remove_old_and_excess_recordings(folder.path(), retention, &open, now).unwrap();
        assert_eq!(remaining_recordings(folder.path()), ["a/1.calls"]);
    }

    #[test]
    fn without_limits_nothing_is_removed() {
        let (folder, now) = create_recordings(&SAMPLE_FILES);
        let swept =
            remove_old_and_excess_recordings(folder.path(), Retention::default(), &HashSet::new(), now)
                .unwrap();
        assert_eq!((swept, remaining_recordings(folder.path()).len()), (0, 4));
    }

    #[test]
    fn expiry_is_explained_by_the_age_of_the_job_id() {
        let retention = Retention {
            max_days: 30,
            max_bytes: 0,
        };
        let old: JobId = "017f22e2-79b0-7cc3-98c4-dc0c0c07398f".parse().unwrap();
        let reason = retention.explain_expiry(&old).unwrap();
        assert!(
            reason.contains("policy.recording_retention_days is 30"),
            "{reason}"
        );
        assert_eq!(retention.explain_expiry(&JobId::new()), None);
        assert_eq!(Retention::default().explain_expiry(&old), None);
    }
}
