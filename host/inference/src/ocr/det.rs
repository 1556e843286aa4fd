//! Where text is: the detection model of PP-OCR, a fully convolutional network that gives each pixel its probability of
//! belonging to text.

use std::path::Path;
use std::sync::Arc;

use ort::session::{NoSelectedOutputs, RunOptions, Session};
use ort::value::TensorRef;
use weir_core::InferenceError;

use super::bands;
use super::boxes::{self, TextBox};
use super::picture::{Picture, Region};
use super::resize::{self, Canvas};
use crate::runtime::{self, Runtime, SessionOptions};
use crate::scheduler::Stop;

/// Sides of the model's input are multiples of this.
const GRID: usize = 32;

/// Paper around a band, pixels of the model's input: the network sees text better that does not touch the edge.
const MARGIN: usize = 32;

/// Resolution the detector looks at. Lines are found as well as at 150 dpi, in half the time; see the table in the
/// crate's documentation.
const DPI: f32 = 150.0;

/// Longest side of the model's input, pixels; larger pages are looked at more coarsely.
const LONGEST_SIDE: f32 = 2048.0;

/// Smallest and largest magnification of the page.
const SCALES: (f32, f32) = (0.05, 3.0);

/// The detection model.
pub(crate) struct Detector {
    session: Session,
    options: Arc<RunOptions<NoSelectedOutputs>>,
    input: Vec<f32>,
}

impl Detector {
    pub(crate) fn open(runtime: &Runtime, model: &Path, stop: &Stop) -> Result<Self, InferenceError> {
        let session = runtime.session(model, SessionOptions::default())?;
        let options = stop.options().map_err(|e| runtime::failed(super::NAME, &e))?;
        Ok(Self {
            session,
            options,
            input: Vec::new(),
        })
    }

    /// Boxes of lines in pixels of the picture, which was drawn at `dpi`. `go_on` is asked between runs.
    pub(crate) fn detect(
        &mut self,
        picture: &Picture,
        dpi: u32,
        go_on: &dyn Fn() -> bool,
    ) -> Result<Vec<TextBox>, InferenceError> {
        let scale = (DPI / dpi.max(1) as f32)
            .min(LONGEST_SIDE / picture.width.max(picture.height) as f32)
            .clamp(SCALES.0, SCALES.1);
        let scale = if (scale - 1.0).abs() < 0.02 { 1.0 } else { scale };
        let ink = picture.ink();
        let mut boxes = Vec::new();
        for band in bands::of(&ink, picture.height, scale) {
            if !go_on() {
                return Err(super::abandoned());
            }
            boxes.extend(self.look(picture, band, scale, ink.paper)?);
        }
        Ok(bands::without_doubles(boxes))
    }

    fn look(
        &mut self,
        picture: &Picture,
        band: Region,
        scale: f32,
        paper: u8,
    ) -> Result<Vec<TextBox>, InferenceError> {
        let side = |pixels: usize| {
            let scaled = (pixels as f32 * scale).round() as usize;
            (scaled + 2 * MARGIN).next_multiple_of(GRID)
        };
        let (width, height) = (side(band.width), side(band.height));
        let canvas = Canvas {
            width,
            height,
            margin: MARGIN,
            paper,
        };
        resize::fill(picture, band, scale, &canvas, &mut self.input);
        let failed = |e: ort::Error| runtime::failed(super::NAME, &e);
        let input =
            TensorRef::from_array_view(([1, 3, height, width], self.input.as_slice())).map_err(failed)?;
        let outputs = self
            .session
            .run_with_options(ort::inputs![input], &self.options)
            .map_err(failed)?;
        let map = outputs.values().next().ok_or_else(|| InferenceError::Failed {
            model: super::NAME.into(),
            reason: "the detector gave no output".into(),
        })?;
        let (_, map) = map.try_extract_tensor::<f32>().map_err(failed)?;
        let (x, y) = (
            band.x as f32 - MARGIN as f32 / scale,
            band.y as f32 - MARGIN as f32 / scale,
        );
        let found = boxes::find(map, width, height);
        Ok(found.iter().map(|found| found.placed(x, y, scale)).collect())
    }
}
