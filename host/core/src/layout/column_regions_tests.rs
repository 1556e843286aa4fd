//! Generates pages with columns, as a text layer or OCR returns them, and checks that they are read column by column.

use proptest::collection::vec;
use proptest::prelude::*;
use proptest::test_runner::RngSeed;

use crate::layout::sort_into_reading_order;
use crate::page::Rect;
use crate::page_text::Line;

/// Size of A4 in points.
const A4_POINTS: (f32, f32) = (595.0, 842.0);
/// Lower limit of the lines, in points from the top.
const BOTTOM_POINTS: f32 = 760.0;

/// A paragraph with or without a heading.
#[derive(Debug, Clone)]
struct GeneratedParagraph {
    heading: bool,
    lines: usize,
    /// Length of the last line as a fraction of the column width.
    last: f32,
    /// Gap above, in line distances.
    gap: f32,
}

#[derive(Debug, Clone)]
struct GeneratedColumn {
    paragraphs: Vec<GeneratedParagraph>,
    /// How far the first baseline is below the top of the region, in points.
    shift: f32,
    /// Distance of the baselines as a multiple of the type size.
    leading: f32,
    footnotes: usize,
}

/// Adjacent columns, above or below a line that spans all of them.
#[derive(Debug, Clone)]
struct GeneratedRegion {
    columns: Vec<GeneratedColumn>,
}

#[derive(Debug, Clone)]
struct GeneratedLayout {
    regions: Vec<GeneratedRegion>,
    /// Whether a title spans the columns.
    title: bool,
    /// Whether the page has a running header and a page number.
    running: bool,
    size: f32,
    /// Height of a line's box as a multiple of its type size.
    height: f32,
    margin: f32,
    gutter: f32,
    /// Every so many lines, a wide space splits the line; 0 for never.
    parted: usize,
    ocr: bool,
}

fn any_paragraph() -> impl Strategy<Value = GeneratedParagraph> {
    (prop::bool::weighted(0.3), 3..9_usize, 0.15..1.0_f32, 0.0..1.5_f32).prop_map(
        |(heading, lines, last, gap)| GeneratedParagraph {
            heading,
            lines,
            last,
            gap,
        },
    )
}

fn any_column() -> impl Strategy<Value = GeneratedColumn> {
    let footnotes = prop_oneof![3 => Just(0), 1 => 1..4_usize];
    (vec(any_paragraph(), 2..8), 0.0..24.0_f32, 1.1..1.4_f32, footnotes).prop_map(
        |(paragraphs, shift, leading, footnotes)| GeneratedColumn {
            paragraphs,
            shift,
            leading,
            footnotes,
        },
    )
}

fn any_layout() -> impl Strategy<Value = GeneratedLayout> {
    let regions = (2..4_usize, 1..3_usize).prop_flat_map(|(columns, regions)| {
        let region = vec(any_column(), columns).prop_map(|columns| GeneratedRegion { columns });
        vec(region, regions)
    });
    (
        regions,
        any::<(bool, bool, bool)>(),
        8.0..11.0_f32,
        1.0..1.35_f32,
        40.0..80.0_f32,
        10.0..36.0_f32,
        prop_oneof![Just(0), 2..6_usize],
    )
        .prop_map(
            |(regions, (title, running, ocr), size, height, margin, gutter, parted)| GeneratedLayout {
                regions,
                title,
                running,
                size,
                height,
                margin,
                gutter,
                parted,
                ocr,
            },
        )
}

/// A page that is being generated.
struct Typesetter {
    height: f32,
    ocr: bool,
    lines: Vec<Line>,
}

impl Typesetter {
    /// Adds a line with `tag` repeated over `width` points. The mean character width is 0.45 times the type size.
    fn set_line(&mut self, tag: &str, x: f32, baseline: f32, width: f32, size: f32) {
        let chars = ((width / (0.45 * size)) as usize).max(tag.len());
        let text: String = tag.chars().chain([' ']).cycle().take(chars).collect();
        // OCR adds padding to its boxes, which differs from box to box.
        let pad = if self.ocr {
            (self.lines.len() % 4) as f32 * 0.4
        } else {
            0.0
        };
        let height = self.height * size;
        self.lines.push(Line {
            text: text.trim_end().to_owned(),
            rect: Rect {
                x: (x - pad) / A4_POINTS.0,
                y: (baseline - 0.8 * height - pad) / A4_POINTS.1,
                width: (width + 2.0 * pad) / A4_POINTS.0,
                height: (height + 2.0 * pad) / A4_POINTS.1,
            },
            size,
            confidence: if self.ocr { 0.9 } else { 1.0 },
        });
    }
}

