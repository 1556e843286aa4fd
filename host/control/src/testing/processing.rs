//! A fake rasterizer, fake components and a fake store of uploads. A file with the text `3 pages …` is a document with three pages. A
//! test can hold back pages and release them one by one. The fakes record which jobs were opened.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use async_trait::async_trait;
use parking_lot::Mutex;
use tokio::sync::Semaphore;
use weir_core::decision::{
    BatchContext, DocumentFacts, DocumentRoute, FailureAction, ModelPreferences, NextBatchPlan,
    ObservedEvent, PageRoute, PageStageFailure, PageTextToSplit, ProgressUpdate, ReadingMethod,
    SectionToSummarize, SummaryPlan,
};
use weir_core::manifest::{Manifest, ResolvedComponentFile, ResolvedPipeline, Role};
use weir_core::page::DocumentInfo;
use weir_core::page_text::Line;
use weir_core::ports::{
    JobPolicy, OpenPolicyRequest, OpenedPdf, PageWithReservedMemory, PdfFileToOpen,
    PolicyCallAndFailureCounts, PolicyFactory, RasterizeOptions, RasterizeOutput, Rasterizer,
};
use weir_core::uploads::{StagedUpload, UploadStore};
use weir_core::{
    DocumentId, JobId, PageFacts, PageNumber, PolicyError, PriorityLane, RasterError, RevisionId,
    StorageError, TenantId,
};

use super::FakeStore;
use crate::pipelines::PipelineBuilder;

/// A fake rasterizer, and fake decisions instead of those of components.
pub struct FakeProcessing {
    /// Each page that is read consumes one permit.
    page_permits: Arc<Semaphore>,
    opened_jobs: Mutex<Vec<OpenedJob>>,
    /// The memory limit in bytes of each replay.
    pub(crate) replay_memory_limits: Mutex<Vec<Option<u64>>>,
}

/// A job whose components were opened.
#[derive(Debug, Clone)]
pub struct OpenedJob {
    pub tenant: TenantId,
    pub job: JobId,
    pub revision: RevisionId,
    pub memory_bytes: Option<u64>,
}

impl Default for FakeProcessing {
    fn default() -> Self {
        Self {
            page_permits: Arc::new(Semaphore::new(Semaphore::MAX_PERMITS)),
            opened_jobs: Mutex::default(),
            replay_memory_limits: Mutex::default(),
        }
    }
}

impl FakeProcessing {
    /// Holds back all pages except those that [`FakeProcessing::release_pages`] releases.
    pub fn hold_pages(&self) {
        self.page_permits.forget_permits(Semaphore::MAX_PERMITS);
    }

    /// Releases this many more pages.
    pub fn release_pages(&self, pages: usize) {
        self.page_permits.add_permits(pages);
    }

    /// Returns the jobs whose components were opened, in order.
    pub fn opened_jobs(&self) -> Vec<OpenedJob> {
        self.opened_jobs.lock().clone()
    }

    /// Removes the matching jobs from the list of opened jobs.
    pub(crate) fn remove_opened_jobs(&self, is_match: impl Fn(&OpenedJob) -> bool) {
        self.opened_jobs.lock().retain(|opened| !is_match(opened));
    }

    /// Returns the memory limit in bytes of each replay, in order.
    pub fn replay_memory_limits(&self) -> Vec<Option<u64>> {
        self.replay_memory_limits.lock().clone()
    }
}

struct FakeDocument {
    info: DocumentInfo,
    page_permits: Arc<Semaphore>,
}

#[async_trait]
impl Rasterizer for FakeProcessing {
    async fn open_document(&self, source: &PdfFileToOpen) -> Result<Arc<dyn OpenedPdf>, RasterError> {
        let text = std::fs::read_to_string(&source.path).map_err(|error| RasterError::FileUnreadable {
            reason: error.to_string(),
        })?;
        let pages = text
            .split_once(" pages")
            .and_then(|(number, _)| number.parse().ok());
        let info = DocumentInfo {
            pages: pages.ok_or_else(|| RasterError::NotPdf("it has no pages".into()))?,
            ..DocumentInfo::default()
        };
        Ok(Arc::new(FakeDocument {
            info,
            page_permits: Arc::clone(&self.page_permits),
        }))
    }

    fn worker_count(&self) -> u32 {
        4
    }

    fn available_image_bytes(&self) -> u64 {
        1 << 30
    }
}

#[async_trait]
impl OpenedPdf for FakeDocument {
    fn document_info(&self) -> &DocumentInfo {
        &self.info
    }

