//! Escapes text for Markdown.

/// Returns `text` on one line, with a backslash before every character that CommonMark or GitHub's tables could
/// interpret as markup in its place. Other characters stay, so that the source is readable.
pub(super) fn escape_text(text: &str) -> String {
    let mut out = String::with_capacity(text.len() + text.len() / 16);
    let words = text
        .split(|c: char| c.is_whitespace() || c.is_control())
        .filter(|w| !w.is_empty());
    for (i, word) in words.enumerate() {
        if i > 0 {
            out.push(' ');
        } else if let Some(at) = block_marker_escape_index(word) {
            let (before, rest) = word.split_at(at);
            append_escaped_word(before, &mut out);
            out.push('\\');
            append_escaped_word(rest, &mut out);
            continue;
        }
        append_escaped_word(word, &mut out);
    }
    out
}

/// Returns the position for a backslash in a word that would start a heading, list, quote, rule or code block.
fn block_marker_escape_index(word: &str) -> Option<usize> {
    let digits = word.bytes().take_while(u8::is_ascii_digit).count();
    let rest = word.get(digits..)?;
    if digits > 0 {
        return matches!(rest, "." | ")").then_some(digits);
    }
    let first = rest.chars().next()?;
    let alike = rest.trim_matches(first).is_empty();
    match first {
        '#' | '-' | '=' if alike => Some(0),
        '+' if rest.len() == 1 => Some(0),
        _ => None,
    }
}

fn append_escaped_word(word: &str, out: &mut String) {
    let mut chars = word.chars().peekable();
    while let Some(c) = chars.next() {
        let next = chars.peek().copied();
        let special = match c {
            '\\' | '`' | '*' | '[' | ']' | '<' | '>' | '|' => true,
            // CommonMark and GitHub treat an underscore inside a word as text, but not at its ends.
            '_' => !(out.ends_with(char::is_alphanumeric) && next.is_some_and(char::is_alphanumeric)),
            '&' => next.is_some_and(|c| c.is_ascii_alphabetic() || c == '#'),
            '~' => next == Some('~') || out.ends_with('~'),
            _ => false,
        };
        if special {
            out.push('\\');
        }
        out.push(c);
    }
}

/// Returns a link target in angle brackets, in which spaces and parentheses are allowed.
pub(super) fn format_link_target(target: &str) -> String {
    let mut out = String::from("<");
    for c in target.chars().filter(|c| !c.is_control()) {
        if matches!(c, '<' | '>' | '\\') {
            out.push('\\');
        }
        out.push(c);
    }
    out.push('>');
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn markup_is_escaped_where_it_would_be_read_as_markup() {
        for (text, expected) in [
            ("gate_width is 5 * 3", "gate_width is 5 \\* 3"),
            ("_note_", "\\_note\\_"),
            ("<!-- page 9 -->", "\\<!-- page 9 --\\>"),
            ("1. first", "1\\. first"),
            ("1.2 Gates", "1.2 Gates"),
            ("2026 was dry", "2026 was dry"),
            ("# 7", "\\# 7"),
            ("#7", "#7"),
            ("- 3 °C", "\\- 3 °C"),
            ("-3 °C", "-3 °C"),
            ("----", "\\----"),
            ("a & b &amp; c", "a & b \\&amp; c"),
            ("[x](y) `z` a|b", "\\[x\\](y) \\`z\\` a\\|b"),
            ("two\nlines\u{0}\there", "two lines here"),
        ] {
            assert_eq!(escape_text(text), expected);
        }
    }

    #[test]
    fn link_target_cannot_end_its_link() {
        assert_eq!(format_link_target("my pages/3 (1).jpg"), "<my pages/3 (1).jpg>");
        assert_eq!(format_link_target("a>b\n"), "<a\\>b>");
    }
}
