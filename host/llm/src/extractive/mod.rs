//! Answers with what the text itself says: the sentences that say most, in their own order, word for word.
//!
//! It is what answers where nothing else is set up. A small language model beside everything else copies openings and states
//! falsehoods; sentences of the text are dull and true, and each can be shown where it stands. Nothing but the embedding model is needed.
//!
//! A sentence says most if it is like many others that say much (`centrality`), and what was said is not said again
//! (`choice`). The prompt is not read: only the text is quoted, so no prompt is ever echoed.

mod centrality;
mod choice;
mod sentences;

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use weir_core::InferenceError;
use weir_core::language::{Fault, Question, QuestionKind, Quote};
use weir_core::ports::{Account, Embedder};

use crate::provider::{Provider, Reply};
use sentences::Sentence;

/// Sentences of a text that are compared. Of a longer one they are taken evenly.
const MOST_SENTENCES: usize = 400;
/// Words of a title.
const TITLE_WORDS: usize = 12;
/// Sentences among which one is looked for that is short enough for a title.
const TITLES: usize = 3;

/// Quotes.
pub struct Extractive {
    embedder: Arc<dyn Embedder>,
}

impl Extractive {
    /// Compares sentences by this embedder.
    pub const fn new(embedder: Arc<dyn Embedder>) -> Self {
        Self { embedder }
    }

    async fn vectors(&self, account: &Account, sentences: &[Sentence<'_>]) -> Result<Vec<Vec<f32>>, Fault> {
        let account = Account {
            linger: Duration::ZERO,
            ..account.clone()
        };
        let texts: Vec<String> = sentences.iter().map(Sentence::plain).collect();
        let count = texts.len();
        let vectors = self.embedder.embed(&account, texts).await.map_err(failed)?;
        if vectors.len() == count {
            Ok(vectors)
        } else {
            Err(Fault::Failed(format!(
                "{} vectors for {count} sentences",
                vectors.len()
            )))
        }
    }

    /// As many of the sentences, in their order of merit, as have room in the answer; at least one.
    fn fitting<'a>(&self, ranked: Vec<Sentence<'a>>, max_tokens: u32) -> Result<Vec<Sentence<'a>>, Fault> {
        let (mut left, mut fitting) = (max_tokens, Vec::new());
        for sentence in ranked {
            let tokens = self.embedder.count_tokens(sentence.source).map_err(failed)?;
            match left.checked_sub(tokens) {
                Some(rest) => left = rest,
                None if fitting.is_empty() => left = 0,
                None => continue,
            }
            fitting.push(sentence);
        }
        Ok(fitting)
    }
}

fn failed(error: InferenceError) -> Fault {
    Fault::Failed(error.to_string())
}

/// Sentences to choose, of a text with so many.
fn wanted(kind: QuestionKind, of: usize) -> usize {
    match kind {
        QuestionKind::Title => TITLES,
        QuestionKind::Preview => 2,
        // Three to five are what the default prompts ask for; of a short text, not most of it.
        _ => of.div_ceil(4).clamp(1, 5),
    }
}

#[async_trait]
impl Provider for Extractive {
    fn model(&self) -> &'static str {
        "extractive-1"
    }

    fn sees(&self) -> bool {
        false
    }

    fn remark(&self) -> Option<String> {
        Some("quotes the sentences of a text that say most, word for word, and writes none of its own".into())
    }

    async fn ask(&self, question: &Question) -> Result<Reply, Fault> {
        let all = sentences::of(&question.text);
        if all.is_empty() {
            return Err(Fault::NothingToQuote);
        }
        let all = evenly(all, MOST_SENTENCES);
        let vectors = self.vectors(&question.account, &all).await?;
        let wanted = wanted(question.kind, all.len());
        // Half a millisecond for a section, a tenth of a second for four hundred sentences: not for the threads that wait on sockets.
        let ranked = tokio::task::spawn_blocking(move || {
            let likeness = centrality::Likeness::of(&vectors);
            choice::choose(&likeness, &centrality::scores(&likeness), wanted)
        });
        let ranked = ranked.await.map_err(|error| Fault::Failed(error.to_string()))?;
        let chosen: Vec<Sentence<'_>> = ranked.into_iter().filter_map(|i| all.get(i).copied()).collect();
        let mut chosen = self.fitting(chosen, question.max_tokens)?;
        if question.kind == QuestionKind::Title {
            let short = chosen.iter().position(|sentence| sentence.is_short(TITLE_WORDS));
            let title = chosen.get(short.unwrap_or(0)).copied();
            chosen = title
                .map(|sentence| sentence.words(TITLE_WORDS))
                .into_iter()
                .collect();
        }
        chosen.sort_unstable_by_key(|sentence| sentence.at);
        Ok(quoted(&chosen))
    }
}

/// At most so many, from all over.
fn evenly(sentences: Vec<Sentence<'_>>, most: usize) -> Vec<Sentence<'_>> {
    let count = sentences.len();
    if count <= most {
        return sentences;
    }
    (0..most)
        .filter_map(|i| sentences.get(i * count / most).copied())
        .collect()
}

fn quoted(sentences: &[Sentence<'_>]) -> Reply {
    let at = |place: usize| u32::try_from(place).unwrap_or(u32::MAX);
    let mut reply = Reply::default();
    for sentence in sentences {
        if !reply.text.is_empty() {
            reply.text.push(' ');
        }
        let begin = reply.text.len();
        reply.text.push_str(&sentence.plain());
        reply.quotes.push(Quote {
            answer: at(begin)..at(reply.text.len()),
            source: at(sentence.at)..at(sentence.at + sentence.source.len()),
        });
    }
    reply
}

#[cfg(test)]
#[path = "tests.rs"]
mod tests;
