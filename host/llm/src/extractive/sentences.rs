//! Splits the text of a page into sentences.
//!
//! Unicode's rules (UAX #29) end a sentence at every line break, but the lines of a page can break anywhere. A line break
//! therefore counts as a space, except at the end of a paragraph: at an empty line, and after a line that is clearly shorter
//! than usual. Headings, table cells and page numbers have no full stop at the end and are skipped. Sentences that are too
//! short or too long are skipped, too.

use unicode_segmentation::UnicodeSegmentation;

/// Minimum and maximum number of words of a sentence.
const SENTENCE_WORD_COUNTS: std::ops::RangeInclusive<usize> = 4..=80;
/// Minimum number of words of a clause that replaces its sentence in a title.
const MIN_CLAUSE_WORDS: usize = 4;
/// A line below this fraction of the usual length ends a paragraph.
const SHORT_LINE_RATIO: f64 = 0.6;
/// Dots that lead to a page number.
const DOT_LEADERS: [&str; 2] = [". . .", "....."];
/// Abbreviations whose full stop does not end a sentence.
const ABBREVIATIONS: [&str; 22] = [
    "dr.", "mr.", "mrs.", "ms.", "prof.", "st.", "fig.", "figs.", "eq.", "eqs.", "sec.", "ch.", "vol.",
    "pp.", "ed.", "eds.", "vs.", "cf.", "al.", "e.g.", "i.e.", "approx.",
];

/// A sentence and its position in the text.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Sentence<'a> {
    /// The sentence as it is in the text.
    pub(super) source: &'a str,
    /// Index of its first byte in the text.
    pub(super) offset: usize,
}

impl<'a> Sentence<'a> {
    /// The sentence with each run of white space replaced by one space.
    pub(super) fn normalized_text(&self) -> String {
        let words: Vec<&str> = self.source.split_whitespace().collect();
        words.join(" ")
    }

    /// Whether the sentence has at most this many words.
    pub(super) fn has_at_most_words(&self, words: usize) -> bool {
        self.source.unicode_words().nth(words).is_none()
    }

    /// Truncates a longer sentence to at most `most` words, at the end of a clause if there is one.
    pub(super) fn truncate_to_words(self, max_words: usize) -> Self {
        let mut words = self.source.unicode_word_indices();
        let least = words
            .nth(MIN_CLAUSE_WORDS - 1)
            .map_or(0, |(at, word)| at + word.len());
        let Some((end, _)) = self.source.unicode_word_indices().nth(max_words) else {
            return self;
        };
        let Some(prefix) = self.source.get(..end) else {
            return self;
        };
        let clause = prefix.rfind([',', ';', ':']).filter(|end| *end >= least);
        let source: &'a str = clause.and_then(|end| prefix.get(..end)).unwrap_or(prefix);
        let source = source.trim_end_matches(|c: char| !c.is_alphanumeric());
        Self { source, ..self }
    }
}

/// Returns the sentences of a text in order.
pub(super) fn split_sentences(text: &str) -> Vec<Sentence<'_>> {
    split_paragraphs(text)
        .into_iter()
        .flat_map(|(at, paragraph)| split_paragraph_sentences(at, paragraph))
        .filter(|sentence| is_sentence(sentence.source))
        .collect()
}

/// Returns the paragraphs of a text with their byte offsets.
fn split_paragraphs(text: &str) -> Vec<(usize, &str)> {
    let mut lengths: Vec<usize> = text
        .lines()
        .map(|l| l.trim().chars().count())
        .filter(|n| *n > 0)
        .collect();
    lengths.sort_unstable();
    // Nine of ten lines are at most this long, so it is the length of a full line.
    let usual = lengths.get(lengths.len() * 9 / 10).copied().unwrap_or_default();
    let (mut paragraphs, mut start, mut end) = (Vec::new(), 0, 0);
    for line in text.split_inclusive('\n') {
        end += line.len();
        let length = line.trim().chars().count();
        if length == 0 || (length as f64) < usual as f64 * SHORT_LINE_RATIO {
            paragraphs.extend(text.get(start..end).map(|paragraph| (start, paragraph)));
            start = end;
        }
    }
    paragraphs.extend(text.get(start..).map(|paragraph| (start, paragraph)));
    paragraphs
}

/// Splits a paragraph at the ends of sentences, without checking whether the parts are sentences.
fn split_paragraph_sentences(at: usize, paragraph: &str) -> Vec<Sentence<'_>> {
    // The replacement keeps the length, so that offsets stay valid.
    let flat = paragraph.replace(['\n', '\r', '\t'], " ");
    let (mut sentences, mut start) = (Vec::new(), 0);
    for (begin, piece) in flat.split_sentence_bound_indices() {
        let end = begin + piece.len();
        if end < flat.len() && ends_with_abbreviation(piece) {
            continue;
        }
        if let Some(source) = paragraph.get(start..end) {
            let before = source.len() - source.trim_start().len();
            sentences.push(Sentence {
                source: source.trim(),
                offset: at + start + before,
            });
        }
        start = end;
    }
    sentences
}

