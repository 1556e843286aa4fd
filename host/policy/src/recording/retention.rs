//! How long recordings are kept.
//!
//! The age of a recording is that of its last call. When all of them together have grown too large the oldest go first,
//! whosever they are: a recording is there to try a change on, and for that the latest jobs are the better ones.

use std::collections::HashSet;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use weir_core::JobId;

const DAY: u64 = 86_400;

/// How long recordings are kept, and how many bytes of them; 0 in either: no limit.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Retention {
    /// Days since the job's last call.
    pub days: u32,
    /// Bytes of all tenants' recordings.
    pub bytes: u64,
}

impl Retention {
    fn age(self) -> Option<Duration> {
        (self.days > 0).then(|| Duration::from_secs(u64::from(self.days) * DAY))
    }

    /// Why there is no recording of a job any more, if that can be told from its age.
    pub fn outlived(self, job: &JobId) -> Option<String> {
        let (seconds, _) = job.0.get_timestamp()?.to_unix();
        let began = SystemTime::UNIX_EPOCH.checked_add(Duration::from_secs(seconds))?;
        let age = began.elapsed().ok()?;
        (age > self.age()?).then(|| {
            format!(
                "it ran {} days ago, and policy.record_days is {}",
                age.as_secs() / DAY,
                self.days
            )
        })
    }
}

struct Found {
    path: PathBuf,
    bytes: u64,
    last: SystemTime,
}

/// Removes the recordings of a folder that are not to be kept any more; those in `open` are still being written. Says how many.
pub(super) fn sweep(
    folder: &Path,
    retention: Retention,
    open: &HashSet<PathBuf>,
    now: SystemTime,
) -> io::Result<usize> {
    let mut found = recordings(folder)?;
    found.sort_by_key(|recording| recording.last);
    let mut all: u64 = found.iter().map(|recording| recording.bytes).sum();
    let mut removed = 0;
    for recording in found {
        let age = now.duration_since(recording.last).unwrap_or_default();
        let old = retention.age().is_some_and(|most| age > most);
        let many = retention.bytes > 0 && all > retention.bytes;
        if !(old || many) {
            break;
        }
        if open.contains(&recording.path) {
            continue;
        }
        fs::remove_file(&recording.path)?;
        all = all.saturating_sub(recording.bytes);
        removed += 1;
        if let Some(tenant) = recording.path.parent() {
            // Fails as long as there is something else in it.
            let _ = fs::remove_dir(tenant);
        }
    }
    Ok(removed)
}

/// The files in a folder; none if there is no such folder.
pub(super) fn list(folder: &Path) -> io::Result<Vec<PathBuf>> {
    match fs::read_dir(folder) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Vec::new()),
        files => files?.map(|file| Ok(file?.path())).collect(),
    }
}

/// Removes files; one that is not there is no error.
pub(super) fn remove_files(files: &[PathBuf]) -> io::Result<()> {
    files.iter().try_for_each(|path| match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    })
}

/// A folder for each tenant, a file for each job.
fn recordings(folder: &Path) -> io::Result<Vec<Found>> {
    let mut found = Vec::new();
    for tenant in fs::read_dir(folder)? {
        let tenant = tenant?;
        if !tenant.file_type()?.is_dir() {
            continue;
        }
        for file in fs::read_dir(tenant.path())? {
            let file = file?;
            let about = file.metadata()?;
            if about.is_file() && file.path().extension().is_some_and(|end| end == "calls") {
                found.push(Found {
                    path: file.path(),
                    bytes: about.len(),
                    last: about.modified()?,
                });
            }
        }
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Recordings of 1000 bytes, so many days old.
    fn folder(files: &[(&str, u64)]) -> (tempfile::TempDir, SystemTime) {
        let folder = tempfile::tempdir().unwrap();
        let now = SystemTime::now();
        for (name, days) in files {
            let path = folder.path().join(name);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(&path, [0; 1000]).unwrap();
            let file = fs::File::options().write(true).open(&path).unwrap();
            file.set_modified(now - Duration::from_secs(days * DAY)).unwrap();
        }
        (folder, now)
    }

    fn left(folder: &Path) -> Vec<String> {
        let mut left: Vec<String> = recordings(folder)
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
        left.sort();
        left
    }

    const FILES: [(&str, u64); 4] = [
        ("a/1.calls", 40),
        ("a/2.calls", 10),
        ("b/3.calls", 31),
        ("b/4.calls", 1),
    ];

    #[test]
    fn what_is_too_old_goes() {
        let (folder, now) = folder(&FILES);
        let retention = Retention { days: 30, bytes: 0 };
        assert_eq!(sweep(folder.path(), retention, &HashSet::new(), now).unwrap(), 2);
        assert_eq!(left(folder.path()), ["a/2.calls", "b/4.calls"]);
    }

    #[test]
    fn what_is_too_much_goes_the_oldest_first() {
        let (folder, now) = folder(&FILES);
        let retention = Retention { days: 0, bytes: 1500 };
        assert_eq!(sweep(folder.path(), retention, &HashSet::new(), now).unwrap(), 3);
        assert_eq!(left(folder.path()), ["b/4.calls"]);
        assert!(!folder.path().join("a").exists());
    }

    #[test]
    fn what_is_being_written_stays() {
        let (folder, now) = folder(&FILES);
        let open = HashSet::from([folder.path().join("a/1.calls")]);
        let retention = Retention {
            days: 30,
            bytes: 1000,
        };
        sweep(folder.path(), retention, &open, now).unwrap();
        assert_eq!(left(folder.path()), ["a/1.calls"]);
    }

    #[test]
    fn without_limits_everything_stays() {
        let (folder, now) = folder(&FILES);
        let swept = sweep(folder.path(), Retention::default(), &HashSet::new(), now).unwrap();
        assert_eq!((swept, left(folder.path()).len()), (0, 4));
    }

    #[test]
    fn a_job_tells_its_age() {
        let retention = Retention { days: 30, bytes: 0 };
        let old: JobId = "017f22e2-79b0-7cc3-98c4-dc0c0c07398f".parse().unwrap();
        let why = retention.outlived(&old).unwrap();
        assert!(why.contains("policy.record_days is 30"), "{why}");
        assert_eq!(retention.outlived(&JobId::new()), None);
        assert_eq!(Retention::default().outlived(&old), None);
    }
}
