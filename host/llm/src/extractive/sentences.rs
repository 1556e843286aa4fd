//! The sentences of a text whose lines are those of a page.
//!
//! Unicode's rules (UAX #29) end a sentence at every line, and a page's lines end anywhere. So a line break counts as a space,
//! unless a paragraph ends there: at an empty line, and after a line that is clearly shorter than the others. What is no
//! sentence then (a heading, a cell, a page number) has no full stop at its end, and is left out. So is what is too short to
//! say anything and what is too long to be one sentence.

use unicode_segmentation::UnicodeSegmentation;

/// Words a sentence has at least, and at most.
const WORDS: std::ops::RangeInclusive<usize> = 4..=80;
/// Words of a clause that can stand for its sentence.
const LEAST_CLAUSE: usize = 4;
/// A line shorter than this part of a usual one ends a paragraph.
const SHORT: f64 = 0.6;
/// Dots that lead the eye to a page number.
const LEADERS: [&str; 2] = [". . .", "....."];
/// What ends with a full stop and no sentence.
const ABBREVIATIONS: [&str; 22] = [
    "dr.", "mr.", "mrs.", "ms.", "prof.", "st.", "fig.", "figs.", "eq.", "eqs.", "sec.", "ch.", "vol.",
    "pp.", "ed.", "eds.", "vs.", "cf.", "al.", "e.g.", "i.e.", "approx.",
];

/// A sentence and where it stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Sentence<'a> {
    /// As it stands in the text.
    pub(super) source: &'a str,
    /// Its first byte there.
    pub(super) at: usize,
}

impl<'a> Sentence<'a> {
    /// Word for word, with one space where there was any white space.
    pub(super) fn plain(&self) -> String {
        let words: Vec<&str> = self.source.split_whitespace().collect();
        words.join(" ")
    }

    /// Whether it has no more than so many words.
    pub(super) fn is_short(&self, words: usize) -> bool {
        self.source.unicode_words().nth(words).is_none()
    }

    /// Its first words, if it has more: up to where something ends in them, if anything does.
    pub(super) fn words(self, most: usize) -> Self {
        let mut words = self.source.unicode_word_indices();
        let least = words
            .nth(LEAST_CLAUSE - 1)
            .map_or(0, |(at, word)| at + word.len());
        let Some((end, _)) = self.source.unicode_word_indices().nth(most) else {
            return self;
        };
        let Some(begun) = self.source.get(..end) else {
            return self;
        };
        let clause = begun.rfind([',', ';', ':']).filter(|end| *end >= least);
        let source: &'a str = clause.and_then(|end| begun.get(..end)).unwrap_or(begun);
        let source = source.trim_end_matches(|c: char| !c.is_alphanumeric());
        Self { source, ..self }
    }
}

/// The sentences of a text, in their order.
pub(super) fn of(text: &str) -> Vec<Sentence<'_>> {
    paragraphs(text)
        .into_iter()
        .flat_map(|(at, paragraph)| in_paragraph(at, paragraph))
        .filter(|sentence| is_sentence(sentence.source))
        .collect()
}

/// The paragraphs of a text and where they begin.
fn paragraphs(text: &str) -> Vec<(usize, &str)> {
    let mut lengths: Vec<usize> = text
        .lines()
        .map(|l| l.trim().chars().count())
        .filter(|n| *n > 0)
        .collect();
    lengths.sort_unstable();
    // Nine of ten lines are no longer: what a full line has.
    let usual = lengths.get(lengths.len() * 9 / 10).copied().unwrap_or_default();
    let (mut paragraphs, mut start, mut end) = (Vec::new(), 0, 0);
    for line in text.split_inclusive('\n') {
        end += line.len();
        let length = line.trim().chars().count();
        if length == 0 || (length as f64) < usual as f64 * SHORT {
            paragraphs.extend(text.get(start..end).map(|paragraph| (start, paragraph)));
            start = end;
        }
    }
    paragraphs.extend(text.get(start..).map(|paragraph| (start, paragraph)));
    paragraphs
}

/// The sentences of a paragraph, whether they are any or not.
fn in_paragraph(at: usize, paragraph: &str) -> Vec<Sentence<'_>> {
    // Of the same length, so that places in it are places in the text.
    let flat = paragraph.replace(['\n', '\r', '\t'], " ");
    let (mut sentences, mut start) = (Vec::new(), 0);
    for (begin, piece) in flat.split_sentence_bound_indices() {
        let end = begin + piece.len();
        if end < flat.len() && goes_on(piece) {
            continue;
        }
        if let Some(source) = paragraph.get(start..end) {
            let before = source.len() - source.trim_start().len();
            sentences.push(Sentence {
                source: source.trim(),
                at: at + start + before,
            });
        }
        start = end;
    }
    sentences
}

