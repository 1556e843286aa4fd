//! What a job's components may ask of the host while they decide: closer looks at the job's open documents, and the models.
//!
//! The words of a refusal's kind are those of `wit/capabilities.wit`: unavailable, exhausted, invalid, failed.

use std::collections::HashMap;
use std::sync::{Arc, Weak};
use std::time::Duration;

use async_trait::async_trait;
use parking_lot::Mutex;
use weir_core::event::ErrorNote;
use weir_core::language::{Fault, LanguageError, LanguageModel, Question, QuestionKind};
use weir_core::page::PixelFormat;
use weir_core::ports::{Account, Capabilities, Drawing, Embedder, OpenDocument, Reader};
use weir_core::said::Remark;
use weir_core::text::{Line, PageText, TextSource};
use weir_core::{DocumentId, InferenceError, PageImage, PageNumber, PolicyError, RasterError, Rect, layout};

use crate::Ports;
use crate::events::EventLog;
use crate::failure::note;
use crate::model_requests::ModelRequests;

/// Resolution of a region that is to be recognized.
const REGION_DPI: u32 = 150;
/// The coarsest a page can be drawn, in dots per inch; previews are averaged down from it.
const PREVIEW_DPI: u32 = 36;
/// How long a component's own question may take: the component, and the page it decides on, wait for it.
const GENERATE_PATIENCE: Duration = Duration::from_secs(120);

/// The capabilities of one job.
pub(crate) struct JobCapabilities {
    documents: Mutex<HashMap<DocumentId, Weak<dyn OpenDocument>>>,
    embedder: Arc<dyn Embedder>,
    reader: Option<Arc<dyn Reader>>,
    language: Option<Arc<dyn LanguageModel>>,
    account: Account,
    log: Arc<EventLog>,
    model_requests: Arc<ModelRequests>,
}

/// A document that components can see, until this is dropped.
pub(crate) struct Shown<'a> {
    capabilities: &'a JobCapabilities,
    id: DocumentId,
}

impl JobCapabilities {
    /// No document is open yet.
    pub(crate) fn new(
        ports: &Ports,
        account: Account,
        log: Arc<EventLog>,
        model_requests: Arc<ModelRequests>,
    ) -> Arc<Self> {
        Arc::new(Self {
            documents: Mutex::default(),
            embedder: Arc::clone(&ports.embedder),
            reader: ports.reader.clone(),
            language: ports.language_model.clone(),
            account,
            log,
            model_requests,
        })
    }

    /// Lets components see an open document.
    pub(crate) fn show(&self, id: DocumentId, open: &Arc<dyn OpenDocument>) -> Shown<'_> {
        self.documents.lock().insert(id, Arc::downgrade(open));
        Shown {
            capabilities: self,
            id,
        }
    }

    fn open(&self, id: &DocumentId, page: PageNumber) -> Result<Arc<dyn OpenDocument>, ErrorNote> {
        let open = self.documents.lock().get(id).and_then(Weak::upgrade);
        let open =
            open.ok_or_else(|| note("unavailable", format!("document {id} is not open in this job")))?;
        if (1..=open.info().pages).contains(&page) {
            Ok(open)
        } else {
            Err(note("unavailable", format!("document {id} has no page {page}")))
        }
    }
}

impl Drop for Shown<'_> {
    fn drop(&mut self) {
        self.capabilities.documents.lock().remove(&self.id);
    }
}

#[async_trait]
impl Capabilities for JobCapabilities {
    async fn preview(
        &self,
        document: &DocumentId,
        page: PageNumber,
        longest_side: u32,
    ) -> Result<(u32, u32, Vec<u8>), ErrorNote> {
        if !(8..=128).contains(&longest_side) {
            return Err(note(
                "invalid",
                format!("a preview is 8 to 128 pixels long, not {longest_side}"),
            ));
        }
        let image = draw(&*self.open(document, page)?, page, PREVIEW_DPI).await?;
        shrink(&image, longest_side)
            .ok_or_else(|| note("failed", format!("page {page} was drawn without pixels")))
    }

