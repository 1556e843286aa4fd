//! Finds the starts of sentences and paragraphs.
//!
//! The text is scanned once, and the text before and after each full stop is examined. The stops of several scripts are known. A stop that
//! needs no space after it, as in Chinese and Japanese, always ends a sentence. Any other stop ends one only before a space and a
//! character that can begin a sentence. A full stop after an abbreviation, an initial or an item's number does not end a sentence.
//! A missed cut makes a passage end a sentence earlier, but a wrong cut may separate an abbreviation from its word, so there is no
//! cut in doubtful cases.

/// The kind of text that begins at a cut, weakest first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Boundary {
    /// A word in a line that is too long.
    Word,
    /// A line in a sentence that is too long.
    Line,
    /// A sentence.
    Sentence,
    /// A paragraph, or an item of a list.
    Paragraph,
    /// A heading and the text under it.
    Section,
}

/// A position at which text may be cut.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Cut {
    /// The byte offset at which the new part begins.
    pub(crate) at: usize,
    pub(crate) boundary: Boundary,
}

/// Finds the cuts between sentences and paragraphs, in order. The beginning of the text is not a cut.
pub(crate) fn find_cuts(text: &str) -> Vec<Cut> {
    let mut cuts = Vec::new();
    let mut lines = ParagraphDetector::default();
    let mut chars = text.char_indices().peekable();
    while let Some((at, c)) = chars.next() {
        let boundary = if c == '\n' {
            lines.ends_paragraph(text, at).then_some(Boundary::Paragraph)
        } else if is_stop(c) {
            while chars.next_if(|(_, c)| is_stop(*c) || is_closing(*c)).is_some() {}
            let after = chars
                .peek()
                .map_or("", |(next, _)| text.get(*next..).unwrap_or(""));
            (needs_no_space(c) || ends_sentence(text.get(..at).unwrap_or(""), c, after))
                .then_some(Boundary::Sentence)
        } else {
            None
        };
        if let Some(boundary) = boundary {
            // A new part begins at its first character that is not white space.
            while chars.next_if(|(_, c)| *c != '\n' && c.is_whitespace()).is_some() {}
            if let Some((at, _)) = chars.peek() {
                push_cut(text, &mut cuts, Cut { at: *at, boundary });
            }
        }
    }
    cuts
}

/// Adds a cut. If there is only white space after the previous cut, the new cut replaces it.
fn push_cut(text: &str, cuts: &mut Vec<Cut>, mut cut: Cut) {
    if let Some(last) = cuts.pop_if(|last| {
        text.get(last.at..cut.at)
            .is_none_or(|between| between.trim().is_empty())
    }) {
        cut.boundary = cut.boundary.max(last.boundary);
    }
    cuts.push(cut);
}

/// Detects the last lines of paragraphs.
#[derive(Debug, Default)]
struct ParagraphDetector {
    start: usize,
    previous: usize,
}

impl ParagraphDetector {
    /// Records the line that ends at `at`. Returns whether a paragraph begins after it.
    fn ends_paragraph(&mut self, text: &str, at: usize) -> bool {
        let line = text.get(self.start..at).unwrap_or("").trim();
        let after = text.get(at + 1..).unwrap_or("");
        let blank = after
            .chars()
            .take_while(|c| c.is_whitespace())
            .take(64)
            .any(|c| c == '\n');
        // A paragraph's last line is shorter than the previous line.
        let short =
            line.len() * 5 < self.previous * 4 && line.trim_end_matches(is_closing).ends_with(is_stop);
        (self.start, self.previous) = (at + 1, line.len());
        blank || short || begins_list_item(after.trim_start_matches(' '))
    }
}

fn is_stop(c: char) -> bool {
    matches!(c, '.' | '!' | '?' | '…' | '؟' | '۔' | '।' | '॥' | '։' | '።' | '။') || needs_no_space(c)
}

/// Returns whether a stop needs no space after it.
fn needs_no_space(c: char) -> bool {
    matches!(c, '。' | '！' | '？' | '｡' | '．')
}

fn is_closing(c: char) -> bool {
    matches!(
        c,
        '"' | '\'' | ')' | ']' | '”' | '’' | '»' | '」' | '』' | '）' | '】' | '》'
    )
}

/// Returns whether a stop ends a sentence. `after` is the text after the stop and its closing quotes.
fn ends_sentence(before: &str, stop: char, after: &str) -> bool {
    if !after.starts_with(char::is_whitespace) {
        return false;
    }
    let next = after.chars().find(|c| !c.is_whitespace());
    !(next.is_some_and(char::is_lowercase) || stop == '.' && is_abbreviated(before))
}

/// Returns whether the full stop after `before` belongs to its last word.
fn is_abbreviated(before: &str) -> bool {
    let is_word = |c: char| c.is_alphanumeric() || c == '.';
    let start = before
        .char_indices()
        .rev()
        .take(16)
        .take_while(|(_, c)| is_word(*c))
        .last()
        .map_or(before.len(), |(at, _)| at);
    let word = before.get(start..).unwrap_or("");
    let ahead = before.get(..start).unwrap_or("");
    if word.chars().all(|c| c.is_ascii_digit()) {
        // "1. Introduction" at the beginning of a line
        return word.len() <= 3 && (ahead.is_empty() || ahead.trim_end_matches(' ').ends_with('\n'));
    }
    let mut letters = word.chars();
    let initial = letters.next().is_some_and(char::is_alphabetic) && letters.next().is_none();
    let dotted = word.contains('.') && word.split('.').all(|part| part.chars().count() <= 2);
    initial
        || dotted
        || ABBREVIATIONS
            .iter()
            .any(|abbreviation| abbreviation.eq_ignore_ascii_case(word))
}

