//! What a line says: the recognition model of PP-OCR gives each eighth column of a line a probability for every character
//! and for "none"; runs of one character collapse to one (connectionist temporal classification, read greedily).
//!
//! Lines run alone on a CPU: a batch gains nothing there (120 against 115 ms a line), and a line alone needs no padding,
//! which costs time and changes characters. A GPU takes batches of lines of nearly equal width.

use std::path::Path;
use std::sync::Arc;

use ort::session::{NoSelectedOutputs, RunOptions, Session};
use ort::value::TensorRef;
use weir_core::InferenceError;

use super::boxes::TextBox;
use super::crop::{self, LINE_HEIGHT};
use super::picture::Picture;
use crate::runtime::{self, Provider, Runtime, SessionOptions};
use crate::scheduler::Stop;

/// Columns of the input for each step of the output.
const STEP: usize = 8;

/// Columns of the narrowest input: the network was trained on lines, not on letters.
const NARROWEST: usize = 64;

/// Columns of the widest; a longer line is squeezed into it.
const WIDEST: usize = 3200;

/// Lines in a batch on a GPU.
const GPU_BATCH: usize = 16;

/// How much wider than the narrowest of a batch its widest may be.
const SPREAD: f32 = 1.15;

/// Columns of the lines that are handed to a CPU worker together: one line across a page, or the words of a table's
/// row. Handing over costs microseconds, a line tens of milliseconds.
const GROUP_COLUMNS: f32 = 2400.0;

/// Lines that are handed to a worker together.
#[derive(Debug, PartialEq)]
pub(crate) struct Group {
    /// Their places among the lines they come from.
    pub(crate) places: Vec<usize>,
    /// The sum of their columns.
    pub(crate) columns: f32,
}

/// A line that was read.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Reading {
    pub(crate) text: String,
    /// Mean probability of its characters, 0 to 1; 0 if there are none.
    pub(crate) confidence: f32,
}

/// The recognition model.
pub(crate) struct Recognizer {
    session: Session,
    options: Arc<RunOptions<NoSelectedOutputs>>,
    characters: Vec<Box<str>>,
    batch: usize,
    input: Vec<f32>,
}

impl Recognizer {
    pub(crate) fn open(runtime: &Runtime, model: &Path, stop: &Stop) -> Result<Self, InferenceError> {
        let session = runtime.session(model, SessionOptions::default())?;
        let options = stop.options().map_err(|e| runtime::failed(super::NAME, &e))?;
        let listed = session.metadata().ok().and_then(|m| m.custom("character"));
        let characters = alphabet(&listed.ok_or_else(|| InferenceError::Unavailable {
            what: format!("the list of characters in {}", model.display()),
            remedy: "run `make setup` to get the model this version was made for".into(),
        })?);
        Ok(Self {
            session,
            options,
            characters,
            batch: match runtime.provider() {
                Provider::Cpu => 1,
                Provider::Cuda(_) => GPU_BATCH,
            },
            input: Vec::new(),
        })
    }

    /// Divides lines among workers; a group is a batch on a GPU.
    pub(crate) fn groups(&self, lines: &[TextBox]) -> Vec<Group> {
        divided(lines, self.batch)
    }

    /// Reads lines of a picture; answers come in their order. `go_on` is asked between runs.
    pub(crate) fn recognize(
        &mut self,
        picture: &Picture,
        lines: &[TextBox],
        go_on: &dyn Fn() -> bool,
    ) -> Result<Vec<Reading>, InferenceError> {
        let mut order: Vec<(usize, f32, &TextBox)> = lines
            .iter()
            .enumerate()
            .map(|(n, line)| (n, columns(line), line))
            .collect();
        // The widest first, so that the memory of one run serves all that follow.
        order.sort_by(|a, b| b.1.total_cmp(&a.1));
        let mut readings: Vec<(usize, Reading)> = Vec::with_capacity(lines.len());
        let mut rest = order.as_slice();
        while let Some((_, widest, _)) = rest.first() {
            if !go_on() {
                return Err(super::abandoned());
            }
            let alike = rest
                .iter()
                .take(self.batch)
                .take_while(|(_, columns, _)| columns * SPREAD >= *widest)
                .count();
            let (batch, later) = rest.split_at(alike.max(1));
            rest = later;
            let texts = self.run(picture, batch)?;
            readings.extend(batch.iter().map(|(n, ..)| *n).zip(texts));
        }
        readings.sort_by_key(|(n, _)| *n);
        Ok(readings.into_iter().map(|(_, reading)| reading).collect())
    }

    fn run(
        &mut self,
        picture: &Picture,
        batch: &[(usize, f32, &TextBox)],
    ) -> Result<Vec<Reading>, InferenceError> {
        let filled = |columns: f32| {
            (columns.ceil() as usize)
                .next_multiple_of(STEP)
                .clamp(NARROWEST, WIDEST)
        };
        let width = batch
            .first()
            .map_or(NARROWEST, |(_, columns, _)| filled(*columns));
        let size = 3 * LINE_HEIGHT * width;
        self.input.clear();
        self.input.resize(batch.len() * size, 0.0);
        for ((_, columns, line), out) in batch.iter().zip(self.input.chunks_exact_mut(size)) {
            crop::sample(picture, line, *columns, (width, filled(*columns)), out);
        }
        let failed = |e: ort::Error| runtime::failed(super::NAME, &e);
        let shape = [batch.len(), 3, LINE_HEIGHT, width];
        let input = TensorRef::from_array_view((shape, self.input.as_slice())).map_err(failed)?;
        let outputs = self
            .session
            .run_with_options(ort::inputs![input], &self.options)
            .map_err(failed)?;
        let wrong = || InferenceError::Failed {
            model: super::NAME.into(),
            reason: "the recognizer's output does not fit its list of characters".into(),
        };
        let output = outputs.values().next().ok_or_else(wrong)?;
        let (shape, probabilities) = output.try_extract_tensor::<f32>().map_err(failed)?;
        let classes = self.characters.len();
        if shape.last().copied() != i64::try_from(classes).ok() {
            return Err(wrong());
        }
        let steps = probabilities.len() / classes / batch.len().max(1);
        Ok(probabilities
            .chunks_exact((steps * classes).max(1))
            .map(|line| decode(line, &self.characters))
            .collect())
    }
}

