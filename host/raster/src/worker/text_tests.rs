use pdfium_render::prelude::FS_MATRIX;

use super::*;

const FONT_SIZE: f32 = 10.0;

/// A glyph that is half as wide as its font size; (`x`, `y`) is the left end of its baseline.
fn glyph_at(code: char, x: f32, y: f32) -> Glyph {
    Glyph {
        code_point: code as u32,
        is_generated: false,
        is_hyphen: false,
        font_size: 1.0,
        matrix: FS_MATRIX {
            a: FONT_SIZE,
            b: 0.0,
            c: 0.0,
            d: FONT_SIZE,
            e: x,
            f: y,
        },
        origin: (x, y),
        bounds: Bounds {
            left: x,
            bottom: y - 2.0,
            right: x + 5.0,
            top: y + 8.0,
        },
    }
}

fn word_glyphs(text: &str, x: f32, y: f32) -> Vec<Glyph> {
    (0_u8..)
        .zip(text.chars())
        .map(|(i, c)| glyph_at(c, x + 5.0 * f32::from(i), y))
        .collect()
}

fn assemble_lines(glyphs: impl IntoIterator<Item = Glyph>) -> Vec<Line> {
    let page = Bounds {
        left: 0.0,
        bottom: 0.0,
        right: 1000.0,
        top: 500.0,
    };
    let mut lines = LineAssembler::new(PointsToPageFractions {
        page_bounds: page,
        quarter_turns: 0,
    });
    for glyph in glyphs {
        lines.add_glyph(&glyph);
    }
    lines.finish_page()
}

fn assemble_line_texts(glyphs: impl IntoIterator<Item = Glyph>) -> Vec<String> {
    assemble_lines(glyphs).into_iter().map(|line| line.text).collect()
}

#[test]
fn gaps_are_spaces_and_wide_gaps_are_columns() {
    let glyphs = [
        word_glyphs("near", 0.0, 100.0),
        word_glyphs("far", 23.0, 100.0),
        word_glyphs("away", 60.0, 100.0),
    ];
    assert_eq!(assemble_line_texts(glyphs.concat()), ["near far", "away"]);
}

#[test]
fn wide_space_joins_a_line_and_column_gutter_splits_it() {
    let row = |y: f32| {
        [
            word_glyphs("a line of words", 0.0, y),
            word_glyphs("and its other part", 85.0, y),
        ]
        .concat()
    };
    assert_eq!(
        assemble_line_texts(row(100.0)),
        ["a line of words and its other part"]
    );
    let columns = [row(100.0), row(88.0), row(76.0)].concat();
    assert_eq!(
        assemble_line_texts(columns),
        ["a line of words", "and its other part"].repeat(3)
    );
}

#[test]
fn superscript_joins_its_line_and_next_line_does_not() {
    let mut small = glyph_at('2', 15.0, 104.0);
    small.font_size = 0.6;
    let glyphs = [
        word_glyphs("mc", 5.0, 100.0),
        vec![small],
        word_glyphs("next", 5.0, 88.0),
    ];
    assert_eq!(assemble_line_texts(glyphs.concat()), ["mc2", "next"]);
}

#[test]
fn a_soft_hyphen_shows_only_where_the_line_ends() {
    let glyphs = [
        word_glyphs("hy\u{ad}phen\u{ad}", 0.0, 100.0),
        word_glyphs("ated", 0.0, 80.0),
    ];
    assert_eq!(assemble_line_texts(glyphs.concat()), ["hyphen-", "ated"]);
}

#[test]
fn non_text_is_skipped_and_ligatures_are_expanded() {
    let mut generated = glyph_at('-', 10.0, 100.0);
    generated.is_generated = true;
    let glyphs = [
        word_glyphs("o\u{fb03}\u{0}", 0.0, 100.0),
        vec![generated],
        word_glyphs("ce", 10.0, 100.0),
    ];
    assert_eq!(assemble_line_texts(glyphs.concat()), ["office"]);
    let outside = word_glyphs("outside", 0.0, -50.0);
    assert!(assemble_line_texts(outside).is_empty());
    let glyph_without_position = glyph_at('x', f32::NAN, 100.0);
    assert!(assemble_line_texts([glyph_without_position]).is_empty());
}

#[test]
fn right_to_left_text_is_one_line_in_its_own_order() {
    let glyphs: Vec<_> = (0_u8..)
        .zip("שלום עולם".chars())
        .map(|(i, c)| glyph_at(c, 500.0 - 5.0 * f32::from(i), 100.0))
        .collect();
    assert_eq!(assemble_line_texts(glyphs), ["שלום עולם"]);
}

#[test]
fn vertical_text_in_the_margin_is_one_line() {
    let glyphs = (0_u8..).zip("margin".chars()).map(|(i, c)| {
        let mut glyph = glyph_at(c, 50.0, 100.0 + 5.0 * f32::from(i));
        glyph.matrix = FS_MATRIX {
            a: 0.0,
            b: FONT_SIZE,
            c: -FONT_SIZE,
            d: 0.0,
            ..glyph.matrix
        };
        let (x, y) = glyph.origin;
        glyph.bounds = Bounds {
            left: x - 8.0,
            bottom: y,
            right: x + 2.0,
            top: y + 5.0,
        };
        glyph
    });
    let lines = assemble_lines(glyphs);
    assert_eq!(lines.len(), 1);
    assert_eq!((lines[0].text.as_str(), lines[0].size), ("margin", FONT_SIZE));
    assert!((lines[0].rect.height - 30.0 / 500.0).abs() < 1e-5);
}

#[test]
fn boxes_rotate_with_the_page() {
    let page = Bounds {
        left: 0.0,
        bottom: 0.0,
        right: 1000.0,
        top: 500.0,
    };
    // The lower left corner moves to the upper left, the upper right and the lower right.
    let corner = Bounds {
        left: 0.0,
        bottom: 0.0,
        right: 100.0,
        top: 100.0,
    };
    let corner_positions: Vec<_> = (0..4)
        .map(|turns| {
            PointsToPageFractions {
                page_bounds: page,
                quarter_turns: turns,
            }
            .to_page_rect(&corner)
            .unwrap()
        })
        .map(|r| (r.x > 0.5, r.y > 0.5))
        .collect();
    assert_eq!(
        corner_positions,
        [(false, true), (false, false), (true, false), (true, true)]
    );
}

#[test]
fn page_stops_at_the_maximum_number_of_lines() {
    let glyphs =
        (0..=MAX_PAGE_LINES).map(|i| glyph_at('x', 100.0 * (i % 9) as f32, 100.0 + (i % 100) as f32 * 4.0));
    let page = Bounds {
        left: 0.0,
        bottom: 0.0,
        right: 1000.0,
        top: 500.0,
    };
    let mut lines = LineAssembler::new(PointsToPageFractions {
        page_bounds: page,
        quarter_turns: 0,
    });
    let read = glyphs.take_while(|glyph| {
        lines.add_glyph(glyph);
        !lines.has_reached_text_limit()
    });
    assert!(read.count() <= MAX_PAGE_LINES + 1);
}
