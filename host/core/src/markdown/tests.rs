use super::*;
use crate::layout::headings;
use crate::page::{OutlineEntry, Rect};
use crate::text::TextSource;

/// Lines of 10 pt type in a column that begins at `x`, one below the other.
fn lines(x: f32, y: f32, texts: &[&str]) -> Vec<Line> {
    texts
        .iter()
        .enumerate()
        .map(|(i, text)| line(text, x, y + 0.017 * i as f32))
        .collect()
}

fn line(text: &str, x: f32, y: f32) -> Line {
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

fn page(number: PageNumber, lines: &[Line]) -> MarkdownPage<'_> {
    MarkdownPage {
        number,
        source: TextSource::TextLayer,
        lines,
        headings: headings(TextSource::TextLayer, lines, &[], number),
        image: None,
        failed: None,
    }
}

/// The blocks of a document of this page alone, without its marker.
fn body(lines: &[Line]) -> Vec<String> {
    let text = render("", None, &[page(1, lines)]);
    let blocks = text.trim_end().split("\n\n").map(str::to_owned);
    blocks.filter(|b| !b.starts_with("<!--")).collect()
}

#[test]
fn lines_become_paragraphs_and_broken_words_whole() {
    let page = lines(
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
        body(&page),
        [
            "The keeper reads the gauge at the upper gate every morning at six, and at eight in winter, from October \
         onwards, and writes the level down.",
            "Ice is reported at once and in writing, by the keeper on duty."
        ]
    );
}

#[test]
fn gaps_and_indents_part_paragraphs() {
    let mut page = lines(
        0.1,
        0.2,
        &[
            "one line of text that fills the column well",
            "and its end, as wide as the column is,",
        ],
    );
    page.extend(lines(
        0.1,
        0.26,
        &[
            "another paragraph after a gap in the column",
            "with a second line of just the same width.",
        ],
    ));
    page.extend(lines(0.12, 0.294, &["An indented one follows it without a gap"]));
    let blocks = body(&page);
    assert_eq!(blocks.len(), 3, "{blocks:?}");
    assert!(blocks[2].starts_with("An indented"));
}

#[test]
fn a_sentence_goes_on_in_the_next_column() {
    let mut page = lines(
        0.1,
        0.8,
        &[
            "the last line of the left column, which is",
            "not the end of it because the sentence",
        ],
    );
    page.extend(lines(0.55, 0.1, &["goes on at the top of the right column."]));
    page.extend(lines(0.1, 0.15, &["Elsewhere, a new sentence does not go on."]));
    assert_eq!(body(&page).len(), 2);
}

#[test]
fn headings_lists_and_tables_are_marked() {
    let mut page = vec![Line {
        size: 18.0,
        ..line("Gates", 0.1, 0.1)
    }];
    page.extend(lines(
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
            page.push(line(cell, 0.1 + 0.3 * j as f32, 0.3 + 0.02 * i as f32));
        }
    }
    assert_eq!(
        body(&page),
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
    let mut page = vec![line("•", 0.1, 0.2)];
    page.extend(lines(
        0.125,
        0.2,
        &[
            "The keeper of Sennfeld. Strips of trees.",
            "Thalheim, 1997.",
            "All of it.",
        ],
    ));
    page.extend(lines(
        0.1,
        0.251,
        &["3) The keeper of Erlenau. On the wash of soil."],
    ));
    page.extend(lines(0.125, 0.268, &["Thalheim, 1999."]));
    assert_eq!(
        body(&page),
        [
            "- The keeper of Sennfeld. Strips of trees. Thalheim, 1997. All of it.",
            "3) The keeper of Erlenau. On the wash of soil. Thalheim, 1999."
        ]
    );
}

#[test]
fn headings_take_the_outlines_level_and_join_their_lines() {
    let outline = [OutlineEntry {
        title: "What to do in a very long flood".into(),
        level: 3,
        page: Some(2),
    }];
    let text = lines(
        0.1,
        0.1,
        &["What to do in a", "very long flood", "Close the lower gate."],
    );
    let page = MarkdownPage {
        headings: headings(TextSource::TextLayer, &text, &outline, 2),
        ..page(2, &text)
    };
    let text = render("Handbook *1*", None, &[page]);
    assert_eq!(
        text,
        "# Handbook \\*1\\*\n\n<!-- page 2 -->\n\n### What to do in a very long flood\n\nClose the lower gate.\n\n"
    );
}

#[test]
fn a_title_that_the_page_has_is_not_repeated() {
    let text = [
        Line {
            size: 20.0,
            ..line("Handbook", 0.1, 0.1)
        },
        line("Some text of the body follows", 0.1, 0.2),
    ];
    let text = render("Handbook", None, &[page(1, &text)]);
    assert_eq!(text.matches("Handbook").count(), 1);
}

#[test]
fn what_runs_through_most_pages_is_dropped_and_nothing_else() {
    let texts: Vec<Vec<Line>> = (1..=5_usize)
        .map(|n| {
            vec![
                line("Hallbrück Lock Station", 0.1, 0.03),
                line(["Gates", "Gates", "Fish", "Ice", "Tolls"][n - 1], 0.8, 0.031),
                line(&format!("Notes of day {n}."), 0.1, 0.03 * n as f32 + 0.2),
                line("The same sentence, in the body.", 0.1, 0.5),
                line(&format!("Page {n} of 5"), 0.4, 0.96),
            ]
        })
        .collect();
    let pages: Vec<MarkdownPage<'_>> = texts.iter().zip(1..).map(|(lines, n)| page(n, lines)).collect();
    let text = render("", None, &pages);
    assert!(
        !text.contains("Ice") && !text.contains("Lock Station") && !text.contains("of 5"),
        "{text}"
    );
    assert_eq!(text.matches("in the body").count(), 5);
    let few = render("", None, &pages[..3]);
    assert_eq!(
        few.matches("Lock Station").count(),
        3,
        "three pages are too few to know"
    );
}

#[test]
fn failed_pages_say_so_and_images_are_linked() {
    let pages = [MarkdownPage {
        number: 3,
        source: TextSource::None,
        lines: &[],
        headings: Vec::new(),
        image: Some("pages/0003.jpg"),
        failed: Some("the page took\nlonger than 120 s"),
    }];
    let text = render("", None, &pages);
    assert_eq!(
        text,
        "<!-- page 3 -->\n\n![Page 3](<pages/0003.jpg>)\n\n> **Page 3 could not be read:** the page took longer than 120 s\n\n"
    );
}

#[test]
fn a_page_that_a_vision_model_read_stays_as_it_was_written() {
    let written = transcribed::lines("# **Handbook**\n\n1. *first*\n\n| a | b |\n|---|---|\n| <i> | 2 |");
    let pages = [MarkdownPage {
        source: TextSource::VisionModel,
        headings: headings(TextSource::VisionModel, &written, &[], 1),
        ..page(1, &written)
    }];
    assert_eq!(pages[0].headings, [(0, 1)]);
    let text = render("handbook", None, &pages);
    assert_eq!(
        text,
        "<!-- page 1 -->\n\n# **Handbook**\n\n1. *first*\n\n| a | b |\n|---|---|\n| \\<i> | 2 |\n\n"
    );
}
