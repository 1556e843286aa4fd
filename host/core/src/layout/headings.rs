//! Which lines are headings.
//!
//! The outline is the author's own answer and comes first: a title found among the lines of its page is a heading of that
//! level. Many documents have none, and few have one that is complete, so type decides for the rest: a heading is larger
//! than the page's body, short, and does not end like a sentence. Bold type of body size would be a third sign, but
//! neither source says what is bold. A vision model, which saw the page, marks headings itself.

use super::script::is_unspaced;
use crate::id::PageNumber;
use crate::markdown::transcribed;
use crate::page::OutlineEntry;
use crate::text::{Line, TextSource};

/// A heading is at most this long, in characters.
const LONGEST: usize = 120;
/// From this many times the body's size on, type is clearly larger.
const LARGER: f32 = 1.16;
/// A heading is broken over at most this many lines.
const MOST_LINES: usize = 3;

/// The headings among a page's lines (in reading order): index of the line and level, 1 for the highest, at most 6.
/// Indices ascend.
///
/// A heading broken over several lines gives each of them, so neighbours of one level whose boxes touch are one heading.
pub fn headings(
    source: TextSource,
    lines: &[Line],
    outline: &[OutlineEntry],
    page: PageNumber,
) -> Vec<(usize, u8)> {
    let mut levels: Vec<Option<u8>> = vec![None; lines.len()];
    from_outline(lines, outline, page, &mut levels);
    match source {
        TextSource::VisionModel => from_marks(lines, &mut levels),
        TextSource::TextLayer | TextSource::Ocr | TextSource::None => from_type(lines, &mut levels),
    }
    levels
        .into_iter()
        .enumerate()
        .filter_map(|(i, level)| Some((i, level?.clamp(1, 6))))
        .collect()
}

/// Marks the lines that an outline title of this page names. Where several do (a running header repeats its chapter's
/// title), the one in the largest type is meant.
fn from_outline(lines: &[Line], outline: &[OutlineEntry], page: PageNumber, levels: &mut [Option<u8>]) {
    let titles = outline.iter().filter(|entry| entry.page == Some(page));
    let mut texts: Option<Vec<String>> = None;
    for entry in titles {
        let texts = texts.get_or_insert_with(|| lines.iter().map(|l| letters(&l.text)).collect());
        let title = letters(&entry.title);
        if title.is_empty() {
            continue;
        }
        let mut best: Option<(f32, usize, usize)> = None;
        for start in 0..texts.len() {
            let free = levels.get(start).is_some_and(Option::is_none);
            let size = lines.get(start).map_or(0.0, |l| l.size);
            let larger = best.is_none_or(|(s, ..)| size > s);
            if let Some(count) = lines_of(&title, texts.get(start..).unwrap_or_default())
                && free
                && larger
            {
                best = Some((size, start, count));
            }
        }
        if let Some((_, start, count)) = best {
            for level in levels.iter_mut().skip(start).take(count) {
                *level = Some(entry.level);
            }
        }
    }
}

/// How many of `texts`, from the first on, make up `title`.
fn lines_of(title: &str, texts: &[String]) -> Option<usize> {
    let (title, first) = (unnumbered(title), texts.first()?);
    let mut rest = title.strip_prefix(unnumbered(first))?;
    if first.is_empty() {
        return None;
    }
    let mut count = 1;
    while !rest.is_empty() {
        let next = texts.get(count).filter(|t| !t.is_empty() && count < MOST_LINES)?;
        rest = rest.strip_prefix(next.as_str())?;
        count += 1;
    }
    Some(count)
}

/// Lower-case letters and digits alone: what is left of a title however it is set.
fn letters(text: &str) -> String {
    text.chars()
        .filter(|c| c.is_alphanumeric())
        .take(4 * LONGEST)
        .flat_map(char::to_lowercase)
        .collect()
}

/// Without its number, which outlines leave out as often as not. A title that is only a number keeps it.
fn unnumbered(text: &str) -> &str {
    let rest = text.trim_start_matches(|c: char| c.is_ascii_digit());
    if rest.is_empty() { text } else { rest }
}

/// Marks the lines that are headings by their own word.
fn from_marks(lines: &[Line], levels: &mut [Option<u8>]) {
    for (line, level) in transcribed::headings(lines) {
        if let Some(mark) = levels.get_mut(line) {
            mark.get_or_insert(level);
        }
    }
}