    async fn page_text(&self, document: &DocumentId, page: PageNumber) -> Result<String, ErrorNote> {
        let lines = self.open(document, page)?.text(page).await.map_err(raster)?;
        Ok(plain(TextSource::TextLayer, lines))
    }

    async fn count_tokens(&self, text: &str) -> Result<u32, ErrorNote> {
        self.embedder.count_tokens(text).map_err(inference)
    }

    async fn embed(&self, texts: Vec<String>) -> Result<Vec<Vec<f32>>, ErrorNote> {
        self.embedder.embed(&self.account, texts).await.map_err(inference)
    }

    async fn recognize(
        &self,
        document: &DocumentId,
        page: PageNumber,
        region: Rect,
    ) -> Result<String, ErrorNote> {
        let reader = self
            .reader
            .as_ref()
            .ok_or_else(|| note("unavailable", "no text recognition model is installed"))?;
        let image = draw(&*self.open(document, page)?, page, REGION_DPI).await?;
        let part = crop(&image, &region)
            .ok_or_else(|| note("invalid", "the region is empty or outside the page"))?;
        let lines = reader
            .read(&self.account, part, REGION_DPI)
            .await
            .map_err(inference)?;
        Ok(plain(TextSource::Ocr, lines))
    }

    async fn generate(&self, prompt: &str, max_tokens: u32) -> Result<String, ErrorNote> {
        let model = self
            .language
            .as_ref()
            .ok_or_else(|| note("unavailable", "no language model is installed"))?;
        let question = Question {
            account: self.account.clone(),
            kind: QuestionKind::Component,
            system: None,
            prompt: prompt.to_owned(),
            text: String::new(),
            image: None,
            max_tokens,
            patience: GENERATE_PATIENCE,
            document: None,
        };
        let answer = self.model_requests.ask(&**model, question).await;
        let answer = answer.map_err(language)?;
        Ok(answer.text)
    }

    fn policy_failed(&self, error: &PolicyError) {
        self.log.policy_failed(error);
    }

    fn said(&self, remark: Remark) {
        self.log.said(remark);
    }
}

async fn draw(open: &dyn OpenDocument, page: PageNumber, dpi: u32) -> Result<PageImage, ErrorNote> {
    let drawing = Drawing {
        dpi,
        pixels: true,
        encoded: false,
    };
    let drawn = open.draw(page, drawing).await.map_err(raster)?;
    drawn
        .image
        .ok_or_else(|| note("failed", format!("page {page} was drawn without pixels")))
}

fn plain(source: TextSource, lines: Vec<Line>) -> String {
    let lines = layout::reading_order(lines);
    PageText { source, lines }.plain().text
}

fn raster(error: RasterError) -> ErrorNote {
    let kind = match error {
        RasterError::Unavailable { .. } => "unavailable",
        _ => "failed",
    };
    note(kind, error)
}

fn inference(error: InferenceError) -> ErrorNote {
    let kind = match error {
        InferenceError::Unavailable { .. } => "unavailable",
        InferenceError::Full { .. } => "exhausted",
        InferenceError::Input { .. } => "invalid",
        InferenceError::Failed { .. } => "failed",
    };
    note(kind, error)
}

fn language(error: LanguageError) -> ErrorNote {
    let kind = match error {
        LanguageError::Unavailable { .. } => "unavailable",
        LanguageError::Full { .. } | LanguageError::Quota(_) => "exhausted",
        LanguageError::Provider {
            fault: Fault::Refused { .. },
            ..
        } => "invalid",
        LanguageError::Provider { .. } | LanguageError::AllDown(_) | LanguageError::Deadline { .. } => {
            "failed"
        }
    };
    note(kind, error)
}

