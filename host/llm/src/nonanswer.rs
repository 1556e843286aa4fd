//! What comes with the status of an answer and is none: a no in words, the instructions over again, the same words round and round.
//!
//! Such an answer is a fault: another provider is asked, it is not kept, and it becomes neither a page nor a summary. What a
//! component asked is answered as it is, since only the component knows what it wants to hear, and a reply of quotes says what the
//! document says.

use std::collections::HashSet;

use unicode_segmentation::UnicodeSegmentation as _;
use weir_core::language::{Fault, Question, QuestionKind};

use crate::provider::Reply;

/// Words in a row that nobody takes over from instructions by chance.
const TAKEN_OVER: usize = 8;
/// Words in a row that good prose rarely says twice.
const SAID: usize = 4;
/// From so many words on it can be told whether a text goes round in circles, which it does if less than this share of what it
/// says in a row is new. Of summaries that can be read, 0.7 and more is; of those that loop, 0.5 and less (SmolLM2-135M).
const TOLD_FROM: usize = 24;
const NEW: f64 = 0.6;

/// What is wrong with a reply, if it is no answer.
pub(crate) fn fault(question: &Question, reply: &Reply) -> Option<Fault> {
    if question.kind == QuestionKind::Component || !reply.quotes.is_empty() {
        return None;
    }
    if is_declined(&reply.text) {
        return Some(Fault::Declined);
    }
    // A page may well say the same again and again, as tables do.
    if question.kind == QuestionKind::Page {
        return None;
    }
    let words = words(&reply.text);
    if takes_over(&words, question) {
        return Some(Fault::Parroted);
    }
    goes_in_circles(&words).then_some(Fault::Looped)
}

fn words(text: &str) -> Vec<String> {
    text.unicode_words().map(str::to_lowercase).collect()
}

/// Whether an answer repeats its instructions. What these put between quotation marks is the document's, such as a title; what
/// the text says too may be said.
fn takes_over(answer: &[String], question: &Question) -> bool {
    let parts = question.prompt.split("{text}");
    let instructions: Vec<Vec<String>> = parts
        .flat_map(|part| part.split(['"', '“', '”', '„', '«', '»']).step_by(2))
        .map(words)
        .collect();
    let told: HashSet<&[String]> = instructions
        .iter()
        .flat_map(|part| part.windows(TAKEN_OVER))
        .collect();
    let mut taken = answer
        .windows(TAKEN_OVER)
        .filter(|row| told.contains(row))
        .peekable();
    if taken.peek().is_none() {
        return false;
    }
    let text = words(&question.text);
    let said: HashSet<&[String]> = text.windows(TAKEN_OVER).collect();
    taken.any(|row| !said.contains(row))
}

fn goes_in_circles(words: &[String]) -> bool {
    let rows = words.windows(SAID);
    let all = rows.len();
    let new = rows.collect::<HashSet<_>>().len();
    words.len() >= TOLD_FROM && (new as f64) < NEW * all as f64
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
    use std::time::Duration;

    use weir_core::ports::Account;
    use weir_core::{Lane, TenantId};

    use super::*;

    fn summary(prompt: &str, text: &str, answer: &str) -> Option<Fault> {
        let question = Question {
            account: Account {
                tenant: TenantId::single(),
                lane: Lane::Bulk,
                linger: Duration::ZERO,
                weight: 1.0,
            },
            kind: QuestionKind::Map,
            system: None,
            prompt: prompt.into(),
            text: text.into(),
            image: None,
            max_tokens: 300,
            patience: Duration::from_secs(60),
            document: None,
        };
        let reply = Reply {
            text: answer.into(),
            quotes: Vec::new(),
            prompt_tokens: None,
            answer_tokens: None,
        };
        fault(&question, &reply)
    }

    const PROMPT: &str = "The text between the lines is the section \"Water, fish and silt in the lower Aune, and what \
        became of them\" of a document. Summarize it in three to five sentences, in its language.\n---\n{text}\n---\nSummary:";

    #[test]
    fn instructions_are_no_summary_unless_the_document_says_so() {
        let text = "The Aune is lower, livelier and muddier than it was.";
        for parroted in [
            "The text between the lines is the section \"4 Flood\" of a document. It is about floods.",
            "The Aune is low. OF A DOCUMENT: summarize it in three -- to five sentences!",
        ] {
            assert_eq!(
                summary(PROMPT, text, parroted),
                Some(Fault::Parroted),
                "{parroted}"
            );
            assert_eq!(summary(PROMPT, parroted, parroted), None, "{parroted}");
        }
        for fine in [
            text,
            "Water, fish and silt in the lower Aune, and what became of them, is about a river.",
            "The text between the lines is new.",
        ] {
            assert_eq!(summary(PROMPT, text, fine), None, "{fine}");
        }
    }

    #[test]
    fn an_answer_that_goes_round_in_circles_is_none() {
        let looped = "The river has less water. The river has more fish. The river has more. The river has more fish. The \
            river has more than the river. The river has more fish. The river has more, the river has more.";
        assert_eq!(summary(PROMPT, "", looped), Some(Fault::Looped));
        let fine = "Gate One is opened by 20 centimetres, Gate Two by 40 and Gate Three by 60. Gate One is closed first, Gate \
            Two is closed after it, and Gate Three is closed when the horn has been blown three times.";
        assert_eq!(summary(PROMPT, "", fine), None);
        assert_eq!(summary(PROMPT, "", "no no no no no no no no"), None);
    }

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
