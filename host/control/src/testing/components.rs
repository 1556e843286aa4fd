//! A fake component store, and fake validation and replay of components.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use async_trait::async_trait;
use weir_core::component::{ComponentDigest, ComponentInterface, ComponentStore, ComponentValidator};
use weir_core::local_file::LocalFile;
use weir_core::manifest::{ResolvedComponentFile, ResolvedPipeline, Role};
use weir_core::replay::{JobReplayer, RecordingRemover, ReplayError, ReplayReport};
use weir_core::{JobId, PolicyError, StorageError, TenantId};

use super::processing::FakeProcessing;

/// A component store in one folder.
pub struct FakeComponentStore {
    folder: PathBuf,
    next: AtomicU64,
}

impl FakeComponentStore {
    /// Creates a store without components in a folder.
    pub fn new(folder: &Path) -> Arc<Self> {
        std::fs::create_dir_all(folder).unwrap();
        Arc::new(Self {
            folder: folder.to_owned(),
            next: AtomicU64::new(0),
        })
    }

    fn component_path(&self, tenant: &TenantId, digest: &ComponentDigest) -> PathBuf {
        // The name of a tenant contains no dot, so this prefix belongs to one tenant.
        self.folder.join(format!("{tenant}.{digest}"))
    }

    /// Returns the names of all files.
    pub fn file_names(&self) -> Vec<String> {
        let files = std::fs::read_dir(&self.folder).unwrap();
        files
            .map(|f| f.unwrap().file_name().into_string().unwrap())
            .collect()
    }
}

#[async_trait]
impl ComponentStore for FakeComponentStore {
    fn new_temporary_path(&self) -> PathBuf {
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        self.folder.join(format!("unfinished-{number}"))
    }

    async fn commit_component(
        &self,
        tenant: &TenantId,
        unfinished: &Path,
        digest: &ComponentDigest,
    ) -> Result<(), StorageError> {
        std::fs::rename(unfinished, self.component_path(tenant, digest))
            .map_err(|e| StorageError::from_io_error("a file", &e))
    }

    async fn open_component(
        &self,
        tenant: &TenantId,
        digest: &ComponentDigest,
    ) -> Result<Option<LocalFile>, StorageError> {
        let path = self.component_path(tenant, digest);
        Ok(path.exists().then(|| path.into()))
    }

    async fn remove_component(
        &self,
        tenant: &TenantId,
        digest: &ComponentDigest,
    ) -> Result<bool, StorageError> {
        Ok(std::fs::remove_file(self.component_path(tenant, digest)).is_ok())
    }

    async fn remove_all_components_of_tenant(&self, tenant: &TenantId) -> Result<(), StorageError> {
        for name in self.file_names() {
            if name.starts_with(&format!("{tenant}.")) {
                std::fs::remove_file(self.folder.join(name)).unwrap();
            }
        }
        Ok(())
    }
}

#[cfg(test)]
#[tokio::test]
async fn fake_component_store_passes_the_conformance_suite() {
    let folder = tempfile::tempdir().unwrap();
    let store = FakeComponentStore::new(folder.path());
    weir_conformance::check_component_store(&*store).await;
}

/// A component is a text file with its roles, such as `routing chunking`. It fails the dry run if it contains the word `traps`.
#[async_trait]
impl ComponentValidator for FakeProcessing {
    async fn inspect_component(
        &self,
        _: &TenantId,
        file: &ResolvedComponentFile,
    ) -> Result<ComponentInterface, PolicyError> {
        let text = std::fs::read_to_string(&file.file).unwrap_or_default();
        let has = |role: &Role| text.split(' ').any(|word| word == role.name());
        let roles: Vec<Role> = Role::ALL.into_iter().filter(has).collect();
        if roles.is_empty() {
            return Err(PolicyError::Unusable {
                component: file.name.clone(),
                reason: "it has no role".into(),
            });
        }
        Ok(ComponentInterface {
            roles,
            capabilities: Vec::new(),
        })
    }

    async fn dry_run_pipeline(&self, _: &TenantId, pipeline: &ResolvedPipeline) -> Result<(), PolicyError> {
        for (role, file) in &pipeline.components {
            let text = std::fs::read_to_string(&file.file).unwrap_or_default();
            if !text.contains(role.name()) || text.contains("traps") {
                return Err(PolicyError::Unusable {
                    component: file.name.clone(),
                    reason: format!("it does not decide as {}", role.name()),
                });
            }
        }
        Ok(())
    }
}

/// Every opened job counts as recorded, with one decision. The decision differs with any other revision.
#[async_trait]
impl JobReplayer for FakeProcessing {
    async fn replay_job(
        &self,
        tenant: &TenantId,
        job: &JobId,
        pipeline: &ResolvedPipeline,
    ) -> Result<ReplayReport, ReplayError> {
        self.replay_memory_limits
            .lock()
            .push(pipeline.manifest.limits.max_memory_bytes);
        let opened = self.opened_jobs();
        let ran = opened
            .iter()
            .find(|opened| (&opened.tenant, &opened.job) == (tenant, job));
        let ran = ran.ok_or(ReplayError::NotRecorded(*job))?;
        Ok(ReplayReport {
            decisions: 1,
            differing: u64::from(ran.revision != pipeline.revision),
            ..ReplayReport::default()
        })
    }
}

#[async_trait]
impl RecordingRemover for FakeProcessing {
    async fn remove_job_recordings(&self, tenant: &TenantId, jobs: &[JobId]) -> Result<(), StorageError> {
        self.remove_opened_jobs(|opened| opened.tenant == *tenant && jobs.contains(&opened.job));
        Ok(())
    }

    async fn remove_tenant_recordings(&self, tenant: &TenantId) -> Result<(), StorageError> {
        self.remove_opened_jobs(|opened| opened.tenant == *tenant);
        Ok(())
    }
}
