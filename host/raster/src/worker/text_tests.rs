use pdfium_render::prelude::FS_MATRIX;

use super::*;

const SIZE: f32 = 10.0;

/// A letter of half the type's size in width, its baseline's left end at (`x`, `y`).
fn glyph(code: char, x: f32, y: f32) -> Glyph {
    Glyph {
        code: code as u32,
        generated: false,
        hyphen: false,
        size: 1.0,
        matrix: FS_MATRIX {
            a: SIZE,
            b: 0.0,
            c: 0.0,
            d: SIZE,
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

fn word(text: &str, x: f32, y: f32) -> Vec<Glyph> {
    (0_u8..)
        .zip(text.chars())
        .map(|(i, c)| glyph(c, x + 5.0 * f32::from(i), y))
        .collect()
}

fn lines(glyphs: impl IntoIterator<Item = Glyph>) -> Vec<Line> {
    let page = Bounds {
        left: 0.0,
        bottom: 0.0,
        right: 1000.0,
        top: 500.0,
    };
    let mut lines = Lines::new(Frame { page, turns: 0 });
    for glyph in glyphs {
        lines.add(&glyph);
    }
    lines.finish()
}

fn texts(glyphs: impl IntoIterator<Item = Glyph>) -> Vec<String> {
    lines(glyphs).into_iter().map(|line| line.text).collect()
}

#[test]
fn gaps_are_spaces_and_wide_gaps_are_columns() {
    let glyphs = [
        word("near", 0.0, 100.0),
        word("far", 23.0, 100.0),
        word("away", 60.0, 100.0),
    ];
    assert_eq!(texts(glyphs.concat()), ["near far", "away"]);
}

#[test]
fn wide_space_joins_a_line_and_narrow_gutter_parts_two() {
    let row = |y: f32| {
        [
            word("a line of words", 0.0, y),
            word("and its other part", 85.0, y),
        ]
        .concat()
    };
    assert_eq!(texts(row(100.0)), ["a line of words and its other part"]);
    let columns = [row(100.0), row(88.0), row(76.0)].concat();
    assert_eq!(
        texts(columns),
        ["a line of words", "and its other part"].repeat(3)
    );
}

#[test]
fn a_superscript_stays_and_the_next_line_does_not() {
    let mut small = glyph('2', 15.0, 104.0);
    small.size = 0.6;
    let glyphs = [word("mc", 5.0, 100.0), vec![small], word("next", 5.0, 88.0)];
    assert_eq!(texts(glyphs.concat()), ["mc2", "next"]);
}

#[test]
fn a_soft_hyphen_shows_only_where_the_line_ends() {
    let glyphs = [word("hy\u{ad}phen\u{ad}", 0.0, 100.0), word("ated", 0.0, 80.0)];
    assert_eq!(texts(glyphs.concat()), ["hyphen-", "ated"]);
}

#[test]
fn what_is_no_text_is_left_out_and_ligatures_are_taken_apart() {
    let mut generated = glyph('-', 10.0, 100.0);
    generated.generated = true;
    let glyphs = [
        word("o\u{fb03}\u{0}", 0.0, 100.0),
        vec![generated],
        word("ce", 10.0, 100.0),
    ];
    assert_eq!(texts(glyphs.concat()), ["office"]);
    let outside = word("outside", 0.0, -50.0);
    assert!(texts(outside).is_empty());
    let nowhere = glyph('x', f32::NAN, 100.0);
    assert!(texts([nowhere]).is_empty());
}

#[test]
fn writing_from_right_to_left_is_a_line_in_its_own_order() {
    let glyphs: Vec<_> = (0_u8..)
        .zip("שלום עולם".chars())
        .map(|(i, c)| glyph(c, 500.0 - 5.0 * f32::from(i), 100.0))
        .collect();
    assert_eq!(texts(glyphs), ["שלום עולם"]);
}

#[test]
fn writing_up_the_margin_is_one_line() {
    let glyphs = (0_u8..).zip("margin".chars()).map(|(i, c)| {
        let mut glyph = glyph(c, 50.0, 100.0 + 5.0 * f32::from(i));
        glyph.matrix = FS_MATRIX {
            a: 0.0,
            b: SIZE,
            c: -SIZE,
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
    let lines = lines(glyphs);
    assert_eq!(lines.len(), 1);
    assert_eq!((lines[0].text.as_str(), lines[0].size), ("margin", SIZE));
    assert!((lines[0].rect.height - 30.0 / 500.0).abs() < 1e-5);
}

#[test]
fn boxes_turn_with_the_page() {
    let page = Bounds {
        left: 0.0,
        bottom: 0.0,
        right: 1000.0,
        top: 500.0,
    };
    // The lower left corner goes up the left side, to the right, and down.
    let corner = Bounds {
        left: 0.0,
        bottom: 0.0,
        right: 100.0,
        top: 100.0,
    };
    let places: Vec<_> = (0..4)
        .map(|turns| Frame { page, turns }.rect(&corner).unwrap())
        .map(|r| (r.x > 0.5, r.y > 0.5))
        .collect();
    assert_eq!(
        places,
        [(false, true), (false, false), (true, false), (true, true)]
    );
}

#[test]
fn a_page_has_no_more_lines_than_are_kept() {
    let glyphs = (0..=PAGE_LINES).map(|i| glyph('x', 100.0 * (i % 9) as f32, 100.0 + (i % 100) as f32 * 4.0));
    let page = Bounds {
        left: 0.0,
        bottom: 0.0,
        right: 1000.0,
        top: 500.0,
    };
    let mut lines = Lines::new(Frame { page, turns: 0 });
    let read = glyphs.take_while(|glyph| {
        lines.add(glyph);
        !lines.is_full()
    });
    assert!(read.count() <= PAGE_LINES + 1);
}
