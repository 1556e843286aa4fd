//! Extracts the usable part of a response that reached its token limit.
//!
//! A small model often does not stop by itself, and it does not know the limit. Of a summary, the complete sentences are
//! usable; of a title, the first line. Of a response to a component, no part is usable.

use std::borrow::Cow;

use unicode_segmentation::UnicodeSegmentation as _;
use weir_core::llm::LlmRequestKind;

/// Characters that end a sentence.
const SENTENCE_ENDS: [char; 9] = ['.', '!', '?', '…', '。', '！', '？', '।', '؟'];

/// Returns the usable part of a truncated response; `None` if there is none.
pub(super) fn salvage_truncated_output(kind: LlmRequestKind, text: &str) -> Option<Cow<'_, str>> {
    match kind {
        LlmRequestKind::Map | LlmRequestKind::Reduce | LlmRequestKind::Preview => {
            match trim_to_whole_sentences(text) {
                "" => trim_to_whole_words(text),
                sentences => Some(sentences.into()),
            }
        }
        // A second line is not part of the title.
        LlmRequestKind::Title => match text.trim().split_once('\n') {
            Some((title, _)) => Some(title.trim_end().into()),
            None => trim_to_whole_words(text),
        },
        LlmRequestKind::Page | LlmRequestKind::Component => None,
    }
}

/// Cuts a text after its last complete word and appends an ellipsis.
fn trim_to_whole_words(text: &str) -> Option<Cow<'_, str>> {
    let (words, _) = text.trim().rsplit_once(char::is_whitespace)?;
    Some(format!("{}…", words.trim_end()).into())
}

/// Cuts a text after its last complete sentence.
fn trim_to_whole_sentences(text: &str) -> &str {
    // The number of a list item ends with a full stop, but is no sentence.
    let is_whole = |sentence: &str| {
        let sentence = sentence.trim_end_matches(|c: char| c.is_whitespace() || "\"'”’»)*".contains(c));
        sentence.ends_with(SENTENCE_ENDS) && sentence.contains(char::is_alphabetic)
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
    fn truncated_summary_keeps_whole_sentences() {
        for (text, whole) in [
            ("It rained. It stopped. Then it beg", "It rained. It stopped."),
            ("It rained. It stopped.", "It rained. It stopped."),
            ("He said \"stop.\" Then he", "He said \"stop.\""),
            ("Two things:\n1. It rained.\n2. It", "Two things:\n1. It rained."),
            ("雨が降った。止んだ。そして", "雨が降った。止んだ。"),
            ("It never came to", ""),
            ("", ""),
        ] {
            assert_eq!(trim_to_whole_sentences(text), whole);
        }
    }

    #[test]
    fn usable_part_depends_on_the_request_kind() {
        let salvage = |kind, text| super::salvage_truncated_output(kind, text).map(Cow::into_owned);
        let is = |text: &str| Some(text.to_owned());
        for kind in [
            LlmRequestKind::Map,
            LlmRequestKind::Reduce,
            LlmRequestKind::Preview,
        ] {
            assert_eq!(salvage(kind, "It rained. It sto"), is("It rained."));
            assert_eq!(salvage(kind, "it rains and rai"), is("it rains and…"));
            assert_eq!(salvage(kind, "\n"), None);
        }
        assert_eq!(
            salvage(LlmRequestKind::Title, "\nRivers\nThis title is"),
            is("Rivers")
        );
        assert_eq!(
            salvage(LlmRequestKind::Title, "Rivers and their ma"),
            is("Rivers and their…")
        );
        assert_eq!(salvage(LlmRequestKind::Component, "It rained. It sto"), None);
    }
}
