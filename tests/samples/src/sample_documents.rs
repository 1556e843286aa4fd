//! The three sample documents: a handbook, a survey and a scanned letter about a fictional lock station. Their content is invented,
//! so only the documents themselves can answer the questions in `questions.toml`.

use crate::fonts::Typeface;
use crate::pdf_document::{A4_POINTS, Bookmark, Document, Page};
use crate::text_markup::{TextBlock, parse_blocks};
use crate::typesetter::{PageStyle, Typesetter, break_lines};
use crate::{figures, scanned_pages};

/// The handbook's pocket format of 120 × 170 mm, in points.
const POCKET_PAGE_POINTS: (f32, f32) = (340.0, 482.0);

/// Builds the handbook, a text document with an outline, a front page, a table of contents and twelve chapters.
pub fn handbook_document() -> Vec<u8> {
    let style = PageStyle {
        page_size: POCKET_PAGE_POINTS,
        side_margin: 36.0,
        vertical_margin: 56.0,
        columns: 1,
        gutter: 0.0,
        body_typeface: Typeface::Serif,
        heading_typeface: Typeface::SansBold,
        font_size: 10.0,
        line_height: 13.2,
        justify: true,
        chapter_pages: false,
        running_head: Some("Hallbrück Lock and Weir Station".to_owned()),
        figure_aspect: 0.5,
    };
    let front = vec![handbook_front_page(), Page::new(POCKET_PAGE_POINTS)];
    let document = Document {
        title: "Handbook of the Hallbrück Lock and Weir Station".to_owned(),
        pages: front,
        ..Document::default()
    };
    let mut typesetter = Typesetter::new(style, document, &|_, _, _| {});
    typesetter.add_blocks(&parse_blocks(include_str!("../text/handbook.txt")));
    let mut document = typesetter.finish();
    let contents = contents_page(&document.outline);
    document.pages.splice(1..2, [contents]);
    document.to_pdf_bytes()
}

fn handbook_front_page() -> Page {
    let mut page = Page::new(POCKET_PAGE_POINTS);
    page.content
        .set_line_width(1.2)
        .rect(
            28.0,
            28.0,
            POCKET_PAGE_POINTS.0 - 56.0,
            POCKET_PAGE_POINTS.1 - 56.0,
        )
        .stroke();
    let mut centered = |face: Typeface, size: f32, y: f32, text: &str| {
        page.draw_text(
            face,
            size,
            (POCKET_PAGE_POINTS.0 - face.text_width(text, size)) / 2.0,
            y,
            text,
        );
    };
    centered(Typeface::Serif, 12.0, 390.0, "River Office, Thalheim");
    centered(Typeface::SansBold, 28.0, 310.0, "Handbook");
    centered(Typeface::Sans, 14.0, 284.0, "of the Hallbrück Lock");
    centered(Typeface::Sans, 14.0, 265.0, "and Weir Station");
    centered(Typeface::SerifItalic, 11.0, 200.0, "for the keepers on duty");
    centered(Typeface::Serif, 10.0, 70.0, "Ninth edition, 2025");
    page
}

fn contents_page(outline: &[Bookmark]) -> Page {
    let mut page = Page::new(POCKET_PAGE_POINTS);
    page.draw_text(Typeface::SansBold, 15.5, 36.0, 420.0, "Contents");
    let mut y = 398.0;
    for entry in outline {
        let (face, indent) = if entry.level == 1 {
            (Typeface::SerifBold, 0.0)
        } else {
            (Typeface::Serif, 12.0)
        };
        let number = (entry.page + 1).to_string();
        page.draw_text(face, 9.0, 36.0 + indent, y, &entry.title);
        page.draw_text(
            Typeface::Serif,
            9.0,
            304.0 - Typeface::Serif.text_width(&number, 9.0),
            y,
            &number,
        );
        y -= 12.2;
    }
    page
}

/// Builds the survey, a document in two columns with charts, a map, an image and captions.
pub fn survey_document() -> Vec<u8> {
    let style = PageStyle {
        page_size: A4_POINTS,
        side_margin: 54.0,
        vertical_margin: 64.0,
        columns: 2,
        gutter: 18.0,
        body_typeface: Typeface::Serif,
        heading_typeface: Typeface::SerifBold,
        font_size: 11.0,
        line_height: 14.2,
        justify: true,
        chapter_pages: false,
        running_head: Some("Reports of the Institute of River Studies 33 (2025)".to_owned()),
        figure_aspect: 0.78,
    };
    let document = Document {
        title: "Water, fish and silt in the lower Aune".to_owned(),
        images: vec![figures::sonar_image()],
        ..Document::default()
    };
    let mut typesetter = Typesetter::new(style, document, &figures::draw_figure);
    let all = parse_blocks(include_str!("../text/survey.txt"));
    // The abstract is above both columns and below the title.
    let (abstract_text, rest) = match all.split_at_checked(2) {
        Some(([_, TextBlock::Paragraph(text)], rest)) => (*text, rest),
        _ => ("", all.as_slice()),
    };
    let page = typesetter.current_page();
    let mut centered = |face: Typeface, size: f32, y: f32, text: &str| {
        page.draw_text(
            face,
            size,
            (A4_POINTS.0 - face.text_width(text, size)) / 2.0,
            y,
            text,
        );
    };
    centered(
        Typeface::SerifBold,
        21.0,
        752.0,
        "Water, fish and silt in the lower Aune",
    );
    centered(
        Typeface::Serif,
        14.0,
        731.0,
        "A survey from April 2023 to March 2025",
    );
    centered(
        Typeface::Serif,
        11.0,
        708.0,
        "Maren Kalt, Tobias Stromer and Edda Wied",
    );
    centered(
        Typeface::SerifItalic,
        10.0,
        694.0,
        "Institute of River Studies, Thalheim",
    );
    let (left, width) = (90.0, A4_POINTS.0 - 180.0);
    let mut y = 668.0;
    for line in break_lines(Typeface::SerifItalic, 10.0, abstract_text, width, width) {
        let spaces = line.text.matches(' ').count().max(1) as f32;
        let space = if line.is_last {
            0.0
        } else {
            (width - Typeface::SerifItalic.text_width(&line.text, 10.0)) / spaces
        };
        page.draw_spaced_text(Typeface::SerifItalic, 10.0, left, y, space, &line.text);
        y -= 12.6;
    }
    typesetter.begin_columns_below(A4_POINTS.1 - 64.0 - y + 6.0);
    typesetter.add_blocks(rest);
    typesetter.finish().to_pdf_bytes()
}

/// Builds the letter as a text document, which is the original of the scan.
pub fn letter_document() -> Vec<u8> {
    let style = PageStyle {
        page_size: A4_POINTS,
        side_margin: 82.0,
        vertical_margin: 92.0,
        columns: 1,
        gutter: 0.0,
        body_typeface: Typeface::Serif,
        heading_typeface: Typeface::SerifBold,
        font_size: 13.0,
        line_height: 19.0,
        justify: false,
        chapter_pages: false,
        running_head: None,
        figure_aspect: 0.5,
    };
    let mut typesetter = Typesetter::new(style, Document::default(), &|_, _, _| {});
    typesetter.add_blocks(&parse_blocks(include_str!("../text/letter.txt")));
    let letter = Document {
        outline: Vec::new(),
        ..typesetter.finish()
    };
    letter.to_pdf_bytes()
}

/// Builds the scanned letter: three page images without text.
pub fn scanned_letter_document() -> Vec<u8> {
    scanned_pages::scanned_document(&scanned_pages::LETTER_SCANS)
}