/// A part of an image, copied out; `None` if nothing is in it.
fn crop(image: &PageImage, region: &Rect) -> Option<PageImage> {
    let at = |share: f32, length: u32| (share.clamp(0.0, 1.0) * length as f32).round() as u32;
    let (left, right) = (at(region.x, image.width), at(region.right(), image.width));
    let (top, bottom) = (at(region.y, image.height), at(region.bottom(), image.height));
    if left >= right || top >= bottom {
        return None;
    }
    let pixel = image.format.bytes();
    let columns = left as usize * pixel..right as usize * pixel;
    let mut pixels = Vec::with_capacity(columns.len() * (bottom - top) as usize);
    for y in top..bottom {
        pixels.extend_from_slice(image.row(y)?.get(columns.clone())?);
    }
    Some(PageImage {
        width: right - left,
        height: bottom - top,
        stride: columns.len(),
        format: image.format,
        pixels: Arc::new(pixels),
    })
}

/// The image in gray, its longest side at most `longest_side`: each pixel the mean of those it stands for.
fn shrink(image: &PageImage, longest_side: u32) -> Option<(u32, u32, Vec<u8>)> {
    let longest = image.width.max(image.height);
    if longest == 0 {
        return None;
    }
    let scale = |side: u32| {
        let short = u64::from(side) * u64::from(longest_side.min(longest)) / u64::from(longest);
        u32::try_from(short).unwrap_or(u32::MAX).max(1)
    };
    let (width, height) = (scale(image.width), scale(image.height));
    let from =
        |i: u32, of: u32, side: u32| u32::try_from(u64::from(i) * u64::from(side) / u64::from(of)).ok();
    let mut gray = Vec::with_capacity(width as usize * height as usize);
    for y in 0..height {
        let rows = from(y, height, image.height)?..from(y + 1, height, image.height)?;
        for x in 0..width {
            let columns = from(x, width, image.width)? as usize..from(x + 1, width, image.width)? as usize;
            let (mut sum, mut count) = (0_u64, 0_u64);
            for row in rows.clone() {
                for pixel in image
                    .row(row)?
                    .chunks_exact(image.format.bytes())
                    .skip(columns.start)
                    .take(columns.len())
                {
                    sum += u64::from(luma(image.format, pixel));
                    count += 1;
                }
            }
            gray.push(u8::try_from(sum / count.max(1)).unwrap_or(u8::MAX));
        }
    }
    Some((width, height, gray))
}

/// Brightness of a pixel, weighted as in ITU-R BT.601.
fn luma(format: PixelFormat, pixel: &[u8]) -> u8 {
    match (format, pixel) {
        (PixelFormat::Bgr, [b, g, r]) => {
            let sum = 299 * u32::from(*r) + 587 * u32::from(*g) + 114 * u32::from(*b);
            u8::try_from(sum / 1000).unwrap_or(u8::MAX)
        }
        (_, [gray, ..]) => *gray,
        (_, []) => 0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn image(width: u32, height: u32, pixels: Vec<u8>) -> PageImage {
        PageImage {
            width,
            height,
            stride: width as usize * 3,
            format: PixelFormat::Bgr,
            pixels: Arc::new(pixels),
        }
    }

    #[test]
    fn a_preview_is_the_mean_of_what_it_stands_for() {
        let black_and_white = [[0_u8; 3], [255; 3]].concat().repeat(8);
        let (width, height, gray) = shrink(&image(4, 4, black_and_white), 2).unwrap();
        assert_eq!((width, height), (2, 2));
        assert_eq!(gray, [127; 4]);
        let (width, height, _) = shrink(&image(2, 1, vec![9; 6]), 128).unwrap();
        assert_eq!((width, height), (2, 1));
    }

    #[test]
    fn a_region_is_cut_out_and_an_empty_one_refused() {
        let pixels: Vec<u8> = (0..12).flat_map(|i| [i; 3]).collect();
        let right_half = Rect {
            x: 0.5,
            y: 0.0,
            width: 0.5,
            height: 0.5,
        };
        let part = crop(&image(4, 3, pixels.clone()), &right_half).unwrap();
        assert_eq!((part.width, part.height), (2, 2));
        assert_eq!(part.row(1).unwrap(), [6, 6, 6, 7, 7, 7]);
        assert!(crop(&image(4, 3, pixels), &Rect::default()).is_none());
    }
}
