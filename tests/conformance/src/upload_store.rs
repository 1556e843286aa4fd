//! Conformance checks of uploads: received, staged and stored files, their removal, and isolation of tenants.

use std::fs;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use weir_core::uploads::{StagedUpload, UploadStore};
use weir_core::{DocumentId, JobId, TenantId};

/// Checks an upload store. Panics if the store breaks the contract of its port. Durability is not checked.
pub async fn check_upload_store(store: &dyn UploadStore) {
    // One name begins with the other, so that a store that joins names and ids would mix them.
    let (a, b): (TenantId, TenantId) = ("upload-suite".parse().unwrap(), "upload-suite-b".parse().unwrap());
    let suite = Suite { store };
    suite.check_stored_uploads(&a, &b).await;
    suite.check_staged_files(&a).await;
    suite.check_staged_copies(&a, &b).await;
    suite.check_missing_files(&a).await;
    suite.check_tenant_removal(&a, &b).await;
    assert_ne!(store.available_disk_bytes(), Some(0));
}

/// Receives, stages and commits an upload. Returns its document.
pub async fn store_upload(store: &dyn UploadStore, tenant: &TenantId, bytes: &[u8]) -> DocumentId {
    let staged = Suite { store }.receive_and_stage(tenant, bytes).await;
    store.commit_staged_upload(&staged).await.unwrap();
    staged.document
}

struct Suite<'a> {
    store: &'a dyn UploadStore,
}

