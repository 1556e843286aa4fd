//! The folder a run fills with `--out`: for each document its Markdown, its page images and the lines of each page.
//!
//! ```text
//! OUT/report/document.md
//! OUT/report/summary.json      if it was summarized
//! OUT/report/pages/0001.jpg
//! OUT/report/pages/0001.json
//! ```

use std::collections::BTreeMap;
use std::ops::RangeInclusive;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::{Context as _, Result};
use weir_core::event::ErrorNote;
use weir_core::id::{DocumentId, PageNumber, RevisionId, TenantId};
use weir_core::layout;
use weir_core::ledger::PageState;
use weir_core::markdown::{self, MarkdownPage};
use weir_core::ports::{BlobStore, Ledger};
use weir_core::summary::{DocumentSummary, summary_key};
use weir_core::text::{PageLines, TextSource};

/// Writes what is stored of documents into a folder.
pub(crate) struct Output {
    folder: PathBuf,
    blobs: Arc<dyn BlobStore>,
    ledger: Arc<dyn Ledger>,
    /// Folders taken by documents of this run, so that two files of one name get one each.
    taken: BTreeMap<String, DocumentId>,
}

/// A page as it was found in storage.
struct StoredPage {
    lines: Option<PageLines>,
    image: Option<String>,
    failed: Option<ErrorNote>,
}

impl Output {
    /// An output folder; made if it is not there, so that a folder without rights is refused before any work.
    pub(crate) fn new(folder: &Path, blobs: Arc<dyn BlobStore>, ledger: Arc<dyn Ledger>) -> Result<Self> {
        std::fs::create_dir_all(folder).with_context(|| format!("cannot write to {}", folder.display()))?;
        let probe = folder.join(".weir-write-test");
        std::fs::write(&probe, b"").with_context(|| format!("cannot write to {}", folder.display()))?;
        let _ = std::fs::remove_file(probe);
        Ok(Self {
            folder: folder.to_owned(),
            blobs,
            ledger,
            taken: BTreeMap::new(),
        })
    }

    /// Writes the pages of a document that ended under `revision` and lie in `wanted`.
    pub(crate) async fn write(
        &mut self,
        tenant: &TenantId,
        document: &DocumentId,
        name: &str,
        revision: &RevisionId,
        wanted: &RangeInclusive<PageNumber>,
    ) -> Result<PathBuf> {
        let own = self.folder_name(document, name);
        let folder = self.folder.join(own);
        let pages_folder = folder.join("pages");
        std::fs::create_dir_all(&pages_folder)
            .with_context(|| format!("cannot write to {}", folder.display()))?;

        let record = self.ledger.document(tenant, document).await?;
        let mut pages = BTreeMap::new();
        for page in self.ledger.pages(tenant, document, Some(revision)).await? {
            if wanted.contains(&page.page) {
                pages.insert(
                    page.page,
                    self.page(tenant, page.page, page.state, &pages_folder).await?,
                );
            }
        }

        let (title, outline) = record.map(|r| (r.title, r.outline)).unwrap_or_default();
        let shown: Vec<_> = pages
            .iter()
            .map(|(number, page)| {
                let read = page.lines.as_ref();
                let (source, lines) = read.map_or((TextSource::None, &[][..]), |l| (l.source, &l.lines));
                MarkdownPage {
                    number: *number,
                    source,
                    lines,
                    headings: layout::headings(source, lines, &outline, *number),
                    image: page.image.as_deref(),
                    failed: page.failed.as_ref().map(|e| e.message.as_str()),
                }
            })
            .collect();
        let summary = match self.blobs.get(tenant, &summary_key(document, revision)).await? {
            Some(bytes) => {
                write(&folder.join("summary.json"), &bytes)?;
                Some(serde_json::from_slice::<DocumentSummary>(&bytes).context("the summary is damaged")?)
            }
            None => None,
        };
        let text = markdown::render(title.as_deref().unwrap_or(name), summary.as_ref(), &shown);
        write(&folder.join("document.md"), text.as_bytes())?;
        Ok(folder)
    }

    async fn page(
        &self,
        tenant: &TenantId,
        number: PageNumber,
        state: PageState,
        folder: &Path,
    ) -> Result<StoredPage> {
        let (image, text) = match state {
            PageState::Failed { error } => {
                return Ok(StoredPage {
                    lines: None,
                    image: None,
                    failed: Some(error),
                });
            }
            PageState::Done { image, text, .. } => (image, text),
        };
        let mut stored = StoredPage {
            lines: None,
            image: None,
            failed: None,
        };
        if let Some(key) = image
            && let Some(bytes) = self.blobs.get(tenant, &key).await?
        {
            let extension = key.rsplit('.').next().unwrap_or("jpg");
            let file = format!("{number:04}.{extension}");
            write(&folder.join(&file), &bytes)?;
            stored.image = Some(format!("pages/{file}"));
        }
        if let Some(key) = text
            && let Some(bytes) = self.blobs.get(tenant, &key).await?
        {
            write(&folder.join(format!("{number:04}.json")), &bytes)?;
            stored.lines = Some(serde_json::from_slice(&bytes).with_context(|| format!("{key} is damaged"))?);
        }
        Ok(stored)
    }

    /// The file's name without its ending; with the document's first digits where another document has taken it.
    fn folder_name(&mut self, document: &DocumentId, name: &str) -> String {
        let stem = Path::new(name)
            .file_stem()
            .map(|s| s.to_string_lossy().into_owned())
            .unwrap_or_default();
        let stem: String = stem
            .chars()
            .map(|c| if c == '/' || c.is_control() { '_' } else { c })
            .collect();
        let stem = if stem.is_empty() || stem.starts_with('.') {
            format!("_{stem}")
        } else {
            stem
        };
        if self.taken.entry(stem.clone()).or_insert(*document) == document {
            return stem;
        }
        let id = document.to_string();
        format!("{stem}-{}", id.get(..8).unwrap_or(&id))
    }
}

fn write(path: &Path, bytes: &[u8]) -> Result<()> {
    std::fs::write(path, bytes).with_context(|| format!("cannot write {}", path.display()))
}
