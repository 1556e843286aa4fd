//! Text detection: the detection model of PP-OCR, a fully convolutional network that computes for each pixel the probability
//! that it belongs to text.

use ort::value::TensorRef;
use weir_core::InferenceError;

use super::detection_bands;
use super::network_names_and_errors::{INPUT_NAME, MODEL_NAME, OUTPUT_NAME, page_canceled_error};
use super::ocr_image::{OcrImage, PixelRegion};
use super::resize::{self, InputCanvasLayout};
use super::text_boxes::{self, TextBox};
use crate::model_session::{ModelRunner, ModelRunnerFactory};
use crate::onnx_runtime;
use crate::scheduler::ModelRunStopper;

/// The sides of the model's input are multiples of this.
const INPUT_SIDE_MULTIPLE: usize = 32;

/// Blank margin around a band, in pixels of the model's input. The network detects text better if it does not touch the edge.
const BAND_MARGIN: usize = 32;

/// Resolution of the detector's input. It finds lines as well as at 150 dpi, in two thirds of the time: at both resolutions, 5 of
/// 32,328 characters on 16 drawn and scanned pages are wrong.
const DETECTION_DPI: f32 = 120.0;

/// Maximum side of the model's input in pixels; larger pages are scaled down further.
const MAX_INPUT_SIDE: f32 = 2048.0;

/// Minimum and maximum scale of the page.
const SCALE_RANGE: (f32, f32) = (0.05, 3.0);

/// The detection model.
pub(crate) struct Detector {
    runner: ModelRunner,
    input: Vec<f32>,
}

impl Detector {
    pub(crate) fn open_detection_model(
        model: &ModelRunnerFactory,
        stop: &ModelRunStopper,
    ) -> Result<Self, InferenceError> {
        Ok(Self {
            runner: model.open_runner(MODEL_NAME, stop)?,
            input: Vec::new(),
        })
    }

    /// Returns the boxes of text lines in pixels of the image, which was drawn at `dpi`. Calls `should_continue` between runs
    /// and stops if it returns false.
    pub(crate) fn detect_text_boxes(
        &mut self,
        image: &OcrImage,
        dpi: u32,
        should_continue: &dyn Fn() -> bool,
    ) -> Result<Vec<TextBox>, InferenceError> {
        let scale = (DETECTION_DPI / dpi.max(1) as f32)
            .min(MAX_INPUT_SIDE / image.width.max(image.height) as f32)
            .clamp(SCALE_RANGE.0, SCALE_RANGE.1);
        let scale = if (scale - 1.0).abs() < 0.02 { 1.0 } else { scale };
        let mask = image.foreground_mask();
        let mut boxes = Vec::new();
        for band in detection_bands::split_into_foreground_bands(&mask, image.height, scale) {
            if !should_continue() {
                return Err(page_canceled_error());
            }
            boxes.extend(self.detect_in_band(image, band, scale, mask.background)?);
        }
        Ok(detection_bands::remove_duplicate_boxes(boxes))
    }

    fn detect_in_band(
        &mut self,
        image: &OcrImage,
        band: PixelRegion,
        scale: f32,
        background_brightness: u8,
    ) -> Result<Vec<TextBox>, InferenceError> {
        let side = |pixels: usize| {
            let scaled = (pixels as f32 * scale).round() as usize;
            (scaled + 2 * BAND_MARGIN).next_multiple_of(INPUT_SIDE_MULTIPLE)
        };
        let (width, height) = (side(band.width), side(band.height));
        let canvas = InputCanvasLayout {
            width,
            height,
            margin: BAND_MARGIN,
            background: background_brightness,
        };
        resize::resize_into_planes(image, band, scale, &canvas, &mut self.input);
        let input = TensorRef::from_array_view(([1, 3, height, width], self.input.as_slice()))
            .map_err(|e| onnx_runtime::run_failed_error(MODEL_NAME, &e))?;
        let output = self.runner.run_model([(INPUT_NAME, input)], OUTPUT_NAME)?;
        let (_, map) = output.extract_f32_tensor()?;
        let (x, y) = (
            band.x as f32 - BAND_MARGIN as f32 / scale,
            band.y as f32 - BAND_MARGIN as f32 / scale,
        );
        let found = text_boxes::extract_text_boxes(map, width, height);
        Ok(found
            .iter()
            .map(|found| found.to_page_coordinates(x, y, scale))
            .collect())
    }
}
