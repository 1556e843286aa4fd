//! Pages: their facts, images and pipeline stages.

use std::fmt;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::id::PageNumber;

/// A stage of the pipeline. Store and read run at the same time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Stage {
    /// Rasterizes the PDF page and encodes the page image.
    Rasterize,
    /// Writes the page image to the blob store.
    Store,
    /// Reads text with bounding boxes, from the text layer, by OCR or by a vision model.
    Read,
    /// Computes vectors of the passages.
    Embed,
    /// Writes the vectors to the index. After this stage the page is searchable.
    Upsert,
}

impl Stage {
    /// All stages in pipeline order.
    pub const ALL: [Self; 5] = [
        Self::Rasterize,
        Self::Store,
        Self::Read,
        Self::Embed,
        Self::Upsert,
    ];

    /// Returns the name in events, metrics and settings.
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

/// Urgency of a job.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum PriorityLane {
    /// A person waits for the result.
    #[default]
    Interactive,
    /// The result is not urgent.
    Bulk,
}

/// Facts of a page that are known before it is rasterized.
///
/// As JSON they have the names and the defaults that [`crate::decision`] describes.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct PageFacts {
    /// Page number.
    pub number: PageNumber,
    /// Width in points (1/72 inch) after rotation.
    #[serde(default = "default_page_width")]
    pub width: f32,
    /// Height in points after rotation.
    #[serde(default = "default_page_height")]
    pub height: f32,
    /// Number of characters in the text layer.
    #[serde(default)]
    pub text_chars: u32,
    /// Fraction of the page area that images cover, 0 to 1.
    #[serde(default)]
    pub image_coverage: f32,
    /// Whether the page can be opened. If not, the other facts are zero.
    #[serde(default = "default_readable")]
    pub readable: bool,
}

/// Width of A4 in points.
const fn default_page_width() -> f32 {
    595.0
}

/// Height of A4 in points.
const fn default_page_height() -> f32 {
    842.0
}

const fn default_readable() -> bool {
    true
}

/// A rectangle on a page, as fractions of its width and height from the upper left corner, each 0 to 1. Fractions do
/// not depend on the resolution. So one rectangle fits the PDF page, its image and a thumbnail.
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
    pub const WHOLE_PAGE: Self = Self {
        x: 0.0,
        y: 0.0,
        width: 1.0,
        height: 1.0,
    };

    /// Returns the right edge.
    pub fn right(&self) -> f32 {
        self.x + self.width
    }

    /// Returns the lower edge.
    pub fn bottom(&self) -> f32 {
        self.y + self.height
    }

    /// Returns the smallest rectangle that contains both.
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

/// Memory layout of a pixel.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum PixelFormat {
    /// One byte.
    Gray,
    /// Three bytes: blue, green, red.
    Bgr,
}

impl PixelFormat {
    /// Returns the number of bytes of a pixel.
    pub const fn bytes_per_pixel(self) -> usize {
        match self {
            Self::Gray => 1,
            Self::Bgr => 3,
        }
    }
}

/// Memory with the pixels of a page. Dropping the last reference returns the bytes to the host's memory budget. So
/// images are moved or shared and never copied.
pub trait PixelMemory: Send + Sync {
    /// Returns at least `stride × height` bytes.
    fn as_bytes(&self) -> &[u8];
}

impl PixelMemory for Vec<u8> {
    fn as_bytes(&self) -> &[u8] {
        self
    }
}

/// A rasterized page.
#[derive(Clone)]
pub struct RawPageImage {
    /// Width in pixels.
    pub width: u32,
    /// Height in pixels.
    pub height: u32,
    /// Bytes from one row to the next.
    pub stride: usize,
    /// Layout of a pixel.
    pub format: PixelFormat,
    /// The rows, from the top.
    pub pixels: Arc<dyn PixelMemory>,
}

impl RawPageImage {
    /// Returns the pixels of row `y` without padding; `None` outside the image.
    pub fn row_pixels(&self, y: u32) -> Option<&[u8]> {
        let start = (y as usize).checked_mul(self.stride)?;
        let length = self.width as usize * self.format.bytes_per_pixel();
        (y < self.height)
            .then(|| self.pixels.as_bytes().get(start..start.checked_add(length)?))
            .flatten()
    }
}

impl fmt::Debug for RawPageImage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "RawPageImage({} × {} {:?})",
            self.width, self.height, self.format
        )
    }
}

/// An encoded page image.
#[derive(Clone)]
pub struct EncodedImage {
    /// `image/jpeg` or `image/webp`.
    pub media_type: &'static str,
    /// Contents of the file.
    pub bytes: Arc<[u8]>,
}

impl EncodedImage {
    /// Returns the file extension.
    pub fn file_extension(&self) -> &'static str {
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
    /// Title of the entry.
    pub title: String,
    /// 1 for the highest level.
    pub level: u8,
    /// The page that it points to, if there is one.
    pub page: Option<PageNumber>,
}

/// Facts of an open document.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct DocumentInfo {
    /// Number of pages, at least 1.
    pub pages: u32,
    /// Title from the PDF metadata.
    pub title: Option<String>,
    /// The outline, depth first.
    pub outline: Vec<OutlineEntry>,
}
