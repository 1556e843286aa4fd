//! What jobs need, for tests of what goes on around them: a file `"3 pages …"` is a document of so many pages, pages are done
//! only when the test lets them be, and everything that is asked is written down.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use async_trait::async_trait;
use parking_lot::Mutex;
use tokio::sync::Semaphore;
use weir_core::decision::{
    BatchPlan, DocumentFacts, DocumentRoute, Failure, Observation, PageRoute, PassageSource, ProgressUpdate,
    Reading, Section, Situation, SummaryPlan, Verdict,
};
use weir_core::manifest::{ComponentFile, Manifest, Pipeline, Role};
use weir_core::original::{Originals, Staged};
use weir_core::page::DocumentInfo;
use weir_core::ports::{
    Drawing, DrawnPage, JobPolicy, OpenDocument, Policies, PolicyRequest, PolicyTally, Rasterizer,
    ReservedDrawing, Source,
};
use weir_core::text::Line;
use weir_core::{
    DocumentId, JobId, Lane, PageFacts, PageNumber, PolicyError, RasterError, RevisionId, StorageError,
    TenantId,
};

use super::Memory;
use crate::pipelines::Defaults;

/// Opens documents, decides, and has no components of its own.
pub(crate) struct Works {
    /// One permit lets one page be read.
    pages: Arc<Semaphore>,
    opened: Mutex<Vec<Opened>>,
    /// Bytes that an instance might have where a job's decisions were had again.
    pub(super) again: Mutex<Vec<Option<u64>>>,
}

/// What was asked when a job's components were opened.
#[derive(Debug, Clone)]
pub(crate) struct Opened {
    pub(crate) tenant: TenantId,
    pub(crate) job: JobId,
    pub(crate) revision: RevisionId,
    pub(crate) memory_bytes: Option<u64>,
}

impl Default for Works {
    fn default() -> Self {
        Self {
            pages: Arc::new(Semaphore::new(Semaphore::MAX_PERMITS)),
            opened: Mutex::default(),
            again: Mutex::default(),
        }
    }
}

impl Works {
    /// Lets no page be read from now on, but those that [`Works::let_pages`] lets.
    pub(crate) fn hold(&self) {
        self.pages.forget_permits(Semaphore::MAX_PERMITS);
    }

    /// Lets so many pages more be read.
    pub(crate) fn let_pages(&self, pages: usize) {
        self.pages.add_permits(pages);
    }

    /// The jobs whose components were opened, in order.
    pub(crate) fn opened(&self) -> Vec<Opened> {
        self.opened.lock().clone()
    }

    /// Forgets jobs whose components were opened.
    pub(super) fn forget_opened(&self, meant: impl Fn(&Opened) -> bool) {
        self.opened.lock().retain(|opened| !meant(opened));
    }

    /// What an instance might have of memory where a job's decisions were had again, in order.
    pub(crate) fn again(&self) -> Vec<Option<u64>> {
        self.again.lock().clone()
    }
}

struct Document {
    info: DocumentInfo,
    pages: Arc<Semaphore>,
}

#[async_trait]
impl Rasterizer for Works {
    async fn open(&self, source: &Source) -> Result<Arc<dyn OpenDocument>, RasterError> {
        let text = std::fs::read_to_string(&source.path).map_err(|error| RasterError::File {
            reason: error.to_string(),
        })?;
        let pages = text
            .split_once(" pages")
            .and_then(|(number, _)| number.parse().ok());
        let info = DocumentInfo {
            pages: pages.ok_or_else(|| RasterError::NotPdf("it has no pages".into()))?,
            ..DocumentInfo::default()
        };
        Ok(Arc::new(Document {
            info,
            pages: Arc::clone(&self.pages),
        }))
    }

    fn workers(&self) -> u32 {
        4
    }

    fn free_image_bytes(&self) -> u64 {
        1 << 30
    }
}

#[async_trait]
impl OpenDocument for Document {
    fn info(&self) -> &DocumentInfo {
        &self.info
    }

