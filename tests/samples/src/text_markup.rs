//! Parser of the markup in which the samples' texts are written.
//!
//! Blank lines separate blocks. A block that begins with `# ` or `## ` is a heading. Each line of a list begins with `- `, each line
//! of a table with `| `, and the first row of a table is its header. `!figure NAME | CAPTION` is a figure and `!break` starts a new
//! page. Any other block is a paragraph, or lines with fixed breaks if it has several lines. `\-` marks a possible hyphenation.

/// A block of text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum TextBlock<'a> {
    /// A heading: level and text.
    Heading(u8, &'a str),
    /// A paragraph.
    Paragraph(&'a str),
    /// Lines with fixed breaks.
    Lines(Vec<&'a str>),
    /// The items of a list.
    List(Vec<&'a str>),
    /// A table: rows of cells.
    Table(Vec<Vec<&'a str>>),
    /// A figure: name and caption.
    Figure(&'a str, &'a str),
    /// A page break.
    PageBreak,
}

/// Parses a text into blocks.
pub fn parse_blocks(text: &str) -> Vec<TextBlock<'_>> {
    let mut blocks = Vec::new();
    for block in text.split("\n\n").map(str::trim).filter(|b| !b.is_empty()) {
        // No blank line is needed between `!break` and the next block.
        let block = match block.split_once("!break") {
            Some((before, after)) => {
                blocks.extend(parse_block(before.trim()));
                blocks.push(TextBlock::PageBreak);
                after.trim()
            }
            None => block,
        };
        blocks.extend(parse_block(block));
    }
    blocks
}

fn parse_block(block: &str) -> Option<TextBlock<'_>> {
    let lines = || block.lines();
    Some(if block.is_empty() {
        return None;
    } else if let Some(text) = block.strip_prefix("## ") {
        TextBlock::Heading(2, text)
    } else if let Some(text) = block.strip_prefix("# ") {
        TextBlock::Heading(1, text)
    } else if let Some(figure) = block.strip_prefix("!figure ") {
        let (name, caption) = figure.split_once(" | ").unwrap_or((figure, ""));
        TextBlock::Figure(name, caption)
    } else if block.starts_with("| ") {
        TextBlock::Table(
            lines()
                .map(|l| l.trim_start_matches("| ").split(" | ").collect())
                .collect(),
        )
    } else if block.starts_with("- ") {
        TextBlock::List(lines().map(|l| l.trim_start_matches("- ")).collect())
    } else if lines().nth(1).is_some() {
        TextBlock::Lines(lines().collect())
    } else {
        TextBlock::Paragraph(block)
    })
}
