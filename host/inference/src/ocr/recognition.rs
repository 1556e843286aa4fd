//! Text recognition. For every eighth column of a line, the recognition model of PP-OCR computes a probability for each
//! character and for the blank class. Greedy CTC decoding (connectionist temporal classification) merges repeated characters.
//!
//! On a CPU each line runs alone: a batch is no faster there (120 against 115 ms for a line), and a single line needs no padding,
//! which takes time and changes characters. A GPU gets batches of lines of nearly equal width.

use ort::value::TensorRef;
use weir_core::InferenceError;

use super::line_crop::{self, LINE_HEIGHT};
use super::network_names_and_errors::{INPUT_NAME, MODEL_NAME, OUTPUT_NAME, page_canceled_error};
use super::ocr_image::OcrImage;
use super::text_boxes::TextBox;
use crate::model_session::{ModelRunner, ModelRunnerFactory};
use crate::onnx_runtime::{self, ExecutionProvider};
use crate::scheduler::ModelRunStopper;

/// Input columns for each step of the output.
const COLUMNS_PER_OUTPUT_STEP: usize = 8;

/// Minimum number of input columns: the network was trained on lines and not on single letters.
const MIN_INPUT_COLUMNS: usize = 64;

/// Maximum number of input columns; a longer line is compressed.
const MAX_INPUT_COLUMNS: usize = 3200;

/// Number of lines in a batch on a GPU.
const GPU_BATCH_LINES: usize = 16;

/// Maximum ratio of the widest line in a batch to the narrowest.
const MAX_BATCH_WIDTH_RATIO: f32 = 1.15;

/// Columns of the lines that a CPU worker recognizes in one step: one line across a page, or the words of a table row. Passing
/// a group to a worker takes microseconds, and a line takes tens of milliseconds.
const MAX_CPU_GROUP_COLUMNS: f32 = 2400.0;

/// Lines that one worker recognizes in one step.
#[derive(Debug, PartialEq)]
pub(crate) struct LineGroup {
    /// Indexes of the lines in the list of all lines.
    pub(crate) line_indexes: Vec<usize>,
    /// Sum of their columns.
    pub(crate) columns: f32,
}

/// The text of a line.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct RecognizedText {
    pub(crate) text: String,
    /// Mean probability of its characters, 0 to 1; 0 if there are none.
    pub(crate) confidence: f32,
}

/// The recognition model.
pub(crate) struct Recognizer {
    runner: ModelRunner,
    alphabet: Vec<Box<str>>,
    max_batch_lines: usize,
    input: Vec<f32>,
}

impl Recognizer {
    pub(crate) fn open_recognition_model(
        file: &ModelRunnerFactory,
        stop: &ModelRunStopper,
    ) -> Result<Self, InferenceError> {
        let model = file.open_runner(MODEL_NAME, stop)?;
        let character_list = model.custom_metadata_value("character");
        let characters = parse_alphabet(&character_list.ok_or_else(|| InferenceError::Unavailable {
            what: "the character list of the recognition model".into(),
            remedy: "run `make setup` to install the model for this version".into(),
        })?);
        Ok(Self {
            runner: model,
            alphabet: characters,
            max_batch_lines: match file.execution_provider() {
                ExecutionProvider::Cpu => 1,
                ExecutionProvider::Cuda(_) => GPU_BATCH_LINES,
            },
            input: Vec::new(),
        })
    }

    /// Divides lines into groups for the workers; on a GPU a group is a batch.
    pub(crate) fn group_lines_for_workers(&self, lines: &[TextBox]) -> Vec<LineGroup> {
        group_lines_widest_first(lines, self.max_batch_lines)
    }

    /// Recognizes lines of an image and returns their texts in the same order. Calls `should_continue` between runs and stops
    /// if it returns false.
    pub(crate) fn recognize_lines(
        &mut self,
        image: &OcrImage,
        lines: &[TextBox],
        should_continue: &dyn Fn() -> bool,
    ) -> Result<Vec<RecognizedText>, InferenceError> {
        let mut order: Vec<(usize, f32, &TextBox)> = lines
            .iter()
            .enumerate()
            .map(|(n, line)| (n, input_columns(line), line))
            .collect();
        // The widest lines come first, so that the memory of the first run serves all others.
        order.sort_by(|a, b| b.1.total_cmp(&a.1));
        let mut readings: Vec<(usize, RecognizedText)> = Vec::with_capacity(lines.len());
        let mut rest = order.as_slice();
        while let Some((_, widest, _)) = rest.first() {
            if !should_continue() {
                return Err(page_canceled_error());
            }
            let similar_count = rest
                .iter()
                .take(self.max_batch_lines)
                .take_while(|(_, columns, _)| columns * MAX_BATCH_WIDTH_RATIO >= *widest)
                .count();
            let (batch, later) = rest.split_at(similar_count.max(1));
            rest = later;
            let texts = self.recognize_batch(image, batch)?;
            readings.extend(batch.iter().map(|(n, ..)| *n).zip(texts));
        }
        readings.sort_by_key(|(n, _)| *n);
        Ok(readings.into_iter().map(|(_, reading)| reading).collect())
    }

