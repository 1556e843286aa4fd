//! Pages that a vision model transcribed as Markdown.
//!
//! The lines are stored as the model wrote them. The model has seen the page, and splitting its tables and lists into
//! lines with invented positions would only lose structure. But the text is untrusted: it comes from a page that
//! anyone can write, and it is rendered into one file with the other pages. So rendering limits it to its own page. A
//! code block without an end is ended. Text that a viewer would interpret as HTML, or as an image to load, is
//! escaped; this includes forged page markers. Inside inline code the added backslash is visible. Detecting inline
//! code reliably needs a full Markdown parser, and a wrong guess would let HTML through.

use crate::page::Rect;
use crate::page_text::Line;

/// Splits a transcription into lines, blank lines included. A code block around the whole text is removed.
pub fn split_transcription_lines(written: &str) -> Vec<Line> {
    let written = strip_wrapping_fence(written.trim());
    let mut lines: Vec<Line> = written.lines().map(make_line).collect();
    let blank = |line: &Line| line.text.trim().is_empty();
    let end = lines.iter().rposition(|l| !blank(l)).map_or(0, |last| last + 1);
    lines.truncate(end);
    let start = lines.iter().position(|l| !blank(l)).unwrap_or(0);
    lines.drain(..start);
    lines
}

fn make_line(text: &str) -> Line {
    let is_visible = |c: &char| !c.is_control() || *c == '\t';
    Line {
        text: text.trim_end().chars().filter(is_visible).collect(),
        rect: Rect::WHOLE_PAGE,
        size: 0.0,
        confidence: 0.0,
    }
}

/// Returns the headings outside of code blocks: line index and level, 1 to 6.
pub(crate) fn find_headings(lines: &[Line]) -> Vec<(usize, u8)> {
    let mut fences = CodeFenceTracker::default();
    let heading = |(index, line): (usize, &Line)| {
        let level = (!fences.advance_and_check_code(&line.text))
            .then(|| heading_level(&line.text))
            .flatten()?;
        Some((index, level))
    };
    lines.iter().enumerate().filter_map(heading).collect()
}

fn heading_level(line: &str) -> Option<u8> {
    let text = strip_indent(line)?;
    let marks = text.bytes().take_while(|b| *b == b'#').count();
    let rest = text.get(marks..)?;
    let is_heading = rest.starts_with([' ', '\t']) && !trim_heading_and_emphasis_marks(line).is_empty();
    u8::try_from(marks)
        .ok()
        .filter(|level| (1..=6).contains(level) && is_heading)
}

/// Returns the text of a heading without its marks.
pub(crate) fn trim_heading_and_emphasis_marks(line: &str) -> &str {
    line.trim_matches(|c: char| c.is_whitespace() || matches!(c, '#' | '*' | '_'))
}

/// Appends the lines of a page and a blank line.
pub(super) fn append_lines_escaping_html(out: &mut String, lines: &[Line]) {
    let mut fences = CodeFenceTracker::default();
    for line in lines {
        if fences.advance_and_check_code(&line.text) {
            out.push_str(&line.text);
        } else {
            append_line_escaping_html(&line.text, out);
        }
        out.push('\n');
    }
    if let Some(fence) = fences.open_fence {
        out.extend(std::iter::repeat_n(fence.mark, fence.length));
        out.push('\n');
    }
    if !lines.is_empty() {
        out.push('\n');
    }
}

