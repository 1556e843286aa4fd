//! Pages in columns are generated as a text layer or OCR would give them, and read column by column.

use proptest::collection::vec;
use proptest::prelude::*;
use proptest::test_runner::RngSeed;

use crate::layout::reading_order;
use crate::page::Rect;
use crate::text::Line;

/// A4, in points.
const PAGE: (f32, f32) = (595.0, 842.0);
/// Lines end here, in points from the top.
const BOTTOM: f32 = 760.0;

/// A paragraph, and the heading above it if it has one.
#[derive(Debug, Clone)]
struct Paragraph {
    heading: bool,
    lines: usize,
    /// Length of the last line as a share of the column's width.
    last: f32,
    /// White above, in leadings.
    gap: f32,
}

#[derive(Debug, Clone)]
struct Column {
    paragraphs: Vec<Paragraph>,
    /// How far the first baseline lies below that of the region, in points.
    shift: f32,
    /// Distance of its baselines as a factor of the type's size.
    leading: f32,
    footnotes: usize,
}

/// Columns beside each other, above or below what runs across all of them.
#[derive(Debug, Clone)]
struct Region {
    columns: Vec<Column>,
}

#[derive(Debug, Clone)]
struct Layout {
    regions: Vec<Region>,
    /// Whether a title runs across the columns.
    title: bool,
    /// Whether there are a running head and a page number.
    running: bool,
    size: f32,
    /// Height of a line's box as a factor of its size.
    height: f32,
    margin: f32,
    gutter: f32,
    /// Every so many lines are parted by wide spaces; 0 for none.
    parted: usize,
    ocr: bool,
}

fn paragraph() -> impl Strategy<Value = Paragraph> {
    (prop::bool::weighted(0.3), 3..9_usize, 0.15..1.0_f32, 0.0..1.5_f32).prop_map(
        |(heading, lines, last, gap)| Paragraph {
            heading,
            lines,
            last,
            gap,
        },
    )
}

fn column() -> impl Strategy<Value = Column> {
    let footnotes = prop_oneof![3 => Just(0), 1 => 1..4_usize];
    (vec(paragraph(), 2..8), 0.0..24.0_f32, 1.1..1.4_f32, footnotes).prop_map(
        |(paragraphs, shift, leading, footnotes)| Column {
            paragraphs,
            shift,
            leading,
            footnotes,
        },
    )
}

fn layout() -> impl Strategy<Value = Layout> {
    let regions = (2..4_usize, 1..3_usize).prop_flat_map(|(columns, regions)| {
        let region = vec(column(), columns).prop_map(|columns| Region { columns });
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
            |(regions, (title, running, ocr), size, height, margin, gutter, parted)| Layout {
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

/// A page being set.
struct Typesetter {
    height: f32,
    ocr: bool,
    lines: Vec<Line>,
}

impl Typesetter {
    /// Sets `tag`, repeated over `width` points, on a baseline. The mean character is 0.45 sizes wide.
    fn set(&mut self, tag: &str, x: f32, baseline: f32, width: f32, size: f32) {
        let chars = ((width / (0.45 * size)) as usize).max(tag.len());
        let text: String = tag.chars().chain([' ']).cycle().take(chars).collect();
        // OCR pads its boxes, and not each alike.
        let pad = if self.ocr {
            (self.lines.len() % 4) as f32 * 0.4
        } else {
            0.0
        };
        let height = self.height * size;
        self.lines.push(Line {
            text: text.trim_end().to_owned(),
            rect: Rect {
                x: (x - pad) / PAGE.0,
                y: (baseline - 0.8 * height - pad) / PAGE.1,
                width: (width + 2.0 * pad) / PAGE.0,
                height: (height + 2.0 * pad) / PAGE.1,
            },
            size,
            confidence: if self.ocr { 0.9 } else { 1.0 },
        });
    }
}

impl Layout {
    /// The lines of the page. Their words say where they stand: region, column, and line of the column.
    fn lines(&self) -> Vec<Line> {
        let mut page = Typesetter {
            height: self.height,
            ocr: self.ocr,
            lines: Vec::new(),
        };
        let width = PAGE.0 - 2.0 * self.margin;
        let mut top = 100.0;
        if self.running {
            page.set("r0c0l00", self.margin, 50.0, 60.0, self.size);
            page.set("r0c0l01", PAGE.0 - self.margin - 60.0, 50.0, 60.0, self.size);
            page.set("r9c0l00", 0.5 * PAGE.0, 805.0, 40.0, self.size);
        }
        if self.title {
            page.set(
                "r0c0l02",
                self.margin + 0.2 * width,
                top,
                0.6 * width,
                1.7 * self.size,
            );
            top += 3.0 * self.size;
        }
        let depth = (BOTTOM - top) / self.regions.len() as f32;
        for (number, region) in self.regions.iter().enumerate() {
            let number = 2 * number + 1;
            if number > 1 {
                let caption = format!("r{}c0l00", number - 1);
                page.set(&caption, self.margin + 0.1 * width, top, 0.8 * width, self.size);
                top += 3.0 * self.size;
            }
            self.set_region(region, number, top, top + depth - 3.0 * self.size, &mut page);
            top += depth;
        }
        page.lines
    }

    fn set_region(&self, region: &Region, number: usize, top: f32, bottom: f32, page: &mut Typesetter) {
        let count = region.columns.len() as f32;
        let width = (PAGE.0 - 2.0 * self.margin - (count - 1.0) * self.gutter) / count;
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
                    page.set(&tag(&mut line), x, y, 0.45 * width, 1.2 * self.size);
                    y += 1.5 * step;
                }
                for i in 0..paragraph.lines {
                    if y >= bottom {
                        break;
                    }
                    let is_last = i + 1 == paragraph.lines;
                    let tag = tag(&mut line);
                    if is_last && i > 0 {
                        page.set(&tag, x, y, paragraph.last * width, self.size);
                    } else if self.parted > 0 && line % self.parted == 0 {
                        // The wide space wanders from line to line.
                        let space = 1.6 * self.size;
                        let first = (0.3 + 0.1 * (line % 5) as f32) * (width - space);
                        page.set(&tag, x, y, first, self.size);
                        page.set(&tag, x + first + space, y, width - space - first, self.size);
                    } else {
                        page.set(&tag, x, y, width, self.size);
                    }
                    y += step;
                }
            }
            y += 0.8 * step;
            for _ in 0..column.footnotes {
                if y < bottom {
                    page.set(&tag(&mut line), x, y, width, 0.8 * self.size);
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
    fn columns_are_read_one_after_the_other(layout in layout()) {
        let lines = layout.lines();
        let mut backward = lines.clone();
        backward.reverse();
        let read = reading_order(lines);
        let mut last = String::new();
        for line in &read {
            let mut words = line.text.split(' ');
            let first = words.next().unwrap_or_default();
            prop_assert!(words.all(|word| first.starts_with(word)), "joined over a gutter: {:?}", line.text);
            prop_assert!(first >= last.as_str(), "{first} is read after {last}");
            last = first.to_owned();
        }
        prop_assert_eq!(read, reading_order(backward));
    }
}
