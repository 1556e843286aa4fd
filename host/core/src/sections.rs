//! Splits a document into sections: the text under each of its headings.
//!
//! The layout detects the headings; headings of the outline have priority over those by type size. A document is
//! split at the highest level that has more than one heading. A single heading above all others is the title of the
//! document. Text under deeper headings belongs to the enclosing section, and text before the first heading is a
//! section of its own. Running headers and footers are left out.

use std::ops::Range;

use crate::id::PageNumber;
use crate::markdown::{PageLinesAndHeadings, RunningHeadersAndFooters, vision_markdown};
use crate::page::Rect;
use crate::page_text::{Line, TextSource};

/// A section of a document.
#[derive(Debug, Clone, PartialEq)]
pub struct DocumentSection {
    /// Its heading; `None` before the first heading and in a document without headings.
    pub title: Option<String>,
    /// Level of the heading; 1 is the highest.
    pub level: u8,
    /// First page.
    pub first_page: PageNumber,
    /// Last page.
    pub last_page: PageNumber,
    /// Its lines joined by `\n`, without the heading. Words that are hyphenated at the end of a line are joined.
    pub text: String,
    /// Position of each line.
    pub line_positions: Vec<SectionLinePosition>,
}

/// Position of a line of a section.
#[derive(Debug, Clone, PartialEq)]
pub struct SectionLinePosition {
    /// Byte range in the section's text.
    pub text_range: Range<usize>,
    /// The page.
    pub page: PageNumber,
    /// Rectangle of the line on the page.
    pub rect: Rect,
}

impl DocumentSection {
    fn new(title: Option<String>, level: u8, page: PageNumber) -> Self {
        Self {
            title,
            level,
            first_page: page,
            last_page: page,
            text: String::new(),
            line_positions: Vec::new(),
        }
    }

    fn push_line(&mut self, page: PageNumber, line: &Line) {
        if self.line_positions.is_empty() && self.title.is_none() {
            self.first_page = page;
        }
        let broken = self.text.strip_suffix(['-', '\u{ad}', '\u{2010}']);
        let broken = broken
            .filter(|text| text.ends_with(char::is_alphabetic))
            .map(str::len);
        match broken.filter(|_| line.text.starts_with(char::is_lowercase)) {
            // A hyphenated word continues, as in the Markdown of the document.
            Some(length) => {
                self.text.truncate(length);
                if let Some(last) = self.line_positions.last_mut() {
                    last.text_range.end = length;
                }
            }
            None if self.text.is_empty() => {}
            None => self.text.push('\n'),
        }
        let start = self.text.len();
        self.text.push_str(&line.text);
        self.line_positions.push(SectionLinePosition {
            text_range: start..self.text.len(),
            page,
            rect: line.rect,
        });
        self.last_page = page;
    }

    /// Returns the page that a range of the text starts on, and the rectangle of its lines there. A range that
    /// continues on the next page counts for the page that it starts on.
    pub fn locate_range_on_first_page(&self, range: &Range<usize>) -> Option<(PageNumber, Rect)> {
        let mut lines = self
            .line_positions
            .iter()
            .filter(|line| line.text_range.start < range.end && range.start < line.text_range.end);
        let first = lines.next()?;
        let rect = lines
            .take_while(|line| line.page == first.page)
            .fold(first.rect, |rect, line| rect.union(&line.rect));
        Some((first.page, rect))
    }
}