    async fn read_page_facts(&self, pages: Range<PageNumber>) -> Result<Vec<PageFacts>, RasterError> {
        let facts = pages.map(|number| PageFacts {
            number,
            width: 600.0,
            height: 800.0,
            text_chars: 100,
            image_coverage: 0.0,
            readable: true,
        });
        Ok(facts.collect())
    }

    async fn reserve_page_memory(
        &self,
        _: PageNumber,
        drawing: RasterizeOptions,
    ) -> Result<Box<dyn PageWithReservedMemory>, RasterError> {
        Ok(Box::new(BlankDrawing { dpi: drawing.dpi }))
    }

    async fn read_text_layer(&self, _: PageNumber) -> Result<Vec<Line>, RasterError> {
        self.page_permits.acquire().await.unwrap().forget();
        Ok(Vec::new())
    }
}

/// A page that is rasterized without an image.
struct BlankDrawing {
    dpi: u32,
}

#[async_trait]
impl PageWithReservedMemory for BlankDrawing {
    async fn rasterize_page(self: Box<Self>) -> Result<RasterizeOutput, RasterError> {
        Ok(RasterizeOutput {
            dpi: self.dpi,
            image: None,
            encoded: None,
        })
    }
}

struct FakeJobPolicy {
    /// The value of the setting `traps`.
    traps: u64,
}

#[async_trait]
impl PolicyFactory for FakeProcessing {
    async fn open_job_policy(
        &self,
        request: OpenPolicyRequest<'_>,
    ) -> Result<Arc<dyn JobPolicy>, PolicyError> {
        self.opened_jobs.lock().push(OpenedJob {
            tenant: request.tenant.clone(),
            job: request.job,
            revision: request.pipeline.revision,
            memory_bytes: request.pipeline.manifest.limits.max_memory_bytes,
        });
        let traps = request.pipeline.manifest.setting_text("traps");
        Ok(Arc::new(FakeJobPolicy {
            traps: traps.map_or(0, |traps| traps.parse().unwrap()),
        }))
    }
}

#[async_trait]
impl JobPolicy for FakeJobPolicy {
    fn call_and_failure_counts(&self) -> PolicyCallAndFailureCounts {
        PolicyCallAndFailureCounts {
            calls: 10,
            traps: self.traps,
            timeouts: 0,
        }
    }

    async fn plan_batch(&self, _: BatchContext) -> Result<NextBatchPlan, PolicyError> {
        Ok(NextBatchPlan {
            pages: 1,
            dpi: 150,
            linger_millis: 0,
            queue_capacity: 8,
        })
    }

    async fn route_document(&self, _: DocumentFacts) -> Result<DocumentRoute, PolicyError> {
        Ok(DocumentRoute {
            collection: "default".into(),
            lane: PriorityLane::Bulk,
            models: ModelPreferences::default(),
            labels: Vec::new(),
        })
    }

    async fn route_page(&self, _: &DocumentId, _: PageFacts) -> Result<PageRoute, PolicyError> {
        Ok(PageRoute {
            reading_method: ReadingMethod::TextLayer,
            embed: false,
            store: false,
            labels: Vec::new(),
        })
    }

    async fn choose_failure_action(&self, _: PageStageFailure) -> Result<FailureAction, PolicyError> {
        Ok(FailureAction::FailDocument)
    }

    async fn split_passages(&self, _: PageTextToSplit) -> Result<Vec<Range<u32>>, PolicyError> {
        Ok(Vec::new())
    }

    async fn plan_summary(&self, _: SectionToSummarize) -> Result<SummaryPlan, PolicyError> {
        Ok(SummaryPlan::None)
    }

    async fn decide_progress_updates(
        &self,
        _: u64,
        _: ObservedEvent,
    ) -> Result<Vec<ProgressUpdate>, PolicyError> {
        Ok(Vec::new())
    }
}

#[async_trait]
impl PipelineBuilder for FakeProcessing {
    async fn build_pipeline(
        &self,
        manifest: Manifest,
        components: BTreeMap<Role, ResolvedComponentFile>,
    ) -> Result<Arc<ResolvedPipeline>, String> {
        Ok(Arc::new(ResolvedPipeline::new(
            manifest,
            components,
            BTreeMap::new(),
        )))
    }
}

/// A store of uploads in one folder, with the files `unfinished-<n>`, `staged-<n>` and `<tenant>-<document>`.
pub struct FakeUploadStore {
    folder: PathBuf,
    staged: Mutex<Vec<StagedUpload>>,
    next_file_number: AtomicU64,
    /// Counts the stored bytes of tenants.
    store: Arc<FakeStore>,
    /// The free bytes on the disk.
    free_bytes: AtomicU64,
}