    async fn facts(&self, pages: Range<PageNumber>) -> Result<Vec<PageFacts>, RasterError> {
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

    async fn reserve(
        &self,
        _: PageNumber,
        drawing: Drawing,
    ) -> Result<Box<dyn ReservedDrawing>, RasterError> {
        Ok(Box::new(Blank { dpi: drawing.dpi }))
    }

    async fn text(&self, _: PageNumber) -> Result<Vec<Line>, RasterError> {
        self.pages.acquire().await.unwrap().forget();
        Ok(Vec::new())
    }
}

/// A page that is drawn without an image.
struct Blank {
    dpi: u32,
}

#[async_trait]
impl ReservedDrawing for Blank {
    async fn draw(self: Box<Self>) -> Result<DrawnPage, RasterError> {
        Ok(DrawnPage {
            dpi: self.dpi,
            image: None,
            encoded: None,
        })
    }
}

struct Decisions {
    /// What the setting of this name says.
    traps: u64,
}

#[async_trait]
impl Policies for Works {
    async fn open(&self, request: PolicyRequest<'_>) -> Result<Arc<dyn JobPolicy>, PolicyError> {
        self.opened.lock().push(Opened {
            tenant: request.tenant.clone(),
            job: request.job,
            revision: request.pipeline.revision,
            memory_bytes: request.pipeline.manifest.limits.memory_bytes,
        });
        let traps = request.pipeline.manifest.setting("traps");
        Ok(Arc::new(Decisions {
            traps: traps.map_or(0, |traps| traps.parse().unwrap()),
        }))
    }
}

#[async_trait]
impl JobPolicy for Decisions {
    fn tally(&self) -> PolicyTally {
        PolicyTally {
            calls: 10,
            traps: self.traps,
            timeouts: 0,
        }
    }

    async fn plan(&self, _: Situation) -> Result<BatchPlan, PolicyError> {
        Ok(BatchPlan {
            pages: 1,
            dpi: 150,
            linger_millis: 0,
            queue_capacity: 8,
        })
    }

    async fn route_document(&self, _: DocumentFacts) -> Result<DocumentRoute, PolicyError> {
        Ok(DocumentRoute {
            collection: "default".into(),
            lane: Lane::Bulk,
            ocr_model: None,
            embedding_model: None,
            labels: Vec::new(),
        })
    }

    async fn route_page(&self, _: &DocumentId, _: PageFacts) -> Result<PageRoute, PolicyError> {
        Ok(PageRoute {
            reading: Reading::TextLayer,
            embed: false,
            store: false,
            labels: Vec::new(),
        })
    }

    async fn judge(&self, _: Failure) -> Result<Verdict, PolicyError> {
        Ok(Verdict::FailDocument)
    }

    async fn passages(&self, _: PassageSource) -> Result<Vec<Range<u32>>, PolicyError> {
        Ok(Vec::new())
    }

    async fn summarize(&self, _: Section) -> Result<SummaryPlan, PolicyError> {
        Ok(SummaryPlan::None)
    }

    async fn observe(&self, _: u64, _: Observation) -> Result<Vec<ProgressUpdate>, PolicyError> {
        Ok(Vec::new())
    }
}

#[async_trait]
impl Defaults for Works {
    async fn pipeline(
        &self,
        manifest: Manifest,
        components: BTreeMap<Role, ComponentFile>,
    ) -> Result<Arc<Pipeline>, String> {
        Ok(Arc::new(Pipeline::new(manifest, components, BTreeMap::new())))
    }
}

/// Originals in one folder: `unfinished-<n>`, `staged-<n>`, and `<tenant>-<document>`.
pub(crate) struct Files {
    folder: PathBuf,
    staged: Mutex<Vec<Staged>>,
    next: AtomicU64,
    /// Keeps count of what tenants store.
    memory: Arc<Memory>,
    /// Bytes that are free on the disk.
    free: AtomicU64,
}

impl Files {
    pub(crate) fn new(folder: &Path, memory: Arc<Memory>) -> Arc<Self> {
        std::fs::create_dir_all(folder).unwrap();
        Arc::new(Self {
            folder: folder.to_owned(),
            staged: Mutex::default(),
            next: AtomicU64::new(0),
            memory,
            free: AtomicU64::new(u64::MAX),
        })
    }

