//! Decodes several requests together.
//!
//! Each request uses one sequence of the llama.cpp context, which holds `context_tokens` tokens. A step adds one token to every
//! response, and decodes prompts in order of arrival, as far as [`StepPromptTokenBudget`] allows.

use std::num::NonZeroU32;
use std::time::Instant;

use llama_cpp_2::context::LlamaContext;
use llama_cpp_2::context::params::LlamaContextParams;
use llama_cpp_2::llama_batch::{BatchAddError, LlamaBatch};
use llama_cpp_2::model::LlamaModel;
use llama_cpp_2::sampling::LlamaSampler;
use llama_cpp_2::token::LlamaToken;
use tokio::sync::oneshot;
use weir_core::llm::{LlmRequestKind, ProviderError};

use super::chat_template::ChatTemplate;
use super::config::LocalConfig;
use super::llama_log::capture_llama_errors;
use super::model_file;
use super::step_prompt_token_budget::{self, StepPromptTokenBudget};
use super::truncated_output;
use crate::provider::{ProviderResponse, strip_reasoning};

/// Maximum bytes of a vocabulary's token; the longest tokens are runs of white space.
const MAX_TOKEN_BYTES: usize = 512;
/// Tokens are not sampled if their probability is below this fraction of the highest one.
const MIN_RELATIVE_PROBABILITY: f32 = 0.05;
/// Length of a token sequence that a response may repeat, because names and figures recur.
const ALLOWED_REPEATED_TOKENS: i32 = 8;

/// A request on its way to the model thread.
pub(super) struct LocalRequest {
    pub(super) kind: LlmRequestKind,
    pub(super) system: Option<String>,
    pub(super) prompt: String,
    pub(super) max_tokens: u32,
    /// Closed when the caller has dropped the request.
    pub(super) response_sender: oneshot::Sender<Result<ProviderResponse, ProviderError>>,
}

impl LocalRequest {
    pub(super) fn send_error(self, fault: ProviderError) {
        // The caller may have dropped the request.
        let _ = self.response_sender.send(Err(fault));
    }
}

pub(super) struct BatchDecoder<'model> {
    model: &'model LlamaModel,
    chat_template: ChatTemplate,
    context: LlamaContext<'model>,
    batch: LlamaBatch<'static>,
    /// Indexed by sequence number.
    sequences: Vec<Option<Sequence>>,
    /// Number of sequences started so far.
    sequences_started: u64,
    step_budget: StepPromptTokenBudget,
    /// Maximum number of tokens of a sequence.
    context_tokens: usize,
    temperature: f32,
}

/// A request with the response so far.
struct Sequence {
    kind: LlmRequestKind,
    start_number: u64,
    prompt_tokens: Vec<LlamaToken>,
    /// Prompt tokens that were decoded.
    decoded_prompt_tokens: usize,
    /// The last token of the response, which is not decoded yet.
    pending_token: Option<LlamaToken>,
    /// Tokens of the response.
    generated_tokens: u32,
    generated_bytes: Vec<u8>,
    max_tokens: u32,
    sampler: LlamaSampler,
    /// Index in the batch of the logits for the next token.
    logits_index: Option<i32>,
    response_sender: oneshot::Sender<Result<ProviderResponse, ProviderError>>,
}

impl<'model> BatchDecoder<'model> {
    pub(super) fn new(model: &'model LlamaModel, config: &LocalConfig) -> Result<Self, String> {
        let chat_template = ChatTemplate::from_model(model)
            .map_err(|reason| format!("its file {} {reason}", config.model_file.display()))?;
        let context_tokens = config.context_tokens.min(model.n_ctx_train().max(1));
        let max_sequences = config.max_concurrency.max(1);
        let threads = match config.threads {
            0 => std::thread::available_parallelism().map_or(1, usize::from),
            threads => threads as usize,
        };
        let threads = i32::try_from(threads).unwrap_or(1);
        let params = LlamaContextParams::default()
            .with_n_ctx(NonZeroU32::new(context_tokens.saturating_mul(max_sequences)))
            .with_n_seq_max(max_sequences)
            .with_n_batch(step_prompt_token_budget::MAX_STEP_TOKENS as u32)
            .with_n_ubatch(step_prompt_token_budget::MAX_STEP_TOKENS as u32)
            .with_n_threads(threads)
            .with_n_threads_batch(threads);
        let backend = model_file::llama_backend()?;
        let (context, llama_errors) = capture_llama_errors(|| model.new_context(backend, params));
        let context = context.map_err(|_| {
            format!(
                "not enough memory for {max_sequences} concurrent requests of {context_tokens} tokens; \
                 lower max_concurrent_requests or context_tokens: {llama_errors}"
            )
        })?;
        Ok(Self {
            model,
            chat_template,
            context,
            batch: LlamaBatch::new(step_prompt_token_budget::MAX_STEP_TOKENS, 1),
            sequences: (0..max_sequences).map(|_| None).collect(),
            sequences_started: 0,
            step_budget: StepPromptTokenBudget::new(),
            context_tokens: context_tokens as usize,
            temperature: config.temperature,
        })
    }

