//! Sets blocks of text on pages, with columns, justified lines, running heads and an outline.

use crate::fonts::Typeface;
use crate::pdf_document::{Bookmark, Document, Page};
use crate::text_markup::TextBlock;

/// The position and size of a figure, in points.
#[derive(Debug, Clone, Copy)]
pub struct FigureFrame {
    /// Left edge.
    pub x: f32,
    /// Lower edge.
    pub y: f32,
    /// Width.
    pub width: f32,
    /// Height.
    pub height: f32,
}

/// A function that draws the figure with this name into a frame.
pub type DrawFigureFn<'a> = &'a dyn Fn(&mut Page, &str, FigureFrame);

/// The layout of pages. Lengths are in points.
#[derive(Debug, Clone)]
pub struct PageStyle {
    /// Width and height of a page.
    pub page_size: (f32, f32),
    /// Left and right margin.
    pub side_margin: f32,
    /// Top and bottom margin.
    pub vertical_margin: f32,
    /// Number of columns.
    pub columns: usize,
    /// Space between columns.
    pub gutter: f32,
    /// Typeface of the text.
    pub body_typeface: Typeface,
    /// Typeface of headings.
    pub heading_typeface: Typeface,
    /// Font size of the text.
    pub font_size: f32,
    /// Distance between baselines.
    pub line_height: f32,
    /// Whether lines are stretched to the column's width.
    pub justify: bool,
    /// Whether chapters begin on new pages.
    pub chapter_pages: bool,
    /// The text at the top of each page, next to the chapter. Pages are numbered only if it is set.
    pub running_head: Option<String>,
    /// Height of a figure divided by its width.
    pub figure_aspect: f32,
}

/// Sets blocks of text on the pages of a document.
pub struct Typesetter<'a> {
    style: PageStyle,
    draw_figure: DrawFigureFn<'a>,
    document: Document,
    current: Page,
    column: usize,
    /// The top of this page's columns.
    columns_top: f32,
    y: f32,
    chapter: String,
}

impl<'a> Typesetter<'a> {
    /// Starts a new page after the pages that the document already has.
    pub fn new(style: PageStyle, document: Document, draw: DrawFigureFn<'a>) -> Self {
        let top = style.page_size.1 - style.vertical_margin;
        let mut typesetter = Self {
            current: Page::new(style.page_size),
            style,
            draw_figure: draw,
            document,
            column: 0,
            columns_top: top,
            y: top,
            chapter: String::new(),
        };
        typesetter.current = typesetter.blank_page(typesetter.page_count());
        typesetter
    }

    /// Returns the document.
    pub fn finish(mut self) -> Document {
        self.document.pages.push(self.current);
        self.document
    }

    /// Returns a page with only its number and running head.
    fn blank_page(&self, number: usize) -> Page {
        let (width, height) = self.style.page_size;
        let side = self.style.side_margin;
        let mut page = Page::new(self.style.page_size);
        if let Some(head) = &self.style.running_head {
            let face = self.style.body_typeface;
            page.draw_text(face, 8.5, side, height - 36.0, head);
            let right = width - side - face.text_width(&self.chapter, 8.5);
            page.draw_text(face, 8.5, right, height - 36.0, &self.chapter);
            page.content
                .set_line_width(0.4)
                .move_to(side, height - 41.0)
                .line_to(width - side, height - 41.0)
                .stroke();
            let number = number.to_string();
            page.draw_text(
                face,
                9.0,
                (width - face.text_width(&number, 9.0)) / 2.0,
                28.0,
                &number,
            );
        }
        page
    }

    fn start_new_page(&mut self) {
        let next = self.blank_page(self.page_count() + 1);
        self.document
            .pages
            .push(std::mem::replace(&mut self.current, next));
        self.column = 0;
        self.columns_top = self.style.page_size.1 - self.style.vertical_margin;
        self.y = self.columns_top;
    }

    /// Starts the columns of this page lower by `height`.
    pub fn begin_columns_below(&mut self, height: f32) {
        self.columns_top -= height;
        self.y = self.columns_top;
    }

    /// Returns the number of pages, including the current one.
    pub fn page_count(&self) -> usize {
        self.document.pages.len() + 1
    }

    /// Returns the current page.
    pub fn current_page(&mut self) -> &mut Page {
        &mut self.current
    }

