//! Where sentences begin.
//!
//! One pass over the text, with a look at what stands around each full stop. It knows the stops of the scripts that have their own;
//! a stop that stands without a space behind it, as in Chinese and Japanese, ends a sentence by itself, any other only
//! before a space and something that can begin a sentence. A full stop after an abbreviation, an initial or an item's number
//! ends nothing. A cut missed makes a passage end a sentence earlier, a cut too many may part an abbreviation from its word:
//! in doubt there is none.

/// What a cut opens, the weakest first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Opens {
    /// A word inside a line that is too long.
    Word,
    /// A line inside a sentence that is too long.
    Line,
    /// A sentence.
    Sentence,
    /// A paragraph, or an item of a list.
    Paragraph,
    /// A heading and what stands under it.
    Section,
}

/// A position at which text may be cut.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Cut {
    /// The byte at which the new part begins.
    pub(crate) at: usize,
    pub(crate) opens: Opens,
}

/// The sentences and paragraphs of a text, in order. The beginning of the text is no cut.
pub(crate) fn cuts(text: &str) -> Vec<Cut> {
    let mut cuts = Vec::new();
    let mut lines = Lines::default();
    let mut chars = text.char_indices().peekable();
    while let Some((at, c)) = chars.next() {
        let opens = if c == '\n' {
            lines.end(text, at).then_some(Opens::Paragraph)
        } else if is_stop(c) {
            while chars.next_if(|(_, c)| is_stop(*c) || is_closing(*c)).is_some() {}
            let behind = chars
                .peek()
                .map_or("", |(next, _)| text.get(*next..).unwrap_or(""));
            (stands_alone(c) || ends_sentence(text.get(..at).unwrap_or(""), c, behind))
                .then_some(Opens::Sentence)
        } else {
            None
        };
        if let Some(opens) = opens {
            // A new part begins at its first character that is not space.
            while chars.next_if(|(_, c)| *c != '\n' && c.is_whitespace()).is_some() {}
            if let Some((at, _)) = chars.peek() {
                add(text, &mut cuts, Cut { at: *at, opens });
            }
        }
    }
    cuts
}

/// Adds a cut; one that has nothing but space before it stands in the place of the one before.
fn add(text: &str, cuts: &mut Vec<Cut>, mut cut: Cut) {
    if let Some(last) = cuts.pop_if(|last| {
        text.get(last.at..cut.at)
            .is_none_or(|between| between.trim().is_empty())
    }) {
        cut.opens = cut.opens.max(last.opens);
    }
    cuts.push(cut);
}

/// What a line must be like for a paragraph to end with it.
#[derive(Debug, Default)]
struct Lines {
    start: usize,
    previous: usize,
}

impl Lines {
    /// Takes the line that ends at `at`; whether a paragraph begins behind it.
    fn end(&mut self, text: &str, at: usize) -> bool {
        let line = text.get(self.start..at).unwrap_or("").trim();
        let behind = text.get(at + 1..).unwrap_or("");
        let blank = behind
            .chars()
            .take_while(|c| c.is_whitespace())
            .take(64)
            .any(|c| c == '\n');
        // A paragraph's last line is shorter than the one before it.
        let short =
            line.len() * 5 < self.previous * 4 && line.trim_end_matches(is_closing).ends_with(is_stop);
        (self.start, self.previous) = (at + 1, line.len());
        blank || short || begins_item(behind.trim_start_matches(' '))
    }
}

fn is_stop(c: char) -> bool {
    matches!(c, '.' | '!' | '?' | '…' | '؟' | '۔' | '।' | '॥' | '։' | '።' | '။') || stands_alone(c)
}

/// Stops that need no space behind them.
fn stands_alone(c: char) -> bool {
    matches!(c, '。' | '！' | '？' | '｡' | '．')
}

fn is_closing(c: char) -> bool {
    matches!(
        c,
        '"' | '\'' | ')' | ']' | '”' | '’' | '»' | '」' | '』' | '）' | '】' | '》'
    )
}

/// Whether a stop ends a sentence, by what stands before it and behind it and its closing quotes.
fn ends_sentence(before: &str, stop: char, behind: &str) -> bool {
    if !behind.starts_with(char::is_whitespace) {
        return false;
    }
    let next = behind.chars().find(|c| !c.is_whitespace());
    !(next.is_some_and(char::is_lowercase) || stop == '.' && is_abbreviated(before))
}

/// Whether the full stop behind `before` belongs to its last word.
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
    initial || dotted || ABBREVIATIONS.iter().any(|known| known.eq_ignore_ascii_case(word))
}

/// Abbreviations that stand before what they belong to, in English and German.
const ABBREVIATIONS: [&str; 58] = [
    "abb", "al", "approx", "art", "bd", "bzw", "ca", "cf", "ch", "chap", "cit", "co", "corp", "dept", "dr",
    "ed", "eds", "eq", "eqs", "evtl", "fig", "figs", "gen", "ggf", "hrsg", "inc", "jr", "kap", "ltd", "max",
    "min", "mr", "mrs", "ms", "mt", "nos", "nr", "op", "par", "pp", "prof", "ref", "refs", "resp", "rev",
    "sec", "sect", "sog", "sr", "st", "str", "tab", "usw", "vgl", "viz", "vol", "vols", "vs",
];

/// Whether a line begins with a bullet or an item's number.
fn begins_item(line: &str) -> bool {
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
        let cuts = cuts(text);
        let starts = [0].into_iter().chain(cuts.iter().map(|c| c.at));
        let ends = cuts.iter().map(|c| c.at).chain([text.len()]);
        starts.zip(ends).map(|(a, b)| text[a..b].trim()).collect()
    }

    fn opens(text: &str) -> Vec<Opens> {
        cuts(text).iter().map(|c| c.opens).collect()
    }

    #[test]
    fn sentences_end_at_stops_before_something_that_begins_one() {
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
    fn abbreviations_initials_and_numbers_end_nothing() {
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
    fn every_script_has_its_stops() {
        assert_eq!(
            split("今日は。「元気？」はい！行く"),
            ["今日は。", "「元気？」", "はい！", "行く"]
        );
        assert_eq!(split("यह एक है। यह दो है।"), ["यह एक है।", "यह दो है।"]);
        assert_eq!(split("كيف حالك؟ بخير."), ["كيف حالك؟", "بخير."]);
        assert_eq!(split("Это раз. Это два."), ["Это раз.", "Это два."]);
    }

    #[test]
    fn paragraphs_end_at_blank_and_short_lines_and_items() {
        let text = "A long line of running text\nthat goes on. Ends.\nAnother paragraph";
        assert_eq!(opens(text), [Opens::Sentence, Opens::Paragraph]);
        assert_eq!(opens("one\n\ntwo"), [Opens::Paragraph]);
        assert_eq!(
            split("We need\n• bread\n• butter\n2) milk\n(c) tea"),
            ["We need", "• bread", "• butter", "2) milk", "(c) tea"]
        );
        assert_eq!(opens("a line\nanother line\n-minus"), []);
    }

    #[test]
    fn odd_texts_are_taken() {
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
            let cuts = cuts(text);
            assert!(
                cuts.iter()
                    .all(|c| text.is_char_boundary(c.at) && c.at < text.len()),
                "{text:?}"
            );
            assert!(cuts.windows(2).all(|w| w[0].at < w[1].at), "{text:?}");
        }
    }
}
