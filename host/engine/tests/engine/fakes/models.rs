//! Rasterizer, reader and embedder. A page's number travels in its pixels and in its text, so that every stage knows which
//! page it has.

use std::ops::Range;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use async_trait::async_trait;
use tokio::sync::OwnedSemaphorePermit;
use weir_core::decision::Device;
use weir_core::page::{DocumentInfo, EncodedImage, OutlineEntry, PixelFormat, Pixels};
use weir_core::ports::{
    Account, Drawing, DrawnPage, Embedder, OpenDocument, Rasterizer, Reader, ReservedDrawing, Source,
};
use weir_core::text::Line;
use weir_core::{InferenceError, PageFacts, PageImage, PageNumber, RasterError, Rect, Stage};

use super::{Fault, Inside, Stages};

pub struct FakeRasterizer {
    pub stages: Arc<Stages>,
    pub workers: u32,
}

struct FakeDocument {
    stages: Arc<Stages>,
    info: DocumentInfo,
    /// Whether its pages have no text of their own.
    scanned: bool,
}

/// Pixels that are counted for as long as they exist.
struct CountedPixels {
    bytes: [u8; 4],
    _image: Inside,
    _memory: OwnedSemaphorePermit,
}

impl Pixels for CountedPixels {
    fn bytes(&self) -> &[u8] {
        &self.bytes
    }
}

/// `"12 pages …"`.
fn pages_of(path: &Path) -> Result<u32, RasterError> {
    let text = std::fs::read_to_string(path).unwrap();
    let number = text.split(' ').next().and_then(|n| n.parse().ok());
    number.ok_or(RasterError::NotPdf(text))
}

#[async_trait]
impl Rasterizer for FakeRasterizer {
    async fn open(&self, source: &Source) -> Result<Arc<dyn OpenDocument>, RasterError> {
        let pages = pages_of(&source.path)?;
        Ok(Arc::new(FakeDocument {
            stages: Arc::clone(&self.stages),
            scanned: source.path.to_string_lossy().contains("scan"),
            info: DocumentInfo {
                pages,
                outline: match self.stages.outlined.load(Ordering::SeqCst) {
                    true => (1..=pages).map(chapter).collect(),
                    false => Vec::new(),
                },
                ..Default::default()
            },
        }))
    }

    fn workers(&self) -> u32 {
        self.workers
    }

    fn free_image_bytes(&self) -> u64 {
        1 << 30
    }
}

fn raster_error(fault: Fault, page: PageNumber) -> RasterError {
    match fault {
        Fault::Unavailable => RasterError::Unavailable {
            what: "PDFium".into(),
            remedy: "install it".into(),
        },
        _ => RasterError::PageUnreadable {
            page,
            reason: "it was told to".into(),
        },
    }
}

#[async_trait]
impl OpenDocument for FakeDocument {
    fn info(&self) -> &DocumentInfo {
        &self.info
    }

    async fn facts(&self, pages: Range<PageNumber>) -> Result<Vec<PageFacts>, RasterError> {
        assert!(pages.start >= 1 && pages.end <= self.info.pages + 1, "{pages:?}");
        assert!(pages.len() <= 64);
        let _inside = self.stages.facts.enter();
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

    async fn reserve(
        &self,
        page: PageNumber,
        drawing: Drawing,
    ) -> Result<Box<dyn ReservedDrawing>, RasterError> {
        let memory = Arc::clone(&self.stages.image_memory.lock());
        Ok(Box::new(FakeDrawing {
            memory: memory.acquire_owned().await.unwrap(),
            image: self.stages.images.enter(),
            stages: Arc::clone(&self.stages),
            page,
            drawing,
        }))
    }

    async fn text(&self, page: PageNumber) -> Result<Vec<Line>, RasterError> {
        match self.stages.read_text(page).await {
            Some(fault) => Err(raster_error(fault, page)),
            None => Ok(lines(page)),
        }
    }
}

/// A page that has its memory.
struct FakeDrawing {
    stages: Arc<Stages>,
    page: PageNumber,
    drawing: Drawing,
    image: Inside,
    memory: OwnedSemaphorePermit,
}

#[async_trait]
impl ReservedDrawing for FakeDrawing {
    async fn draw(self: Box<Self>) -> Result<DrawnPage, RasterError> {
        let Self { page, drawing, .. } = *self;
        if let Some(fault) = self.stages.work(Stage::Rasterize, &[page]).await {
            return Err(raster_error(fault, page));
        }
        Ok(DrawnPage {
            dpi: drawing.dpi,
            encoded: drawing.encoded.then(|| EncodedImage {
                media_type: "image/jpeg",
                bytes: self.stages.encode(page),
            }),
            image: drawing.pixels.then(|| PageImage {
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

/// A chapter that begins with the first line of a page.
fn chapter(page: PageNumber) -> OutlineEntry {
    OutlineEntry {
        title: format!("page {page} says this and nothing else"),
        level: 1,
        page: Some(page),
    }
}

/// Two lines, far enough apart to be two paragraphs.
fn lines(page: PageNumber) -> Vec<Line> {
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
    pub stages: Arc<Stages>,
    pub workers: u32,
}

#[async_trait]
impl Reader for FakeReader {
    async fn read(&self, _: &Account, image: PageImage, _dpi: u32) -> Result<Vec<Line>, InferenceError> {
        let page = u32::from_be_bytes(image.pixels.bytes().try_into().unwrap());
        match self.stages.work(Stage::Read, &[page]).await {
            Some(fault) => Err(inference_error(fault, "ocr")),
            None => Ok(lines(page)),
        }
    }

    fn workers(&self) -> u32 {
        self.workers
    }
}

fn inference_error(fault: Fault, model: &str) -> InferenceError {
    match fault {
        Fault::Unavailable => InferenceError::Unavailable {
            what: model.into(),
            remedy: "install it".into(),
        },
        _ => InferenceError::Failed {
            model: model.into(),
            reason: "it was told to".into(),
        },
    }
}

pub struct FakeEmbedder {
    pub stages: Arc<Stages>,
    pub workers: u32,
}

#[async_trait]
impl Embedder for FakeEmbedder {
    async fn embed(&self, account: &Account, texts: Vec<String>) -> Result<Vec<Vec<f32>>, InferenceError> {
        let page = texts[0].split(' ').nth(1).and_then(|n| n.parse().ok());
        let Some(page) = page else {
            assert_eq!(account.linger, Duration::ZERO, "a question waits for no company");
            return Ok(texts.iter().map(|_| vec![1.0, 0.0]).collect());
        };
        match self.stages.work(Stage::Embed, &[page]).await {
            Some(fault) => Err(inference_error(fault, "embedding")),
            None => Ok(texts.iter().map(|_| vec![0.0, 1.0]).collect()),
        }
    }

    fn count_tokens(&self, text: &str) -> Result<u32, InferenceError> {
        Ok(u32::try_from(text.split_whitespace().count()).unwrap())
    }

    fn dimensions(&self) -> usize {
        2
    }

    fn max_tokens(&self) -> u32 {
        256
    }

    fn workers(&self) -> u32 {
        self.workers
    }

    fn device(&self) -> Device {
        Device::default()
    }
}