impl Suite<'_> {
    fn receive_file(&self, bytes: &[u8]) -> PathBuf {
        let path = self.store.new_temporary_path();
        assert!(!path.exists(), "a new path has no file");
        assert_ne!(path, self.store.new_temporary_path(), "each path is new");
        fs::write(&path, bytes).unwrap();
        path
    }

    async fn stage(&self, bytes: &[u8], staged: &StagedUpload) {
        let received = self.receive_file(bytes);
        self.store.stage_received_file(&received, staged).await.unwrap();
        assert!(!received.exists(), "a staged file leaves its old path");
    }

    async fn receive_and_stage(&self, tenant: &TenantId, bytes: &[u8]) -> StagedUpload {
        let staged = new_staged_upload(tenant, bytes);
        self.stage(bytes, &staged).await;
        staged
    }

    async fn read(&self, tenant: &TenantId, document: &DocumentId) -> Option<Vec<u8>> {
        let opened = self.store.open_upload(tenant, document).await.unwrap();
        opened.map(|file| fs::read(file.path()).unwrap())
    }

    async fn assert_stored(&self, tenant: &TenantId, bytes: &[u8]) {
        let found = self.read(tenant, &DocumentId::from_content(bytes)).await;
        assert_eq!(found.as_deref(), Some(bytes), "the stored upload of {tenant}");
    }

    async fn commit(&self, staged: &StagedUpload) {
        self.store.commit_staged_upload(staged).await.unwrap();
    }

    async fn list_uploads(&self, tenant: &TenantId) -> Vec<DocumentId> {
        self.store.list_uploads(tenant).await.unwrap()
    }

    /// Returns the tenant's staged uploads, sorted.
    async fn list_staged(&self, tenant: &TenantId) -> Vec<StagedUpload> {
        let mut staged = self.store.list_staged_uploads().await.unwrap();
        staged.retain(|staged| staged.tenant == *tenant);
        staged.sort_unstable();
        staged
    }

    async fn check_stored_uploads(&self, a: &TenantId, b: &TenantId) {
        assert_eq!(self.list_uploads(a).await, [], "nothing was uploaded");
        let one = store_upload(self.store, a, b"upload one").await;
        let two = store_upload(self.store, a, b"the second upload").await;
        store_upload(self.store, a, b"upload one").await;
        store_upload(self.store, b, b"upload one").await;
        let mut both = [one, two];
        both.sort_unstable();
        assert_eq!(self.list_uploads(a).await, both, "sorted, each document once");
        assert_eq!(self.list_uploads(b).await, [one]);
        for (tenant, bytes) in [
            (a, &b"upload one"[..]),
            (a, b"the second upload"),
            (b, b"upload one"),
        ] {
            self.assert_stored(tenant, bytes).await;
        }
        assert_eq!(self.read(b, &two).await, None, "an upload of another tenant");

        let remove = async |tenant, document| self.store.remove_upload(tenant, document).await.unwrap();
        assert!(remove(a, &one).await, "the upload existed");
        assert!(!remove(a, &one).await, "the upload is removed");
        assert!(!remove(b, &two).await, "the upload belongs to another tenant");
        assert_eq!(self.read(a, &one).await, None, "the upload is removed");
        assert_eq!(self.list_uploads(a).await, [two]);
        self.assert_stored(a, b"the second upload").await;
        self.assert_stored(b, b"upload one").await;
    }

    async fn check_staged_files(&self, a: &TenantId) {
        let stored = self.list_uploads(a).await;
        let first = self.receive_and_stage(a, b"staged").await;
        let second = self.receive_and_stage(a, b"staged").await;
        // A request can have one document twice.
        self.stage(b"staged", &first).await;
        let mut all = vec![first.clone(), second.clone()];
        all.sort_unstable();
        assert_eq!(self.list_staged(a).await, all, "all staged uploads are listed");
        assert_eq!(
            self.list_uploads(a).await,
            stored,
            "a staged upload is no stored upload"
        );
        assert_eq!(self.read(a, &first.document).await, None, "it is only staged");

        self.commit(&first).await;
        self.assert_stored(a, b"staged").await;
        assert_eq!(
            self.list_staged(a).await,
            std::slice::from_ref(&second),
            "the committed upload is no longer staged"
        );
        self.commit(&first).await;
        self.assert_stored(a, b"staged").await;
        assert!(self.store.remove_staged_upload(&second).await.unwrap());
        assert!(!self.store.remove_staged_upload(&second).await.unwrap());
        assert_eq!(self.list_staged(a).await, []);
        self.assert_stored(a, b"staged").await;

        let discarded = self.receive_and_stage(a, b"discarded").await;
        self.store.discard_staged_upload(&discarded);
        let deadline = Instant::now() + Duration::from_secs(10);
        while !self.list_staged(a).await.is_empty() {
            assert!(Instant::now() < deadline, "a discarded upload is removed");
        }
        self.store.discard_staged_upload(&discarded);
    }

    async fn check_staged_copies(&self, a: &TenantId, b: &TenantId) {
        let bytes = b"copied";
        let (of_a, of_b) = (new_staged_upload(a, bytes), new_staged_upload(b, bytes));
        let stage = async |staged| self.store.stage_stored_upload(staged).await.unwrap();
        assert_eq!(stage(&of_a).await, None, "the upload is not stored");
        store_upload(self.store, a, bytes).await;
        assert_eq!(stage(&of_b).await, None, "the upload belongs to another tenant");

        // The second time it is staged already.
        for _ in 0..2 {
            assert_eq!(stage(&of_a).await, Some(bytes.len() as u64));
        }
        assert_eq!(self.list_staged(a).await, std::slice::from_ref(&of_a));
        self.assert_stored(a, bytes).await;
        assert!(self.store.remove_upload(a, &of_a.document).await.unwrap());
        assert_eq!(self.read(a, &of_a.document).await, None);
        // The staged upload does not need the stored one.
        self.commit(&of_a).await;
        self.assert_stored(a, bytes).await;

        assert_eq!(stage(&of_a).await, Some(bytes.len() as u64));
        self.commit(&of_a).await;
        self.assert_stored(a, bytes).await;
        assert_eq!(self.list_staged(a).await, [], "a copy that replaced its original");
    }

    async fn check_missing_files(&self, a: &TenantId) {
        let missing = new_staged_upload(a, b"missing");
        let committed = self.store.commit_staged_upload(&missing).await;
        assert_eq!(committed.map_err(|error| error.kind()), Err("missing"));
        let no_file = self.store.new_temporary_path();
        let staged = self.store.stage_received_file(&no_file, &missing).await;
        assert_eq!(staged.map_err(|error| error.kind()), Err("missing"));
        assert!(!self.list_uploads(a).await.contains(&missing.document));
        assert_eq!(self.list_staged(a).await, []);
    }

    async fn check_tenant_removal(&self, a: &TenantId, b: &TenantId) {
        let received = self.receive_file(b"received");
        self.receive_and_stage(a, b"staged by a").await;
        let staged_by_b = self.receive_and_stage(b, b"staged by b").await;
        let uploads_of_b = self.list_uploads(b).await;
        // The second removal finds nothing.
        for _ in 0..2 {
            self.store.remove_all_uploads_of_tenant(a).await.unwrap();
            assert_eq!(self.list_uploads(a).await, [], "after the removal");
            assert_eq!(self.list_staged(a).await, [], "after the removal");
            assert_eq!(self.list_uploads(b).await, uploads_of_b, "of another tenant");
            assert_eq!(
                self.list_staged(b).await,
                std::slice::from_ref(&staged_by_b),
                "of another tenant"
            );
        }
        let removed = DocumentId::from_content(b"the second upload");
        assert_eq!(self.read(a, &removed).await, None, "after the removal");
        self.assert_stored(b, b"upload one").await;
        assert!(
            received.exists(),
            "a file that is being received has no tenant yet"
        );
        fs::remove_file(&received).unwrap();
        store_upload(self.store, a, b"after the removal").await;
        for tenant in [a, b] {
            self.store.remove_all_uploads_of_tenant(tenant).await.unwrap();
        }
    }
}

fn new_staged_upload(tenant: &TenantId, bytes: &[u8]) -> StagedUpload {
    StagedUpload {
        tenant: tenant.clone(),
        job: JobId::new(),
        document: DocumentId::from_content(bytes),
    }
}
