//! The capabilities of a job's components: page previews and texts of the job's open documents, and the models.
//!
//! Error kinds are those of `wit/capabilities.wit`: unavailable, exhausted, invalid, failed.

use std::collections::HashMap;
use std::sync::{Arc, Weak};
use std::time::Duration;

use async_trait::async_trait;
use parking_lot::Mutex;
use weir_core::component_log::ComponentLogRecord;
use weir_core::event::ErrorInfo;
use weir_core::llm::{LanguageModel, LlmError, LlmRequest, LlmRequestKind, ProviderError};
use weir_core::page::PixelFormat;
use weir_core::page_text::{Line, PageText, TextSource};
use weir_core::ports::{
    Embedder, HostCapabilities, OcrEngine, OpenedPdf, RasterizeOptions, SchedulingContext,
};
use weir_core::{
    DocumentId, InferenceError, PageNumber, PolicyError, RasterError, RawPageImage, Rect, layout,
};

use crate::engine_state::PortImplementations;
use crate::error::build_error_info;
use crate::event_log::EventLog;
use crate::model_request_tracker::ModelRequestTracker;

/// The resolution at which a region is recognized, in dots per inch.
const REGION_DPI: u32 = 150;
/// The lowest resolution of the rasterizer, in dots per inch. Previews are downscaled from it.
const PREVIEW_DPI: u32 = 36;
/// The timeout of a component's own model request. The component and the page that it decides on wait for the response.
const GENERATE_TIMEOUT: Duration = Duration::from_secs(120);

/// The capabilities of one job.
pub(crate) struct ComponentCapabilitiesOfJob {
    documents: Mutex<HashMap<DocumentId, Weak<dyn OpenedPdf>>>,
    embedder: Arc<dyn Embedder>,
    ocr_engine: Option<Arc<dyn OcrEngine>>,
    language_model: Option<Arc<dyn LanguageModel>>,
    account: SchedulingContext,
    log: Arc<EventLog>,
    model_requests: Arc<ModelRequestTracker>,
}

/// Keeps a document visible to components until this guard is dropped.
pub(crate) struct VisibleDocumentGuard<'a> {
    capabilities: &'a ComponentCapabilitiesOfJob,
    id: DocumentId,
}

impl ComponentCapabilitiesOfJob {
    /// Creates the capabilities, with no document visible yet.
    pub(crate) fn new(
        ports: &PortImplementations,
        account: SchedulingContext,
        log: Arc<EventLog>,
        model_requests: Arc<ModelRequestTracker>,
    ) -> Arc<Self> {
        Arc::new(Self {
            documents: Mutex::default(),
            embedder: Arc::clone(&ports.embedder),
            ocr_engine: ports.ocr_engine.clone(),
            language_model: ports.language_model.clone(),
            account,
            log,
            model_requests,
        })
    }

    /// Makes an open document visible to components.
    pub(crate) fn expose_document_to_components(
        &self,
        id: DocumentId,
        open: &Arc<dyn OpenedPdf>,
    ) -> VisibleDocumentGuard<'_> {
        self.documents.lock().insert(id, Arc::downgrade(open));
        VisibleDocumentGuard {
            capabilities: self,
            id,
        }
    }

    fn find_document_with_page(
        &self,
        id: &DocumentId,
        page: PageNumber,
    ) -> Result<Arc<dyn OpenedPdf>, ErrorInfo> {
        let open = self.documents.lock().get(id).and_then(Weak::upgrade);
        let open = open.ok_or_else(|| {
            build_error_info("unavailable", format!("document {id} is not open in this job"))
        })?;
        if (1..=open.document_info().pages).contains(&page) {
            Ok(open)
        } else {
            Err(build_error_info(
                "unavailable",
                format!("document {id} has no page {page}"),
            ))
        }
    }
}

impl Drop for VisibleDocumentGuard<'_> {
    fn drop(&mut self) {
        self.capabilities.documents.lock().remove(&self.id);
    }
}