/// Whether a piece ends with an abbreviation or an initial, where Unicode's rules wrongly end a sentence.
fn ends_with_abbreviation(piece: &str) -> bool {
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
    // In scripts without spaces each character counts as a word.
    ends && begins && SENTENCE_WORD_COUNTS.contains(&text.unicode_words().count()) && !is_list_entry(text)
}

/// Whether the text is a list item that ends with a full stop: an entry of a table of contents, or mostly names and numbers, as
/// in a bibliography.
fn is_list_entry(text: &str) -> bool {
    if DOT_LEADERS.into_iter().any(|dots| text.contains(dots)) {
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

    fn sentence_texts(text: &str) -> Vec<String> {
        split_sentences(text)
            .iter()
            .map(Sentence::normalized_text)
            .collect()
    }

    #[test]
    fn line_breaks_do_not_end_sentences_and_headings_are_skipped() {
        let text = "3 How a weir works\nA weir is a low barrier that is built across the width of a\nriver. It \
                    raises the level of the water slightly, as Dr. J. Smith\nshows in Fig. 3, and is cheap.\n\n17\n\nTable 2: Costs\n\
                    What does it cost? Nobody (e.g. the builder) can say.\n";
        assert_eq!(
            sentence_texts(text),
            [
                "A weir is a low barrier that is built across the width of a river.",
                "It raises the level of the water slightly, as Dr. J. Smith shows in Fig. 3, and is cheap.",
                "What does it cost?",
                "Nobody (e.g. the builder) can say.",
            ]
        );
        for sentence in split_sentences(text) {
            assert_eq!(
                &text[sentence.offset..sentence.offset + sentence.source.len()],
                sentence.source
            );
        }
    }

    #[test]
    fn list_entries_and_too_short_or_long_sentences_are_skipped() {
        assert!(sentence_texts("Yes. No. Ha ha ha.").is_empty());
        assert!(sentence_texts(&format!("This {} ends.", "goes on and ".repeat(40))).is_empty());
        assert!(sentence_texts("").is_empty());
        assert!(
            sentence_texts("15 Error handling functions . . . . . . . . 27. Index ......... 30.").is_empty()
        );
        assert!(sentence_texts("Reports of the Institute of River Studies 12, 2004. A. Smith, Weirs and Locks, Thalheim 1998.").is_empty());
        assert_eq!(
            sentence_texts("Das Wehr staut den Fluss. これは文です。").len(),
            2
        );
    }

    #[test]
    fn truncation_prefers_the_end_of_a_clause() {
        let text = "The quick, brown (and lazy) fox jumps.";
        let sentence = split_sentences(text)[0];
        assert_eq!(sentence.truncate_to_words(2).source, "The quick");
        assert_eq!(sentence.truncate_to_words(3).source, "The quick, brown");
        let text = "Where a weir raises the water, boats pass the river by a lock.";
        assert_eq!(
            split_sentences(text)[0].truncate_to_words(8).source,
            "Where a weir raises the water"
        );
        let text = "So, a weir raises the water above it.";
        assert_eq!(
            split_sentences(text)[0].truncate_to_words(5).source,
            "So, a weir raises the"
        );
        assert!(
            split_sentences(text)[0].has_at_most_words(8) && !split_sentences(text)[0].has_at_most_words(7)
        );
        let text = "The quick, brown (and lazy) fox jumps.";
        assert_eq!(sentence.truncate_to_words(100).source, text);
    }

    #[test]
    fn offsets_match_the_text_for_random_input() {
        let mut random = fastrand::Rng::with_seed(11);
        let pieces = [
            "A", "weir", "ß", "…", ".", "!", " ", "\n", "\r\n", "\t", "(", "”", "Dr.", "文。", "\u{300}",
            "\u{2028}", "3",
        ];
        for _ in 0..3000 {
            let length = random.usize(0..80);
            let text: String = (0..length).filter_map(|_| random.choice(pieces)).collect();
            let mut end = 0;
            for sentence in split_sentences(&text) {
                assert!(sentence.offset >= end, "{text:?}");
                end = sentence.offset + sentence.source.len();
                assert_eq!(text.get(sentence.offset..end), Some(sentence.source));
                assert!(sentence.source.starts_with(sentence.truncate_to_words(3).source));
            }
        }
    }
}