/// Returns the sections of a document in order. None of them is empty.
pub fn split_into_sections(pages: &[PageLinesAndHeadings<'_>]) -> Vec<DocumentSection> {
    let running = RunningHeadersAndFooters::find_in_pages(pages);
    let level = find_section_level(pages);
    let mut sections = Vec::new();
    let mut current = DocumentSection::new(None, 1, pages.first().map_or(1, |page| page.number));
    for page in pages {
        let running = running.mark_headers_and_footers(page.lines);
        // Lines of a typeset page. A vision model breaks lines on purpose and marks headings.
        let is_set = is_read_without_vision_model(page);
        let mut headings = page.headings.iter().peekable();
        // A heading of several lines continues with the next line of its level.
        let mut heading: Option<(usize, u8)> = None;
        for (index, line) in page.lines.iter().enumerate() {
            let heading_level = headings.next_if(|(at, _)| *at == index).map(|(_, level)| *level);
            if running.get(index) == Some(&true) || line.text.trim().is_empty() {
                continue;
            }
            let title = |line: &Line| match is_set {
                true => line.text.trim().to_owned(),
                false => vision_markdown::trim_heading_and_emphasis_marks(&line.text).to_owned(),
            };
            match heading_level.filter(|here| Some(*here) == level) {
                Some(level) if is_set && continues_heading(heading, index, level) => {
                    heading = Some((index, level));
                    if let Some(before) = &mut current.title {
                        before.push(' ');
                        before.push_str(&title(line));
                    }
                }
                Some(level) => {
                    heading = Some((index, level));
                    let next = DocumentSection::new(Some(title(line)), level, page.number);
                    sections.push(std::mem::replace(&mut current, next));
                }
                None => current.push_line(page.number, line),
            }
        }
    }
    sections.push(current);
    sections.retain(|section| !section.text.trim().is_empty());
    sections
}

fn is_read_without_vision_model(page: &PageLinesAndHeadings<'_>) -> bool {
    page.source != TextSource::VisionModel
}

/// Returns the highest level with more than one heading.
fn find_section_level(pages: &[PageLinesAndHeadings<'_>]) -> Option<u8> {
    let mut levels = [0_u32; 7];
    for page in pages {
        let mut last: Option<(usize, u8)> = None;
        for (index, level) in &page.headings {
            // Several lines of one heading count once.
            if let Some(count) = levels.get_mut(usize::from(*level))
                && !(is_read_without_vision_model(page) && continues_heading(last, *index, *level))
            {
                *count += 1;
            }
            last = Some((*index, *level));
        }
    }
    let level = levels.iter().position(|count| *count > 1)?;
    u8::try_from(level).ok()
}

/// Returns whether a line continues the heading of the line before.
fn continues_heading(heading: Option<(usize, u8)>, index: usize, level: u8) -> bool {
    heading.is_some_and(|(before, its)| (before + 1, its) == (index, level))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn make_line(text: &str, y: f32) -> Line {
        Line {
            text: text.into(),
            rect: Rect {
                x: 0.1,
                y,
                width: 0.8,
                height: 0.02,
            },
            size: 10.0,
            confidence: 1.0,
        }
    }

    type PageLines = (Vec<Line>, Vec<(usize, u8)>);

    /// Splits pages of lines. Lines that start with `#` or `##` are headings.
    fn sections_of_texts(pages: &[&[&str]]) -> Vec<DocumentSection> {
        let pages: Vec<PageLines> = pages
            .iter()
            .map(|lines| {
                let mut headings = Vec::new();
                let lines = lines.iter().enumerate().map(|(index, text)| {
                    let plain = text.trim_start_matches('#');
                    if plain.len() < text.len() {
                        headings.push((index, (text.len() - plain.len()) as u8));
                    }
                    make_line(plain.trim(), 0.2 + 0.05 * index as f32)
                });
                (lines.collect(), headings)
            })
            .collect();
        let pages: Vec<PageLinesAndHeadings<'_>> = (1..)
            .zip(&pages)
            .map(|(number, (lines, headings))| PageLinesAndHeadings {
                number,
                source: TextSource::TextLayer,
                lines,
                headings: headings.clone(),
                image: None,
                failed: None,
            })
            .collect();
        split_into_sections(&pages)
    }

    fn summarize_sections(sections: &[DocumentSection]) -> Vec<(Option<&str>, &str, PageNumber, PageNumber)> {
        let of = |s: &DocumentSection| (s.first_page, s.last_page);
        sections
            .iter()
            .map(|s| (s.title.as_deref(), s.text.as_str(), of(s).0, of(s).1))
            .collect()
    }

    #[test]
    fn document_is_split_at_the_highest_repeated_level() {
        let sections = sections_of_texts(&[
            &["# The Book", "Foreword."],
            &["## One", "First.", "### Deeper", "More."],
            &["And on.", "## Two", "Second."],
        ]);
        assert_eq!(
            summarize_sections(&sections),
            [
                (None, "The Book\nForeword.", 1, 1),
                (Some("One"), "First.\nDeeper\nMore.\nAnd on.", 2, 3),
                (Some("Two"), "Second.", 3, 3),
            ]
        );
    }

    #[test]
    fn hyphenated_words_are_joined_and_keep_positions() {
        let sections = sections_of_texts(&[&["every mor-", "ning in the East-", "West hall"]]);
        assert_eq!(sections[0].text, "every morning in the East-\nWest hall");
        let lines: Vec<_> = sections[0]
            .line_positions
            .iter()
            .map(|position| &sections[0].text[position.text_range.clone()])
            .collect();
        assert_eq!(lines, ["every mor", "ning in the East-", "West hall"]);
    }

    #[test]
    fn without_headings_there_is_one_section() {
        let sections = sections_of_texts(&[&["a", "b"], &[], &["c"]]);
        assert_eq!(summarize_sections(&sections), [(None, "a\nb\nc", 1, 3)]);
        assert_eq!(summarize_sections(&sections_of_texts(&[&[], &[]])), []);
        assert_eq!(summarize_sections(&sections_of_texts(&[])), []);
    }

    #[test]
    fn two_line_heading_is_one_and_empty_section_is_dropped() {
        let sections = sections_of_texts(&[&["# A long", "# heading", "text", "# Empty", "text", "# Last"]]);
        assert_eq!(
            summarize_sections(&sections),
            [
                (Some("A long heading"), "text", 1, 1),
                (Some("Empty"), "text", 1, 1)
            ]
        );
    }

    #[test]
    fn range_is_located_on_the_page_it_starts_on() {
        let sections = sections_of_texts(&[&["one", "two"], &["three"]]);
        let text = &sections[0].text;
        let at = |from: &str, to: &str| text.find(from).unwrap()..text.find(to).unwrap() + to.len();
        let (page, rect) = sections[0].locate_range_on_first_page(&at("one", "two")).unwrap();
        assert_eq!((page, rect.y), (1, 0.2));
        assert!((rect.bottom() - 0.27).abs() < 1e-5, "{rect:?}");
        let (page, rect) = sections[0]
            .locate_range_on_first_page(&at("two", "three"))
            .unwrap();
        assert_eq!((page, rect.y), (1, 0.25));
        assert!((rect.bottom() - 0.27).abs() < 1e-5, "{rect:?}");
        assert_eq!(sections[0].locate_range_on_first_page(&(100..200)), None);
    }

    #[test]
    fn running_headers_are_left_out_of_sections() {
        let page = |n: usize| [format!("Annual report {n}"), format!("Text of page {n}.")];
        let texts: Vec<_> = (1..=5).map(page).collect();
        let lines: Vec<Vec<Line>> = texts
            .iter()
            .map(|[header, text]| vec![make_line(header, 0.03), make_line(text, 0.4)])
            .collect();
        let pages: Vec<PageLinesAndHeadings<'_>> = (1..)
            .zip(&lines)
            .map(|(number, lines)| PageLinesAndHeadings {
                number,
                source: TextSource::TextLayer,
                lines,
                headings: Vec::new(),
                image: None,
                failed: None,
            })
            .collect();
        let sections = split_into_sections(&pages);
        assert!(!sections[0].text.contains("Annual"), "{}", sections[0].text);
        assert_eq!(sections[0].line_positions.len(), 5);
    }

    #[test]
    fn heading_marks_of_a_vision_model_are_removed() {
        let lines =
            vision_markdown::split_transcription_lines("## One\n\ntext\n\n## Empty\n## **Two**\n\n- a\n- b");
        let page = PageLinesAndHeadings {
            number: 3,
            source: TextSource::VisionModel,
            headings: crate::layout::detect_page_headings(TextSource::VisionModel, &lines, &[], 3),
            lines: &lines,
            image: None,
            failed: None,
        };
        let sections = split_into_sections(&[page]);
        assert_eq!(
            summarize_sections(&sections),
            [(Some("One"), "text", 3, 3), (Some("Two"), "- a\n- b", 3, 3)]
        );
        assert_eq!(
            sections[1].locate_range_on_first_page(&(0..3)),
            Some((3, Rect::WHOLE_PAGE))
        );
    }
}
