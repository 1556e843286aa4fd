//! Detects headings.
//!
//! The outline is the most reliable source, because the author wrote it: a line that matches an outline title of its
//! page is a heading of that level. Many documents have no outline, and few have a complete one, so the type size
//! decides for the other lines. A heading is larger than the page's body text, short, and does not end like a
//! sentence. Bold type would be a third sign, but neither source reports it. A vision model sees the page and marks
//! headings itself.

use super::writing_systems::is_in_unspaced_script;
use crate::id::PageNumber;
use crate::markdown::vision_markdown;
use crate::page::OutlineEntry;
use crate::page_text::{Line, TextSource};

/// Maximum characters of a heading.
const MAX_HEADING_CHARS: usize = 120;
/// Minimum size of a heading's type, as a multiple of the body text.
const MIN_HEADING_SCALE: f32 = 1.16;
/// Maximum lines of a heading.
const MAX_HEADING_LINES: usize = 3;

/// Returns the headings among the lines of a page in reading order: line index and level, 1 (highest) to 6. The
/// indices ascend.
///
/// Each line of a heading with several lines is returned. Adjacent lines of one level whose boxes touch are one
/// heading.
pub fn detect_page_headings(
    source: TextSource,
    lines: &[Line],
    outline: &[OutlineEntry],
    page: PageNumber,
) -> Vec<(usize, u8)> {
    let mut levels: Vec<Option<u8>> = vec![None; lines.len()];
    mark_outline_headings(lines, outline, page, &mut levels);
    match source {
        TextSource::VisionModel => mark_markdown_headings(lines, &mut levels),
        TextSource::TextLayer | TextSource::Ocr | TextSource::None => {
            mark_large_type_headings(lines, &mut levels)
        }
    }
    levels
        .into_iter()
        .enumerate()
        .filter_map(|(i, level)| Some((i, level?.clamp(1, 6))))
        .collect()
}