#[async_trait]
impl HostCapabilities for ComponentCapabilitiesOfJob {
    async fn render_preview(
        &self,
        document: &DocumentId,
        page: PageNumber,
        longest_side: u32,
    ) -> Result<(u32, u32, Vec<u8>), ErrorInfo> {
        if !(8..=128).contains(&longest_side) {
            return Err(build_error_info(
                "invalid",
                format!("the longest side of a preview must be 8 to 128 pixels, not {longest_side}"),
            ));
        }
        let image =
            rasterize_page(&*self.find_document_with_page(document, page)?, page, PREVIEW_DPI).await?;
        downscale_to_gray(&image, longest_side)
            .ok_or_else(|| build_error_info("failed", format!("page {page} was rasterized without pixels")))
    }

    async fn read_page_text_layer(
        &self,
        document: &DocumentId,
        page: PageNumber,
    ) -> Result<String, ErrorInfo> {
        let lines = self
            .find_document_with_page(document, page)?
            .read_text_layer(page)
            .await
            .map_err(raster_error_info)?;
        Ok(join_lines_to_text(TextSource::TextLayer, lines))
    }

    async fn count_embedding_tokens(&self, text: &str) -> Result<u32, ErrorInfo> {
        self.embedder.count_tokens(text).map_err(inference_error_info)
    }

    async fn embed_texts(&self, texts: Vec<String>) -> Result<Vec<Vec<f32>>, ErrorInfo> {
        self.embedder
            .embed_texts(&self.account, texts)
            .await
            .map_err(inference_error_info)
    }

    async fn recognize_region(
        &self,
        document: &DocumentId,
        page: PageNumber,
        region: Rect,
    ) -> Result<String, ErrorInfo> {
        let reader = self
            .ocr_engine
            .as_ref()
            .ok_or_else(|| build_error_info("unavailable", "no text recognition model is installed"))?;
        let image = rasterize_page(&*self.find_document_with_page(document, page)?, page, REGION_DPI).await?;
        let part = crop_image(&image, &region)
            .ok_or_else(|| build_error_info("invalid", "the region is empty or outside the page"))?;
        let lines = reader
            .recognize_text(&self.account, part, REGION_DPI)
            .await
            .map_err(inference_error_info)?;
        Ok(join_lines_to_text(TextSource::Ocr, lines))
    }

    async fn generate_text(&self, prompt: &str, max_tokens: u32) -> Result<String, ErrorInfo> {
        let model = self
            .language_model
            .as_ref()
            .ok_or_else(|| build_error_info("unavailable", "no language model is installed"))?;
        let request = LlmRequest {
            scheduling: self.account.clone(),
            kind: LlmRequestKind::Component,
            system_prompt: None,
            prompt: prompt.to_owned(),
            text: String::new(),
            image: None,
            max_response_tokens: max_tokens,
            timeout: GENERATE_TIMEOUT,
            document: None,
        };
        let response = self.model_requests.send_tracked_request(&**model, request).await;
        let response = response.map_err(language_error_info)?;
        Ok(response.text)
    }

    fn report_policy_fallback(&self, error: &PolicyError) {
        self.log.queue_policy_fallback_event(error);
    }

    fn append_component_log(&self, record: ComponentLogRecord) {
        self.log.buffer_component_log_entry(record);
    }
}

async fn rasterize_page(open: &dyn OpenedPdf, page: PageNumber, dpi: u32) -> Result<RawPageImage, ErrorInfo> {
    let drawing = RasterizeOptions {
        dpi,
        want_pixels: true,
        want_encoded: false,
    };
    let drawn = open
        .reserve_and_rasterize_page(page, drawing)
        .await
        .map_err(raster_error_info)?;
    drawn
        .image
        .ok_or_else(|| build_error_info("failed", format!("page {page} was rasterized without pixels")))
}

fn join_lines_to_text(source: TextSource, lines: Vec<Line>) -> String {
    let lines = layout::sort_into_reading_order(lines);
    PageText { source, lines }.to_plain_text().text
}

fn raster_error_info(error: RasterError) -> ErrorInfo {
    let kind = match error {
        RasterError::Unavailable { .. } => "unavailable",
        _ => "failed",
    };
    build_error_info(kind, error)
}