    fn recognize_batch(
        &mut self,
        image: &OcrImage,
        batch: &[(usize, f32, &TextBox)],
    ) -> Result<Vec<RecognizedText>, InferenceError> {
        let filled = |columns: f32| {
            (columns.ceil() as usize)
                .next_multiple_of(COLUMNS_PER_OUTPUT_STEP)
                .clamp(MIN_INPUT_COLUMNS, MAX_INPUT_COLUMNS)
        };
        let width = batch
            .first()
            .map_or(MIN_INPUT_COLUMNS, |(_, columns, _)| filled(*columns));
        let size = 3 * LINE_HEIGHT * width;
        self.input.clear();
        self.input.resize(batch.len() * size, 0.0);
        for ((_, columns, line), out) in batch.iter().zip(self.input.chunks_exact_mut(size)) {
            line_crop::crop_and_straighten_line(image, line, *columns, (width, filled(*columns)), out);
        }
        let shape = [batch.len(), 3, LINE_HEIGHT, width];
        let input = TensorRef::from_array_view((shape, self.input.as_slice()))
            .map_err(|e| onnx_runtime::run_failed_error(MODEL_NAME, &e))?;
        let output = self.runner.run_model([(INPUT_NAME, input)], OUTPUT_NAME)?;
        let (shape, probabilities) = output.extract_f32_tensor()?;
        let classes = self.alphabet.len();
        if shape.last().copied() != i64::try_from(classes).ok() {
            return Err(InferenceError::Failed {
                model: MODEL_NAME.into(),
                reason: "the size of the recognizer's output does not match its character list".into(),
            });
        }
        let steps = probabilities.len() / classes / batch.len().max(1);
        Ok(probabilities
            .chunks_exact((steps * classes).max(1))
            .map(|line| decode_ctc_greedy(line, &self.alphabet))
            .collect())
    }
}

/// Groups lines for a device that takes `batch` lines at once. The widest lines come first, so that the memory of the first run
/// serves all others and no worker gets a long line at the end.
fn group_lines_widest_first(lines: &[TextBox], batch: usize) -> Vec<LineGroup> {
    let mut order: Vec<(usize, f32)> = lines.iter().map(input_columns).enumerate().collect();
    order.sort_by(|a, b| b.1.total_cmp(&a.1));
    let (mut groups, mut widest) = (Vec::<LineGroup>::new(), 0.0);
    for (index, columns) in order {
        let fits = |group: &LineGroup| match batch {
            1 => group.columns + columns <= MAX_CPU_GROUP_COLUMNS,
            _ => group.line_indexes.len() < batch && columns * MAX_BATCH_WIDTH_RATIO >= widest,
        };
        match groups.last_mut() {
            Some(group) if fits(group) => {
                group.line_indexes.push(index);
                group.columns += columns;
            }
            _ => {
                widest = columns;
                let first_index = vec![index];
                groups.push(LineGroup {
                    line_indexes: first_index,
                    columns,
                });
            }
        }
    }
    groups
}

/// Returns the number of columns of a line that is scaled to [`LINE_HEIGHT`].
fn input_columns(line: &TextBox) -> f32 {
    let ratio = line.width / line.height.max(1.0);
    (ratio * LINE_HEIGHT as f32).clamp(1.0, MAX_INPUT_COLUMNS as f32)
}

/// Returns the characters by class: the blank class, the characters of the list, and a space, which the list does not contain.
fn parse_alphabet(character_list: &str) -> Vec<Box<str>> {
    std::iter::once("")
        .chain(character_list.lines())
        .chain(std::iter::once(" "))
        .map(Into::into)
        .collect()
}

