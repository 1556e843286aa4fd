//! Pages: what is known of them, their pixels, and the stages they pass.

use std::fmt;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::id::PageNumber;

/// The stages a page passes. Store and read run at the same time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Stage {
    /// PDF page to pixels and to the encoded page image.
    Rasterize,
    /// Page image to object storage.
    Store,
    /// Text with boxes, from the text layer or by OCR.
    Read,
    /// Passages to vectors.
    Embed,
    /// Vectors to the index; after it a page is searchable.
    Upsert,
}

impl Stage {
    /// Every stage, in the order of the pipeline.
    pub const ALL: [Self; 5] = [
        Self::Rasterize,
        Self::Store,
        Self::Read,
        Self::Embed,
        Self::Upsert,
    ];

    /// The name in events, metrics and settings.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Rasterize => "rasterize",
            Self::Store => "store",
            Self::Read => "read",
            Self::Embed => "embed",
            Self::Upsert => "upsert",
        }
    }
}

impl fmt::Display for Stage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// How urgent a job is.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Lane {
    /// Someone waits for it.
    #[default]
    Interactive,
    /// It may take its time.
    Bulk,
}

/// What is known of a page before it is rasterized.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct PageFacts {
    /// The page.
    pub number: PageNumber,
    /// Width in points (1/72 inch) after rotation.
    pub width: f32,
    /// Height in points after rotation.
    pub height: f32,
    /// Characters in the text layer.
    pub text_chars: u32,
    /// Share of the area under images, 0 to 1.
    pub image_coverage: f32,
    /// False if the page could not be opened; the other facts are then zero.
    pub readable: bool,
}

/// A part of a page, in shares of its width and height from the upper left corner, each 0 to 1. Shares hold at any
/// resolution, so one box fits the PDF page, its image and a thumbnail.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
pub struct Rect {
    /// Left edge.
    pub x: f32,
    /// Upper edge.
    pub y: f32,
    /// Width.
    pub width: f32,
    /// Height.
    pub height: f32,
}

impl Rect {
    /// The whole page.
    pub const PAGE: Self = Self {
        x: 0.0,
        y: 0.0,
        width: 1.0,
        height: 1.0,
    };

    /// Right edge.
    pub fn right(&self) -> f32 {
        self.x + self.width
    }

    /// Lower edge.
    pub fn bottom(&self) -> f32 {
        self.y + self.height
    }

    /// The smallest box around both.
    pub fn union(&self, other: &Self) -> Self {
        let (x, y) = (self.x.min(other.x), self.y.min(other.y));
        Self {
            x,
            y,
            width: self.right().max(other.right()) - x,
            height: self.bottom().max(other.bottom()) - y,
        }
    }
}

/// How a pixel is laid out in memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum PixelFormat {
    /// One byte a pixel.
    Gray,
    /// Three bytes: blue, green, red.
    Bgr,
}

impl PixelFormat {
    /// Bytes a pixel.
    pub const fn bytes(self) -> usize {
        match self {
            Self::Gray => 1,
            Self::Bgr => 3,
        }
    }
}

/// Memory that holds a page's pixels. Dropping the last reference gives the bytes back to the host's budget, which is why
/// an image is passed on and never copied.
pub trait Pixels: Send + Sync {
    /// At least `stride × height` bytes.
    fn bytes(&self) -> &[u8];
}

impl Pixels for Vec<u8> {
    fn bytes(&self) -> &[u8] {
        self
    }
}

/// A rasterized page.
#[derive(Clone)]
pub struct PageImage {
    /// Width in pixels.
    pub width: u32,
    /// Height in pixels.
    pub height: u32,
    /// Bytes from one row to the next.
    pub stride: usize,
    /// Layout of a pixel.
    pub format: PixelFormat,
    /// The rows, from the top.
    pub pixels: Arc<dyn Pixels>,
}

impl PageImage {
    /// The pixels of row `y`, without the padding behind them; `None` outside the image.
    pub fn row(&self, y: u32) -> Option<&[u8]> {
        let start = (y as usize).checked_mul(self.stride)?;
        let length = self.width as usize * self.format.bytes();
        (y < self.height)
            .then(|| self.pixels.bytes().get(start..start.checked_add(length)?))
            .flatten()
    }
}

impl fmt::Debug for PageImage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "PageImage({} × {} {:?})", self.width, self.height, self.format)
    }
}

/// An encoded page image.
#[derive(Clone)]
pub struct EncodedImage {
    /// `image/jpeg` or `image/webp`.
    pub media_type: &'static str,
    /// The file.
    pub bytes: Arc<[u8]>,
}

impl EncodedImage {
    /// The ending of its file name.
    pub fn extension(&self) -> &'static str {
        if self.media_type == "image/webp" {
            "webp"
        } else {
            "jpg"
        }
    }
}

impl fmt::Debug for EncodedImage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "EncodedImage({}, {} bytes)", self.media_type, self.bytes.len())
    }
}

/// An entry of a document's outline (its bookmarks).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct OutlineEntry {
    /// The title.
    pub title: String,
    /// 1 for the highest level.
    pub level: u8,
    /// The page it points to, if it points to one.
    pub page: Option<PageNumber>,
}

/// What is known of a document once it is open.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct DocumentInfo {
    /// Number of pages, at least 1.
    pub pages: u32,
    /// Title in the metadata.
    pub title: Option<String>,
    /// The outline, depth first.
    pub outline: Vec<OutlineEntry>,
}