/// Appends a line with a backslash before HTML and images.
fn append_line_escaping_html(line: &str, out: &mut String) {
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

/// Returns the content of a code block around the whole text, as many models format a Markdown response.
fn strip_wrapping_fence(text: &str) -> &str {
    let Some((first, rest)) = text.split_once('\n') else {
        return text;
    };
    let Some(fence) = CodeFence::parse_opening_fence(first.trim_end()) else {
        return text;
    };
    let Some((inside, last)) = rest.trim_end().rsplit_once('\n') else {
        return text;
    };
    let mut fences = CodeFenceTracker::default();
    let code = inside
        .lines()
        .filter(|line| fences.advance_and_check_code(line))
        .count();
    let language = first.trim_start_matches(fence.mark).trim().to_ascii_lowercase();
    let wraps = match language.as_str() {
        "markdown" | "md" => fences.open_fence.is_none(),
        // A page can start and end with code blocks of its own.
        "" => code == 0,
        _ => false,
    };
    match wraps && fence.is_closed_by(last) {
        true => inside,
        false => text,
    }
}

/// The fence of a code block.
#[derive(Clone, Copy)]
struct CodeFence {
    mark: char,
    length: usize,
}

impl CodeFence {
    /// Parses a fence at the very start of a line. An indented fence can belong to a list item and would end with it.
    fn parse_opening_fence(line: &str) -> Option<Self> {
        let mark = line.chars().next().filter(|c| matches!(c, '`' | '~'))?;
        let rest = line.trim_start_matches(mark);
        let length = line.len() - rest.len();
        (length >= 3 && !(mark == '`' && rest.contains('`'))).then_some(Self { mark, length })
    }

    fn is_closed_by(self, line: &str) -> bool {
        let Some(text) = strip_indent(line) else {
            return false;
        };
        let rest = text.trim_start_matches(self.mark);
        text.len() - rest.len() >= self.length && rest.trim().is_empty()
    }
}

/// Tracks code blocks from line to line.
#[derive(Default)]
struct CodeFenceTracker {
    open_fence: Option<CodeFence>,
}

impl CodeFenceTracker {
    /// Advances by one line. Returns whether it is code or a fence.
    fn advance_and_check_code(&mut self, line: &str) -> bool {
        match self.open_fence {
            Some(fence) => {
                if fence.is_closed_by(line) {
                    self.open_fence = None;
                }
                true
            }
            None => {
                self.open_fence = CodeFence::parse_opening_fence(line);
                self.open_fence.is_some()
            }
        }
    }
}

/// Returns a line without its indent; `None` if the indent is more than three spaces.
fn strip_indent(line: &str) -> Option<&str> {
    let text = line.trim_start_matches(' ');
    (line.len() - text.len() <= 3).then_some(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line_texts(written: &str) -> Vec<String> {
        split_transcription_lines(written)
            .into_iter()
            .map(|line| line.text)
            .collect()
    }

    fn render_text(written: &str) -> String {
        let mut out = String::new();
        append_lines_escaping_html(&mut out, &split_transcription_lines(written));
        out
    }

    #[test]
    fn lines_are_kept_unchanged() {
        let written = "\n\n# Title\r\n\n- one\n  - two\u{0}\n\n| a | b |\n\n";
        let expected = ["# Title", "", "- one", "  - two", "", "| a | b |"];
        assert_eq!(line_texts(written), expected);
        assert!(
            split_transcription_lines(written)
                .iter()
                .all(|l| l.rect == Rect::WHOLE_PAGE && l.confidence == 0.0)
        );
        assert!(line_texts(" \n \n").is_empty());
    }

    #[test]
    fn wrapping_fence_is_removed_and_page_code_is_kept() {
        for wrapped in [
            "```markdown\n# A\n\ntext\n```",
            "```md\n# A\n\ntext\n```\n",
            "```\n# A\n\ntext\n```",
            "~~~~\n# A\n\ntext\n~~~~",
        ] {
            assert_eq!(line_texts(wrapped), ["# A", "", "text"], "{wrapped}");
        }
        let inner = "````markdown\n```sh\nls\n```\n````";
        assert_eq!(line_texts(inner), ["```sh", "ls", "```"]);
        for own in [
            "```sh\nls\n```",
            "```\nls\n```\nand\n```\npwd\n```",
            "```markdown\n# A",
            "```markdown\na\n```\ntext",
            "```",
        ] {
            assert_eq!(line_texts(own).join("\n"), own);
        }
    }

    #[test]
    fn headings_inside_code_are_ignored() {
        let written =
            "# One\n\ntext # not\n#not\n```\n# code\n```\n   ### Three ###\n    # code\n## **Bold**\n#";
        let lines = split_transcription_lines(written);
        let found = find_headings(&lines);
        assert_eq!(found, [(0, 1), (7, 3), (9, 2)]);
        let text = |at: usize| trim_heading_and_emphasis_marks(&lines[at].text);
        assert_eq!((text(0), text(7), text(9)), ("One", "Three", "Bold"));
    }

    #[test]
    fn page_content_cannot_affect_other_pages() {
        assert_eq!(render_text("a\n\n| b |"), "a\n\n| b |\n\n");
        assert_eq!(
            render_text("<!-- page 9 -->\n\n<script>x</script> 3 < 4 \\<b> \\\\<b>"),
            "\\<!-- page 9 -->\n\n\\<script>x\\</script> 3 < 4 \\<b> \\\\\\<b>\n\n"
        );
        assert_eq!(
            render_text("![x](http://far/pixel.png)"),
            "\\![x](http://far/pixel.png)\n\n"
        );
        assert_eq!(
            render_text("````c\n#include <a.h>\n```"),
            "````c\n#include <a.h>\n```\n````\n\n"
        );
        // In a list item, the code block ends with the item.
        assert_eq!(render_text("- ```\n  ```\n<b>"), "- ```\n  ```\n\\<b>\n\n");
        assert_eq!(render_text(""), "");
    }
}
