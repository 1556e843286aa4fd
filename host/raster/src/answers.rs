//! What the host checks before it believes a worker.
//!
//! The worker parses hostile files, so its answers are hostile input. Here every number is brought into the range that
//! `weir_core` promises, and an answer that does not fit the question is refused; the worker that gave it is replaced.

use std::ops::Range;
use std::sync::Arc;

use weir_core::error::RasterError;
use weir_core::page::{DocumentInfo, EncodedImage, OutlineEntry, PageFacts, PageImage, PixelFormat, Rect};
use weir_core::ports::DrawnPage;
use weir_core::text::Line;

use crate::desk::{Hold, closed};
use crate::process::Fall;
use crate::protocol::Answer;
use crate::work::{Outcome, Served, Work};

/// Entries of an outline that are kept.
pub(crate) const OUTLINE_ENTRIES: usize = 10_000;

/// Levels of an outline that are kept.
pub(crate) const OUTLINE_LEVELS: u8 = 16;

/// Characters of a title that are kept.
pub(crate) const TITLE_CHARS: usize = 500;

/// Lines of a page that are kept.
pub(crate) const PAGE_LINES: usize = 20_000;

/// Bytes of a page's text that are kept.
pub(crate) const PAGE_TEXT_BYTES: usize = 1 << 20;

/// The largest side of a page, in points, that is believed: PDF allows 14,400, writers go beyond.
const LARGEST_SIDE: f32 = 1e6;

/// Takes an answer for the outcome of `work`, if it is one.
pub(crate) fn accept(
    work: &Work,
    answer: Answer,
    payload: Vec<u8>,
    hold: &mut Option<Hold>,
) -> Result<Served, Fall> {
    let page = work.page();
    let outcome = match (work, answer) {
        (Work::Sizes(pages), Answer::Sizes(said)) => sizes(pages, said).map(Outcome::Sizes),
        (Work::Facts(pages), Answer::Facts(said)) => facts(pages, said).map(Outcome::Facts),
        (Work::Text(_), Answer::Text(said)) => Some(Outcome::Text(lines(said))),
        (Work::Probe(_), Answer::Probed(through)) => Some(Outcome::Probed(through)),
        (Work::Draw { raster, drawing, .. }, Answer::Drawn { colour }) => {
            let (format, stride) = if colour {
                (PixelFormat::Bgr, raster.stride)
            } else {
                (PixelFormat::Gray, raster.gray_stride())
            };
            let mut hold = hold.take().filter(|_| drawing.pixels);
            if let Some(hold) = &mut hold {
                hold.keep_only(stride as usize * raster.height as usize);
            }
            Some(Outcome::Drawn(DrawnPage {
                dpi: raster.dpi,
                image: hold.map(|hold| PageImage {
                    width: raster.width,
                    height: raster.height,
                    stride: stride as usize,
                    format,
                    pixels: Arc::new(hold),
                }),
                encoded: drawing.encoded.then(|| EncodedImage {
                    media_type: "image/jpeg",
                    bytes: payload.into(),
                }),
            }))
        }
        (_, Answer::Unreadable(reason)) => {
            return Ok(Err(RasterError::PageUnreadable {
                page,
                reason: title(&reason),
            }));
        }
        (_, Answer::Abandoned) => return Ok(Err(closed())),
        _ => None,
    };
    outcome
        .map(Ok)
        .ok_or_else(|| Fall::Nonsense("its answer does not fit the question".into()))
}

/// A title without control characters, with single spaces, cut to its limit.
pub(crate) fn title(raw: &str) -> String {
    let mut title = String::new();
    let mut chars = 0;
    for word in raw.split(|c: char| c.is_whitespace() || c.is_control()) {
        if word.is_empty() {
            continue;
        }
        if !title.is_empty() {
            title.push(' ');
            chars += 1;
        }
        for c in word.chars() {
            if chars >= TITLE_CHARS {
                return title.trim_end().to_owned();
            }
            title.push(c);
            chars += 1;
        }
    }
    title
}

pub(crate) fn info(info: DocumentInfo) -> DocumentInfo {
    let pages = info.pages;
    let outline = info.outline.into_iter().take(OUTLINE_ENTRIES);
    DocumentInfo {
        pages,
        title: info.title.map(|t| title(&t)).filter(|t| !t.is_empty()),
        outline: outline
            .map(|entry| OutlineEntry {
                title: title(&entry.title),
                level: entry.level.clamp(1, OUTLINE_LEVELS),
                page: entry.page.filter(|page| (1..=pages).contains(page)),
            })
            .collect(),
    }
}

