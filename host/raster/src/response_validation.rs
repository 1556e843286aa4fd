//! Validates the responses of a worker.
//!
//! The worker parses hostile files, so its responses are untrusted input. This module clamps every number to the range that
//! `weir_core` guarantees. It rejects a response that does not match its task; the worker that sent it is then replaced.

use std::ops::Range;
use std::sync::Arc;

use weir_core::error::RasterError;
use weir_core::page::{DocumentInfo, EncodedImage, OutlineEntry, PageFacts, PixelFormat, RawPageImage, Rect};
use weir_core::page_text::Line;
use weir_core::ports::RasterizeOutput;

use crate::image_reservation::ImageReservation;
use crate::protocol::WorkerResponse;
use crate::task::{TaskOutput, TaskResult, WorkerLossReason, WorkerTask, pool_closed_error};

/// Maximum number of outline entries; the rest is dropped.
pub(crate) const MAX_OUTLINE_ENTRIES: usize = 10_000;

/// Maximum depth of an outline.
pub(crate) const MAX_OUTLINE_LEVELS: u8 = 16;

/// Maximum number of characters of a title or of an error reason from a worker.
pub(crate) const MAX_TITLE_CHARS: usize = 500;

/// Maximum number of text lines on a page; the rest is dropped.
pub(crate) const MAX_PAGE_LINES: usize = 20_000;

/// Maximum number of bytes of text on a page; the rest is dropped.
pub(crate) const MAX_PAGE_TEXT_BYTES: usize = 1 << 20;

/// Maximum side of a page, in points. PDF allows 14,400, but some writers exceed that.
const MAX_PAGE_SIDE_POINTS: f32 = 1e6;

/// Converts a response into the output of `task`. A response of another kind is an error that ends the worker.
pub(crate) fn validate_and_convert_response(
    task: &WorkerTask,
    response: WorkerResponse,
    payload: Vec<u8>,
    reservation: &mut Option<ImageReservation>,
) -> Result<TaskResult, WorkerLossReason> {
    let page = task.page_for_error();
    let outcome = match (task, response) {
        (WorkerTask::ReadPageSizes(pages), WorkerResponse::PageSizes(values)) => {
            validate_page_sizes(pages, values).map(TaskOutput::PageSizes)
        }
        (WorkerTask::ReadPageFacts(pages), WorkerResponse::PageFacts(values)) => {
            validate_page_facts(pages, values).map(TaskOutput::PageFacts)
        }
        (WorkerTask::ReadPageText(_), WorkerResponse::PageText(values)) => {
            Some(TaskOutput::PageText(sanitize_lines(values)))
        }
        (WorkerTask::RunProbe(_), WorkerResponse::ProbeFinished(unblocked)) => {
            Some(TaskOutput::ProbeFinished(unblocked))
        }
        (
            WorkerTask::DrawPage {
                dimensions, drawing, ..
            },
            WorkerResponse::PageDrawn { is_color },
        ) => {
            let (format, stride) = if is_color {
                (PixelFormat::Bgr, dimensions.stride)
            } else {
                (PixelFormat::Gray, dimensions.gray_stride())
            };
            let mut pixel_reservation = reservation.take().filter(|_| drawing.want_pixels);
            if let Some(image_memory) = &mut pixel_reservation {
                image_memory.shrink_to(stride as usize * dimensions.height as usize);
            }
            Some(TaskOutput::PageDrawn(RasterizeOutput {
                dpi: dimensions.dpi,
                image: pixel_reservation.map(|reservation| RawPageImage {
                    width: dimensions.width,
                    height: dimensions.height,
                    stride: stride as usize,
                    format,
                    pixels: Arc::new(reservation),
                }),
                encoded: drawing.want_encoded.then(|| EncodedImage {
                    media_type: "image/jpeg",
                    bytes: payload.into(),
                }),
            }))
        }
        (_, WorkerResponse::PageUnreadable(reason)) => {
            return Ok(Err(RasterError::PageUnreadable {
                page,
                reason: sanitize_title(&reason),
            }));
        }
        (_, WorkerResponse::Canceled) => return Ok(Err(pool_closed_error())),
        _ => None,
    };
    outcome
        .map(Ok)
        .ok_or_else(|| WorkerLossReason::InvalidResponse("the response does not match the request".into()))
}

/// Removes control characters, collapses white space to single spaces and cuts the text to [`MAX_TITLE_CHARS`].
pub(crate) fn sanitize_title(raw: &str) -> String {
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
            if chars >= MAX_TITLE_CHARS {
                return title.trim_end().to_owned();
            }
            title.push(c);
            chars += 1;
        }
    }
    title
}

