//! The OCR of one page: its image, the boxes of its lines and their text. Any free worker takes the next step; the result does
//! not depend on their order.

use std::time::{Duration, Instant};

use parking_lot::Mutex;
use weir_core::InferenceError;
use weir_core::page::{RawPageImage, Rect};
use weir_core::page_text::Line;

use super::box_shrinking;
use super::detection::Detector;
use super::ocr_image::OcrImage;
use super::recognition::{RecognizedText, Recognizer};
use super::text_boxes::TextBox;

/// A line with a lower confidence is dropped as not text.
const MIN_LINE_CONFIDENCE: f32 = 0.5;

/// A vertical line with a lower confidence is also read in the opposite direction.
const REVERSE_CHECK_CONFIDENCE: f32 = 0.9;

/// Font size per box height. The detector's boxes extend beyond ascenders and descenders.
const FONT_SIZE_PER_BOX_HEIGHT: f32 = 0.75;

/// A page whose lines are detected.
pub(crate) struct PageWithDetectedLines {
    image: OcrImage,
    dpi: u32,
    boxes: Vec<TextBox>,
    detection_time: Duration,
    progress: Mutex<RecognitionProgress>,
}

/// The lines recognized so far.
struct RecognitionProgress {
    /// In the order of the boxes.
    recognized_lines: Vec<Option<RecognizedText>>,
    unread_lines: usize,
    recognition_time: Duration,
}

impl PageWithDetectedLines {
    /// Detects the lines of a page that was drawn at `dpi`. Calls `should_continue` between steps and stops if it returns false.
    pub(crate) fn detect_lines(
        detector: &mut Detector,
        image: &RawPageImage,
        dpi: u32,
        should_continue: &dyn Fn() -> bool,
    ) -> Result<Self, InferenceError> {
        let began = Instant::now();
        let picture = OcrImage::from_page_image(image)?;
        let mut boxes = detector.detect_text_boxes(&picture, dpi, should_continue)?;
        for line_box in &mut boxes {
            if let Some(foreground) = box_shrinking::find_foreground_row_span(&picture, line_box) {
                *line_box = box_shrinking::shrink_box_to_foreground(line_box, &foreground);
            }
        }
        Ok(Self {
            image: picture,
            dpi,
            detection_time: began.elapsed(),
            progress: Mutex::new(RecognitionProgress {
                recognized_lines: vec![None; boxes.len()],
                unread_lines: boxes.len(),
                recognition_time: Duration::ZERO,
            }),
            boxes,
        })
    }

    /// Returns the boxes of the lines.
    pub(crate) fn line_boxes(&self) -> &[TextBox] {
        &self.boxes
    }

    /// Recognizes the lines at these indexes of [`Self::boxes`]. If they were the last ones, returns all lines of the page in
    /// the order of their boxes.
    pub(crate) fn recognize_lines_maybe_finish_page(
        &self,
        recognizer: &mut Recognizer,
        indexes: &[usize],
        should_continue: &dyn Fn() -> bool,
    ) -> Result<Option<Vec<Line>>, InferenceError> {
        let began = Instant::now();
        let boxes: Vec<TextBox> = indexes
            .iter()
            .filter_map(|n| self.boxes.get(*n))
            .copied()
            .collect();
        let mut readings = recognizer.recognize_lines(&self.image, &boxes, should_continue)?;
        self.recheck_vertical_lines_reversed(recognizer, &boxes, &mut readings, should_continue)?;
        let mut progress = self.progress.lock();
        progress.recognition_time += began.elapsed();
        for (index, reading) in indexes.iter().zip(readings) {
            if let Some(slot @ None) = progress.recognized_lines.get_mut(*index) {
                *slot = Some(reading);
                progress.unread_lines -= 1;
            }
        }
        if progress.unread_lines > 0 {
            return Ok(None);
        }
        tracing::debug!(
            lines = self.boxes.len(),
            detect_millis = self.detection_time.as_millis(),
            recognize_millis = progress.recognition_time.as_millis(),
            "page read"
        );
        let readings = std::mem::take(&mut progress.recognized_lines);
        Ok(Some(self.collect_confident_lines(readings)))
    }

    /// A vertical line may run up or down. If the first result is doubtful, the direction with the higher confidence is used.
    fn recheck_vertical_lines_reversed(
        &self,
        recognizer: &mut Recognizer,
        boxes: &[TextBox],
        readings: &mut [RecognizedText],
        should_continue: &dyn Fn() -> bool,
    ) -> Result<(), InferenceError> {
        let (reversed, doubtful): (Vec<TextBox>, Vec<&mut RecognizedText>) = boxes
            .iter()
            .zip(readings)
            .filter(|(line_box, reading)| {
                line_box.is_reading_direction_vertical() && reading.confidence < REVERSE_CHECK_CONFIDENCE
            })
            .map(|(line_box, reading)| (line_box.reverse_reading_direction(), reading))
            .unzip();
        let reversed_readings = recognizer.recognize_lines(&self.image, &reversed, should_continue)?;
        for (reading, other) in doubtful.into_iter().zip(reversed_readings) {
            if other.confidence > reading.confidence {
                *reading = other;
            }
        }
        Ok(())
    }

    fn collect_confident_lines(&self, readings: Vec<Option<RecognizedText>>) -> Vec<Line> {
        self.boxes
            .iter()
            .zip(readings.into_iter().flatten())
            .filter(|(_, r)| r.confidence >= MIN_LINE_CONFIDENCE && !r.text.trim().is_empty())
            .map(|(line_box, reading)| to_text_line(&self.image, line_box, reading, self.dpi))
            .collect()
    }
}

fn to_text_line(picture: &OcrImage, line_box: &TextBox, reading: RecognizedText, dpi: u32) -> Line {
    let (width, height) = (picture.width as f32, picture.height as f32);
    let corners = line_box.corners();
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
        size: line_box.height * FONT_SIZE_PER_BOX_HEIGHT * 72.0 / dpi.max(1) as f32,
        confidence: reading.confidence.clamp(0.0, 1.0),
    }
}