fn side(points: f32) -> Option<f32> {
    (points.is_finite() && points > 0.0 && points <= LARGEST_SIDE).then_some(points)
}

pub(crate) fn sizes(pages: &Range<u32>, sizes: Vec<Option<(f32, f32)>>) -> Option<Vec<Option<(f32, f32)>>> {
    let believed = |size: Option<(f32, f32)>| size.and_then(|(w, h)| Some((side(w)?, side(h)?)));
    (sizes.len() == pages.len()).then(|| sizes.into_iter().map(believed).collect())
}

pub(crate) fn unreadable(page: u32) -> PageFacts {
    PageFacts {
        number: page.saturating_add(1),
        width: 0.0,
        height: 0.0,
        text_chars: 0,
        image_coverage: 0.0,
        readable: false,
    }
}

pub(crate) fn facts(pages: &Range<u32>, facts: Vec<PageFacts>) -> Option<Vec<PageFacts>> {
    let believed = |(page, facts): (u32, PageFacts)| match (side(facts.width), side(facts.height)) {
        (Some(width), Some(height)) if facts.readable => PageFacts {
            number: page.saturating_add(1),
            width,
            height,
            image_coverage: share(facts.image_coverage),
            ..facts
        },
        _ => unreadable(page),
    };
    (facts.len() == pages.len()).then(|| pages.clone().zip(facts).map(believed).collect())
}

fn share(value: f32) -> f32 {
    if value.is_finite() {
        value.clamp(0.0, 1.0)
    } else {
        0.0
    }
}

pub(crate) fn lines(lines: Vec<Line>) -> Vec<Line> {
    let mut bytes = 0;
    lines
        .into_iter()
        .take(PAGE_LINES)
        .take_while(|line| {
            bytes += line.text.len();
            bytes <= PAGE_TEXT_BYTES
        })
        .map(|line| {
            let (x, y) = (share(line.rect.x), share(line.rect.y));
            Line {
                text: line.text.replace(|c: char| c.is_control(), " "),
                rect: Rect {
                    x,
                    y,
                    width: share(line.rect.width).min(1.0 - x),
                    height: share(line.rect.height).min(1.0 - y),
                },
                size: if line.size.is_finite() {
                    line.size.clamp(0.0, LARGEST_SIDE)
                } else {
                    0.0
                },
                confidence: 1.0,
            }
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_out_of_range_do_not_get_through() {
        let wild = PageFacts {
            number: 99,
            width: 612.0,
            height: 792.0,
            text_chars: 5,
            image_coverage: f32::NAN,
            readable: true,
        };
        let nan = PageFacts {
            width: f32::NAN,
            ..wild
        };
        let checked = facts(&(4..6), vec![wild, nan]).unwrap();
        assert_eq!((checked[0].number, checked[0].image_coverage), (5, 0.0));
        assert_eq!(checked[1], unreadable(5));
        assert!(facts(&(4..7), vec![wild]).is_none());
        assert_eq!(
            sizes(&(0..2), vec![Some((f32::INFINITY, 1.0)), Some((1.0, 2.0))]).unwrap(),
            [None, Some((1.0, 2.0))]
        );
    }

    #[test]
    fn text_is_bounded_and_stays_on_the_page() {
        let line = Line {
            text: "a\nb\u{0}".into(),
            rect: Rect {
                x: 0.9,
                y: -3.0,
                width: 5.0,
                height: f32::NAN,
            },
            size: f32::INFINITY,
            confidence: 7.0,
        };
        let checked = lines(vec![line.clone(); PAGE_LINES + 1]);
        assert_eq!(checked.len(), PAGE_LINES);
        assert_eq!(checked[0].text, "a b ");
        assert!((checked[0].rect.right() - 1.0).abs() < 1e-6 && checked[0].rect.y == 0.0);
        assert_eq!((checked[0].size, checked[0].confidence), (0.0, 1.0));
        let long = Line {
            text: "x".repeat(PAGE_TEXT_BYTES + 1),
            ..line
        };
        assert!(lines(vec![long]).is_empty());
    }

    #[test]
    fn titles_are_one_short_line() {
        assert_eq!(title("  A\r\n\ttitle \u{7}"), "A title");
        assert_eq!(title(&"ü".repeat(600)).chars().count(), TITLE_CHARS);
    }
}
