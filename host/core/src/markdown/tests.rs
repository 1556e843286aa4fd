use super::*;
use crate::id::PageNumber;
use crate::layout::detect_page_headings;
use crate::page::{OutlineEntry, Rect};
use crate::page_text::TextSource;

/// Returns lines of 10 pt type in a column that starts at `x`, one below the other.
fn make_lines(x: f32, y: f32, texts: &[&str]) -> Vec<Line> {
    texts
        .iter()
        .enumerate()
        .map(|(i, text)| make_line(text, x, y + 0.017 * i as f32))
        .collect()
}

fn make_line(text: &str, x: f32, y: f32) -> Line {
    Line {
        text: text.into(),
        rect: Rect {
            x,
            y,
            width: text.chars().count() as f32 * 0.0085,
            height: 0.014,
        },
        size: 10.0,
        confidence: 1.0,
    }
}

fn make_page(number: PageNumber, lines: &[Line]) -> PageLinesAndHeadings<'_> {
    PageLinesAndHeadings {
        number,
        source: TextSource::TextLayer,
        lines,
        headings: detect_page_headings(TextSource::TextLayer, lines, &[], number),
        image: None,
        failed: None,
    }
}

/// Returns the rendered blocks of a document with one page, without the page marker.
fn render_blocks(lines: &[Line]) -> Vec<String> {
    let text = render_document("", None, &[make_page(1, lines)]);
    let blocks = text.trim_end().split("\n\n").map(str::to_owned);
    blocks.filter(|b| !b.starts_with("<!--")).collect()
}

#[test]
fn lines_are_joined_to_paragraphs_and_hyphenated_words() {
    let page = make_lines(
        0.1,
        0.2,
        &[
            "The keeper reads the gauge at the upper gate every mor-",
            "ning at six, and at eight in winter, from October on-",
            "wards, and writes the level down.",
            "Ice is reported at once and in writing, by the keeper on",
            "duty.",
        ],
    );
    assert_eq!(
        render_blocks(&page),
        [
            "The keeper reads the gauge at the upper gate every morning at six, and at eight in winter, from October \
         onwards, and writes the level down.",
            "Ice is reported at once and in writing, by the keeper on duty."
        ]
    );
}

#[test]
fn gaps_and_indents_separate_paragraphs() {
    let mut page = make_lines(
        0.1,
        0.2,
        &[
            "one line of text that fills the column well",
            "and its end, as wide as the column is,",
        ],
    );
    page.extend(make_lines(
        0.1,
        0.26,
        &[
            "another paragraph after a gap in the column",
            "with a second line of just the same width.",
        ],
    ));
    page.extend(make_lines(
        0.12,
        0.294,
        &["An indented one follows it without a gap"],
    ));
    let blocks = render_blocks(&page);
    assert_eq!(blocks.len(), 3, "{blocks:?}");
    assert!(blocks[2].starts_with("An indented"));
}

#[test]
fn sentence_continues_in_the_next_column() {
    let mut page = make_lines(
        0.1,
        0.8,
        &[
            "the last line of the left column, which is",
            "not the end of it because the sentence",
        ],
    );
    page.extend(make_lines(
        0.55,
        0.1,
        &["goes on at the top of the right column."],
    ));
    page.extend(make_lines(
        0.1,
        0.15,
        &["Elsewhere, a new sentence does not go on."],
    ));
    assert_eq!(render_blocks(&page).len(), 2);
}

#[test]
fn headings_lists_and_tables_become_markdown() {
    let mut page = vec![Line {
        size: 18.0,
        ..make_line("Gates", 0.1, 0.1)
    }];
    page.extend(make_lines(
        0.1,
        0.15,
        &[
            "• the upper gate",
            "• the lower gate, which is",
            "newer",
            "2) count them",
        ],
    ));
    for (i, row) in [["Gate", "Width"], ["Upper", "8.2 m"], ["Lower", "8|4 m"]]
        .iter()
        .enumerate()
    {
        for (j, cell) in row.iter().enumerate() {
            page.push(make_line(cell, 0.1 + 0.3 * j as f32, 0.3 + 0.02 * i as f32));
        }
    }
    assert_eq!(
        render_blocks(&page),
        [
            "# Gates",
            "- the upper gate",
            "- the lower gate, which is newer",
            "2) count them",
            "| Gate | Width |\n| --- | --- |\n| Upper | 8.2 m |\n| Lower | 8\\|4 m |",
        ]
    );
}