/// Groups of lines for a device that takes batches of this many. The widest lines come first, so that the memory of one
/// run serves all that follow and no worker is left with a long line at the end.
fn divided(lines: &[TextBox], batch: usize) -> Vec<Group> {
    let mut order: Vec<(usize, f32)> = lines.iter().map(columns).enumerate().collect();
    order.sort_by(|a, b| b.1.total_cmp(&a.1));
    let (mut groups, mut widest) = (Vec::<Group>::new(), 0.0);
    for (place, columns) in order {
        let fits = |group: &Group| match batch {
            1 => group.columns + columns <= GROUP_COLUMNS,
            _ => group.places.len() < batch && columns * SPREAD >= widest,
        };
        match groups.last_mut() {
            Some(group) if fits(group) => {
                group.places.push(place);
                group.columns += columns;
            }
            _ => {
                widest = columns;
                let places = vec![place];
                groups.push(Group { places, columns });
            }
        }
    }
    groups
}

/// Columns a line fills when it is [`LINE_HEIGHT`] high.
fn columns(line: &TextBox) -> f32 {
    let ratio = line.width / line.height.max(1.0);
    (ratio * LINE_HEIGHT as f32).clamp(1.0, WIDEST as f32)
}

/// The characters by class: "none" first, those of the list, and a space, which the list cannot show.
fn alphabet(listed: &str) -> Vec<Box<str>> {
    std::iter::once("")
        .chain(listed.lines())
        .chain(std::iter::once(" "))
        .map(Into::into)
        .collect()
}

/// Reads `probabilities`, one row of `characters.len()` for each step.
fn decode(probabilities: &[f32], characters: &[Box<str>]) -> Reading {
    let (mut text, mut sum, mut count, mut before) = (String::new(), 0.0, 0u32, 0);
    for row in probabilities.chunks_exact(characters.len().max(1)) {
        let (class, probability) = greatest(row);
        if class != 0 && class != before {
            text.push_str(characters.get(class).map_or("", |c| c));
            sum += probability;
            count += 1;
        }
        before = class;
    }
    Reading {
        text,
        confidence: if count == 0 { 0.0 } else { sum / count as f32 },
    }
}

/// The greatest value and its place. First the value alone, in lanes the compiler turns into vector instructions, then its
/// place: a row has 18,710 values and a page has thousands of rows.
fn greatest(row: &[f32]) -> (usize, f32) {
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
    let place = row.iter().position(|v| *v >= greatest).unwrap_or(0);
    (place, greatest)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(class: usize, probability: f32) -> [f32; 4] {
        let mut row = [0.01; 4];
        row[class] = probability;
        row
    }

    #[test]
    fn runs_collapse_and_a_gap_keeps_doubles() {
        let characters = alphabet("a\nb");
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
        let rows: Vec<f32> = steps.iter().flat_map(|(c, p)| row(*c, *p)).collect();
        let reading = decode(&rows, &characters);
        assert_eq!(reading.text, "aab ");
        assert!((reading.confidence - (0.9 + 0.7 + 0.6 + 1.0) / 4.0).abs() < 1e-6);
        assert_eq!(decode(&row(0, 1.0), &characters).confidence, 0.0);
        assert_eq!(decode(&[], &characters).text, "");
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
        for batch in [1, GPU_BATCH] {
            let groups = divided(&lines, batch);
            let mut places: Vec<usize> = groups.iter().flat_map(|g| g.places.clone()).collect();
            assert_eq!(places.iter().take(3).collect::<Vec<_>>(), [&0, &2, &1]);
            places.sort_unstable();
            assert!(places.into_iter().eq(0..lines.len()));
            let sum: f32 = groups.iter().map(|g| g.columns).sum();
            assert_eq!(sum, lines.iter().map(columns).sum::<f32>());
            match batch {
                1 => assert!(groups.iter().all(|g| g.columns <= GROUP_COLUMNS), "{groups:?}"),
                _ => assert!(groups.iter().all(|g| g.places.len() <= GPU_BATCH), "{groups:?}"),
            }
        }
        // A GPU pads the lines of a batch to the widest: those far narrower go by themselves.
        assert_eq!(divided(&lines, GPU_BATCH)[0].places, [0, 2]);
        assert!(divided(&[], 1).is_empty());
    }

    #[test]
    fn the_greatest_is_found_wherever_it_stands() {
        for place in [0, 1, 31, 32, 99, 100] {
            let mut row = vec![0.25; 101];
            row[place] = 0.75;
            assert_eq!(greatest(&row), (place, 0.75));
        }
    }
}