    /// Adds blocks at the current position.
    pub fn add_blocks(&mut self, blocks: &[TextBlock<'_>]) {
        for block in blocks {
            match block {
                TextBlock::Heading(level, text) => self.set_heading(*level, text),
                TextBlock::Paragraph(text) => {
                    self.set_paragraph(text, 0.0);
                    self.y -= self.style.line_height * 0.45;
                }
                TextBlock::Lines(lines) => {
                    for line in lines {
                        self.set_paragraph(line, 0.0);
                    }
                    self.y -= self.style.line_height * 0.8;
                }
                TextBlock::List(items) => self.set_list(items),
                TextBlock::Table(rows) => self.set_table(rows),
                TextBlock::Figure(name, caption) => self.set_figure(name, caption),
                TextBlock::PageBreak => self.start_new_page(),
            }
        }
    }

    fn column_width(&self) -> f32 {
        let columns = self.style.columns as f32;
        (self.style.page_size.0 - 2.0 * self.style.side_margin - (columns - 1.0) * self.style.gutter)
            / columns
    }

    fn column_left(&self) -> f32 {
        self.style.side_margin + self.column as f32 * (self.column_width() + self.style.gutter)
    }

    /// Continues in the next column or page if less than `height` is left in this column.
    fn reserve_height(&mut self, height: f32) {
        if self.y - height >= self.style.vertical_margin {
            return;
        }
        if self.column + 1 < self.style.columns {
            self.column += 1;
            self.y = self.columns_top;
        } else {
            self.start_new_page();
        }
    }

    fn is_at_top(&self) -> bool {
        (self.y - self.columns_top).abs() < 0.01
    }

    fn set_heading(&mut self, level: u8, text: &str) {
        let (size, above) = if level == 1 {
            (self.style.font_size * 1.55, 1.1)
        } else {
            (self.style.font_size * 1.2, 0.7)
        };
        if level == 1 {
            text.clone_into(&mut self.chapter);
            if self.style.chapter_pages && !(self.is_at_top() && self.column == 0) {
                self.start_new_page();
            }
        }
        self.reserve_height(size + (above + 3.0) * self.style.line_height);
        if !self.is_at_top() {
            self.y -= above * self.style.line_height;
        }
        let page = self.document.pages.len();
        self.document.outline.push(Bookmark {
            title: text.to_owned(),
            level,
            page,
        });
        let face = self.style.heading_typeface;
        let width = self.column_width();
        for line in break_lines(face, size, text, width, width) {
            self.y -= size * 1.15;
            let (x, y) = (self.column_left(), self.y);
            self.current.draw_text(face, size, x, y, &line.text);
        }
        self.y -= size * 0.45;
    }

    /// Sets a paragraph whose lines are indented by `indent`.
    fn set_paragraph(&mut self, text: &str, indent: f32) {
        let (face, size) = (self.style.body_typeface, self.style.font_size);
        let width = self.column_width() - indent;
        let lines = break_lines(face, size, text, width, width);
        let count = lines.len();
        for (i, line) in lines.into_iter().enumerate() {
            // Avoids widows and orphans: neither the first nor the last line of a paragraph is alone in its column.
            let together = if count > 1 && (i == 0 || i + 2 == count) {
                2.0
            } else {
                1.0
            };
            self.reserve_height(together * self.style.line_height);
            self.y -= self.style.line_height;
            let spaces = line.text.matches(' ').count();
            let stretch = self.style.justify && !line.is_last && spaces > 0;
            let space = if stretch {
                (width - face.text_width(&line.text, size)) / spaces as f32
            } else {
                0.0
            };
            let (x, y) = (self.column_left() + indent, self.y);
            self.current.draw_spaced_text(face, size, x, y, space, &line.text);
        }
    }

    fn set_list(&mut self, items: &[&str]) {
        let (face, size) = (self.style.body_typeface, self.style.font_size);
        for item in items {
            // Reserves two lines, so that the bullet and its text are in the same column.
            self.reserve_height(2.0 * self.style.line_height);
            let (x, y) = (self.column_left() + 2.0, self.y - self.style.line_height);
            self.current.draw_text(face, size, x, y, "•");
            self.set_paragraph(item, 12.0);
            self.y -= self.style.line_height * 0.15;
        }
        self.y -= self.style.line_height * 0.45;
    }

    fn set_table(&mut self, rows: &[Vec<&str>]) {
        let size = self.style.font_size * 0.92;
        let leading = self.style.line_height * 1.1;
        let columns = rows.iter().map(Vec::len).max().unwrap_or(0);
        let face_of = |row: usize, body, heading| if row == 0 { heading } else { body };
        let (body, heading) = (self.style.body_typeface, self.style.heading_typeface);
        let natural: Vec<f32> = (0..columns)
            .map(|c| {
                let cells = rows
                    .iter()
                    .enumerate()
                    .filter_map(|(r, row)| Some((r, row.get(c)?)));
                cells
                    .map(|(r, cell)| face_of(r, body, heading).text_width(cell, size))
                    .fold(0.0, f32::max)
            })
            .collect();
        let total: f32 = natural.iter().sum();
        let gap = ((self.column_width() - total) / columns.max(2).saturating_sub(1) as f32).clamp(8.0, 40.0);
        self.reserve_height(rows.len() as f32 * leading + 10.0);
        self.y -= 4.0;
        for (r, row) in rows.iter().enumerate() {
            self.y -= leading;
            let mut x = self.column_left();
            let y = self.y;
            for (cell, width) in row.iter().zip(&natural) {
                self.current
                    .draw_text(face_of(r, body, heading), size, x, y, cell);
                x += width + gap;
            }
            if r == 0 {
                let (left, right) = (self.column_left(), self.column_left() + self.column_width());
                let content = &mut self.current.content;
                content
                    .set_line_width(0.5)
                    .move_to(left, y - 4.0)
                    .line_to(right, y - 4.0)
                    .stroke();
                self.y -= 3.0;
            }
        }
        self.y -= self.style.line_height;
    }

    fn set_figure(&mut self, name: &str, caption: &str) {
        let (face, size) = (Typeface::Sans, self.style.font_size * 0.82);
        let width = self.column_width();
        let height = width * self.style.figure_aspect;
        let lines = break_lines(face, size, caption, width, width);
        let leading = size * 1.25;
        self.reserve_height(height + lines.len() as f32 * leading + 2.0 * self.style.line_height);
        self.y -= self.style.line_height * 0.6 + height;
        let (x, y) = (self.column_left(), self.y);
        let draw = self.draw_figure;
        draw(&mut self.current, name, FigureFrame { x, y, width, height });
        self.y -= 4.0;
        for line in lines {
            self.y -= leading;
            let y = self.y;
            self.current.draw_text(face, size, x, y, &line.text);
        }
        self.y -= self.style.line_height;
    }
}

/// One line of a paragraph.
pub struct ParagraphLine {
    /// The text.
    pub text: String,
    /// Whether the line is the paragraph's last.
    pub is_last: bool,
}

/// Breaks `text` into lines. The first is at most `first` points wide, the others `width`. A word that does not fit is hyphenated
/// at a `\-` if possible.
pub fn break_lines(face: Typeface, size: f32, text: &str, first: f32, width: f32) -> Vec<ParagraphLine> {
    let mut lines: Vec<ParagraphLine> = Vec::new();
    let mut line = String::new();
    for word in text.split_whitespace() {
        let whole = word.replace("\\-", "");
        let line_width = if lines.is_empty() { first } else { width };
        let with = |part: &str| {
            if line.is_empty() {
                part.to_owned()
            } else {
                format!("{line} {part}")
            }
        };
        let fitting = with(&whole);
        if face.text_width(&fitting, size) <= line_width {
            line = fitting;
            continue;
        }
        let breaks = word.match_indices("\\-").map(|(at, _)| word.split_at(at));
        let split = breaks
            .map(|(head, tail)| {
                (
                    with(&format!("{}-", head.replace("\\-", ""))),
                    tail.replace("\\-", ""),
                )
            })
            .take_while(|(head, _)| face.text_width(head, size) <= line_width)
            .last();
        let (done, rest) = split.unwrap_or((std::mem::take(&mut line), whole));
        if !done.is_empty() {
            lines.push(ParagraphLine {
                text: done,
                is_last: false,
            });
        }
        line = rest;
    }
    lines.push(ParagraphLine {
        text: line,
        is_last: true,
    });
    lines
}