    /// Whether another request can start.
    pub(super) fn has_free_sequence(&self) -> bool {
        self.sequences.iter().any(Option::is_none)
    }

    /// Whether no request is being decoded.
    pub(super) fn is_idle(&self) -> bool {
        self.sequences.iter().all(Option::is_none)
    }

    /// Starts a request, unless it is too long or its caller has dropped it.
    pub(super) fn start_sequence(&mut self, request: LocalRequest) {
        if request.response_sender.is_closed() {
            return;
        }
        let too_long = |tokens: usize| {
            let needed = tokens.saturating_add(request.max_tokens as usize);
            (needed > self.context_tokens).then_some(ProviderError::ContextTooLong {
                needed,
                context_tokens: self.context_tokens,
            })
        };
        // A prompt that is too long with any tokenization is not tokenized.
        let bytes = request.prompt.len() + request.system.as_ref().map_or(0, String::len);
        if let Some(fault) = too_long(bytes / MAX_TOKEN_BYTES) {
            return request.send_error(fault);
        }
        let prompt_tokens =
            self.chat_template
                .tokenize_chat_request(self.model, request.system.as_deref(), &request.prompt);
        if let Some(fault) = too_long(prompt_tokens.len()) {
            return request.send_error(fault);
        }
        let Some(free_sequence) = self.sequences.iter_mut().find(|sequence| sequence.is_none()) else {
            return request.send_error(ProviderError::LocalFailure(
                "more concurrent requests than the provider decodes".into(),
            ));
        };
        self.sequences_started += 1;
        *free_sequence = Some(Sequence {
            kind: request.kind,
            start_number: self.sequences_started,
            prompt_tokens,
            decoded_prompt_tokens: 0,
            pending_token: None,
            generated_tokens: 0,
            generated_bytes: Vec::new(),
            max_tokens: request.max_tokens,
            sampler: build_sampler(self.model, self.temperature),
            logits_index: None,
            response_sender: request.response_sender,
        });
    }

    /// Decodes one step of all sequences.
    pub(super) fn run_decoding_step(&mut self) {
        self.remove_dropped_sequences();
        let filled = self.fill_batch();
        if let Err(error) = filled {
            return self.fail_all_sequences(&error.to_string());
        }
        let tokens = usize::try_from(self.batch.n_tokens()).unwrap_or(0);
        if tokens == 0 {
            return;
        }
        let began = Instant::now();
        if let Err(error) = self.context.decode(&mut self.batch) {
            return self.fail_all_sequences(&error.to_string());
        }
        self.step_budget.adjust_after_step(tokens, began.elapsed());
        self.sample_next_tokens();
    }

    /// Removes the sequences whose callers have dropped the request.
    fn remove_dropped_sequences(&mut self) {
        for index in 0..self.sequences.len() {
            let sequence = self.sequences.get(index).and_then(Option::as_ref);
            if sequence.is_some_and(|sequence| sequence.response_sender.is_closed()) {
                self.remove_sequence(index);
            }
        }
    }

    /// Removes a sequence and clears its part of the context.
    fn remove_sequence(&mut self, index: usize) -> Option<Sequence> {
        let removed = self.sequences.get_mut(index)?.take();
        let sequence = u32::try_from(index).ok();
        if let Err(error) = self.context.clear_kv_cache_seq(sequence, None, None) {
            tracing::error!(%error, "cannot clear a sequence of a local language model");
        }
        removed
    }

