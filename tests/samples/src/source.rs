//! The texts of the samples, in a markup of eight kinds of block.
//!
//! Blocks are parted by blank lines. A block that begins with `# ` or `## ` is a heading, `- ` and `| ` begin each line of a
//! list or a table (its first row is the head), `!figure NAME | CAPTION` is a figure and `!break` a new page; all else
//! is a paragraph, whose line breaks are kept where it is an address. `\-` marks where a word may be broken.

/// A block.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Block<'a> {
    /// Level and text.
    Heading(u8, &'a str),
    /// Running text.
    Paragraph(&'a str),
    /// Lines that are kept as they are.
    Lines(Vec<&'a str>),
    /// A list.
    Items(Vec<&'a str>),
    /// Rows of cells.
    Table(Vec<Vec<&'a str>>),
    /// Name and caption.
    Figure(&'a str, &'a str),
    /// The rest begins a new page.
    Break,
}

/// The blocks of a text.
pub fn blocks(text: &str) -> Vec<Block<'_>> {
    let mut blocks = Vec::new();
    for block in text.split("\n\n").map(str::trim).filter(|b| !b.is_empty()) {
        // `!break` may stand directly above what follows it.
        let block = match block.split_once("!break") {
            Some((before, after)) => {
                blocks.extend(one(before.trim()));
                blocks.push(Block::Break);
                after.trim()
            }
            None => block,
        };
        blocks.extend(one(block));
    }
    blocks
}

fn one(block: &str) -> Option<Block<'_>> {
    let lines = || block.lines();
    Some(if block.is_empty() {
        return None;
    } else if let Some(text) = block.strip_prefix("## ") {
        Block::Heading(2, text)
    } else if let Some(text) = block.strip_prefix("# ") {
        Block::Heading(1, text)
    } else if let Some(figure) = block.strip_prefix("!figure ") {
        let (name, caption) = figure.split_once(" | ").unwrap_or((figure, ""));
        Block::Figure(name, caption)
    } else if block.starts_with("| ") {
        Block::Table(
            lines()
                .map(|l| l.trim_start_matches("| ").split(" | ").collect())
                .collect(),
        )
    } else if block.starts_with("- ") {
        Block::Items(lines().map(|l| l.trim_start_matches("- ")).collect())
    } else if lines().nth(1).is_some() {
        Block::Lines(lines().collect())
    } else {
        Block::Paragraph(block)
    })
}