/// English and German abbreviations that are followed by the word they belong to.
const ABBREVIATIONS: [&str; 58] = [
    "abb", "al", "approx", "art", "bd", "bzw", "ca", "cf", "ch", "chap", "cit", "co", "corp", "dept", "dr",
    "ed", "eds", "eq", "eqs", "evtl", "fig", "figs", "gen", "ggf", "hrsg", "inc", "jr", "kap", "ltd", "max",
    "min", "mr", "mrs", "ms", "mt", "nos", "nr", "op", "par", "pp", "prof", "ref", "refs", "resp", "rev",
    "sec", "sect", "sog", "sr", "st", "str", "tab", "usw", "vgl", "viz", "vol", "vols", "vs",
];

/// Returns whether a line begins with a bullet or an item's number.
fn begins_list_item(line: &str) -> bool {
    let bullet = |c: char| {
        matches!(
            c,
            '•' | '▪' | '◦' | '‣' | '●' | '■' | '○' | '–' | '—' | '-' | '*' | '·'
        )
    };
    if let Some(rest) = line.strip_prefix(bullet) {
        return rest.starts_with(' ');
    }
    let line = line.strip_prefix('(').unwrap_or(line);
    let number = line.bytes().take(4).take_while(u8::is_ascii_alphanumeric).count();
    let rest = line.get(number..).unwrap_or("");
    let digits = line.bytes().take(number).all(|b| b.is_ascii_digit());
    (1..=3).contains(&number) && (rest.starts_with(") ") || digits && rest.starts_with(". "))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn split(text: &str) -> Vec<&str> {
        let cuts = find_cuts(text);
        let starts = [0].into_iter().chain(cuts.iter().map(|c| c.at));
        let ends = cuts.iter().map(|c| c.at).chain([text.len()]);
        starts.zip(ends).map(|(a, b)| text[a..b].trim()).collect()
    }

    fn boundaries(text: &str) -> Vec<Boundary> {
        find_cuts(text).iter().map(|c| c.boundary).collect()
    }

    #[test]
    fn sentences_end_at_stops_followed_by_a_sentence_start() {
        assert_eq!(
            split("One is. Two is! Three? Four"),
            ["One is.", "Two is!", "Three?", "Four"]
        );
        assert_eq!(
            split("He said \"Stop!\" and left. (It was late.) Then"),
            ["He said \"Stop!\" and left.", "(It was late.)", "Then"]
        );
        assert_eq!(
            split("Version 1.5 costs 3.20 today.\nNext"),
            ["Version 1.5 costs 3.20 today.", "Next"]
        );
        assert_eq!(
            split("see weir.example.com/a.b for more... or less"),
            ["see weir.example.com/a.b for more... or less"]
        );
    }

    #[test]
    fn abbreviations_initials_and_numbers_end_no_sentence() {
        for one in [
            "Dr. Smith and Prof. J. R. Jones met.",
            "As Fig. 3 and Eq. (2) show, e.g. Paris vs. Rome.",
            "1. Introduction",
            "Das gilt z. B. Montags bzw. Dienstags, vgl. Abb. 3.",
            "The U.S. Army, i.e. Some of it.",
        ] {
            assert_eq!(split(one), [one]);
        }
        assert_eq!(split("It was in 1999. Then"), ["It was in 1999.", "Then"]);
    }

    #[test]
    fn stops_of_other_scripts_end_sentences() {
        assert_eq!(
            split("今日は。「元気？」はい！行く"),
            ["今日は。", "「元気？」", "はい！", "行く"]
        );
        assert_eq!(split("यह एक है। यह दो है।"), ["यह एक है।", "यह दो है।"]);
        assert_eq!(split("كيف حالك؟ بخير."), ["كيف حالك؟", "بخير."]);
        assert_eq!(split("Это раз. Это два."), ["Это раз.", "Это два."]);
    }

    #[test]
    fn paragraphs_end_at_blank_lines_short_lines_and_list_items() {
        let text = "A long line of running text\nthat goes on. Ends.\nAnother paragraph";
        assert_eq!(boundaries(text), [Boundary::Sentence, Boundary::Paragraph]);
        assert_eq!(boundaries("one\n\ntwo"), [Boundary::Paragraph]);
        assert_eq!(
            split("We need\n• bread\n• butter\n2) milk\n(c) tea"),
            ["We need", "• bread", "• butter", "2) milk", "(c) tea"]
        );
        assert_eq!(boundaries("a line\nanother line\n-minus"), []);
    }

    #[test]
    fn unusual_texts_give_valid_cuts() {
        for text in [
            "",
            ".",
            "。",
            "\n",
            "\n\n\n",
            "...!?",
            " . ",
            "a.\u{300} B",
            "🙂. 🙂",
            "\u{feff}。\n。",
        ] {
            let cuts = find_cuts(text);
            assert!(
                cuts.iter()
                    .all(|c| text.is_char_boundary(c.at) && c.at < text.len()),
                "{text:?}"
            );
            assert!(cuts.windows(2).all(|w| w[0].at < w[1].at), "{text:?}");
        }
    }
}