pub(crate) fn sanitize_document_info(info: DocumentInfo) -> DocumentInfo {
    let pages = info.pages;
    let outline = info.outline.into_iter().take(MAX_OUTLINE_ENTRIES);
    DocumentInfo {
        pages,
        title: info.title.map(|t| sanitize_title(&t)).filter(|t| !t.is_empty()),
        outline: outline
            .map(|entry| OutlineEntry {
                title: sanitize_title(&entry.title),
                level: entry.level.clamp(1, MAX_OUTLINE_LEVELS),
                page: entry.page.filter(|page| (1..=pages).contains(page)),
            })
            .collect(),
    }
}

fn validate_page_side_length(points: f32) -> Option<f32> {
    (points.is_finite() && points > 0.0 && points <= MAX_PAGE_SIDE_POINTS).then_some(points)
}

pub(crate) fn validate_page_sizes(
    pages: &Range<u32>,
    sizes: Vec<Option<(f32, f32)>>,
) -> Option<Vec<Option<(f32, f32)>>> {
    let validated = |size: Option<(f32, f32)>| {
        size.and_then(|(w, h)| Some((validate_page_side_length(w)?, validate_page_side_length(h)?)))
    };
    (sizes.len() == pages.len()).then(|| sizes.into_iter().map(validated).collect())
}

pub(crate) fn unreadable_page_facts(page: u32) -> PageFacts {
    PageFacts {
        number: page.saturating_add(1),
        width: 0.0,
        height: 0.0,
        text_chars: 0,
        image_coverage: 0.0,
        readable: false,
    }
}

pub(crate) fn validate_page_facts(pages: &Range<u32>, facts: Vec<PageFacts>) -> Option<Vec<PageFacts>> {
    let validated = |(page, facts): (u32, PageFacts)| match (
        validate_page_side_length(facts.width),
        validate_page_side_length(facts.height),
    ) {
        (Some(width), Some(height)) if facts.readable => PageFacts {
            number: page.saturating_add(1),
            width,
            height,
            image_coverage: clamp_to_unit_range(facts.image_coverage),
            ..facts
        },
        _ => unreadable_page_facts(page),
    };
    (facts.len() == pages.len()).then(|| pages.clone().zip(facts).map(validated).collect())
}

fn clamp_to_unit_range(value: f32) -> f32 {
    if value.is_finite() {
        value.clamp(0.0, 1.0)
    } else {
        0.0
    }
}

pub(crate) fn sanitize_lines(lines: Vec<Line>) -> Vec<Line> {
    let mut bytes = 0;
    lines
        .into_iter()
        .take(MAX_PAGE_LINES)
        .take_while(|line| {
            bytes += line.text.len();
            bytes <= MAX_PAGE_TEXT_BYTES
        })
        .map(|line| {
            let (x, y) = (clamp_to_unit_range(line.rect.x), clamp_to_unit_range(line.rect.y));
            Line {
                text: line.text.replace(|c: char| c.is_control(), " "),
                rect: Rect {
                    x,
                    y,
                    width: clamp_to_unit_range(line.rect.width).min(1.0 - x),
                    height: clamp_to_unit_range(line.rect.height).min(1.0 - y),
                },
                size: if line.size.is_finite() {
                    line.size.clamp(0.0, MAX_PAGE_SIDE_POINTS)
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
    fn invalid_numbers_are_clamped_or_mark_the_page_unreadable() {
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
        let checked = validate_page_facts(&(4..6), vec![wild, nan]).unwrap();
        assert_eq!((checked[0].number, checked[0].image_coverage), (5, 0.0));
        assert_eq!(checked[1], unreadable_page_facts(5));
        assert!(validate_page_facts(&(4..7), vec![wild]).is_none());
        assert_eq!(
            validate_page_sizes(&(0..2), vec![Some((f32::INFINITY, 1.0)), Some((1.0, 2.0))]).unwrap(),
            [None, Some((1.0, 2.0))]
        );
    }

    #[test]
    fn text_is_bounded_and_boxes_stay_on_the_page() {
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
        let checked = sanitize_lines(vec![line.clone(); MAX_PAGE_LINES + 1]);
        assert_eq!(checked.len(), MAX_PAGE_LINES);
        assert_eq!(checked[0].text, "a b ");
        assert!((checked[0].rect.right() - 1.0).abs() < 1e-6 && checked[0].rect.y == 0.0);
        assert_eq!((checked[0].size, checked[0].confidence), (0.0, 1.0));
        let long = Line {
            text: "x".repeat(MAX_PAGE_TEXT_BYTES + 1),
            ..line
        };
        assert!(sanitize_lines(vec![long]).is_empty());
    }

    #[test]
    fn titles_are_one_short_line() {
        assert_eq!(sanitize_title("  A\r\n\ttitle \u{7}"), "A title");
        assert_eq!(sanitize_title(&"ü".repeat(600)).chars().count(), MAX_TITLE_CHARS);
    }
}
