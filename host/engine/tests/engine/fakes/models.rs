//! Fake rasterizer, reader and embedder. The pixels and the text of a page contain its number, so every fake knows which page it
//! gets.

use std::ops::Range;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use async_trait::async_trait;
use tokio::sync::OwnedSemaphorePermit;
use weir_core::decision::ComputeDevice;
use weir_core::page::{DocumentInfo, EncodedImage, OutlineEntry, PixelFormat, PixelMemory};
use weir_core::page_text::Line;
use weir_core::ports::{
    Embedder, OcrEngine, OpenedPdf, PageWithReservedMemory, PdfFileToOpen, RasterizeOptions, RasterizeOutput,
    Rasterizer, SchedulingContext,
};
use weir_core::{InferenceError, PageFacts, PageNumber, RasterError, RawPageImage, Rect, Stage};

use super::{CallGuard, FakeStages, InjectedFault};

pub struct FakeRasterizer {
    pub stages: Arc<FakeStages>,
    pub workers: u32,
}

struct FakeDocument {
    stages: Arc<FakeStages>,
    info: DocumentInfo,
    /// Whether the pages have no text layer.
    scanned: bool,
}

/// Pixels that are counted while they are in memory.
struct CountedPixels {
    bytes: [u8; 4],
    _image: CallGuard,
    _memory: OwnedSemaphorePermit,
}

impl PixelMemory for CountedPixels {
    fn as_bytes(&self) -> &[u8] {
        &self.bytes
    }
}

/// Reads the number of pages from a file like `"12 pages …"`.
fn read_page_count(path: &Path) -> Result<u32, RasterError> {
    let text = std::fs::read_to_string(path).unwrap();
    let number = text.split(' ').next().and_then(|n| n.parse().ok());
    number.ok_or(RasterError::NotPdf(text))
}

#[async_trait]
impl Rasterizer for FakeRasterizer {
    async fn open_document(&self, source: &PdfFileToOpen) -> Result<Arc<dyn OpenedPdf>, RasterError> {
        let pages = read_page_count(&source.path)?;
        Ok(Arc::new(FakeDocument {
            stages: Arc::clone(&self.stages),
            scanned: source.path.to_string_lossy().contains("scan"),
            info: DocumentInfo {
                pages,
                outline: match self.stages.has_outline.load(Ordering::SeqCst) {
                    true => (1..=pages).map(chapter_entry).collect(),
                    false => Vec::new(),
                },
                ..Default::default()
            },
        }))
    }

    fn worker_count(&self) -> u32 {
        self.workers
    }

    fn available_image_bytes(&self) -> u64 {
        1 << 30
    }
}

fn to_raster_error(fault: InjectedFault, page: PageNumber) -> RasterError {
    match fault {
        InjectedFault::Unavailable => RasterError::Unavailable {
            what: "PDFium".into(),
            remedy: "install it".into(),
        },
        _ => RasterError::PageUnreadable {
            page,
            reason: "injected fault".into(),
        },
    }
}

#[async_trait]
impl OpenedPdf for FakeDocument {
    fn document_info(&self) -> &DocumentInfo {
        &self.info
    }

    async fn read_page_facts(&self, pages: Range<PageNumber>) -> Result<Vec<PageFacts>, RasterError> {
        assert!(pages.start >= 1 && pages.end <= self.info.pages + 1, "{pages:?}");
        assert!(pages.len() <= 64);
        let _inside = self.stages.facts_calls.start_call();
        Ok(pages
            .map(|number| PageFacts {
                number,
                width: 595.0,
                height: 842.0,
                text_chars: if self.scanned { 0 } else { 1000 },
                image_coverage: 0.0,
                readable: true,
            })
            .collect())
    }

    async fn reserve_page_memory(
        &self,
        page: PageNumber,
        drawing: RasterizeOptions,
    ) -> Result<Box<dyn PageWithReservedMemory>, RasterError> {
        let memory = Arc::clone(&self.stages.image_memory.lock());
        Ok(Box::new(FakeDrawing {
            memory: memory.acquire_owned().await.unwrap(),
            image: self.stages.live_images.start_call(),
            stages: Arc::clone(&self.stages),
            page,
            drawing,
        }))
    }

    async fn read_text_layer(&self, page: PageNumber) -> Result<Vec<Line>, RasterError> {
        match self.stages.run_text_layer(page).await {
            Some(fault) => Err(to_raster_error(fault, page)),
            None => Ok(page_lines(page)),
        }
    }
}