#[test]
fn a_hanging_indent_does_not_end_an_item() {
    let mut page = vec![make_line("•", 0.1, 0.2)];
    page.extend(make_lines(
        0.125,
        0.2,
        &[
            "The keeper of Sennfeld. Strips of trees.",
            "Thalheim, 1997.",
            "All of it.",
        ],
    ));
    page.extend(make_lines(
        0.1,
        0.251,
        &["3) The keeper of Erlenau. On the wash of soil."],
    ));
    page.extend(make_lines(0.125, 0.268, &["Thalheim, 1999."]));
    assert_eq!(
        render_blocks(&page),
        [
            "- The keeper of Sennfeld. Strips of trees. Thalheim, 1997. All of it.",
            "3) The keeper of Erlenau. On the wash of soil. Thalheim, 1999."
        ]
    );
}

#[test]
fn outline_sets_heading_level_and_lines_are_joined() {
    let outline = [OutlineEntry {
        title: "What to do in a very long flood".into(),
        level: 3,
        page: Some(2),
    }];
    let text = make_lines(
        0.1,
        0.1,
        &["What to do in a", "very long flood", "Close the lower gate."],
    );
    let page = PageLinesAndHeadings {
        headings: detect_page_headings(TextSource::TextLayer, &text, &outline, 2),
        ..make_page(2, &text)
    };
    let text = render_document("Handbook *1*", None, &[page]);
    assert_eq!(
        text,
        "# Handbook \\*1\\*\n\n<!-- page 2 -->\n\n### What to do in a very long flood\n\nClose the lower gate.\n\n"
    );
}

#[test]
fn title_on_the_first_page_is_not_repeated() {
    let text = [
        Line {
            size: 20.0,
            ..make_line("Handbook", 0.1, 0.1)
        },
        make_line("Some text of the body follows", 0.1, 0.2),
    ];
    let text = render_document("Handbook", None, &[make_page(1, &text)]);
    assert_eq!(text.matches("Handbook").count(), 1);
}

#[test]
fn running_headers_are_dropped_and_other_text_stays() {
    let texts: Vec<Vec<Line>> = (1..=5_usize)
        .map(|n| {
            vec![
                make_line("Hallbrück Lock Station", 0.1, 0.03),
                make_line(["Gates", "Gates", "Fish", "Ice", "Tolls"][n - 1], 0.8, 0.031),
                make_line(&format!("Notes of day {n}."), 0.1, 0.03 * n as f32 + 0.2),
                make_line("The same sentence, in the body.", 0.1, 0.5),
                make_line(&format!("Page {n} of 5"), 0.4, 0.96),
            ]
        })
        .collect();
    let pages: Vec<PageLinesAndHeadings<'_>> = texts
        .iter()
        .zip(1..)
        .map(|(lines, n)| make_page(n, lines))
        .collect();
    let text = render_document("", None, &pages);
    assert!(
        !text.contains("Ice") && !text.contains("Lock Station") && !text.contains("of 5"),
        "{text}"
    );
    assert_eq!(text.matches("in the body").count(), 5);
    let few = render_document("", None, &pages[..3]);
    assert_eq!(
        few.matches("Lock Station").count(),
        3,
        "three pages are too few to detect running lines"
    );
}

#[test]
fn failed_page_shows_its_error_and_image_is_linked() {
    let pages = [PageLinesAndHeadings {
        number: 3,
        source: TextSource::None,
        lines: &[],
        headings: Vec::new(),
        image: Some("pages/0003.jpg"),
        failed: Some("the page took\nlonger than 120 s"),
    }];
    let text = render_document("", None, &pages);
    assert_eq!(
        text,
        "<!-- page 3 -->\n\n![Page 3](<pages/0003.jpg>)\n\n> **Page 3 could not be read:** the page took longer than 120 s\n\n"
    );
}

#[test]
fn vision_model_page_stays_unchanged() {
    let written = vision_markdown::split_transcription_lines(
        "# **Handbook**\n\n1. *first*\n\n| a | b |\n|---|---|\n| <i> | 2 |",
    );
    let pages = [PageLinesAndHeadings {
        source: TextSource::VisionModel,
        headings: detect_page_headings(TextSource::VisionModel, &written, &[], 1),
        ..make_page(1, &written)
    }];
    assert_eq!(pages[0].headings, [(0, 1)]);
    let text = render_document("handbook", None, &pages);
    assert_eq!(
        text,
        "<!-- page 1 -->\n\n# **Handbook**\n\n1. *first*\n\n| a | b |\n|---|---|\n| \\<i> | 2 |\n\n"
    );
}
