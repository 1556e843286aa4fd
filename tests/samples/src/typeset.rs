//! Blocks of text to pages: columns, justified lines, running heads, an outline.

use crate::fonts::Face;
use crate::pdf::{Bookmark, Document, Page};
use crate::source::Block;

/// A place for a figure: left, lower edge, width and height in points.
#[derive(Debug, Clone, Copy)]
pub struct Frame {
    /// Left edge.
    pub x: f32,
    /// Lower edge.
    pub y: f32,
    /// Width.
    pub width: f32,
    /// Height.
    pub height: f32,
}

/// Draws the figure of a name into a frame.
pub type Draw<'a> = &'a dyn Fn(&mut Page, &str, Frame);

/// How pages look. Lengths are points.
#[derive(Debug, Clone)]
pub struct Style {
    /// Width and height of a page.
    pub page: (f32, f32),
    /// White at both sides.
    pub side: f32,
    /// White above and below.
    pub top: f32,
    /// Number of columns.
    pub columns: usize,
    /// White between columns.
    pub gutter: f32,
    /// Face of the text.
    pub body: Face,
    /// Face of headings.
    pub heading: Face,
    /// Size of the text.
    pub size: f32,
    /// From baseline to baseline.
    pub leading: f32,
    /// Stretch lines to the column's width.
    pub justify: bool,
    /// Begin the chapters on new pages.
    pub chapter_pages: bool,
    /// What stands at the top of each page, beside the chapter; pages are numbered if there is any.
    pub running_head: Option<String>,
    /// Height of a figure, as a share of its width.
    pub figure: f32,
}

/// Sets blocks on pages.
pub struct Typesetter<'a> {
    style: Style,
    draw: Draw<'a>,
    document: Document,
    current: Page,
    column: usize,
    /// Where the columns of this page begin.
    columns_top: f32,
    y: f32,
    chapter: String,
}

impl<'a> Typesetter<'a> {
    /// Begins a document behind the pages that it has already.
    pub fn new(style: Style, document: Document, draw: Draw<'a>) -> Self {
        let top = style.page.1 - style.top;
        let mut typesetter = Self {
            current: Page::new(style.page),
            style,
            draw,
            document,
            column: 0,
            columns_top: top,
            y: top,
            chapter: String::new(),
        };
        typesetter.current = typesetter.blank_page(typesetter.pages_begun());
        typesetter
    }

    /// The document.
    pub fn finish(mut self) -> Document {
        self.document.pages.push(self.current);
        self.document
    }

    /// A page with nothing but its number and running head.
    fn blank_page(&self, number: usize) -> Page {
        let (width, height) = self.style.page;
        let side = self.style.side;
        let mut page = Page::new(self.style.page);
        if let Some(head) = &self.style.running_head {
            let face = self.style.body;
            page.text(face, 8.5, side, height - 36.0, head);
            let right = width - side - face.width(&self.chapter, 8.5);
            page.text(face, 8.5, right, height - 36.0, &self.chapter);
            page.content
                .set_line_width(0.4)
                .move_to(side, height - 41.0)
                .line_to(width - side, height - 41.0)
                .stroke();
            let number = number.to_string();
            page.text(face, 9.0, (width - face.width(&number, 9.0)) / 2.0, 28.0, &number);
        }
        page
    }

    fn new_page(&mut self) {
        let next = self.blank_page(self.pages_begun() + 1);
        self.document
            .pages
            .push(std::mem::replace(&mut self.current, next));
        self.column = 0;
        self.columns_top = self.style.page.1 - self.style.top;
        self.y = self.columns_top;
    }

    /// Leaves `height` of white over the columns of this page, over all of them.
    pub fn begin_columns_below(&mut self, height: f32) {
        self.columns_top -= height;
        self.y = self.columns_top;
    }

    /// How many pages there are, the one in work included.
    pub fn pages_begun(&self) -> usize {
        self.document.pages.len() + 1
    }

