//! A document in work: what its pages share.

use std::collections::HashSet;
use std::sync::Arc;

use weir_core::decision::DocumentRoute;
use weir_core::event::EventKind;
use weir_core::ports::{Account, OpenDocument};
use weir_core::{DocumentId, PageNumber};

use crate::Host;
use crate::diagnosis::Load;
use crate::job::Job;
use crate::rooms::Rooms;
use crate::upsert::Upserts;

pub(crate) struct Work {
    pub(crate) host: Arc<Host>,
    pub(crate) job: Arc<Job>,
    pub(crate) id: DocumentId,
    pub(crate) name: String,
    pub(crate) open: Arc<dyn OpenDocument>,
    pub(crate) route: DocumentRoute,
    /// On whose account its pages are worked on.
    pub(crate) account: Account,
    pub(crate) rooms: Rooms,
    pub(crate) load: Load,
    pub(crate) upserts: Upserts,
    /// Pages of which the index may hold passages from before.
    pub(crate) indexed: HashSet<PageNumber>,
}

impl Work {
    /// Writes an event about the document.
    pub(crate) async fn say(&self, what: EventKind) {
        self.job.log.say(Some(self.id), what).await;
    }
}