impl FakeUploadStore {
    /// Creates a store without uploads in a folder. `memory` counts the stored bytes.
    pub fn new(folder: &Path, memory: Arc<FakeStore>) -> Arc<Self> {
        std::fs::create_dir_all(folder).unwrap();
        Arc::new(Self {
            folder: folder.to_owned(),
            staged: Mutex::default(),
            next_file_number: AtomicU64::new(0),
            store: memory,
            free_bytes: AtomicU64::new(u64::MAX),
        })
    }

    /// Sets the number of free bytes on the disk.
    pub fn set_free_bytes(&self, bytes: u64) {
        self.free_bytes.store(bytes, Ordering::Relaxed);
    }

    fn file_size(path: &Path) -> u64 {
        std::fs::metadata(path).map_or(0, |data| data.len())
    }

    fn new_path(&self, kind: &str) -> PathBuf {
        self.folder.join(format!(
            "{kind}-{}",
            self.next_file_number.fetch_add(1, Ordering::Relaxed)
        ))
    }

    /// Returns the names of all files.
    pub fn file_names(&self) -> Vec<String> {
        let files = std::fs::read_dir(&self.folder).unwrap();
        let names: BTreeSet<_> = files
            .map(|f| f.unwrap().file_name().into_string().unwrap())
            .collect();
        names.into_iter().collect()
    }
}

#[async_trait]
impl UploadStore for FakeUploadStore {
    fn new_temporary_path(&self) -> PathBuf {
        self.new_path("unfinished")
    }

    async fn stage_received_file_for_job(
        &self,
        tenant: &TenantId,
        unfinished: &Path,
        job: &JobId,
        document: &DocumentId,
    ) -> Result<PathBuf, StorageError> {
        let path = self.new_path("staged");
        std::fs::rename(unfinished, &path).unwrap();
        self.staged.lock().push(StagedUpload {
            tenant: tenant.clone(),
            job: *job,
            document: *document,
            path: path.clone(),
        });
        Ok(path)
    }

    async fn stage_stored_upload_for_job(
        &self,
        tenant: &TenantId,
        job: &JobId,
        document: &DocumentId,
    ) -> Result<Option<PathBuf>, StorageError> {
        let copy = self.new_temporary_path();
        match std::fs::copy(self.upload_path(tenant, document), &copy) {
            Ok(_) => self
                .stage_received_file_for_job(tenant, &copy, job, document)
                .await
                .map(Some),
            Err(_) => Ok(None),
        }
    }

    async fn list_staged_uploads(&self) -> Result<Vec<StagedUpload>, StorageError> {
        let staged = self.staged.lock();
        Ok(staged
            .iter()
            .filter(|staged| staged.path.exists())
            .cloned()
            .collect())
    }

    async fn commit_upload(
        &self,
        tenant: &TenantId,
        from: &Path,
        document: &DocumentId,
    ) -> Result<(), StorageError> {
        let to = self.upload_path(tenant, document);
        let before = Self::file_size(&to);
        std::fs::rename(from, &to).map_err(|e| StorageError::from_io_error("a file", &e))?;
        self.store
            .change_stored_bytes(tenant, before, Self::file_size(&to));
        Ok(())
    }

    fn available_disk_bytes(&self) -> Option<u64> {
        Some(self.free_bytes.load(Ordering::Relaxed))
    }

    fn upload_path(&self, tenant: &TenantId, document: &DocumentId) -> PathBuf {
        self.folder.join(format!("{tenant}-{document}"))
    }

    async fn remove_upload(&self, tenant: &TenantId, document: &DocumentId) -> Result<bool, StorageError> {
        let path = self.upload_path(tenant, document);
        let before = Self::file_size(&path);
        let removed = std::fs::remove_file(path).is_ok();
        self.store.change_stored_bytes(tenant, before, 0);
        Ok(removed)
    }

    async fn list_uploads(&self, tenant: &TenantId) -> Result<Vec<DocumentId>, StorageError> {
        let of_tenant = |name: &String| name.strip_prefix(&format!("{tenant}-"))?.parse().ok();
        Ok(self.file_names().iter().filter_map(of_tenant).collect())
    }

    async fn remove_all_uploads_of_tenant(&self, tenant: &TenantId) -> Result<(), StorageError> {
        for document in self.list_uploads(tenant).await? {
            self.remove_upload(tenant, &document).await?;
        }
        Ok(())
    }
}
