//! A page: ink, boxes, lines. Its steps are taken by whichever worker is free, and the result is the same whoever was
//! quicker.

use std::time::{Duration, Instant};

use parking_lot::Mutex;
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

/// A page whose lines have been found.
pub(crate) struct Page {
    picture: Picture,
    dpi: u32,
    boxes: Vec<TextBox>,
    detect: Duration,
    progress: Mutex<Progress>,
}

/// What has been read.
struct Progress {
    /// By the place of their boxes.
    readings: Vec<Option<Reading>>,
    missing: usize,
    recognize: Duration,
}

impl Page {
    /// Finds the lines of a page drawn at `dpi`. `go_on` is asked between steps.
    pub(crate) fn find(
        detector: &mut Detector,
        image: &PageImage,
        dpi: u32,
        go_on: &dyn Fn() -> bool,
    ) -> Result<Self, InferenceError> {
        let began = Instant::now();
        let picture = Picture::of(image)?;
        let mut boxes = detector.detect(&picture, dpi, go_on)?;
        for found in &mut boxes {
            if let Some(ink) = fit::ink_rows(&picture, found) {
                *found = fit::fitted(found, &ink);
            }
        }
        Ok(Self {
            picture,
            dpi,
            detect: began.elapsed(),
            progress: Mutex::new(Progress {
                readings: vec![None; boxes.len()],
                missing: boxes.len(),
                recognize: Duration::ZERO,
            }),
            boxes,
        })
    }

    /// The boxes of the lines.
    pub(crate) fn boxes(&self) -> &[TextBox] {
        &self.boxes
    }

    /// Reads the lines at these places of [`Self::boxes`]. The page's lines if these were the last, in the order of their
    /// boxes.
    pub(crate) fn read(
        &self,
        recognizer: &mut Recognizer,
        places: &[usize],
        go_on: &dyn Fn() -> bool,
    ) -> Result<Option<Vec<Line>>, InferenceError> {
        let began = Instant::now();
        let boxes: Vec<TextBox> = places
            .iter()
            .filter_map(|n| self.boxes.get(*n))
            .copied()
            .collect();
        let mut readings = recognizer.recognize(&self.picture, &boxes, go_on)?;
        self.reread_upright(recognizer, &boxes, &mut readings, go_on)?;
        let mut progress = self.progress.lock();
        progress.recognize += began.elapsed();
        for (place, reading) in places.iter().zip(readings) {
            if let Some(slot @ None) = progress.readings.get_mut(*place) {
                *slot = Some(reading);
                progress.missing -= 1;
            }
        }
        if progress.missing > 0 {
            return Ok(None);
        }
        tracing::debug!(
            lines = self.boxes.len(),
            detect_millis = self.detect.as_millis(),
            recognize_millis = progress.recognize.as_millis(),
            "page read"
        );
        let readings = std::mem::take(&mut progress.readings);
        Ok(Some(self.lines(readings)))
    }

    /// A line down the page may just as well run up: where the first reading is doubtful, the surer of both counts.
    fn reread_upright(
        &self,
        recognizer: &mut Recognizer,
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
        let again = recognizer.recognize(&self.picture, &reversed, go_on)?;
        for (reading, other) in doubtful.into_iter().zip(again) {
            if other.confidence > reading.confidence {
                *reading = other;
            }
        }
        Ok(())
    }

    fn lines(&self, readings: Vec<Option<Reading>>) -> Vec<Line> {
        self.boxes
            .iter()
            .zip(readings.into_iter().flatten())
            .filter(|(_, r)| r.confidence >= LEAST_CONFIDENCE && !r.text.trim().is_empty())
            .map(|(found, reading)| line(&self.picture, found, reading, self.dpi))
            .collect()
    }
}

fn line(picture: &Picture, found: &TextBox, reading: Reading, dpi: u32) -> Line {
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
