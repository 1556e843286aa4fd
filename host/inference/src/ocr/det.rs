//! Where text is: the detection model of PP-OCR, a fully convolutional network that gives each pixel its probability of
//! belonging to text.

use ort::value::TensorRef;
use weir_core::InferenceError;

use super::bands;
use super::boxes::{self, TextBox};
use super::picture::{Picture, Region};
use super::resize::{self, Canvas};
use crate::runtime;
use crate::scheduler::Stop;
use crate::session::{ModelFile, Runner};

/// Sides of the model's input are multiples of this.
const GRID: usize = 32;

/// Paper around a band, pixels of the model's input: the network sees text better that does not touch the edge.
const MARGIN: usize = 32;

/// Resolution the detector looks at. Lines are found as well as at 150 dpi and in two thirds of the time: with either,
/// 5 of 32,328 characters of 16 drawn and scanned pages are read wrong.
const DPI: f32 = 120.0;

/// Longest side of the model's input, pixels; larger pages are looked at more coarsely.
const LONGEST_SIDE: f32 = 2048.0;

/// Smallest and largest magnification of the page.
const SCALES: (f32, f32) = (0.05, 3.0);

/// The detection model.
pub(crate) struct Detector {
    model: Runner,
    input: Vec<f32>,
}

impl Detector {
    pub(crate) fn open(model: &ModelFile, stop: &Stop) -> Result<Self, InferenceError> {
        Ok(Self {
            model: model.open(super::NAME, stop)?,
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
        let input = TensorRef::from_array_view(([1, 3, height, width], self.input.as_slice()))
            .map_err(|e| runtime::failed(super::NAME, &e))?;
        let output = self.model.run([(super::INPUT, input)], super::OUTPUT)?;
        let (_, map) = output.numbers()?;
        let (x, y) = (
            band.x as f32 - MARGIN as f32 / scale,
            band.y as f32 - MARGIN as f32 / scale,
        );
        let found = boxes::find(map, width, height);
        Ok(found.iter().map(|found| found.placed(x, y, scale)).collect())
    }
}