    /// Sets how many bytes are free on the disk.
    pub(crate) fn leave_free(&self, bytes: u64) {
        self.free.store(bytes, Ordering::Relaxed);
    }

    fn size(path: &Path) -> u64 {
        std::fs::metadata(path).map_or(0, |data| data.len())
    }

    fn fresh(&self, kind: &str) -> PathBuf {
        self.folder
            .join(format!("{kind}-{}", self.next.fetch_add(1, Ordering::Relaxed)))
    }

    /// Names of all files there are.
    pub(crate) fn names(&self) -> Vec<String> {
        let files = std::fs::read_dir(&self.folder).unwrap();
        let names: BTreeSet<_> = files
            .map(|f| f.unwrap().file_name().into_string().unwrap())
            .collect();
        names.into_iter().collect()
    }
}

#[async_trait]
impl Originals for Files {
    fn unfinished(&self) -> PathBuf {
        self.fresh("unfinished")
    }

    async fn stage(
        &self,
        tenant: &TenantId,
        unfinished: &Path,
        job: &JobId,
        document: &DocumentId,
    ) -> Result<PathBuf, StorageError> {
        let path = self.fresh("staged");
        std::fs::rename(unfinished, &path).unwrap();
        self.staged.lock().push(Staged {
            tenant: tenant.clone(),
            job: *job,
            document: *document,
            path: path.clone(),
        });
        Ok(path)
    }

    async fn stage_kept(
        &self,
        tenant: &TenantId,
        job: &JobId,
        document: &DocumentId,
    ) -> Result<Option<PathBuf>, StorageError> {
        let copy = self.unfinished();
        match std::fs::copy(self.path(tenant, document), &copy) {
            Ok(_) => self.stage(tenant, &copy, job, document).await.map(Some),
            Err(_) => Ok(None),
        }
    }

    async fn staged(&self) -> Result<Vec<Staged>, StorageError> {
        let staged = self.staged.lock();
        Ok(staged
            .iter()
            .filter(|staged| staged.path.exists())
            .cloned()
            .collect())
    }

    async fn commit(
        &self,
        tenant: &TenantId,
        from: &Path,
        document: &DocumentId,
    ) -> Result<(), StorageError> {
        let to = self.path(tenant, document);
        let before = Self::size(&to);
        std::fs::rename(from, &to).map_err(|e| StorageError::io("a file", &e))?;
        self.memory.change_stored(tenant, before, Self::size(&to));
        Ok(())
    }

    fn free_bytes(&self) -> Option<u64> {
        Some(self.free.load(Ordering::Relaxed))
    }

    fn path(&self, tenant: &TenantId, document: &DocumentId) -> PathBuf {
        self.folder.join(format!("{tenant}-{document}"))
    }

    async fn remove(&self, tenant: &TenantId, document: &DocumentId) -> Result<bool, StorageError> {
        let path = self.path(tenant, document);
        let before = Self::size(&path);
        let removed = std::fs::remove_file(path).is_ok();
        self.memory.change_stored(tenant, before, 0);
        Ok(removed)
    }

    async fn list(&self, tenant: &TenantId) -> Result<Vec<DocumentId>, StorageError> {
        let of_tenant = |name: &String| name.strip_prefix(&format!("{tenant}-"))?.parse().ok();
        Ok(self.names().iter().filter_map(of_tenant).collect())
    }

    async fn clear(&self, tenant: &TenantId) -> Result<(), StorageError> {
        for document in self.list(tenant).await? {
            self.remove(tenant, &document).await?;
        }
        Ok(())
    }
}