/// Marks lines in type clearly larger than the body's.
fn from_type(lines: &[Line], levels: &mut [Option<u8>]) {
    let Some(body) = Body::of(lines) else {
        return;
    };
    let sizes: Vec<f32> = lines.iter().map(|line| body.times(line)).collect();
    let is_heading = |(line, size): (&Line, &f32)| *size >= LARGER && reads_like_a_heading(&line.text);
    let headings: Vec<bool> = lines.iter().zip(&sizes).map(is_heading).collect();
    let mut i = 0;
    while let Some(&size) = sizes.get(i) {
        let alike = |(s, heading): &(&f32, &bool)| **heading && (**s - size).abs() <= 0.15 * size;
        let run = sizes.iter().zip(&headings).skip(i).take_while(alike).count();
        // More lines than a heading has are a paragraph in large type.
        if (1..=MOST_LINES).contains(&run) {
            let level = match size {
                s if s >= 1.8 => 1,
                s if s >= 1.4 => 2,
                _ => 3,
            };
            for mark in levels.iter_mut().skip(i).take(run) {
                mark.get_or_insert(level);
            }
        }
        i += run.max(1);
    }
}

/// The type in which a page's text is set.
struct Body {
    /// Its size, in points.
    size: f32,
    /// How wide a character is, as a share of the page's width. Known for OCR only.
    char_width: Option<f32>,
}

impl Body {
    fn of(lines: &[Line]) -> Option<Self> {
        let is_recognized = |line: &&Line| line.confidence < 1.0;
        if lines.iter().filter(is_recognized).count() * 2 <= lines.len() {
            return Some(Self {
                size: body_size(lines)?,
                char_width: None,
            });
        }
        let long: Vec<&Line> = lines.iter().filter(|l| l.text.chars().count() >= 20).collect();
        Some(Self {
            size: middle(long.iter().map(|l| l.size))?,
            char_width: middle(long.iter().map(|l| char_width(l))),
        })
    }

    /// How many times as large as the body a line is set.
    ///
    /// OCR gives the heights of boxes, and those differ with what has ascenders and with the page's skew. The width of a
    /// line's characters does not, but it differs with what the characters are. Their geometric mean is good enough; on
    /// pages of the sample documents, headings came out at 1.17 and more, lines of the body at 1.14 and less.
    fn times(&self, line: &Line) -> f32 {
        let height = line.size / self.size;
        let times = match self.char_width {
            Some(width) if !line.text.chars().any(is_unspaced) => (height * char_width(line) / width).sqrt(),
            _ => height,
        };
        if times.is_finite() { times } else { 0.0 }
    }
}

fn char_width(line: &Line) -> f32 {
    line.rect.width / line.text.chars().count().max(1) as f32
}

/// The median of what is a positive number.
fn middle(values: impl Iterator<Item = f32>) -> Option<f32> {
    let mut values: Vec<f32> = values.filter(|v| v.is_finite() && *v > 0.0).collect();
    values.sort_by(f32::total_cmp);
    values.get(values.len() / 2).copied()
}

/// The size, to half a point, in which most characters of the page are set.
fn body_size(lines: &[Line]) -> Option<f32> {
    let mut sizes: Vec<(i32, usize)> = lines
        .iter()
        .filter(|l| l.size.is_finite() && l.size > 0.0)
        .map(|l| ((l.size * 2.0).round() as i32, l.text.len()))
        .collect();
    sizes.sort_unstable();
    sizes
        .chunk_by(|a, b| a.0 == b.0)
        .map(|same| {
            (
                same.iter().map(|s| s.1).sum::<usize>(),
                same.first().map_or(0, |s| s.0),
            )
        })
        .max()
        .map(|(_, size)| size as f32 / 2.0)
        .filter(|&size| size > 0.0)
}