    /// Fills the next batch. Responses come first, because each needs only one token and its caller is waiting.
    fn fill_batch(&mut self) -> Result<(), BatchAddError> {
        self.batch.clear();
        let mut reading = Vec::new();
        for (sequence_id, sequence) in (0..).zip(&mut self.sequences) {
            let Some(sequence) = sequence else { continue };
            let Some(token) = sequence.pending_token.take() else {
                reading.push((sequence_id, sequence));
                continue;
            };
            sequence.logits_index = Some(self.batch.n_tokens());
            // Position of the response's last token.
            let position =
                sequence.prompt_tokens.len() + sequence.generated_tokens.saturating_sub(1) as usize;
            self.batch.add(token, position as i32, &[sequence_id], true)?;
        }
        reading.sort_by_key(|(_, sequence)| sequence.start_number);
        let mut left = self.step_budget.prompt_tokens_of_next_step();
        for (sequence_id, sequence) in reading {
            let unread = sequence
                .prompt_tokens
                .iter()
                .enumerate()
                .skip(sequence.decoded_prompt_tokens)
                .take(left);
            let last = sequence.prompt_tokens.len().saturating_sub(1);
            for (position, token) in unread {
                if position == last {
                    sequence.logits_index = Some(self.batch.n_tokens());
                }
                self.batch
                    .add(*token, position as i32, &[sequence_id], position == last)?;
                sequence.decoded_prompt_tokens = position + 1;
                left -= 1;
            }
        }
        Ok(())
    }

    /// Samples the next token of each response that has logits.
    fn sample_next_tokens(&mut self) {
        for index in 0..self.sequences.len() {
            let Some(Some(sequence)) = self.sequences.get_mut(index) else {
                continue;
            };
            let Some(output) = sequence.logits_index.take() else {
                continue;
            };
            let vocab = self.model.vocab();
            let mut token = sequence.sampler.sample(&self.context, output);
            if sequence.generated_tokens == 0 && vocab.is_eog(token) {
                // An empty response is useless, so the most likely other token is used instead.
                let candidates = self.context.candidates_ith(output);
                let candidates = candidates.filter(|word| !vocab.is_eog(word.id()));
                let likeliest = candidates.max_by(|a, b| a.logit().total_cmp(&b.logit()));
                token = likeliest.map_or(token, |word| word.id());
            }
            let ended = vocab.is_eog(token);
            if !ended {
                vocab.token_to_piece_into(token, &mut sequence.generated_bytes, false, None);
                sequence.generated_tokens += 1;
                if sequence.generated_tokens < sequence.max_tokens {
                    sequence.pending_token = Some(token);
                    continue;
                }
            }
            if let Some(finished) = self.remove_sequence(index) {
                finished.send_response(ended);
            }
        }
    }

    /// Fails all requests after a failed step, because the error does not name the request, and the content of the context is
    /// unknown.
    fn fail_all_sequences(&mut self, reason: &str) {
        for index in 0..self.sequences.len() {
            if let Some(sequence) = self.remove_sequence(index) {
                let _ = sequence
                    .response_sender
                    .send(Err(ProviderError::LocalFailure(reason.to_owned())));
            }
        }
        self.context.clear_kv_cache();
    }
}

impl Sequence {
    /// Sends the response to the caller.
    fn send_response(self, ended: bool) {
        let text = String::from_utf8_lossy(&self.generated_bytes);
        let text = strip_reasoning(&text).trim();
        let usable_text = if ended {
            Some(text.into())
        } else {
            truncated_output::salvage_truncated_output(self.kind, text)
        };
        let reply = match usable_text {
            None => Err(ProviderError::TokenLimitReached),
            // The most likely tokens would be the same in another attempt.
            Some(text) if text.is_empty() => Err(ProviderError::NoOutput),
            Some(text) => Ok(ProviderResponse {
                text: text.into_owned(),
                quotes: Vec::new(),
                prompt_tokens: u32::try_from(self.prompt_tokens.len()).ok(),
                completion_tokens: Some(self.generated_tokens),
            }),
        };
        // The caller may have dropped the request.
        let _ = self.response_sender.send(reply);
    }
}

/// Builds the sampler of a response. A small model that has begun to repeat itself does not stop. A token that would continue a
/// repetition is therefore penalized by the length of the repetition (DRY, with the parameters of its author,
/// <https://github.com/oobabooga/text-generation-webui/pull/5677>).
fn build_sampler(model: &LlamaModel, temperature: f32) -> LlamaSampler {
    let no_breakers: [&str; 0] = [];
    let repetition_penalty = LlamaSampler::dry(model, 0.8, 1.75, ALLOWED_REPEATED_TOKENS, 4096, no_breakers);
    if temperature <= 0.0 {
        return LlamaSampler::chain_simple([repetition_penalty, LlamaSampler::greedy()]);
    }
    LlamaSampler::chain_simple([
        repetition_penalty,
        LlamaSampler::min_p(MIN_RELATIVE_PROBABILITY, 1),
        LlamaSampler::temp(temperature),
        LlamaSampler::dist(fastrand::u32(..)),
    ])
}