    /// The page in work.
    pub fn page(&mut self) -> &mut Page {
        &mut self.current
    }

    /// Sets the blocks, one after the other.
    pub fn set(&mut self, blocks: &[Block<'_>]) {
        for block in blocks {
            match block {
                Block::Heading(level, text) => self.heading(*level, text),
                Block::Paragraph(text) => {
                    self.paragraph(text, 0.0);
                    self.y -= self.style.leading * 0.45;
                }
                Block::Lines(lines) => {
                    for line in lines {
                        self.paragraph(line, 0.0);
                    }
                    self.y -= self.style.leading * 0.8;
                }
                Block::Items(items) => self.items(items),
                Block::Table(rows) => self.table(rows),
                Block::Figure(name, caption) => self.figure(name, caption),
                Block::Break => self.new_page(),
            }
        }
    }

    fn column_width(&self) -> f32 {
        let columns = self.style.columns as f32;
        (self.style.page.0 - 2.0 * self.style.side - (columns - 1.0) * self.style.gutter) / columns
    }

    fn left(&self) -> f32 {
        self.style.side + self.column as f32 * (self.column_width() + self.style.gutter)
    }

    /// Goes on in the next column, or page, if less than `height` is left in this one.
    fn reserve(&mut self, height: f32) {
        if self.y - height >= self.style.top {
            return;
        }
        if self.column + 1 < self.style.columns {
            self.column += 1;
            self.y = self.columns_top;
        } else {
            self.new_page();
        }
    }

    fn is_at_top(&self) -> bool {
        (self.y - self.columns_top).abs() < 0.01
    }

    fn heading(&mut self, level: u8, text: &str) {
        let (size, above) = if level == 1 {
            (self.style.size * 1.55, 1.1)
        } else {
            (self.style.size * 1.2, 0.7)
        };
        if level == 1 {
            text.clone_into(&mut self.chapter);
            if self.style.chapter_pages && !(self.is_at_top() && self.column == 0) {
                self.new_page();
            }
        }
        self.reserve(size + (above + 3.0) * self.style.leading);
        if !self.is_at_top() {
            self.y -= above * self.style.leading;
        }
        let page = self.document.pages.len();
        self.document.outline.push(Bookmark {
            title: text.to_owned(),
            level,
            page,
        });
        let face = self.style.heading;
        let width = self.column_width();
        for line in broken(face, size, text, width, width) {
            self.y -= size * 1.15;
            let (x, y) = (self.left(), self.y);
            self.current.text(face, size, x, y, &line.text);
        }
        self.y -= size * 0.45;
    }

    /// A paragraph whose lines begin `indent` into the column.
    fn paragraph(&mut self, text: &str, indent: f32) {
        let (face, size) = (self.style.body, self.style.size);
        let width = self.column_width() - indent;
        let lines = broken(face, size, text, width, width);
        let count = lines.len();
        for (i, line) in lines.into_iter().enumerate() {
            // Neither the first nor the last line of a paragraph stands alone in its column.
            let together = if count > 1 && (i == 0 || i + 2 == count) {
                2.0
            } else {
                1.0
            };
            self.reserve(together * self.style.leading);
            self.y -= self.style.leading;
            let spaces = line.text.matches(' ').count();
            let stretch = self.style.justify && !line.last && spaces > 0;
            let space = if stretch {
                (width - face.width(&line.text, size)) / spaces as f32
            } else {
                0.0
            };
            let (x, y) = (self.left() + indent, self.y);
            self.current.spaced_text(face, size, x, y, space, &line.text);
        }
    }

    fn items(&mut self, items: &[&str]) {
        let (face, size) = (self.style.body, self.style.size);
        for item in items {
            // With room for two lines, so that the paragraph does not leave its bullet behind.
            self.reserve(2.0 * self.style.leading);
            let (x, y) = (self.left() + 2.0, self.y - self.style.leading);
            self.current.text(face, size, x, y, "•");
            self.paragraph(item, 12.0);
            self.y -= self.style.leading * 0.15;
        }
        self.y -= self.style.leading * 0.45;
    }

    fn table(&mut self, rows: &[Vec<&str>]) {
        let size = self.style.size * 0.92;
        let leading = self.style.leading * 1.1;
        let columns = rows.iter().map(Vec::len).max().unwrap_or(0);
        let face_of = |row: usize, body, heading| if row == 0 { heading } else { body };
        let (body, heading) = (self.style.body, self.style.heading);
        let natural: Vec<f32> = (0..columns)
            .map(|c| {
                let cells = rows
                    .iter()
                    .enumerate()
                    .filter_map(|(r, row)| Some((r, row.get(c)?)));
                cells
                    .map(|(r, cell)| face_of(r, body, heading).width(cell, size))
                    .fold(0.0, f32::max)
            })
            .collect();
        let total: f32 = natural.iter().sum();
        let gap = ((self.column_width() - total) / columns.max(2).saturating_sub(1) as f32).clamp(8.0, 40.0);
        self.reserve(rows.len() as f32 * leading + 10.0);
        self.y -= 4.0;
        for (r, row) in rows.iter().enumerate() {
            self.y -= leading;
            let mut x = self.left();
            let y = self.y;
            for (cell, width) in row.iter().zip(&natural) {
                self.current.text(face_of(r, body, heading), size, x, y, cell);
                x += width + gap;
            }
            if r == 0 {
                let (left, right) = (self.left(), self.left() + self.column_width());
                let content = &mut self.current.content;
                content
                    .set_line_width(0.5)
                    .move_to(left, y - 4.0)
                    .line_to(right, y - 4.0)
                    .stroke();
                self.y -= 3.0;
            }
        }
        self.y -= self.style.leading;
    }

    fn figure(&mut self, name: &str, caption: &str) {
        let (face, size) = (Face::Sans, self.style.size * 0.82);
        let width = self.column_width();
        let height = width * self.style.figure;
        let lines = broken(face, size, caption, width, width);
        let leading = size * 1.25;
        self.reserve(height + lines.len() as f32 * leading + 2.0 * self.style.leading);
        self.y -= self.style.leading * 0.6 + height;
        let (x, y) = (self.left(), self.y);
        let draw = self.draw;
        draw(&mut self.current, name, Frame { x, y, width, height });
        self.y -= 4.0;
        for line in lines {
            self.y -= leading;
            let y = self.y;
            self.current.text(face, size, x, y, &line.text);
        }
        self.y -= self.style.leading;
    }
}

/// A line of a paragraph.
pub struct SetLine {
    /// Its text.
    pub text: String,
    /// Whether it is the paragraph's last.
    pub last: bool,
}

/// `text` broken to lines, the first at most `first` points wide, the others `width`. A word that does not fit is broken
/// at a `\-`, if it has one that helps.
pub fn broken(face: Face, size: f32, text: &str, first: f32, width: f32) -> Vec<SetLine> {
    let mut lines: Vec<SetLine> = Vec::new();
    let mut line = String::new();
    for word in text.split_whitespace() {
        let whole = word.replace("\\-", "");
        let room = if lines.is_empty() { first } else { width };
        let with = |part: &str| {
            if line.is_empty() {
                part.to_owned()
            } else {
                format!("{line} {part}")
            }
        };
        let fitting = with(&whole);
        if face.width(&fitting, size) <= room {
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
            .take_while(|(head, _)| face.width(head, size) <= room)
            .last();
        let (done, rest) = split.unwrap_or((std::mem::take(&mut line), whole));
        if !done.is_empty() {
            lines.push(SetLine {
                text: done,
                last: false,
            });
        }
        line = rest;
    }
    lines.push(SetLine {
        text: line,
        last: true,
    });
    lines
}
