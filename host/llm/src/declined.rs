//! Models that say no in words, with the status of an answer.
//!
//! Such an answer is a fault: another provider is asked, it is not kept, and it becomes neither a page nor a summary. What a
//! component asked is answered as it is, since only the component knows what it wants to hear.

use weir_core::language::{Question, QuestionKind};

use crate::provider::Reply;

/// Whether a reply says no to the question. A reply of quotes says what the document says.
pub(crate) fn declines(question: &Question, reply: &Reply) -> bool {
    question.kind != QuestionKind::Component && reply.quotes.is_empty() && is_declined(&reply.text)
}

/// Whether a model says that it will not, instead of what it was asked for. Told by the words that English-speaking models use, of
/// which one from each list must be there, and near its beginning; an apology in a letter is rarely one for not reading it. One
/// that is not recognized is an answer like any other.
fn is_declined(answer: &str) -> bool {
    const OPENINGS: [&str; 8] = [
        "i'm sorry",
        "i am sorry",
        "sorry,",
        "i can't",
        "i cannot",
        "i'm unable",
        "i am unable",
        "unfortunately",
    ];
    const REFUSALS: [&str; 6] = ["can't", "cannot", "unable", "not able", "won't", "don't see"];
    const TASKS: [&str; 7] = [
        "assist",
        "transcri",
        "image",
        "read the",
        "that request",
        "help with",
        "process this",
    ];
    /// Bytes of the longest such answer.
    const LONGEST: usize = 600;

    if answer.len() > LONGEST {
        return false;
    }
    let answer = answer.trim_start().to_lowercase().replace('’', "'");
    let has = |words: &[&str]| words.iter().any(|word| answer.contains(word));
    OPENINGS.iter().any(|opening| answer.starts_with(opening)) && has(&REFUSALS) && has(&TASKS)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn apologies_are_told_from_answers() {
        for declined in [
            "I'm sorry, but I can't assist with that.",
            "I’m sorry, I cannot transcribe the text of copyrighted material.",
            "I cannot read the text in this image because it is too blurry.",
            "Unfortunately, I am unable to process this page. The image appears to be damaged.",
            "Sorry, I don't see an image.",
        ] {
            assert!(is_declined(declined), "{declined}");
        }
        let page = "I'm sorry, but I can't assist with that. ".repeat(20);
        for page in [
            "I am sorry to tell you that the lock will be closed in May.",
            "Sorry, closed",
            "# Report\n\nI'm sorry, but I can't assist with that.",
            "I cannot come on Friday. Could you take the keys?",
            page.as_str(),
        ] {
            assert!(!is_declined(page), "{page}");
        }
    }
}
