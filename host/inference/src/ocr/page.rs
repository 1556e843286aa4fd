//! A page: ink, boxes, lines.

use std::time::{Duration, Instant};

use weir_core::InferenceError;
use weir_core::page::{PageImage, Rect};
use weir_core::text::Line;

use super::boxes::TextBox;
use super::det::Detector;
use super::fit;
use super::picture::Picture;
use super::rec::{Reading, Recognizer};

/// Confidence below which a line is taken for something that is no text.
const LEAST_CONFIDENCE: f32 = 0.5;

/// Confidence of an upright line below which it is also read the other way round.
const SURE: f32 = 0.9;

/// Font size for each unit of box height. A box as the detector grows it reaches beyond ascenders and descenders.
const TYPE_SHARE: f32 = 0.75;

/// Where the time of a page went.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Times {
    pub(crate) detect: Duration,
    pub(crate) recognize: Duration,
}

/// Both models of one worker.
pub(crate) struct Page {
    pub(crate) detector: Detector,
    pub(crate) recognizer: Recognizer,
}

impl Page {
    /// Reads a page drawn at `dpi`. `go_on` is asked between steps.
    pub(crate) fn read(
        &mut self,
        image: &PageImage,
        dpi: u32,
        go_on: &dyn Fn() -> bool,
    ) -> Result<(Vec<Line>, Times), InferenceError> {
        let began = Instant::now();
        let picture = Picture::of(image)?;
        let mut boxes = self.detector.detect(&picture, dpi, go_on)?;
        for found in &mut boxes {
            if let Some(ink) = fit::ink_rows(&picture, found) {
                *found = fit::fitted(found, &ink);
            }
        }
        let detected = Instant::now();
        let mut readings = self.recognizer.recognize(&picture, &boxes, go_on)?;
        self.reread_upright(&picture, &boxes, &mut readings, go_on)?;
        let lines = boxes
            .iter()
            .zip(readings)
            .filter(|(_, r)| r.confidence >= LEAST_CONFIDENCE && !r.text.trim().is_empty())
            .map(|(found, reading)| line(&picture, found, reading, dpi))
            .collect();
        let times = Times {
            detect: detected - began,
            recognize: detected.elapsed(),
        };
        Ok((lines, times))
    }

    /// A line down the page may just as well run up: where the first reading is doubtful, the surer of both counts.
    fn reread_upright(
        &mut self,
        picture: &Picture<'_>,
        boxes: &[TextBox],
        readings: &mut [Reading],
        go_on: &dyn Fn() -> bool,
    ) -> Result<(), InferenceError> {
        let (reversed, doubtful): (Vec<TextBox>, Vec<&mut Reading>) = boxes
            .iter()
            .zip(readings)
            .filter(|(found, reading)| found.is_upright() && reading.confidence < SURE)
            .map(|(found, reading)| (found.reversed(), reading))
            .unzip();
        let again = self.recognizer.recognize(picture, &reversed, go_on)?;
        for (reading, other) in doubtful.into_iter().zip(again) {
            if other.confidence > reading.confidence {
                *reading = other;
            }
        }
        Ok(())
    }
}

fn line(picture: &Picture<'_>, found: &TextBox, reading: Reading, dpi: u32) -> Line {
    let (width, height) = (picture.width as f32, picture.height as f32);
    let corners = found.corners();
    let shares = |axis: fn(&[f32; 2]) -> f32, side: f32| {
        let all = corners.iter().map(move |c| (axis(c) / side).clamp(0.0, 1.0));
        let low = all.clone().fold(1.0, f32::min);
        (low, all.fold(0.0, f32::max) - low)
    };
    let (x, across) = shares(|c| c[0], width);
    let (y, down) = shares(|c| c[1], height);
    Line {
        text: reading.text.trim().to_owned(),
        rect: Rect {
            x,
            y,
            width: across,
            height: down,
        },
        size: found.height * TYPE_SHARE * 72.0 / dpi.max(1) as f32,
        confidence: reading.confidence.clamp(0.0, 1.0),
    }
}