/// Marks the lines that match an outline title of this page. If several match (a running header repeats the title of
/// its chapter), the line in the largest type is marked.
fn mark_outline_headings(
    lines: &[Line],
    outline: &[OutlineEntry],
    page: PageNumber,
    levels: &mut [Option<u8>],
) {
    let titles = outline.iter().filter(|entry| entry.page == Some(page));
    let mut texts: Option<Vec<String>> = None;
    for entry in titles {
        let texts = texts.get_or_insert_with(|| lines.iter().map(|l| normalize_title(&l.text)).collect());
        let title = normalize_title(&entry.title);
        if title.is_empty() {
            continue;
        }
        let mut best: Option<(f32, usize, usize)> = None;
        for start in 0..texts.len() {
            let free = levels.get(start).is_some_and(Option::is_none);
            let size = lines.get(start).map_or(0.0, |l| l.size);
            let larger = best.is_none_or(|(s, ..)| size > s);
            if let Some(count) = count_title_lines(&title, texts.get(start..).unwrap_or_default())
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

/// Returns how many of `texts`, from the first on, form `title`.
fn count_title_lines(title: &str, texts: &[String]) -> Option<usize> {
    let (title, first) = (strip_leading_number(title), texts.first()?);
    let mut rest = title.strip_prefix(strip_leading_number(first))?;
    if first.is_empty() {
        return None;
    }
    let mut count = 1;
    while !rest.is_empty() {
        let next = texts
            .get(count)
            .filter(|t| !t.is_empty() && count < MAX_HEADING_LINES)?;
        rest = rest.strip_prefix(next.as_str())?;
        count += 1;
    }
    Some(count)
}

/// Returns the letters and digits in lower case, so that titles match however they are typeset.
fn normalize_title(text: &str) -> String {
    text.chars()
        .filter(|c| c.is_alphanumeric())
        .take(4 * MAX_HEADING_CHARS)
        .flat_map(char::to_lowercase)
        .collect()
}

/// Returns the text without its leading number, which outlines often leave out. A text that is only a number keeps
/// it.
fn strip_leading_number(text: &str) -> &str {
    let rest = text.trim_start_matches(|c: char| c.is_ascii_digit());
    if rest.is_empty() { text } else { rest }
}

/// Marks the lines that are marked as headings in Markdown.
fn mark_markdown_headings(lines: &[Line], levels: &mut [Option<u8>]) {
    for (line, level) in vision_markdown::find_headings(lines) {
        if let Some(mark) = levels.get_mut(line) {
            mark.get_or_insert(level);
        }
    }
}

/// Marks lines in type that is clearly larger than the body text.
fn mark_large_type_headings(lines: &[Line], levels: &mut [Option<u8>]) {
    let Some(body) = BodyTextMetrics::measure_body_text(lines) else {
        return;
    };
    let sizes: Vec<f32> = lines
        .iter()
        .map(|line| body.size_relative_to_body_text(line))
        .collect();
    let is_heading =
        |(line, size): (&Line, &f32)| *size >= MIN_HEADING_SCALE && looks_like_heading(&line.text);
    let headings: Vec<bool> = lines.iter().zip(&sizes).map(is_heading).collect();
    let mut i = 0;
    while let Some(&size) = sizes.get(i) {
        let alike = |(s, heading): &(&f32, &bool)| **heading && (**s - size).abs() <= 0.15 * size;
        let run = sizes.iter().zip(&headings).skip(i).take_while(alike).count();
        // A longer run of lines is a paragraph in large type.
        if (1..=MAX_HEADING_LINES).contains(&run) {
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

/// The type of a page's body text.
struct BodyTextMetrics {
    /// Size in points.
    size: f32,
    /// Mean width of a character as a fraction of the page width. Known for OCR only.
    char_width: Option<f32>,
}

impl BodyTextMetrics {
    fn measure_body_text(lines: &[Line]) -> Option<Self> {
        let is_recognized = |line: &&Line| line.confidence < 1.0;
        if lines.iter().filter(is_recognized).count() * 2 <= lines.len() {
            return Some(Self {
                size: most_common_text_size(lines)?,
                char_width: None,
            });
        }
        let long: Vec<&Line> = lines.iter().filter(|l| l.text.chars().count() >= 20).collect();
        Some(Self {
            size: median_of_positive(long.iter().map(|l| l.size))?,
            char_width: median_of_positive(long.iter().map(|l| mean_char_width(l))),
        })
    }

    /// Returns the size of a line relative to the body text.
    ///
    /// OCR reports the heights of boxes, which vary with ascenders and with the skew of the page. The mean character
    /// width does not, but it varies with the characters. The geometric mean of both is good enough. On the sample
    /// documents, headings had 1.17 and more, and lines of body text 1.14 and less.
    fn size_relative_to_body_text(&self, line: &Line) -> f32 {
        let height = line.size / self.size;
        let ratio = match self.char_width {
            Some(width) if !line.text.chars().any(is_in_unspaced_script) => {
                (height * mean_char_width(line) / width).sqrt()
            }
            _ => height,
        };
        if ratio.is_finite() { ratio } else { 0.0 }
    }
}

fn mean_char_width(line: &Line) -> f32 {
    line.rect.width / line.text.chars().count().max(1) as f32
}

/// Returns the median of the positive finite values.
fn median_of_positive(values: impl Iterator<Item = f32>) -> Option<f32> {
    let mut values: Vec<f32> = values.filter(|v| v.is_finite() && *v > 0.0).collect();
    values.sort_by(f32::total_cmp);
    values.get(values.len() / 2).copied()
}

/// Returns the size, to half a point, of most characters of the page.
fn most_common_text_size(lines: &[Line]) -> Option<f32> {
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

fn looks_like_heading(text: &str) -> bool {
    let text = text.trim();
    let chars = text.chars().count();
    let letters = text.chars().filter(|c| c.is_alphabetic()).count();
    // Labels along the axis of a chart are large letters, too, but form no word.
    let mut words = text.split(|c: char| !c.is_alphabetic());
    let has_word = words.any(|w| w.chars().count() >= 3 || w.chars().any(is_in_unspaced_script));
    chars <= MAX_HEADING_CHARS
        && has_word
        && letters * 2 >= chars
        && !text.ends_with(['.', ',', ';', '…', '-', '!'])
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::page::Rect;

    fn make_line(text: &str, size: f32) -> Line {
        Line {
            text: text.into(),
            rect: Rect::default(),
            size,
            confidence: 1.0,
        }
    }

    fn outline_entry(title: &str, level: u8, page: PageNumber) -> OutlineEntry {
        OutlineEntry {
            title: title.into(),
            level,
            page: Some(page),
        }
    }

    const BODY_TEXT: &str = "The lock keeper opens the upper gate when the gauge reads two metres or less.";

    #[test]
    fn outline_gives_the_heading_level() {
        let lines = [
            make_line("3 Gates and valves", 9.0),
            make_line("3 Gates and Valves", 10.0),
            make_line(BODY_TEXT, 10.0),
            make_line("3.1  The upper gate", 10.0),
        ];
        let outline = [
            outline_entry("Gates and valves", 1, 7),
            outline_entry("3.1 The upper gate", 2, 7),
            outline_entry("The upper gate", 1, 8),
        ];
        assert_eq!(
            detect_page_headings(TextSource::TextLayer, &lines, &outline, 7),
            [(1, 1), (3, 2)]
        );
    }

    #[test]
    fn a_heading_may_be_broken_over_two_lines() {
        let lines = [
            make_line("What to do when the", 14.0),
            make_line("river rises overnight", 14.0),
            make_line(BODY_TEXT, 10.0),
        ];
        let outline = [outline_entry("What to do when the river rises overnight", 2, 1)];
        assert_eq!(
            detect_page_headings(TextSource::TextLayer, &lines, &outline, 1),
            [(0, 2), (1, 2)]
        );
        let other = [outline_entry(
            "What to do when the river rises overnight and freezes",
            4,
            1,
        )];
        assert_eq!(
            detect_page_headings(TextSource::TextLayer, &lines, &other, 1),
            [(0, 2), (1, 2)],
            "detected by type size, not by the outline"
        );
    }

    #[test]
    fn type_size_decides_without_an_outline() {
        let lines = [
            make_line("Handbook", 24.0),
            make_line("Winter service", 14.0),
            make_line(BODY_TEXT, 10.0),
            make_line("Ice", 12.0),
            make_line("See the table.", 12.0),
            make_line("17", 12.0),
            make_line("J F M A", 12.0),
            make_line(BODY_TEXT, 10.0),
        ];
        assert_eq!(
            detect_page_headings(TextSource::TextLayer, &lines, &[], 1),
            [(0, 1), (1, 2), (3, 3)]
        );
    }

    #[test]
    fn a_paragraph_in_large_type_is_no_heading() {
        let mut lines: Vec<Line> = (0..5)
            .map(|_| make_line("large type that goes on and on", 14.0))
            .collect();
        lines.extend((0..9).map(|_| make_line(BODY_TEXT, 10.0)));
        assert!(detect_page_headings(TextSource::TextLayer, &lines, &[], 1).is_empty());
    }

    #[test]
    fn heights_of_ocr_boxes_alone_make_no_heading() {
        let ocr = |text: &str, size, char_width| Line {
            rect: Rect {
                width: text.chars().count() as f32 * char_width,
                ..Rect::default()
            },
            confidence: 0.9,
            ..make_line(text, size)
        };
        let lines = [
            ocr("below the mill, tall", 12.5, 0.0101),
            ocr("A low title", 11.0, 0.0145),
            ocr(BODY_TEXT, 10.0, 0.01),
            ocr("WIDE LETTERS", 9.0, 0.0145),
            ocr(BODY_TEXT, 10.0, 0.01),
            ocr("A Title", 15.0, 0.016),
        ];
        assert_eq!(
            detect_page_headings(TextSource::TextLayer, &lines, &[], 1),
            [(1, 3), (5, 2)]
        );
    }

    #[test]
    fn nan_sizes_and_empty_texts_are_accepted() {
        let lines = [
            make_line("", f32::NAN),
            make_line("x", f32::INFINITY),
            make_line(BODY_TEXT, -1.0),
            make_line("", 0.0),
        ];
        assert!(
            detect_page_headings(
                TextSource::TextLayer,
                &lines,
                &[outline_entry("", 1, 1), outline_entry("—", 0, 1)],
                1
            )
            .is_empty()
        );
        assert_eq!(
            detect_page_headings(
                TextSource::TextLayer,
                &[make_line("Title", 10.0)],
                &[outline_entry("Title", 0, 1)],
                1
            ),
            [(0, 1)]
        );
    }
}
