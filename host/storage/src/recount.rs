//! The thread that counts again what tenants keep, after an end at which nobody could write it down.

use std::collections::BTreeSet;
use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use tokio::sync::watch;
use weir_core::{StorageError, TenantId};

use crate::kept::Kept;
use crate::location::Location;

/// Folders that have one for each tenant.
const FOLDERS: [&str; 3] = ["originals", "blobs", "components"];

/// Ends with the thread, and the thread with it.
pub(crate) struct Recount {
    stop: Arc<AtomicBool>,
    ended: watch::Receiver<bool>,
}

impl Recount {
    /// Begins to count all tenants but those that are known for sure. No file may be changed before it returns.
    pub(crate) fn start(data: &Path, kept: &Arc<Kept>, exact: &[TenantId]) -> Result<Self, StorageError> {
        let mut doubtful = kept.tenants();
        doubtful.extend(with_files(data)?);
        doubtful.retain(|tenant| !exact.contains(tenant));
        doubtful.iter().for_each(|tenant| kept.doubt(tenant));
        let stop = Arc::new(AtomicBool::new(false));
        let (ending, ended) = watch::channel(doubtful.is_empty());
        if !doubtful.is_empty() {
            let (data, kept, stop) = (data.to_owned(), Arc::clone(kept), Arc::clone(&stop));
            let count = move || {
                for tenant in &doubtful {
                    let folders: Vec<PathBuf> = folders(&data, tenant.as_str()).collect();
                    if let Err(error) = kept.recount(tenant, &folders, &stop) {
                        tracing::warn!(%tenant, %error, "what the tenant keeps could not be counted");
                    }
                }
                ending.send_replace(true);
            };
            thread::Builder::new()
                .name("weir-recount".into())
                .spawn(count)
                .map_err(|e| StorageError::io("starting a thread", &e))?;
        }
        Ok(Self { stop, ended })
    }

    /// Returns when everything is counted.
    pub(crate) async fn ended(&self) {
        // A thread that panicked has ended as well.
        let _ = self.ended.clone().wait_for(|ended| *ended).await;
    }

    /// Returns when nothing is counted any more.
    pub(crate) async fn stop(&self) {
        self.stop.store(true, Ordering::Relaxed);
        self.ended().await;
    }
}

impl Drop for Recount {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
    }
}

fn folders(data: &Path, name: &str) -> impl Iterator<Item = PathBuf> {
    FOLDERS
        .into_iter()
        .map(move |folder| data.join(folder).join(name))
}

/// Tenants that have a folder for files.
fn with_files(data: &Path) -> Result<BTreeSet<TenantId>, StorageError> {
    let mut tenants = BTreeSet::new();
    for folder in folders(data, "") {
        let io = |e: std::io::Error| Location::new("the folder of tenants' files", &folder).io(&e);
        let entries = match fs::read_dir(&folder) {
            Err(e) if e.kind() == ErrorKind::NotFound => continue,
            entries => entries.map_err(io)?,
        };
        for entry in entries {
            let name = entry.map_err(io)?.file_name();
            tenants.extend(name.to_str().and_then(|name| name.parse::<TenantId>().ok()));
        }
    }
    Ok(tenants)
}
