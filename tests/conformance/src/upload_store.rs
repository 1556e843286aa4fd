//! Conformance checks of uploads: received, staged and stored files, their removal, and isolation of tenants.

use std::fs;
use std::path::PathBuf;

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

    async fn receive_and_commit(&self, tenant: &TenantId, bytes: &[u8]) -> DocumentId {
        let (path, document) = (self.receive_file(bytes), DocumentId::from_content(bytes));
        self.store.commit_upload(tenant, &path, &document).await.unwrap();
        assert!(!path.exists(), "a committed file is moved away from its old path");
        self.assert_stored(tenant, bytes);
        document
    }

    async fn receive_and_stage(&self, tenant: &TenantId, bytes: &[u8]) -> StagedUpload {
        let (received, job) = (self.receive_file(bytes), JobId::new());
        let document = DocumentId::from_content(bytes);
        let path = self
            .store
            .stage_received_file_for_job(tenant, &received, &job, &document)
            .await
            .unwrap();
        assert!(
            !received.exists(),
            "a staged file is moved away from its old path"
        );
        assert_eq!(fs::read(&path).unwrap(), bytes, "the staged file");
        StagedUpload {
            tenant: tenant.clone(),
            job,
            document,
            path,
        }
    }

    fn assert_stored(&self, tenant: &TenantId, bytes: &[u8]) {
        let path = self.store.upload_path(tenant, &DocumentId::from_content(bytes));
        assert_eq!(fs::read(path).unwrap(), bytes, "the stored upload of {tenant}");
    }

    async fn list_uploads(&self, tenant: &TenantId) -> Vec<DocumentId> {
        self.store.list_uploads(tenant).await.unwrap()
    }

    /// Returns the tenant's staged files, sorted by path.
    async fn list_staged(&self, tenant: &TenantId) -> Vec<StagedUpload> {
        let mut staged = self.store.list_staged_uploads().await.unwrap();
        staged.retain(|staged| staged.tenant == *tenant);
        staged.sort_by(|one, other| one.path.cmp(&other.path));
        staged
    }

    async fn check_stored_uploads(&self, a: &TenantId, b: &TenantId) {
        assert_eq!(self.list_uploads(a).await, [], "nothing was uploaded");
        let one = self.receive_and_commit(a, b"upload one").await;
        let two = self.receive_and_commit(a, b"the second upload").await;
        self.receive_and_commit(a, b"upload one").await;
        self.receive_and_commit(b, b"upload one").await;
        let mut both = [one, two];
        both.sort_unstable();
        assert_eq!(self.list_uploads(a).await, both, "sorted, each document once");
        assert_eq!(self.list_uploads(b).await, [one]);
        assert_ne!(self.store.upload_path(a, &one), self.store.upload_path(b, &one));

        let remove = async |tenant, document| self.store.remove_upload(tenant, document).await.unwrap();
        assert!(remove(a, &one).await, "the upload existed");
        assert!(!remove(a, &one).await, "the upload is removed");
        assert!(!remove(b, &two).await, "the upload belongs to another tenant");
        assert!(!self.store.upload_path(a, &one).exists());
        assert_eq!(self.list_uploads(a).await, [two]);
        self.assert_stored(a, b"the second upload");
        self.assert_stored(b, b"upload one");
    }

    async fn check_staged_files(&self, a: &TenantId) {
        let stored = self.list_uploads(a).await;
        let first = self.receive_and_stage(a, b"staged").await;
        let second = self.receive_and_stage(a, b"staged").await;
        // A job can have one document twice.
        let received = self.receive_file(b"staged");
        let same_job = StagedUpload {
            path: self
                .store
                .stage_received_file_for_job(a, &received, &first.job, &first.document)
                .await
                .unwrap(),
            ..first.clone()
        };
        let mut all = vec![first.clone(), second.clone(), same_job.clone()];
        all.sort_by(|one, other| one.path.cmp(&other.path));
        assert_eq!(self.list_staged(a).await, all, "all staged files are listed");
        assert_eq!(
            self.list_uploads(a).await,
            stored,
            "a staged file is no stored upload"
        );

        let commit = self.store.commit_upload(a, &first.path, &first.document);
        commit.await.unwrap();
        assert!(
            !first.path.exists(),
            "a committed file is moved away from its old path"
        );
        fs::remove_file(&same_job.path).unwrap();
        assert_eq!(
            self.list_staged(a).await,
            std::slice::from_ref(&second),
            "neither the committed nor the removed file is listed"
        );
        self.assert_stored(a, b"staged");
        fs::remove_file(&second.path).unwrap();
        assert_eq!(self.list_staged(a).await, []);
    }

    async fn check_staged_copies(&self, a: &TenantId, b: &TenantId) {
        let (bytes, job) = (b"copied", JobId::new());
        let document = DocumentId::from_content(bytes);
        let stage = async |tenant| {
            let staged = self.store.stage_stored_upload_for_job(tenant, &job, &document);
            staged.await.unwrap()
        };
        assert_eq!(stage(a).await, None, "the upload is not stored");
        self.receive_and_commit(a, bytes).await;
        assert_eq!(stage(b).await, None, "the upload belongs to another tenant");

        let path = stage(a).await.unwrap();
        let expected = StagedUpload {
            tenant: a.clone(),
            job,
            document,
            path: path.clone(),
        };
        assert_eq!(self.list_staged(a).await, [expected]);
        self.assert_stored(a, bytes);
        assert!(self.store.remove_upload(a, &document).await.unwrap());
        assert_eq!(
            fs::read(&path).unwrap(),
            bytes,
            "the staged file does not need the upload"
        );
        self.store.commit_upload(a, &path, &document).await.unwrap();
        self.assert_stored(a, bytes);

        let path = stage(a).await.unwrap();
        self.store.commit_upload(a, &path, &document).await.unwrap();
        assert!(
            !path.exists(),
            "a copy that is committed over its original is moved too"
        );
        self.assert_stored(a, bytes);
        assert_eq!(self.list_staged(a).await, []);
    }

    async fn check_missing_files(&self, a: &TenantId) {
        let (missing, document) = (
            self.store.new_temporary_path(),
            DocumentId::from_content(b"missing"),
        );
        let committed = self.store.commit_upload(a, &missing, &document).await;
        assert_eq!(committed.map_err(|error| error.kind()), Err("missing"));
        let staged = self
            .store
            .stage_received_file_for_job(a, &missing, &JobId::new(), &document)
            .await;
        assert_eq!(staged.map_err(|error| error.kind()), Err("missing"));
        assert!(!self.list_uploads(a).await.contains(&document));
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
        self.assert_stored(b, b"upload one");
        assert!(
            received.exists(),
            "a file that is being received has no tenant yet"
        );
        fs::remove_file(&received).unwrap();
        self.receive_and_commit(a, b"after the removal").await;
        for tenant in [a, b] {
            self.store.remove_all_uploads_of_tenant(tenant).await.unwrap();
        }
    }
}
