//! A document cut into sections: what stands under each of its headings.
//!
//! Headings are those that the layout finds, the outline's before those of the type alone. A document is cut at the highest
//! level of which it has more than one heading: a single heading above all others is its title. What stands under deeper
//! headings belongs to the section around them, and what stands before the first heading is a section of its own. Headers
//! and footers that run through the pages are left out.

use std::ops::Range;

use crate::id::PageNumber;
use crate::markdown::{MarkdownPage, RunningLines, transcribed};
use crate::page::Rect;
use crate::text::{Line, TextSource};

/// A section of a document.
#[derive(Debug, Clone, PartialEq)]
pub struct DocumentSection {
    /// Its heading; none before the first heading and in a document without any.
    pub title: Option<String>,
    /// 1 for the highest.
    pub level: u8,
    /// First page.
    pub first_page: PageNumber,
    /// Last page.
    pub last_page: PageNumber,
    /// Its lines joined by `\n`, its heading left out, and words whole that were broken at the end of a line.
    pub text: String,
    /// Where each line stands.
    pub places: Vec<Place>,
}

/// Where a part of a section's text stands.
#[derive(Debug, Clone, PartialEq)]
pub struct Place {
    /// Bytes of the text.
    pub at: Range<usize>,
    /// The page.
    pub page: PageNumber,
    /// The line's box.
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
            places: Vec::new(),
        }
    }

    fn push(&mut self, page: PageNumber, line: &Line) {
        if self.places.is_empty() && self.title.is_none() {
            self.first_page = page;
        }
        let broken = self.text.strip_suffix(['-', '\u{ad}', '\u{2010}']);
        let broken = broken
            .filter(|text| text.ends_with(char::is_alphabetic))
            .map(str::len);
        match broken.filter(|_| line.text.starts_with(char::is_lowercase)) {
            // A word goes on, as in the document's Markdown.
            Some(length) => {
                self.text.truncate(length);
                if let Some(last) = self.places.last_mut() {
                    last.at.end = length;
                }
            }
            None if self.text.is_empty() => {}
            None => self.text.push('\n'),
        }
        let start = self.text.len();
        self.text.push_str(&line.text);
        self.places.push(Place {
            at: start..self.text.len(),
            page,
            rect: line.rect,
        });
        self.last_page = page;
    }

    /// The page a range of the text begins on, and the box of its lines there. What goes on over the page is on the page it
    /// begins on.
    pub fn place_of(&self, range: &Range<usize>) -> Option<(PageNumber, Rect)> {
        let mut lines = self
            .places
            .iter()
            .filter(|place| place.at.start < range.end && range.start < place.at.end);
        let first = lines.next()?;
        let rect = lines
            .take_while(|place| place.page == first.page)
            .fold(first.rect, |rect, place| rect.union(&place.rect));
        Some((first.page, rect))
    }
}