/// Decodes `probabilities`, which has a row of `characters.len()` values for each step.
fn decode_ctc_greedy(probabilities: &[f32], characters: &[Box<str>]) -> RecognizedText {
    let (mut text, mut sum, mut count, mut previous_class) = (String::new(), 0.0, 0u32, 0);
    for row in probabilities.chunks_exact(characters.len().max(1)) {
        let (class, probability) = argmax_with_value(row);
        if class != 0 && class != previous_class {
            text.push_str(characters.get(class).map_or("", |c| c));
            sum += probability;
            count += 1;
        }
        previous_class = class;
    }
    RecognizedText {
        text,
        confidence: if count == 0 { 0.0 } else { sum / count as f32 },
    }
}

/// Returns the index of the greatest value, and the value. It first finds the value, in lanes that the compiler turns into vector
/// instructions, and then its index. This has to be fast: a row has 18,710 values, and a page has thousands of rows.
fn argmax_with_value(row: &[f32]) -> (usize, f32) {
    let mut lanes = [f32::NEG_INFINITY; 32];
    let mut chunks = row.chunks_exact(32);
    for chunk in &mut chunks {
        for (lane, value) in lanes.iter_mut().zip(chunk) {
            *lane = if *value > *lane { *value } else { *lane };
        }
    }
    let rest = chunks.remainder().iter();
    let greatest = lanes
        .iter()
        .chain(rest)
        .copied()
        .fold(f32::NEG_INFINITY, f32::max);
    let index = row.iter().position(|v| *v >= greatest).unwrap_or(0);
    (index, greatest)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn class_probabilities(class: usize, probability: f32) -> [f32; 4] {
        let mut row = [0.01; 4];
        row[class] = probability;
        row
    }

    #[test]
    fn ctc_decode_collapses_repeats_and_keeps_separated_doubles() {
        let characters = parse_alphabet("a\nb");
        assert_eq!(characters.len(), 4);
        let steps = [
            (1, 0.9),
            (1, 0.8),
            (0, 0.9),
            (1, 0.7),
            (2, 0.6),
            (3, 1.0),
            (0, 1.0),
        ];
        let rows: Vec<f32> = steps
            .iter()
            .flat_map(|(c, p)| class_probabilities(*c, *p))
            .collect();
        let reading = decode_ctc_greedy(&rows, &characters);
        assert_eq!(reading.text, "aab ");
        assert!((reading.confidence - (0.9 + 0.7 + 0.6 + 1.0) / 4.0).abs() < 1e-6);
        assert_eq!(
            decode_ctc_greedy(&class_probabilities(0, 1.0), &characters).confidence,
            0.0
        );
        assert_eq!(decode_ctc_greedy(&[], &characters).text, "");
    }

    #[test]
    fn groups_are_small_and_hold_every_line_once() {
        // Two lines across a page, one half as long, and a table of short words.
        let widths = [[1200.0, 600.0, 1150.0].as_slice(), &[40.0; 60]].concat();
        let lines: Vec<TextBox> = widths
            .iter()
            .map(|width| TextBox {
                x: 0.0,
                y: 0.0,
                width: *width,
                height: 30.0,
                angle: 0.0,
            })
            .collect();
        for batch in [1, GPU_BATCH_LINES] {
            let groups = group_lines_widest_first(&lines, batch);
            let mut indexes: Vec<usize> = groups.iter().flat_map(|g| g.line_indexes.clone()).collect();
            assert_eq!(indexes.iter().take(3).collect::<Vec<_>>(), [&0, &2, &1]);
            indexes.sort_unstable();
            assert!(indexes.into_iter().eq(0..lines.len()));
            let sum: f32 = groups.iter().map(|g| g.columns).sum();
            assert_eq!(sum, lines.iter().map(input_columns).sum::<f32>());
            match batch {
                1 => assert!(
                    groups.iter().all(|g| g.columns <= MAX_CPU_GROUP_COLUMNS),
                    "{groups:?}"
                ),
                _ => assert!(
                    groups.iter().all(|g| g.line_indexes.len() <= GPU_BATCH_LINES),
                    "{groups:?}"
                ),
            }
        }
        // A GPU pads the lines of a batch to the widest, so much narrower lines form their own batch.
        assert_eq!(
            group_lines_widest_first(&lines, GPU_BATCH_LINES)[0].line_indexes,
            [0, 2]
        );
        assert!(group_lines_widest_first(&[], 1).is_empty());
    }

    #[test]
    fn argmax_finds_the_greatest_value_at_any_index() {
        for index in [0, 1, 31, 32, 99, 100] {
            let mut row = vec![0.25; 101];
            row[index] = 0.75;
            assert_eq!(argmax_with_value(&row), (index, 0.75));
        }
    }
}
