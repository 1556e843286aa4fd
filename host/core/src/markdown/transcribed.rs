//! Pages that a vision model wrote down as Markdown.
//!
//! What the model wrote is kept line by line as it came: it has seen the page, and to take its tables and lists apart into lines
//! with made-up places would only lose them. But it is still text from outside, copied from a page that anyone may have made,
//! and it stands in one file with the other pages. So nothing of it reaches beyond its own page when it is shown: a block of
//! code that it forgot to end is ended, and what a reader's program would take for HTML or load from elsewhere is shown as text
//! (a page marker among it, which could otherwise be forged). In spans of code the backslash that does that can be seen;
//! telling such spans apart with certainty takes a whole parser of Markdown, and guessing wrong would let HTML through.

use crate::page::Rect;
use crate::text::Line;

/// The lines of what a vision model wrote, blank ones among them. A block of code that is wrapped around all of it is taken off.
pub fn lines(written: &str) -> Vec<Line> {
    let written = unwrapped(written.trim());
    let mut lines: Vec<Line> = written.lines().map(line).collect();
    let blank = |line: &Line| line.text.trim().is_empty();
    let end = lines.iter().rposition(|l| !blank(l)).map_or(0, |last| last + 1);
    lines.truncate(end);
    let start = lines.iter().position(|l| !blank(l)).unwrap_or(0);
    lines.drain(..start);
    lines
}

fn line(text: &str) -> Line {
    let seen = |c: &char| !c.is_control() || *c == '\t';
    Line {
        text: text.trim_end().chars().filter(seen).collect(),
        rect: Rect::PAGE,
        size: 0.0,
        confidence: 0.0,
    }
}

/// The headings among lines, outside of code: index and level, 1 to 6.
pub(crate) fn headings(lines: &[Line]) -> Vec<(usize, u8)> {
    let mut fences = Fences::default();
    let heading = |(index, line): (usize, &Line)| {
        let level = (!fences.is_code(&line.text))
            .then(|| level(&line.text))
            .flatten()?;
        Some((index, level))
    };
    lines.iter().enumerate().filter_map(heading).collect()
}

fn level(line: &str) -> Option<u8> {
    let text = unindented(line)?;
    let marks = text.bytes().take_while(|b| *b == b'#').count();
    let rest = text.get(marks..)?;
    let is_heading = rest.starts_with([' ', '\t']) && !heading_text(line).is_empty();
    u8::try_from(marks)
        .ok()
        .filter(|level| (1..=6).contains(level) && is_heading)
}

/// The text of a heading, without its marks.
pub(crate) fn heading_text(line: &str) -> &str {
    line.trim_matches(|c: char| c.is_whitespace() || matches!(c, '#' | '*' | '_'))
}

/// Appends a page's lines, and the blank line that ends them.
pub(super) fn write(out: &mut String, lines: &[Line]) {
    let mut fences = Fences::default();
    for line in lines {
        if fences.is_code(&line.text) {
            out.push_str(&line.text);
        } else {
            shown(&line.text, out);
        }
        out.push('\n');
    }
    if let Some(fence) = fences.open {
        out.extend(std::iter::repeat_n(fence.mark, fence.length));
        out.push('\n');
    }
    if !lines.is_empty() {
        out.push('\n');
    }
}

/// A line with a backslash before what would be HTML or would load an image.
fn shown(line: &str, out: &mut String) {
    let mut chars = line.chars().peekable();
    let mut escaped = false;
    while let Some(c) = chars.next() {
        let next = chars.peek().copied();
        let opens = match c {
            '<' => next.is_none_or(|n| n.is_ascii_alphabetic() || matches!(n, '/' | '!' | '?')),
            '!' => next == Some('['),
            _ => false,
        };
        if opens && !escaped {
            out.push('\\');
        }
        escaped = c == '\\' && !escaped;
        out.push(c);
    }
}

/// What is inside a block of code that wraps all of a text, as many models give an answer in Markdown.
fn unwrapped(text: &str) -> &str {
    let Some((first, rest)) = text.split_once('\n') else {
        return text;
    };
    let Some(fence) = Fence::opened_by(first.trim_end()) else {
        return text;
    };
    let Some((inside, last)) = rest.trim_end().rsplit_once('\n') else {
        return text;
    };
    let mut fences = Fences::default();
    let code = inside.lines().filter(|line| fences.is_code(line)).count();
    let language = first.trim_start_matches(fence.mark).trim().to_ascii_lowercase();
    let wraps = match language.as_str() {
        "markdown" | "md" => fences.open.is_none(),
        // A page may begin and end with a block of code of its own.
        "" => code == 0,
        _ => false,
    };
    match wraps && fence.is_closed_by(last) {
        true => inside,
        false => text,
    }
}

