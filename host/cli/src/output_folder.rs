//! The output folder of `weir run --out`. It has the Markdown, the page images and the text lines of each document.
//!
//! ```text
//! OUT/report/document.md
//! OUT/report/summary.json      with --summarize
//! OUT/report/pages/0001.jpg
//! OUT/report/pages/0001.json
//! ```

use std::collections::BTreeMap;
use std::ops::RangeInclusive;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::{Context as _, Result};
use weir_core::event::ErrorInfo;
use weir_core::id::{DocumentId, PageNumber, RevisionId, TenantId};
use weir_core::layout;
use weir_core::ledger::FinalPageState;
use weir_core::markdown::{self, PageLinesAndHeadings};
use weir_core::page_text::{StoredPageText, TextSource};
use weir_core::ports::{BlobStore, Ledger};
use weir_core::summary::{DocumentSummaries, document_summaries_blob_key};

/// Writes stored pages, text and summaries of documents to a folder.
pub(crate) struct OutputFolder {
    folder: PathBuf,
    blobs: Arc<dyn BlobStore>,
    ledger: Arc<dyn Ledger>,
    /// Folder names of this run and their documents, so that two files with the same name get separate folders.
    used_folder_names: BTreeMap<String, DocumentId>,
}

/// A page that was read from storage and written to the folder.
struct ExportedPage {
    lines: Option<StoredPageText>,
    image: Option<String>,
    error: Option<ErrorInfo>,
}

impl OutputFolder {
    /// Creates the folder if necessary and checks that it is writable, so that the run fails before any work otherwise.
    pub(crate) fn new(folder: &Path, blobs: Arc<dyn BlobStore>, ledger: Arc<dyn Ledger>) -> Result<Self> {
        std::fs::create_dir_all(folder).with_context(|| format!("cannot write to {}", folder.display()))?;
        let probe = folder.join(".weir-write-test");
        std::fs::write(&probe, b"").with_context(|| format!("cannot write to {}", folder.display()))?;
        let _ = std::fs::remove_file(probe);
        Ok(Self {
            folder: folder.to_owned(),
            blobs,
            ledger,
            used_folder_names: BTreeMap::new(),
        })
    }

    /// Writes the pages of a document that were processed with `revision` and are in `page_range`.
    /// Returns the document's folder.
    pub(crate) async fn write_document(
        &mut self,
        tenant: &TenantId,
        document: &DocumentId,
        name: &str,
        revision: &RevisionId,
        page_range: &RangeInclusive<PageNumber>,
    ) -> Result<PathBuf> {
        let folder_name = self.reserve_document_folder_name(document, name);
        let folder = self.folder.join(folder_name);
        let pages_folder = folder.join("pages");
        std::fs::create_dir_all(&pages_folder)
            .with_context(|| format!("cannot write to {}", folder.display()))?;

        let record = self.ledger.find_document(tenant, document).await?;
        let mut pages = BTreeMap::new();
        for page in self.ledger.list_pages(tenant, document, Some(revision)).await? {
            if page_range.contains(&page.page) {
                pages.insert(
                    page.page,
                    self.write_page_files(tenant, page.page, page.state, &pages_folder)
                        .await?,
                );
            }
        }

        let (title, outline) = record.map(|r| (r.title, r.outline)).unwrap_or_default();
        let markdown_pages: Vec<_> = pages
            .iter()
            .map(|(number, page)| {
                let read = page.lines.as_ref();
                let (source, lines) = read.map_or((TextSource::None, &[][..]), |l| (l.source, &l.lines));
                PageLinesAndHeadings {
                    number: *number,
                    source,
                    lines,
                    headings: layout::detect_page_headings(source, lines, &outline, *number),
                    image: page.image.as_deref(),
                    failed: page.error.as_ref().map(|e| e.message.as_str()),
                }
            })
            .collect();
        let summary = match self
            .blobs
            .get_blob(tenant, &document_summaries_blob_key(document, revision))
            .await?
        {
            Some(bytes) => {
                write_file(&folder.join("summary.json"), &bytes)?;
                Some(
                    serde_json::from_slice::<DocumentSummaries>(&bytes)
                        .context("the stored summary is invalid")?,
                )
            }
            None => None,
        };
        let text = markdown::render_document(
            title.as_deref().unwrap_or(name),
            summary.as_ref(),
            &markdown_pages,
        );
        write_file(&folder.join("document.md"), text.as_bytes())?;
        Ok(folder)
    }

    async fn write_page_files(
        &self,
        tenant: &TenantId,
        number: PageNumber,
        state: FinalPageState,
        folder: &Path,
    ) -> Result<ExportedPage> {
        let (image, text) = match state {
            FinalPageState::Failed { error } => {
                return Ok(ExportedPage {
                    lines: None,
                    image: None,
                    error: Some(error),
                });
            }
            FinalPageState::Done { image, text, .. } => (image, text),
        };
        let mut exported = ExportedPage {
            lines: None,
            image: None,
            error: None,
        };
        if let Some(key) = image
            && let Some(bytes) = self.blobs.get_blob(tenant, &key).await?
        {
            let extension = key.rsplit('.').next().unwrap_or("jpg");
            let file = format!("{number:04}.{extension}");
            write_file(&folder.join(&file), &bytes)?;
            exported.image = Some(format!("pages/{file}"));
        }
        if let Some(key) = text
            && let Some(bytes) = self.blobs.get_blob(tenant, &key).await?
        {
            write_file(&folder.join(format!("{number:04}.json")), &bytes)?;
            exported.lines = Some(
                serde_json::from_slice(&bytes)
                    .with_context(|| format!("the stored text {key} is invalid"))?,
            );
        }
        Ok(exported)
    }

    /// Returns the file name without its extension. If another document of the run has this name, the first digits of the
    /// document id are appended.
    fn reserve_document_folder_name(&mut self, document: &DocumentId, name: &str) -> String {
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
        if self.used_folder_names.entry(stem.clone()).or_insert(*document) == document {
            return stem;
        }
        let id = document.to_string();
        format!("{stem}-{}", id.get(..8).unwrap_or(&id))
    }
}

fn write_file(path: &Path, bytes: &[u8]) -> Result<()> {
    std::fs::write(path, bytes).with_context(|| format!("cannot write {}", path.display()))
}
