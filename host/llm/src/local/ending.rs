//! What is kept of an answer that did not end within its tokens.
//!
//! A small model often does not come to an end by itself, and nothing tells it how many tokens it has. Of a summary, the sentences
//! that are whole are worth having, of a title its first line; of what a component asked, a part is no answer.

use std::borrow::Cow;

use unicode_segmentation::UnicodeSegmentation as _;
use weir_core::language::QuestionKind;

/// What ends a sentence.
const ENDS: [char; 9] = ['.', '!', '?', '…', '。', '！', '？', '।', '؟'];

/// The part of a broken-off answer that can stand for it; `None`: there is none.
pub(super) fn kept(kind: QuestionKind, text: &str) -> Option<Cow<'_, str>> {
    match kind {
        QuestionKind::Map | QuestionKind::Reduce | QuestionKind::Preview => match whole_sentences(text) {
            "" => whole_words(text),
            sentences => Some(sentences.into()),
        },
        // Whoever writes a second line has gone on after the title.
        QuestionKind::Title => match text.trim().split_once('\n') {
            Some((title, _)) => Some(title.trim_end().into()),
            None => whole_words(text),
        },
        QuestionKind::Page | QuestionKind::Component => None,
    }
}

/// A text up to its last whole word, and a sign that it went on.
fn whole_words(text: &str) -> Option<Cow<'_, str>> {
    let (words, _) = text.trim().rsplit_once(char::is_whitespace)?;
    Some(format!("{}…", words.trim_end()).into())
}

/// A text up to the end of its last whole sentence.
fn whole_sentences(text: &str) -> &str {
    // The number of a list's next entry ends with a full stop, too.
    let is_whole = |sentence: &str| {
        let sentence = sentence.trim_end_matches(|c: char| c.is_whitespace() || "\"'”’»)*".contains(c));
        sentence.ends_with(ENDS) && sentence.contains(char::is_alphabetic)
    };
    let sentences: Vec<(usize, &str)> = text.split_sentence_bound_indices().collect();
    let last = sentences.iter().rev().find(|(_, sentence)| is_whole(sentence));
    let end = last.map_or(0, |(start, sentence)| start + sentence.len());
    text.get(..end).unwrap_or_default().trim_end()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_summary_keeps_its_whole_sentences() {
        for (text, whole) in [
            ("It rained. It stopped. Then it beg", "It rained. It stopped."),
            ("It rained. It stopped.", "It rained. It stopped."),
            ("He said \"stop.\" Then he", "He said \"stop.\""),
            ("Two things:\n1. It rained.\n2. It", "Two things:\n1. It rained."),
            ("雨が降った。止んだ。そして", "雨が降った。止んだ。"),
            ("It never came to", ""),
            ("", ""),
        ] {
            assert_eq!(whole_sentences(text), whole);
        }
    }

    #[test]
    fn what_can_stand_for_an_answer_depends_on_what_it_is_for() {
        let kept = |kind, text| super::kept(kind, text).map(Cow::into_owned);
        let is = |text: &str| Some(text.to_owned());
        for kind in [QuestionKind::Map, QuestionKind::Reduce, QuestionKind::Preview] {
            assert_eq!(kept(kind, "It rained. It sto"), is("It rained."));
            assert_eq!(kept(kind, "it rains and rai"), is("it rains and…"));
            assert_eq!(kept(kind, "\n"), None);
        }
        assert_eq!(kept(QuestionKind::Title, "\nRivers\nThis title is"), is("Rivers"));
        assert_eq!(
            kept(QuestionKind::Title, "Rivers and their ma"),
            is("Rivers and their…")
        );
        assert_eq!(kept(QuestionKind::Component, "It rained. It sto"), None);
    }
}
