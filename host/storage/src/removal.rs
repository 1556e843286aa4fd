//! The end of a tenant: everything it has, in an order that can be begun again.
//!
//! Its keys end first, so that nothing comes in meanwhile. The rest of the ledger's part is last. Whatever ends this halfway, the
//! tenant is still listed then, and removing it once more removes the rest.

use std::fs;
use std::io::ErrorKind;
use std::path::Path;
use std::sync::Arc;

use weir_core::component::ComponentStore as _;
use weir_core::original::Originals;
use weir_core::ports::{BlobStore, VectorStore};
use weir_core::tenancy::Registry;
use weir_core::{StorageError, TenantId};

use crate::answers;
use crate::blobs::FileBlobs;
use crate::components::FileComponents;
use crate::folder::{FolderLock, make_private};
use crate::ledger::SqliteLedger;
use crate::location::Location;
use crate::originals::FileOriginals;
use crate::recount::Recount;
use crate::vectors::EdgeVectors;

fn remove_folder(folder: &Path) -> Result<(), StorageError> {
    match fs::remove_dir_all(folder) {
        Err(e) if e.kind() != ErrorKind::NotFound => Err(Location::new("the recordings", folder).io(&e)),
        _ => Ok(()),
    }
}

/// Removes a tenant with all it has from a data folder; whether there was one. [`StorageError::InUse`] if another process
/// holds the folder: jobs in work would bring some of it back.
pub async fn remove_tenant(data: &Path, tenant: &TenantId) -> Result<bool, StorageError> {
    let (folder, leaving) = (data.to_owned(), tenant.clone());
    let opened = tokio::task::spawn_blocking(move || {
        make_private(&folder)?;
        let lock = Arc::new(FolderLock::take(&folder)?);
        let (ledger, exact) = SqliteLedger::open(&folder, Arc::clone(&lock))?;
        let kept = ledger.kept();
        let originals = FileOriginals::open(&folder, Arc::clone(kept))?;
        let blobs = FileBlobs::open(&folder, Arc::clone(kept))?;
        let components = FileComponents::open(&folder, Arc::clone(kept))?;
        let vectors = EdgeVectors::open_again(&folder, lock)?;
        let recount = Recount::start(&folder, kept, &exact)?;
        answers::clear(&folder, &leaving)?;
        remove_folder(&folder.join("recordings").join(leaving.as_str()))?;
        Ok((ledger, (originals, components), blobs, vectors, recount))
    });
    let (ledger, (originals, components), blobs, vectors, recount) =
        opened.await.map_err(|e| StorageError::Failed {
            what: "opening the data folder".into(),
            reason: e.to_string(),
        })??;
    let removed = async {
        ledger.lock_out(tenant).await?;
        if let Some(vectors) = &vectors {
            vectors.clear(tenant).await?;
            vectors.flush().await?;
            vectors.compact().await?;
        }
        blobs.delete(tenant, "").await?;
        originals.clear(tenant).await?;
        components.clear(tenant).await?;
        ledger.remove_tenant(tenant).await
    };
    let removed = removed.await;
    recount.stop().await;
    let closed = match &vectors {
        Some(vectors) => vectors.close().await,
        None => Ok(()),
    };
    ledger.close().await;
    closed.and(removed)
}
