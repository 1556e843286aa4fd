//! The sessions that are being recorded.

use std::collections::HashSet;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Weak};

use parking_lot::Mutex;
use weir_core::recording::RecordingSession;
use weir_core::{JobId, TenantId};

/// The list of open sessions is freed of ended ones whenever its length is a multiple of this.
const PRUNED_SESSIONS: usize = 256;

/// State that the recorder of a session shares with the writer thread.
pub(super) struct RecordingInProgress {
    pub(super) session: RecordingSession,
    /// Set when the recorder must not accept more calls.
    pub(super) stopped: AtomicBool,
    /// Set when the writer drops everything that the recorder still submits: the recording has ended, has failed or was removed.
    closed: AtomicBool,
}

impl RecordingInProgress {
    pub(super) const fn new(session: RecordingSession) -> Self {
        Self {
            session,
            stopped: AtomicBool::new(false),
            closed: AtomicBool::new(false),
        }
    }

    /// Whether the session is of one of these jobs, or of any job of the tenant if `jobs` is `None`.
    pub(super) fn belongs_to(&self, tenant: &TenantId, jobs: Option<&[JobId]>) -> bool {
        self.session.tenant == *tenant && jobs.is_none_or(|jobs| jobs.contains(&self.session.job))
    }

    /// Stops the recording: nothing more is stored.
    pub(super) fn close(&self) {
        self.stopped.store(true, Ordering::Relaxed);
        self.closed.store(true, Ordering::Release);
    }

    pub(super) fn is_closed(&self) -> bool {
        self.closed.load(Ordering::Acquire)
    }
}

/// The sessions that are being recorded on this node.
#[derive(Clone, Default)]
pub(super) struct OpenSessions(Arc<Mutex<Vec<Weak<RecordingInProgress>>>>);

impl OpenSessions {
    pub(super) fn add_session(&self, recording: &Arc<RecordingInProgress>) {
        let mut open = self.0.lock();
        if open.len().is_multiple_of(PRUNED_SESSIONS) {
            open.retain(|recording| recording.strong_count() > 0);
        }
        open.push(Arc::downgrade(recording));
    }

    /// Returns the sessions of these jobs; all of the tenant if `jobs` is `None`.
    pub(super) fn sessions_of(
        &self,
        tenant: &TenantId,
        jobs: Option<&[JobId]>,
    ) -> Vec<Arc<RecordingInProgress>> {
        let open = self.0.lock();
        open.iter()
            .filter_map(Weak::upgrade)
            .filter(|recording| recording.belongs_to(tenant, jobs))
            .collect()
    }

    pub(super) fn list_jobs(&self) -> HashSet<(TenantId, JobId)> {
        let open = self.0.lock();
        let open = open.iter().filter_map(Weak::upgrade);
        open.map(|recording| (recording.session.tenant.clone(), recording.session.job))
            .collect()
    }
}
