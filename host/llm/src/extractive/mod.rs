//! A provider that quotes the most central sentences of the text, verbatim and in their order.
//!
//! It is the default provider. A small language model needs much memory, copies openings and states falsehoods. Quoted
//! sentences are plain, true and can be shown in the document. The provider needs only the embedding model.
//!
//! A sentence is central if it is similar to many central sentences (`centrality`); duplicates are not selected (`selection`).
//! The prompt is not used, so it cannot be echoed.

mod centrality;
mod selection;
mod sentences;

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use weir_core::InferenceError;
use weir_core::llm::{LlmRequest, LlmRequestKind, ProviderError, ResponseQuote};
use weir_core::ports::{Embedder, SchedulingContext};

use crate::provider::{Provider, ProviderResponse};
use sentences::Sentence;

/// Maximum number of sentences that are compared. Longer texts are sampled evenly.
const MAX_COMPARED_SENTENCES: usize = 400;
/// Maximum number of words of a title.
const MAX_TITLE_WORDS: usize = 12;
/// Number of sentences among which a short one is searched for the title.
const TITLE_CANDIDATES: usize = 3;

/// A provider that quotes sentences of the text.
pub struct ExtractiveProvider {
    embedder: Arc<dyn Embedder>,
}

impl ExtractiveProvider {
    /// Creates the provider with the embedder that compares the sentences.
    pub const fn new(embedder: Arc<dyn Embedder>) -> Self {
        Self { embedder }
    }

    async fn embed_sentences(
        &self,
        account: &SchedulingContext,
        sentences: &[Sentence<'_>],
    ) -> Result<Vec<Vec<f32>>, ProviderError> {
        let account = SchedulingContext {
            batch_linger: Duration::ZERO,
            ..account.clone()
        };
        let texts: Vec<String> = sentences.iter().map(Sentence::normalized_text).collect();
        let count = texts.len();
        let vectors = self
            .embedder
            .embed_texts(&account, texts)
            .await
            .map_err(local_failure_from_inference_error)?;
        if vectors.len() == count {
            Ok(vectors)
        } else {
            Err(ProviderError::LocalFailure(format!(
                "{} vectors for {count} sentences",
                vectors.len()
            )))
        }
    }

    /// Returns the sentences that fit into the token limit, in order of merit; at least one.
    fn take_sentences_within_limit<'a>(
        &self,
        ranked: Vec<Sentence<'a>>,
        max_tokens: u32,
    ) -> Result<Vec<Sentence<'a>>, ProviderError> {
        let (mut left, mut fitting) = (max_tokens, Vec::new());
        for sentence in ranked {
            let tokens = self
                .embedder
                .count_tokens(sentence.source)
                .map_err(local_failure_from_inference_error)?;
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

fn local_failure_from_inference_error(error: InferenceError) -> ProviderError {
    ProviderError::LocalFailure(error.to_string())
}

/// Returns the number of sentences to select from a text of `of` sentences.
fn target_sentence_count(kind: LlmRequestKind, of: usize) -> usize {
    match kind {
        LlmRequestKind::Title => TITLE_CANDIDATES,
        LlmRequestKind::Preview => 2,
        // The default prompts ask for three to five sentences. A short text gets fewer, so that the summary is not most of the
        // text.
        _ => of.div_ceil(4).clamp(1, 5),
    }
}

#[async_trait]
impl Provider for ExtractiveProvider {
    fn model_name(&self) -> &'static str {
        "extractive-1"
    }

    fn supports_images(&self) -> bool {
        false
    }

    fn note_for_operator(&self) -> Option<String> {
        Some(
            "quotes the sentences of a text that are most central, verbatim, and writes none of its own"
                .into(),
        )
    }

    async fn call_model(&self, request: &LlmRequest) -> Result<ProviderResponse, ProviderError> {
        let all = sentences::split_sentences(&request.text);
        if all.is_empty() {
            return Err(ProviderError::NothingToQuote);
        }
        let all = sample_sentences_evenly(all, MAX_COMPARED_SENTENCES);
        let vectors = self.embed_sentences(&request.scheduling, &all).await?;
        let wanted = target_sentence_count(request.kind, all.len());
        // Takes half a millisecond for a section and a tenth of a second for 400 sentences, so it runs outside the async
        // threads.
        let ranked = tokio::task::spawn_blocking(move || {
            let similarities = centrality::SimilarityMatrix::from_vectors(&vectors);
            selection::select_sentences(
                &similarities,
                &centrality::compute_centrality_scores(&similarities),
                wanted,
            )
        });
        let ranked = ranked
            .await
            .map_err(|error| ProviderError::LocalFailure(error.to_string()))?;
        let chosen: Vec<Sentence<'_>> = ranked.into_iter().filter_map(|i| all.get(i).copied()).collect();
        let mut chosen = self.take_sentences_within_limit(chosen, request.max_response_tokens)?;
        if request.kind == LlmRequestKind::Title {
            let short = chosen
                .iter()
                .position(|sentence| sentence.has_at_most_words(MAX_TITLE_WORDS));
            let title = chosen.get(short.unwrap_or(0)).copied();
            chosen = title
                .map(|sentence| sentence.truncate_to_words(MAX_TITLE_WORDS))
                .into_iter()
                .collect();
        }
        chosen.sort_unstable_by_key(|sentence| sentence.offset);
        Ok(build_quoted_response(&chosen))
    }
}

/// Samples at most `most` sentences evenly.
fn sample_sentences_evenly(sentences: Vec<Sentence<'_>>, max_count: usize) -> Vec<Sentence<'_>> {
    let count = sentences.len();
    if count <= max_count {
        return sentences;
    }
    (0..max_count)
        .filter_map(|i| sentences.get(i * count / max_count).copied())
        .collect()
}

fn build_quoted_response(sentences: &[Sentence<'_>]) -> ProviderResponse {
    let at = |offset: usize| u32::try_from(offset).unwrap_or(u32::MAX);
    let mut reply = ProviderResponse::default();
    for sentence in sentences {
        if !reply.text.is_empty() {
            reply.text.push(' ');
        }
        let begin = reply.text.len();
        reply.text.push_str(&sentence.normalized_text());
        reply.quotes.push(ResponseQuote {
            response_range: at(begin)..at(reply.text.len()),
            source_range: at(sentence.offset)..at(sentence.offset + sentence.source.len()),
        });
    }
    reply
}

#[cfg(test)]
#[path = "tests.rs"]
mod tests;