impl GeneratedLayout {
    /// Returns the lines of the page. Their words encode region, column and line number.
    fn render_lines(&self) -> Vec<Line> {
        let mut page = Typesetter {
            height: self.height,
            ocr: self.ocr,
            lines: Vec::new(),
        };
        let width = A4_POINTS.0 - 2.0 * self.margin;
        let mut top = 100.0;
        if self.running {
            page.set_line("r0c0l00", self.margin, 50.0, 60.0, self.size);
            page.set_line("r0c0l01", A4_POINTS.0 - self.margin - 60.0, 50.0, 60.0, self.size);
            page.set_line("r9c0l00", 0.5 * A4_POINTS.0, 805.0, 40.0, self.size);
        }
        if self.title {
            page.set_line(
                "r0c0l02",
                self.margin + 0.2 * width,
                top,
                0.6 * width,
                1.7 * self.size,
            );
            top += 3.0 * self.size;
        }
        let depth = (BOTTOM_POINTS - top) / self.regions.len() as f32;
        for (number, region) in self.regions.iter().enumerate() {
            let number = 2 * number + 1;
            if number > 1 {
                let caption = format!("r{}c0l00", number - 1);
                page.set_line(&caption, self.margin + 0.1 * width, top, 0.8 * width, self.size);
                top += 3.0 * self.size;
            }
            self.set_region(region, number, top, top + depth - 3.0 * self.size, &mut page);
            top += depth;
        }
        page.lines
    }

    fn set_region(
        &self,
        region: &GeneratedRegion,
        number: usize,
        top: f32,
        bottom: f32,
        page: &mut Typesetter,
    ) {
        let count = region.columns.len() as f32;
        let width = (A4_POINTS.0 - 2.0 * self.margin - (count - 1.0) * self.gutter) / count;
        for (c, column) in region.columns.iter().enumerate() {
            let x = self.margin + c as f32 * (width + self.gutter);
            let step = column.leading * self.size;
            let (mut y, mut line) = (top + column.shift, 0);
            let tag = |line: &mut usize| {
                *line += 1;
                format!("r{number}c{c}l{line:02}")
            };
            for paragraph in &column.paragraphs {
                y += paragraph.gap * step;
                if paragraph.heading && y < bottom {
                    page.set_line(&tag(&mut line), x, y, 0.45 * width, 1.2 * self.size);
                    y += 1.5 * step;
                }
                for i in 0..paragraph.lines {
                    if y >= bottom {
                        break;
                    }
                    let is_last = i + 1 == paragraph.lines;
                    let tag = tag(&mut line);
                    if is_last && i > 0 {
                        page.set_line(&tag, x, y, paragraph.last * width, self.size);
                    } else if self.parted > 0 && line % self.parted == 0 {
                        // The position of the wide space changes from line to line.
                        let space = 1.6 * self.size;
                        let first = (0.3 + 0.1 * (line % 5) as f32) * (width - space);
                        page.set_line(&tag, x, y, first, self.size);
                        page.set_line(&tag, x + first + space, y, width - space - first, self.size);
                    } else {
                        page.set_line(&tag, x, y, width, self.size);
                    }
                    y += step;
                }
            }
            y += 0.8 * step;
            for _ in 0..column.footnotes {
                if y < bottom {
                    page.set_line(&tag(&mut line), x, y, width, 0.8 * self.size);
                    y += 0.8 * step;
                }
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig {
        cases: 2000,
        rng_seed: RngSeed::Fixed(1),
        failure_persistence: None,
        ..ProptestConfig::default()
    })]

    #[test]
    fn columns_are_read_one_after_the_other(layout in any_layout()) {
        let lines = layout.render_lines();
        let mut backward = lines.clone();
        backward.reverse();
        let read = sort_into_reading_order(lines);
        let mut last = String::new();
        for line in &read {
            let mut words = line.text.split(' ');
            let first = words.next().unwrap_or_default();
            prop_assert!(words.all(|word| first.starts_with(word)), "joined across a gutter: {:?}", line.text);
            prop_assert!(first >= last.as_str(), "{first} is read after {last}");
            last = first.to_owned();
        }
        prop_assert_eq!(read, sort_into_reading_order(backward));
    }
}
