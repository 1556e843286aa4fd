//! The three sample documents: a handbook, a survey and a scanned letter, about a lock station that does not exist. What they
//! say is made up, so a question about it can be answered from them alone; `questions.toml` has such questions.

use crate::fonts::Face;
use crate::pdf::{A4, Bookmark, Document, Page};
use crate::source::{Block, blocks};
use crate::typeset::{Style, Typesetter, broken};
use crate::{figures, scan};

/// 120 × 170 mm, in points: the handbook is small enough for a pocket.
const POCKET: (f32, f32) = (340.0, 482.0);

/// A text document with an outline: front page, contents and twelve chapters.
pub fn handbook() -> Vec<u8> {
    let style = Style {
        page: POCKET,
        side: 36.0,
        top: 56.0,
        columns: 1,
        gutter: 0.0,
        body: Face::Serif,
        heading: Face::SansBold,
        size: 10.0,
        leading: 13.2,
        justify: true,
        chapter_pages: false,
        running_head: Some("Hallbrück Lock and Weir Station".to_owned()),
        figure: 0.5,
    };
    let front = vec![handbook_front(), Page::new(POCKET)];
    let document = Document {
        title: "Handbook of the Hallbrück Lock and Weir Station".to_owned(),
        pages: front,
        ..Document::default()
    };
    let mut typesetter = Typesetter::new(style, document, &|_, _, _| {});
    typesetter.set(&blocks(include_str!("../text/handbook.txt")));
    let mut document = typesetter.finish();
    let contents = contents(&document.outline);
    document.pages.splice(1..2, [contents]);
    document.write()
}

fn handbook_front() -> Page {
    let mut page = Page::new(POCKET);
    page.content
        .set_line_width(1.2)
        .rect(28.0, 28.0, POCKET.0 - 56.0, POCKET.1 - 56.0)
        .stroke();
    let mut centered = |face: Face, size: f32, y: f32, text: &str| {
        page.text(face, size, (POCKET.0 - face.width(text, size)) / 2.0, y, text);
    };
    centered(Face::Serif, 12.0, 390.0, "River Office, Thalheim");
    centered(Face::SansBold, 28.0, 310.0, "Handbook");
    centered(Face::Sans, 14.0, 284.0, "of the Hallbrück Lock");
    centered(Face::Sans, 14.0, 265.0, "and Weir Station");
    centered(Face::SerifItalic, 11.0, 200.0, "for the keepers on duty");
    centered(Face::Serif, 10.0, 70.0, "Ninth edition, 2025");
    page
}

fn contents(outline: &[Bookmark]) -> Page {
    let mut page = Page::new(POCKET);
    page.text(Face::SansBold, 15.5, 36.0, 420.0, "Contents");
    let mut y = 398.0;
    for entry in outline {
        let (face, indent) = if entry.level == 1 {
            (Face::SerifBold, 0.0)
        } else {
            (Face::Serif, 12.0)
        };
        let number = (entry.page + 1).to_string();
        page.text(face, 9.0, 36.0 + indent, y, &entry.title);
        page.text(
            Face::Serif,
            9.0,
            304.0 - Face::Serif.width(&number, 9.0),
            y,
            &number,
        );
        y -= 12.2;
    }
    page
}

/// Two columns with charts, a map, a picture and captions.
pub fn survey() -> Vec<u8> {
    let style = Style {
        page: A4,
        side: 54.0,
        top: 64.0,
        columns: 2,
        gutter: 18.0,
        body: Face::Serif,
        heading: Face::SerifBold,
        size: 11.0,
        leading: 14.2,
        justify: true,
        chapter_pages: false,
        running_head: Some("Reports of the Institute of River Studies 33 (2025)".to_owned()),
        figure: 0.78,
    };
    let document = Document {
        title: "Water, fish and silt in the lower Aune".to_owned(),
        images: vec![figures::sonar()],
        ..Document::default()
    };
    let mut typesetter = Typesetter::new(style, document, &figures::draw);
    let all = blocks(include_str!("../text/survey.txt"));
    // The abstract stands over both columns, below the title.
    let (abstract_text, rest) = match all.split_at_checked(2) {
        Some(([_, Block::Paragraph(text)], rest)) => (*text, rest),
        _ => ("", all.as_slice()),
    };
    let page = typesetter.page();
    let mut centered = |face: Face, size: f32, y: f32, text: &str| {
        page.text(face, size, (A4.0 - face.width(text, size)) / 2.0, y, text);
    };
    centered(
        Face::SerifBold,
        21.0,
        752.0,
        "Water, fish and silt in the lower Aune",
    );
    centered(Face::Serif, 14.0, 731.0, "A survey from April 2023 to March 2025");
    centered(
        Face::Serif,
        11.0,
        708.0,
        "Maren Kalt, Tobias Stromer and Edda Wied",
    );
    centered(
        Face::SerifItalic,
        10.0,
        694.0,
        "Institute of River Studies, Thalheim",
    );
    let (left, width) = (90.0, A4.0 - 180.0);
    let mut y = 668.0;
    for line in broken(Face::SerifItalic, 10.0, abstract_text, width, width) {
        let spaces = line.text.matches(' ').count().max(1) as f32;
        let space = if line.last {
            0.0
        } else {
            (width - Face::SerifItalic.width(&line.text, 10.0)) / spaces
        };
        page.spaced_text(Face::SerifItalic, 10.0, left, y, space, &line.text);
        y -= 12.6;
    }
    typesetter.begin_columns_below(A4.1 - 64.0 - y + 6.0);
    typesetter.set(rest);
    typesetter.finish().write()
}

/// The letter as a text document: what was printed to be scanned.
pub fn letter() -> Vec<u8> {
    let style = Style {
        page: A4,
        side: 82.0,
        top: 92.0,
        columns: 1,
        gutter: 0.0,
        body: Face::Serif,
        heading: Face::SerifBold,
        size: 13.0,
        leading: 19.0,
        justify: false,
        chapter_pages: false,
        running_head: None,
        figure: 0.5,
    };
    let mut typesetter = Typesetter::new(style, Document::default(), &|_, _, _| {});
    typesetter.set(&blocks(include_str!("../text/letter.txt")));
    let letter = Document {
        outline: Vec::new(),
        ..typesetter.finish()
    };
    letter.write()
}

/// The letter as it came out of the scanner: three pictures and no text.
pub fn letter_scan() -> Vec<u8> {
    scan::scanned(&scan::LETTER)
}
