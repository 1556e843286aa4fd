//! Keys of recordings, the same for files in the data folder and for objects, so that a migration copies them unchanged.
//!
//! A session is in `recordings/<tenant>/<job>/<session>.calls`, or in parts in `…/<session>.<part>.calls`. Earlier versions wrote all
//! sessions of a job to `recordings/<tenant>/<job>.calls`, which is read as one session.

use std::collections::BTreeMap;
use std::time::SystemTime;

use uuid::Uuid;
use weir_core::recording::{RecordingRemoval, RecordingSession, StoredRecording, StoredSession};
use weir_core::{JobId, TenantId};

/// The first part of the keys, and the folder in the data folder.
pub(crate) const RECORDINGS: &str = "recordings";
const EXTENSION: &str = ".calls";

/// A stored file or object of a recording.
#[derive(Debug, Clone)]
pub(crate) struct StoredPart {
    pub(crate) key: String,
    pub(crate) bytes: u64,
    pub(crate) last_modified: SystemTime,
}

/// Returns the start of the keys of a job. Job ids have the same length, so none is the start of another.
pub(crate) fn job_prefix(tenant: &TenantId, job: &JobId) -> String {
    format!("{RECORDINGS}/{tenant}/{job}")
}

/// Returns the key of the file that holds all sessions of a job of an earlier version.
pub(crate) fn earlier_job_key(tenant: &TenantId, job: &JobId) -> String {
    format!("{}{EXTENSION}", job_prefix(tenant, job))
}

/// Returns the key of a session in one file.
pub(crate) fn session_key(session: &RecordingSession) -> String {
    let job = job_prefix(&session.tenant, &session.job);
    format!("{job}/{}{EXTENSION}", session.id)
}

/// Returns the key of a part of a session. The keys of its parts sort by their numbers.
pub(crate) fn part_key(session: &RecordingSession, part: u32) -> String {
    let job = job_prefix(&session.tenant, &session.job);
    format!("{job}/{}.{part:06}{EXTENSION}", session.id)
}

/// The first part of the keys of removals.
pub(crate) const REMOVALS: &str = "removed-recordings";

/// Returns the key of the last removal of a job, or of all jobs of a tenant.
pub(crate) fn removal_key(tenant: &TenantId, job: Option<&JobId>) -> String {
    match job {
        Some(job) => format!("{REMOVALS}/{tenant}/{job}"),
        None => format!("{REMOVALS}/{tenant}"),
    }
}

/// Returns the start of the keys of the recordings that the removal with a key applies to.
pub(crate) fn prefix_of_removed(removal_key: &str) -> Option<String> {
    let removed = removal_key.strip_prefix(REMOVALS)?.strip_prefix('/')?;
    // A tenant's name can be the start of another's. Those of jobs cannot.
    let end = if removed.contains('/') { "" } else { "/" };
    Some(format!("{RECORDINGS}/{removed}{end}"))
}

/// Whether a removal applies to the session that a key belongs to. It applies to no file of an earlier version, which is not written any more.
pub(crate) fn is_removed(key: &str, removal: RecordingRemoval) -> bool {
    session_name(key).is_some_and(|name| Uuid::parse_str(name).is_ok_and(|id| removal.applies_to(id)))
}

/// Returns the name of the session that a key belongs to: empty for [`earlier_job_key`].
fn session_name(key: &str) -> Option<&str> {
    let rest = key.strip_prefix(RECORDINGS)?.strip_suffix(EXTENSION)?;
    let file = rest.split('/').nth(3).unwrap_or_default();
    file.split('.').next()
}

fn tenant_and_job(key: &str) -> Option<(TenantId, JobId)> {
    let mut names = key.strip_suffix(EXTENSION)?.split('/').skip(1);
    Some((names.next()?.parse().ok()?, names.next()?.parse().ok()?))
}

/// Joins the parts of a job to its sessions.
pub(crate) fn group_by_session(parts: &[StoredPart]) -> Vec<StoredSession> {
    let mut sessions = BTreeMap::<&str, u64>::new();
    for part in parts {
        if let Some(name) = session_name(&part.key) {
            *sessions.entry(name).or_default() += part.bytes;
        }
    }
    let sessions = sessions.into_iter();
    sessions
        .map(|(name, bytes)| StoredSession {
            name: name.to_owned(),
            bytes,
        })
        .collect()
}

/// Returns the keys of a session among the parts of its job, in the order of their numbers.
pub(crate) fn keys_of_session(parts: Vec<StoredPart>, name: &str) -> Vec<String> {
    let keys = parts.into_iter().map(|part| part.key);
    let mut keys: Vec<String> = keys.filter(|key| session_name(key) == Some(name)).collect();
    keys.sort_unstable();
    keys
}

/// Joins the parts of all tenants to the recordings of jobs. The parts of a job must follow each other.
#[derive(Default)]
pub(crate) struct GroupByJob {
    last: Option<StoredRecording>,
}

impl GroupByJob {
    /// Adds a part. Returns the recording before it, if the part belongs to another.
    pub(crate) fn add_part(&mut self, part: &StoredPart) -> Option<StoredRecording> {
        let (tenant, job) = tenant_and_job(&part.key)?;
        if let Some(last) = &mut self.last
            && last.tenant == tenant
            && last.job == job
        {
            last.bytes += part.bytes;
            last.last_modified = part.last_modified.max(last.last_modified);
            return None;
        }
        self.last.replace(StoredRecording {
            tenant,
            job,
            bytes: part.bytes,
            last_modified: part.last_modified,
        })
    }

    /// Returns the recording of the last part.
    pub(crate) fn take_last(&mut self) -> Option<StoredRecording> {
        self.last.take()
    }
}