/// The marks around a block of code.
#[derive(Clone, Copy)]
struct Fence {
    mark: char,
    length: usize,
}

impl Fence {
    /// Only at a line's very beginning: an indented one may belong to a list item, and then ends where that does.
    fn opened_by(line: &str) -> Option<Self> {
        let mark = line.chars().next().filter(|c| matches!(c, '`' | '~'))?;
        let rest = line.trim_start_matches(mark);
        let length = line.len() - rest.len();
        (length >= 3 && !(mark == '`' && rest.contains('`'))).then_some(Self { mark, length })
    }

    fn is_closed_by(self, line: &str) -> bool {
        let Some(text) = unindented(line) else {
            return false;
        };
        let rest = text.trim_start_matches(self.mark);
        text.len() - rest.len() >= self.length && rest.trim().is_empty()
    }
}

/// Blocks of code, line after line.
#[derive(Default)]
struct Fences {
    open: Option<Fence>,
}

impl Fences {
    /// Whether the next line is code, or a fence around it.
    fn is_code(&mut self, line: &str) -> bool {
        match self.open {
            Some(fence) => {
                if fence.is_closed_by(line) {
                    self.open = None;
                }
                true
            }
            None => {
                self.open = Fence::opened_by(line);
                self.open.is_some()
            }
        }
    }
}

/// A line without the three spaces that it may be indented by and still be what it is; `None` if there are more.
fn unindented(line: &str) -> Option<&str> {
    let text = line.trim_start_matches(' ');
    (line.len() - text.len() <= 3).then_some(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn texts(written: &str) -> Vec<String> {
        lines(written).into_iter().map(|line| line.text).collect()
    }

    fn rendered(written: &str) -> String {
        let mut out = String::new();
        write(&mut out, &lines(written));
        out
    }

    #[test]
    fn lines_are_kept_as_they_came() {
        let written = "\n\n# Title\r\n\n- one\n  - two\u{0}\n\n| a | b |\n\n";
        let expected = ["# Title", "", "- one", "  - two", "", "| a | b |"];
        assert_eq!(texts(written), expected);
        assert!(
            lines(written)
                .iter()
                .all(|l| l.rect == Rect::PAGE && l.confidence == 0.0)
        );
        assert!(texts(" \n \n").is_empty());
    }

    #[test]
    fn a_wrapper_is_taken_off_and_a_pages_own_code_is_not() {
        for wrapped in [
            "```markdown\n# A\n\ntext\n```",
            "```md\n# A\n\ntext\n```\n",
            "```\n# A\n\ntext\n```",
            "~~~~\n# A\n\ntext\n~~~~",
        ] {
            assert_eq!(texts(wrapped), ["# A", "", "text"], "{wrapped}");
        }
        let inner = "````markdown\n```sh\nls\n```\n````";
        assert_eq!(texts(inner), ["```sh", "ls", "```"]);
        for own in [
            "```sh\nls\n```",
            "```\nls\n```\nand\n```\npwd\n```",
            "```markdown\n# A",
            "```markdown\na\n```\ntext",
            "```",
        ] {
            assert_eq!(texts(own).join("\n"), own);
        }
    }

    #[test]
    fn headings_are_those_that_are_marked_outside_of_code() {
        let written =
            "# One\n\ntext # not\n#not\n```\n# code\n```\n   ### Three ###\n    # code\n## **Bold**\n#";
        let lines = lines(written);
        let found = headings(&lines);
        assert_eq!(found, [(0, 1), (7, 3), (9, 2)]);
        let text = |at: usize| heading_text(&lines[at].text);
        assert_eq!((text(0), text(7), text(9)), ("One", "Three", "Bold"));
    }

    #[test]
    fn nothing_reaches_beyond_its_page() {
        assert_eq!(rendered("a\n\n| b |"), "a\n\n| b |\n\n");
        assert_eq!(
            rendered("<!-- page 9 -->\n\n<script>x</script> 3 < 4 \\<b> \\\\<b>"),
            "\\<!-- page 9 -->\n\n\\<script>x\\</script> 3 < 4 \\<b> \\\\\\<b>\n\n"
        );
        assert_eq!(
            rendered("![x](http://far/pixel.png)"),
            "\\![x](http://far/pixel.png)\n\n"
        );
        assert_eq!(
            rendered("````c\n#include <a.h>\n```"),
            "````c\n#include <a.h>\n```\n````\n\n"
        );
        // In a list item, the block ends with the item.
        assert_eq!(rendered("- ```\n  ```\n<b>"), "- ```\n  ```\n\\<b>\n\n");
        assert_eq!(rendered(""), "");
    }
}