fn inference_error_info(error: InferenceError) -> ErrorInfo {
    let kind = match error {
        InferenceError::Unavailable { .. } => "unavailable",
        InferenceError::QueueFull { .. } => "exhausted",
        InferenceError::InvalidInput { .. } => "invalid",
        InferenceError::Failed { .. } => "failed",
    };
    build_error_info(kind, error)
}

fn language_error_info(error: LlmError) -> ErrorInfo {
    let kind = match error {
        LlmError::Unavailable { .. } => "unavailable",
        LlmError::QueueFull { .. } | LlmError::QuotaExhausted(_) => "exhausted",
        LlmError::ProviderFailed {
            fault: ProviderError::RequestRejected { .. },
            ..
        } => "invalid",
        LlmError::ProviderFailed { .. } | LlmError::AllProvidersFailed(_) | LlmError::TimedOut { .. } => {
            "failed"
        }
    };
    build_error_info(kind, error)
}

/// Copies a region out of an image; `None` if the region is empty.
fn crop_image(image: &RawPageImage, region: &Rect) -> Option<RawPageImage> {
    let at = |share: f32, length: u32| (share.clamp(0.0, 1.0) * length as f32).round() as u32;
    let (left, right) = (at(region.x, image.width), at(region.right(), image.width));
    let (top, bottom) = (at(region.y, image.height), at(region.bottom(), image.height));
    if left >= right || top >= bottom {
        return None;
    }
    let pixel = image.format.bytes_per_pixel();
    let columns = left as usize * pixel..right as usize * pixel;
    let mut pixels = Vec::with_capacity(columns.len() * (bottom - top) as usize);
    for y in top..bottom {
        pixels.extend_from_slice(image.row_pixels(y)?.get(columns.clone())?);
    }
    Some(RawPageImage {
        width: right - left,
        height: bottom - top,
        stride: columns.len(),
        format: image.format,
        pixels: Arc::new(pixels),
    })
}

/// Downscales an image to gray with a longest side of at most `longest_side`. Each pixel is the mean of its source pixels.
fn downscale_to_gray(image: &RawPageImage, longest_side: u32) -> Option<(u32, u32, Vec<u8>)> {
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
                    .row_pixels(row)?
                    .chunks_exact(image.format.bytes_per_pixel())
                    .skip(columns.start)
                    .take(columns.len())
                {
                    sum += u64::from(pixel_luma(image.format, pixel));
                    count += 1;
                }
            }
            gray.push(u8::try_from(sum / count.max(1)).unwrap_or(u8::MAX));
        }
    }
    Some((width, height, gray))
}

/// Returns the brightness of a pixel, weighted as in ITU-R BT.601.
fn pixel_luma(format: PixelFormat, pixel: &[u8]) -> u8 {
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

    fn bgr_image(width: u32, height: u32, pixels: Vec<u8>) -> RawPageImage {
        RawPageImage {
            width,
            height,
            stride: width as usize * 3,
            format: PixelFormat::Bgr,
            pixels: Arc::new(pixels),
        }
    }

    #[test]
    fn preview_pixel_is_the_mean_of_its_source_pixels() {
        let black_and_white = [[0_u8; 3], [255; 3]].concat().repeat(8);
        let (width, height, gray) = downscale_to_gray(&bgr_image(4, 4, black_and_white), 2).unwrap();
        assert_eq!((width, height), (2, 2));
        assert_eq!(gray, [127; 4]);
        let (width, height, _) = downscale_to_gray(&bgr_image(2, 1, vec![9; 6]), 128).unwrap();
        assert_eq!((width, height), (2, 1));
    }

    #[test]
    fn region_is_cropped_and_empty_region_rejected() {
        let pixels: Vec<u8> = (0..12).flat_map(|i| [i; 3]).collect();
        let right_half = Rect {
            x: 0.5,
            y: 0.0,
            width: 0.5,
            height: 0.5,
        };
        let part = crop_image(&bgr_image(4, 3, pixels.clone()), &right_half).unwrap();
        assert_eq!((part.width, part.height), (2, 2));
        assert_eq!(part.row_pixels(1).unwrap(), [6, 6, 6, 7, 7, 7]);
        assert!(crop_image(&bgr_image(4, 3, pixels), &Rect::default()).is_none());
    }
}