fn reads_like_a_heading(text: &str) -> bool {
    let text = text.trim();
    let chars = text.chars().count();
    let letters = text.chars().filter(|c| c.is_alphabetic()).count();
    // The labels along a chart's axis are large letters, too, but make no word.
    let mut words = text.split(|c: char| !c.is_alphabetic());
    let has_word = words.any(|w| w.chars().count() >= 3 || w.chars().any(is_unspaced));
    chars <= LONGEST && has_word && letters * 2 >= chars && !text.ends_with(['.', ',', ';', '…', '-', '!'])
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::page::Rect;

    fn line(text: &str, size: f32) -> Line {
        Line {
            text: text.into(),
            rect: Rect::default(),
            size,
            confidence: 1.0,
        }
    }

    fn entry(title: &str, level: u8, page: PageNumber) -> OutlineEntry {
        OutlineEntry {
            title: title.into(),
            level,
            page: Some(page),
        }
    }

    const BODY: &str = "The lock keeper opens the upper gate when the gauge reads two metres or less.";

    #[test]
    fn the_outline_gives_the_level() {
        let lines = [
            line("3 Gates and valves", 9.0),
            line("3 Gates and Valves", 10.0),
            line(BODY, 10.0),
            line("3.1  The upper gate", 10.0),
        ];
        let outline = [
            entry("Gates and valves", 1, 7),
            entry("3.1 The upper gate", 2, 7),
            entry("The upper gate", 1, 8),
        ];
        assert_eq!(
            headings(TextSource::TextLayer, &lines, &outline, 7),
            [(1, 1), (3, 2)]
        );
    }

    #[test]
    fn a_heading_may_be_broken_over_two_lines() {
        let lines = [
            line("What to do when the", 14.0),
            line("river rises overnight", 14.0),
            line(BODY, 10.0),
        ];
        let outline = [entry("What to do when the river rises overnight", 2, 1)];
        assert_eq!(
            headings(TextSource::TextLayer, &lines, &outline, 1),
            [(0, 2), (1, 2)]
        );
        let other = [entry(
            "What to do when the river rises overnight and freezes",
            4,
            1,
        )];
        assert_eq!(
            headings(TextSource::TextLayer, &lines, &other, 1),
            [(0, 2), (1, 2)],
            "by type, not by the outline"
        );
    }

    #[test]
    fn type_decides_without_an_outline() {
        let lines = [
            line("Handbook", 24.0),
            line("Winter service", 14.0),
            line(BODY, 10.0),
            line("Ice", 12.0),
            line("See the table.", 12.0),
            line("17", 12.0),
            line("J F M A", 12.0),
            line(BODY, 10.0),
        ];
        assert_eq!(
            headings(TextSource::TextLayer, &lines, &[], 1),
            [(0, 1), (1, 2), (3, 3)]
        );
    }

    #[test]
    fn a_paragraph_in_large_type_is_no_heading() {
        let mut lines: Vec<Line> = (0..5)
            .map(|_| line("large type that goes on and on", 14.0))
            .collect();
        lines.extend((0..9).map(|_| line(BODY, 10.0)));
        assert!(headings(TextSource::TextLayer, &lines, &[], 1).is_empty());
    }

    #[test]
    fn heights_of_ocr_boxes_alone_make_no_heading() {
        let ocr = |text: &str, size, char_width| Line {
            rect: Rect {
                width: text.chars().count() as f32 * char_width,
                ..Rect::default()
            },
            confidence: 0.9,
            ..line(text, size)
        };
        let lines = [
            ocr("below the mill, tall", 12.5, 0.0101),
            ocr("A low title", 11.0, 0.0145),
            ocr(BODY, 10.0, 0.01),
            ocr("WIDE LETTERS", 9.0, 0.0145),
            ocr(BODY, 10.0, 0.01),
            ocr("A Title", 15.0, 0.016),
        ];
        assert_eq!(headings(TextSource::TextLayer, &lines, &[], 1), [(1, 3), (5, 2)]);
    }

    #[test]
    fn sizes_that_are_no_numbers_and_empty_texts_are_borne() {
        let lines = [
            line("", f32::NAN),
            line("x", f32::INFINITY),
            line(BODY, -1.0),
            line("", 0.0),
        ];
        assert!(
            headings(
                TextSource::TextLayer,
                &lines,
                &[entry("", 1, 1), entry("—", 0, 1)],
                1
            )
            .is_empty()
        );
        assert_eq!(
            headings(
                TextSource::TextLayer,
                &[line("Title", 10.0)],
                &[entry("Title", 0, 1)],
                1
            ),
            [(0, 1)]
        );
    }
}