/// A document's sections, in order; none of them is empty.
pub fn sections(pages: &[MarkdownPage<'_>]) -> Vec<DocumentSection> {
    let running = RunningLines::of(pages);
    let level = cut(pages);
    let mut sections = Vec::new();
    let mut open = DocumentSection::new(None, 1, pages.first().map_or(1, |page| page.number));
    for page in pages {
        let running = running.among(page.lines);
        // Lines as they are set; those that a vision model wrote are broken where it meant them to be, and marked.
        let is_set = is_set(page);
        let mut headings = page.headings.iter().peekable();
        // A heading that is broken over lines goes on with the next line of its level.
        let mut heading: Option<(usize, u8)> = None;
        for (index, line) in page.lines.iter().enumerate() {
            let here = headings.next_if(|(at, _)| *at == index).map(|(_, level)| *level);
            if running.get(index) == Some(&true) || line.text.trim().is_empty() {
                continue;
            }
            let title = |line: &Line| match is_set {
                true => line.text.trim().to_owned(),
                false => transcribed::heading_text(&line.text).to_owned(),
            };
            match here.filter(|here| Some(*here) == level) {
                Some(level) if is_set && goes_on(heading, index, level) => {
                    heading = Some((index, level));
                    if let Some(before) = &mut open.title {
                        before.push(' ');
                        before.push_str(&title(line));
                    }
                }
                Some(level) => {
                    heading = Some((index, level));
                    let next = DocumentSection::new(Some(title(line)), level, page.number);
                    sections.push(std::mem::replace(&mut open, next));
                }
                None => open.push(page.number, line),
            }
        }
    }
    sections.push(open);
    sections.retain(|section| !section.text.trim().is_empty());
    sections
}

fn is_set(page: &MarkdownPage<'_>) -> bool {
    page.source != TextSource::VisionModel
}

/// The highest level of which there is more than one heading.
fn cut(pages: &[MarkdownPage<'_>]) -> Option<u8> {
    let mut levels = [0_u32; 7];
    for page in pages {
        let mut last: Option<(usize, u8)> = None;
        for (index, level) in &page.headings {
            // One that is broken over lines is one.
            if let Some(count) = levels.get_mut(usize::from(*level))
                && !(is_set(page) && goes_on(last, *index, *level))
            {
                *count += 1;
            }
            last = Some((*index, *level));
        }
    }
    let level = levels.iter().position(|count| *count > 1)?;
    u8::try_from(level).ok()
}

/// Whether a line goes on with the heading that the line before it is.
fn goes_on(heading: Option<(usize, u8)>, index: usize, level: u8) -> bool {
    heading.is_some_and(|(before, its)| (before + 1, its) == (index, level))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(text: &str, y: f32) -> Line {
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

    /// Pages of lines from the top; `#` and `##` before a line make it a heading.
    fn cut_up(pages: &[&[&str]]) -> Vec<DocumentSection> {
        let pages: Vec<PageLines> = pages
            .iter()
            .map(|lines| {
                let mut headings = Vec::new();
                let lines = lines.iter().enumerate().map(|(index, text)| {
                    let plain = text.trim_start_matches('#');
                    if plain.len() < text.len() {
                        headings.push((index, (text.len() - plain.len()) as u8));
                    }
                    line(plain.trim(), 0.2 + 0.05 * index as f32)
                });
                (lines.collect(), headings)
            })
            .collect();
        let pages: Vec<MarkdownPage<'_>> = (1..)
            .zip(&pages)
            .map(|(number, (lines, headings))| MarkdownPage {
                number,
                source: TextSource::TextLayer,
                lines,
                headings: headings.clone(),
                image: None,
                failed: None,
            })
            .collect();
        sections(&pages)
    }

    fn outline(sections: &[DocumentSection]) -> Vec<(Option<&str>, &str, PageNumber, PageNumber)> {
        let of = |s: &DocumentSection| (s.first_page, s.last_page);
        sections
            .iter()
            .map(|s| (s.title.as_deref(), s.text.as_str(), of(s).0, of(s).1))
            .collect()
    }

    #[test]
    fn a_document_is_cut_at_the_highest_level_that_repeats() {
        let sections = cut_up(&[
            &["# The Book", "Foreword."],
            &["## One", "First.", "### Deeper", "More."],
            &["And on.", "## Two", "Second."],
        ]);
        assert_eq!(
            outline(&sections),
            [
                (None, "The Book\nForeword.", 1, 1),
                (Some("One"), "First.\nDeeper\nMore.\nAnd on.", 2, 3),
                (Some("Two"), "Second.", 3, 3),
            ]
        );
    }

    #[test]
    fn broken_words_are_whole_and_still_have_their_places() {
        let sections = cut_up(&[&["every mor-", "ning in the East-", "West hall"]]);
        assert_eq!(sections[0].text, "every morning in the East-\nWest hall");
        let places: Vec<_> = sections[0]
            .places
            .iter()
            .map(|place| &sections[0].text[place.at.clone()])
            .collect();
        assert_eq!(places, ["every mor", "ning in the East-", "West hall"]);
    }

    #[test]
    fn without_headings_there_is_one_section() {
        let sections = cut_up(&[&["a", "b"], &[], &["c"]]);
        assert_eq!(outline(&sections), [(None, "a\nb\nc", 1, 3)]);
        assert_eq!(outline(&cut_up(&[&[], &[]])), []);
        assert_eq!(outline(&cut_up(&[])), []);
    }

    #[test]
    fn a_heading_over_two_lines_is_one_and_an_empty_section_none() {
        let sections = cut_up(&[&["# A long", "# heading", "text", "# Empty", "text", "# Last"]]);
        assert_eq!(
            outline(&sections),
            [
                (Some("A long heading"), "text", 1, 1),
                (Some("Empty"), "text", 1, 1)
            ]
        );
    }

    #[test]
    fn a_range_stands_on_the_page_it_begins_on() {
        let sections = cut_up(&[&["one", "two"], &["three"]]);
        let text = &sections[0].text;
        let at = |from: &str, to: &str| text.find(from).unwrap()..text.find(to).unwrap() + to.len();
        let (page, rect) = sections[0].place_of(&at("one", "two")).unwrap();
        assert_eq!((page, rect.y), (1, 0.2));
        assert!((rect.bottom() - 0.27).abs() < 1e-5, "{rect:?}");
        let (page, rect) = sections[0].place_of(&at("two", "three")).unwrap();
        assert_eq!((page, rect.y), (1, 0.25));
        assert!((rect.bottom() - 0.27).abs() < 1e-5, "{rect:?}");
        assert_eq!(sections[0].place_of(&(100..200)), None);
    }

    #[test]
    fn headers_that_run_through_are_no_text() {
        let page = |n: usize| [format!("Annual report {n}"), format!("Text of page {n}.")];
        let texts: Vec<_> = (1..=5).map(page).collect();
        let lines: Vec<Vec<Line>> = texts
            .iter()
            .map(|[header, text]| vec![line(header, 0.03), line(text, 0.4)])
            .collect();
        let pages: Vec<MarkdownPage<'_>> = (1..)
            .zip(&lines)
            .map(|(number, lines)| MarkdownPage {
                number,
                source: TextSource::TextLayer,
                lines,
                headings: Vec::new(),
                image: None,
                failed: None,
            })
            .collect();
        let sections = sections(&pages);
        assert!(!sections[0].text.contains("Annual"), "{}", sections[0].text);
        assert_eq!(sections[0].places.len(), 5);
    }

    #[test]
    fn what_a_vision_model_marked_is_a_heading_without_its_marks() {
        let lines = transcribed::lines("## One\n\ntext\n\n## Empty\n## **Two**\n\n- a\n- b");
        let page = MarkdownPage {
            number: 3,
            source: TextSource::VisionModel,
            headings: crate::layout::headings(TextSource::VisionModel, &lines, &[], 3),
            lines: &lines,
            image: None,
            failed: None,
        };
        let sections = sections(&[page]);
        assert_eq!(
            outline(&sections),
            [(Some("One"), "text", 3, 3), (Some("Two"), "- a\n- b", 3, 3)]
        );
        assert_eq!(sections[1].place_of(&(0..3)), Some((3, Rect::PAGE)));
    }
}