/// A page with reserved memory.
struct FakeDrawing {
    stages: Arc<FakeStages>,
    page: PageNumber,
    drawing: RasterizeOptions,
    image: CallGuard,
    memory: OwnedSemaphorePermit,
}

#[async_trait]
impl PageWithReservedMemory for FakeDrawing {
    async fn rasterize_page(self: Box<Self>) -> Result<RasterizeOutput, RasterError> {
        let Self { page, drawing, .. } = *self;
        if let Some(fault) = self.stages.run_stage(Stage::Rasterize, &[page]).await {
            return Err(to_raster_error(fault, page));
        }
        Ok(RasterizeOutput {
            dpi: drawing.dpi,
            encoded: drawing.want_encoded.then(|| EncodedImage {
                media_type: "image/jpeg",
                bytes: self.stages.encode_page(page),
            }),
            image: drawing.want_pixels.then(|| RawPageImage {
                width: 4,
                height: 1,
                stride: 4,
                format: PixelFormat::Gray,
                pixels: Arc::new(CountedPixels {
                    bytes: page.to_be_bytes(),
                    _image: self.image,
                    _memory: self.memory,
                }),
            }),
        })
    }
}

/// Returns the outline entry of a chapter that starts at the first line of a page.
fn chapter_entry(page: PageNumber) -> OutlineEntry {
    OutlineEntry {
        title: format!("page {page} says this and nothing else"),
        level: 1,
        page: Some(page),
    }
}

/// Returns two lines that are far enough apart to be two paragraphs.
fn page_lines(page: PageNumber) -> Vec<Line> {
    let line = |text: String, y| Line {
        text,
        rect: Rect {
            x: 0.1,
            y,
            width: 0.8,
            height: 0.02,
        },
        size: 10.0,
        confidence: 1.0,
    };
    vec![
        line(format!("page {page} says this and nothing else"), 0.3),
        line(format!("page {page} says that somewhat later on"), 0.6),
    ]
}

pub struct FakeReader {
    pub stages: Arc<FakeStages>,
    pub workers: u32,
}

#[async_trait]
impl OcrEngine for FakeReader {
    async fn recognize_text(
        &self,
        _: &SchedulingContext,
        image: RawPageImage,
        _dpi: u32,
    ) -> Result<Vec<Line>, InferenceError> {
        let page = u32::from_be_bytes(image.pixels.as_bytes().try_into().unwrap());
        match self.stages.run_stage(Stage::Read, &[page]).await {
            Some(fault) => Err(to_inference_error(fault, "ocr")),
            None => Ok(page_lines(page)),
        }
    }

    fn worker_count(&self) -> u32 {
        self.workers
    }
}

fn to_inference_error(fault: InjectedFault, model: &str) -> InferenceError {
    match fault {
        InjectedFault::Unavailable => InferenceError::Unavailable {
            what: model.into(),
            remedy: "install it".into(),
        },
        _ => InferenceError::Failed {
            model: model.into(),
            reason: "injected fault".into(),
        },
    }
}

pub struct FakeEmbedder {
    pub stages: Arc<FakeStages>,
    pub workers: u32,
}

#[async_trait]
impl Embedder for FakeEmbedder {
    async fn embed_texts(
        &self,
        account: &SchedulingContext,
        texts: Vec<String>,
    ) -> Result<Vec<Vec<f32>>, InferenceError> {
        let page = texts[0].split(' ').nth(1).and_then(|n| n.parse().ok());
        let Some(page) = page else {
            assert_eq!(
                account.batch_linger,
                Duration::ZERO,
                "a query must not wait for a fuller batch"
            );
            return Ok(texts.iter().map(|_| vec![1.0, 0.0]).collect());
        };
        match self.stages.run_stage(Stage::Embed, &[page]).await {
            Some(fault) => Err(to_inference_error(fault, "embedding")),
            None => Ok(texts.iter().map(|_| vec![0.0, 1.0]).collect()),
        }
    }

    fn count_tokens(&self, text: &str) -> Result<u32, InferenceError> {
        Ok(u32::try_from(text.split_whitespace().count()).unwrap())
    }

    fn vector_dimensions(&self) -> usize {
        2
    }

    fn max_input_tokens(&self) -> u32 {
        256
    }

    fn worker_count(&self) -> u32 {
        self.workers
    }

    fn compute_device(&self) -> ComputeDevice {
        ComputeDevice::default()
    }
}