/// Whether a piece that Unicode's rules end does not end a sentence: after an abbreviation, or a name's initial.
fn goes_on(piece: &str) -> bool {
    let Some(last) = piece.split_whitespace().next_back() else {
        return true;
    };
    let last = last.trim_start_matches(['(', '[', '"', '“', '‘']);
    let initial = last.chars().count() == 2 && last.ends_with('.') && last.starts_with(char::is_uppercase);
    initial || ABBREVIATIONS.contains(&last.to_lowercase().as_str())
}

fn is_sentence(text: &str) -> bool {
    let ends = text
        .trim_end_matches(['"', '”', '’', '\'', ')', ']', '»'])
        .ends_with(['.', '!', '?', '…', '。', '！', '？', '؟', '।']);
    let begins = text
        .trim_start_matches(['"', '“', '‘', '\'', '(', '[', '«'])
        .starts_with(|c: char| c.is_alphanumeric() && !c.is_lowercase());
    // Writings without spaces have as many words as characters here, and say more with fewer.
    ends && begins && WORDS.contains(&text.unicode_words().count()) && !is_listed(text)
}

/// Whether it is a line of a list that happens to end with a full stop: dots that lead to a page number, or little but names
/// and numbers, as in a bibliography.
fn is_listed(text: &str) -> bool {
    if LEADERS.into_iter().any(|dots| text.contains(dots)) {
        return true;
    }
    let (mut words, mut plain) = (0, 0);
    for word in text.unicode_words() {
        words += 1;
        plain += usize::from(word.starts_with(|c: char| c.is_alphabetic() && !c.is_uppercase()));
    }
    plain * 3 <= words
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plain(text: &str) -> Vec<String> {
        of(text).iter().map(Sentence::plain).collect()
    }

    #[test]
    fn lines_of_a_page_are_not_sentences_and_headings_are_none() {
        let text = "3 How a weir works\nA weir is a low barrier that is built across the width of a\nriver. It \
                    raises the level of the water slightly, as Dr. J. Smith\nshows in Fig. 3, and is cheap.\n\n17\n\nTable 2: Costs\n\
                    What does it cost? Nobody (e.g. the builder) can say.\n";
        assert_eq!(
            plain(text),
            [
                "A weir is a low barrier that is built across the width of a river.",
                "It raises the level of the water slightly, as Dr. J. Smith shows in Fig. 3, and is cheap.",
                "What does it cost?",
                "Nobody (e.g. the builder) can say.",
            ]
        );
        for sentence in of(text) {
            assert_eq!(
                &text[sentence.at..sentence.at + sentence.source.len()],
                sentence.source
            );
        }
    }

    #[test]
    fn what_says_nothing_is_left_out() {
        assert!(plain("Yes. No. Ha ha ha.").is_empty());
        assert!(plain(&format!("This {} ends.", "goes on and ".repeat(40))).is_empty());
        assert!(plain("").is_empty());
        assert!(plain("15 Error handling functions . . . . . . . . 27. Index ......... 30.").is_empty());
        assert!(plain("Reports of the Institute of River Studies 12, 2004. A. Smith, Weirs and Locks, Thalheim 1998.").is_empty());
        assert_eq!(plain("Das Wehr staut den Fluss. これは文です。").len(), 2);
    }

    #[test]
    fn a_title_is_the_first_words() {
        let text = "The quick, brown (and lazy) fox jumps.";
        let sentence = of(text)[0];
        assert_eq!(sentence.words(2).source, "The quick");
        assert_eq!(sentence.words(3).source, "The quick, brown");
        let text = "Where a weir raises the water, boats pass the river by a lock.";
        assert_eq!(of(text)[0].words(8).source, "Where a weir raises the water");
        let text = "So, a weir raises the water above it.";
        assert_eq!(of(text)[0].words(5).source, "So, a weir raises the");
        assert!(of(text)[0].is_short(8) && !of(text)[0].is_short(7));
        let text = "The quick, brown (and lazy) fox jumps.";
        assert_eq!(sentence.words(100).source, text);
    }

    #[test]
    fn whatever_the_text_sentences_stand_where_they_say() {
        let mut random = fastrand::Rng::with_seed(11);
        let pieces = [
            "A", "weir", "ß", "…", ".", "!", " ", "\n", "\r\n", "\t", "(", "”", "Dr.", "文。", "\u{300}",
            "\u{2028}", "3",
        ];
        for _ in 0..3000 {
            let length = random.usize(0..80);
            let text: String = (0..length).filter_map(|_| random.choice(pieces)).collect();
            let mut end = 0;
            for sentence in of(&text) {
                assert!(sentence.at >= end, "{text:?}");
                end = sentence.at + sentence.source.len();
                assert_eq!(text.get(sentence.at..end), Some(sentence.source));
                assert!(sentence.source.starts_with(sentence.words(3).source));
            }
        }
    }
}
