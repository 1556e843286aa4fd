//! The thread that recounts stored bytes after the last process ended without saving them.

use std::collections::BTreeSet;
use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use tokio::sync::watch;
use weir_core::{StorageError, TenantId};

use crate::named_path::NamedPath;
use crate::storage_usage::StorageUsage;

/// Folders with a subfolder for each tenant.
const COUNTED_FOLDERS: [&str; 3] = ["uploads", "blobs", "components"];

/// A handle to the thread. Dropping it stops the thread.
pub(crate) struct UsageRecount {
    stop: Arc<AtomicBool>,
    finished: watch::Receiver<bool>,
}

impl UsageRecount {
    /// Starts the recount of all tenants but those in `exact`. No file may change before it returns.
    pub(crate) fn start(
        data: &Path,
        kept: &Arc<StorageUsage>,
        exact: &[TenantId],
    ) -> Result<Self, StorageError> {
        let mut doubtful = kept.list_tenants();
        doubtful.extend(list_tenants_with_files(data)?);
        doubtful.retain(|tenant| !exact.contains(tenant));
        doubtful.iter().for_each(|tenant| kept.begin_recount(tenant));
        let stop = Arc::new(AtomicBool::new(false));
        let (ending, ended) = watch::channel(doubtful.is_empty());
        if !doubtful.is_empty() {
            let (data, kept, stop) = (data.to_owned(), Arc::clone(kept), Arc::clone(&stop));
            let count = move || {
                for tenant in &doubtful {
                    let folders: Vec<PathBuf> = tenant_folders(&data, tenant.as_str()).collect();
                    if let Err(error) = kept.run_recount(tenant, &folders, &stop) {
                        tracing::warn!(%tenant, %error, "the tenant's stored bytes could not be counted");
                    }
                }
                ending.send_replace(true);
            };
            thread::Builder::new()
                .name("weir-recount".into())
                .spawn(count)
                .map_err(|e| StorageError::from_io_error("starting a thread", &e))?;
        }
        Ok(Self {
            stop,
            finished: ended,
        })
    }

    /// Waits until the thread has finished.
    pub(crate) async fn wait_until_finished(&self) {
        // An error means that the thread panicked, which ends it too.
        let _ = self.finished.clone().wait_for(|ended| *ended).await;
    }

    /// Stops the thread and waits for its end.
    pub(crate) async fn stop(&self) {
        self.stop.store(true, Ordering::Relaxed);
        self.wait_until_finished().await;
    }
}

impl Drop for UsageRecount {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
    }
}

fn tenant_folders(data: &Path, name: &str) -> impl Iterator<Item = PathBuf> {
    COUNTED_FOLDERS
        .into_iter()
        .map(move |folder| data.join(folder).join(name))
}

/// Lists the tenants that have a folder of files.
fn list_tenants_with_files(data: &Path) -> Result<BTreeSet<TenantId>, StorageError> {
    let mut tenants = BTreeSet::new();
    for folder in tenant_folders(data, "") {
        let io = |e: std::io::Error| NamedPath::new("the folder of tenants' files", &folder).io_error(&e);
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
