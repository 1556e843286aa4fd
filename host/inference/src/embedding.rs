//! Text embedding with all-MiniLM-L6-v2: the mean of the token vectors, normalized to unit length.
//!
//! The cost of a text grows with its tokens, so texts are not padded to a fixed size. On a CPU, only texts of the same length
//! run together, and only if they are short ([`MAX_USEFUL_CPU_BATCH_TOKENS`]). On a GPU the whole batch runs at once, padded to
//! its longest text. The int8 model quantizes the activations of a run together, so the vector of a text can differ a little between
//! runs with other texts.
//!
//! On a CPU the int8 variant of the model is used, if it is installed and allowed (`deploy/quantize.py` builds it). It is three
//! times as fast, at a cosine similarity of 0.994 to the original. A GPU uses the original.

use std::ffi::CStr;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use async_trait::async_trait;
use ort::value::TensorRef;
use parking_lot::Mutex;
use tokenizers::Tokenizer;
use weir_core::InferenceError;
use weir_core::decision::ComputeDevice;
use weir_core::ports::{Embedder, SchedulingContext};

use crate::model_session::{ModelRunner, ModelRunnerFactory};
use crate::onnx_runtime::{self, ExecutionProvider, OnnxRuntime};
use crate::scheduler::{
    ActiveRequest, BatchRunningModel, ModelRunStopper, ModelStats, Scheduler, SchedulerConfig,
};

/// The model's name in errors and metrics.
pub(crate) const MODEL_NAME: &str = "embedding";

/// The names of the network's inputs and output.
const INPUT_IDS: &CStr = c"input_ids";
const ATTENTION_MASK: &CStr = c"attention_mask";
const TOKEN_TYPE_IDS: &CStr = c"token_type_ids";
const LAST_HIDDEN_STATE: &CStr = c"last_hidden_state";

/// Length of a vector.
pub const EMBEDDING_DIMENSIONS: usize = 384;

/// Maximum number of tokens of a text. The model was trained with 128 and published with 256.
const MAX_TOKENS: usize = 256;

/// Maximum bytes of a text that are tokenized: far more than [`MAX_TOKENS`] words. It limits the work that a text can cause.
const MAX_TEXT_BYTES: usize = 32 << 10;

/// Number of tokens in a run beyond which a CPU gains nothing from a batch. Eight texts of 8 tokens take half as long together
/// as one by one, and two texts of 64 tokens take 7 % less. From 128 tokens on, a batch takes longer than its texts one by one,
/// and its memory grows with the number of texts.
pub(crate) const MAX_USEFUL_CPU_BATCH_TOKENS: usize = 128;

/// Embeds texts as vectors.
pub(crate) struct TextEmbedder {
    scheduler: Scheduler<String, Vec<f32>>,
    tokenizer: LazyTokenizer,
    workers: u32,
    device: ComputeDevice,
}

impl TextEmbedder {
    /// Creates the embedder. The first request starts the worker threads, and each opens the model.
    pub(crate) fn new(
        runtime: OnnxRuntime,
        model: PathBuf,
        tokenizer: PathBuf,
        scheduler_config: SchedulerConfig,
    ) -> Self {
        let tokenizer = LazyTokenizer::new(tokenizer);
        let worker_tokenizer = tokenizer.clone();
        let device = onnx_runtime::compute_device_of_provider(runtime.execution_provider());
        let model = ModelRunnerFactory::new(runtime, model);
        Self {
            workers: u32::try_from(scheduler_config.workers).unwrap_or(u32::MAX),
            scheduler: Scheduler::new(scheduler_config, move |stop| {
                Ok(Box::new(MiniLmModel::open_model_and_tokenizer(
                    &model,
                    &worker_tokenizer,
                    stop,
                )?))
            }),
            tokenizer,
            device,
        }
    }

    pub(crate) fn open_model_in_background(&self) -> Result<(), InferenceError> {
        self.scheduler.open_model_in_background()
    }

    pub(crate) fn stats(&self) -> ModelStats {
        self.scheduler.stats()
    }

    pub(crate) fn close(&self) {
        self.scheduler.close();
    }
}

#[async_trait]
impl Embedder for TextEmbedder {
    async fn embed_texts(
        &self,
        scheduling: &SchedulingContext,
        texts: Vec<String>,
    ) -> Result<Vec<Vec<f32>>, InferenceError> {
        let items = texts
            .into_iter()
            .map(|mut text| {
                text.truncate(text.floor_char_boundary(MAX_TEXT_BYTES));
                let cost = estimate_token_count(&text);
                (text, cost)
            })
            .collect();
        self.scheduler.submit_and_await_results(scheduling, items).await
    }

    fn count_tokens(&self, text: &str) -> Result<u32, InferenceError> {
        let tokens = self.tokenizer.get_or_load_tokenizer()?.tokenize(text)?.len();
        Ok(u32::try_from(tokens).unwrap_or(u32::MAX))
    }

    fn vector_dimensions(&self) -> usize {
        EMBEDDING_DIMENSIONS
    }

    fn max_input_tokens(&self) -> u32 {
        MAX_TOKENS as u32
    }

    fn worker_count(&self) -> u32 {
        self.workers
    }

    fn compute_device(&self) -> ComputeDevice {
        self.device
    }
}

/// Estimates the cost of a text in tokens, accurately enough for fairness: English has about four bytes per token.
fn estimate_token_count(text: &str) -> f64 {
    (text.len() / 4 + 2).min(MAX_TOKENS) as f64
}

/// A tokenizer that is loaded on first use; a failed load is retried.
#[derive(Clone)]
struct LazyTokenizer {
    path: PathBuf,
    loaded: Arc<Mutex<Option<Arc<WordPieceTokenizer>>>>,
}

impl LazyTokenizer {
    fn new(path: PathBuf) -> Self {
        Self {
            path,
            loaded: Arc::default(),
        }
    }

    fn get_or_load_tokenizer(&self) -> Result<Arc<WordPieceTokenizer>, InferenceError> {
        let mut loaded = self.loaded.lock();
        if let Some(tokenizer) = loaded.as_ref() {
            return Ok(Arc::clone(tokenizer));
        }
        let tokenizer = Arc::new(WordPieceTokenizer::load_tokenizer_file(&self.path)?);
        *loaded = Some(Arc::clone(&tokenizer));
        Ok(tokenizer)
    }
}

struct WordPieceTokenizer(Tokenizer);

impl WordPieceTokenizer {
    fn load_tokenizer_file(path: &Path) -> Result<Self, InferenceError> {
        if !path.is_file() {
            return Err(onnx_runtime::missing_file_error(
                &onnx_runtime::asset_name_for_errors(path),
            ));
        }
        let load_error = |e: tokenizers::Error| {
            tracing::warn!(path = %path.display(), error = %e, "cannot load the tokenizer");
            InferenceError::Unavailable {
                what: format!("tokenizer {} ({e})", onnx_runtime::asset_name_for_errors(path)),
                remedy: "run `make setup`".into(),
            }
        };
        let mut tokenizer = Tokenizer::from_file(path).map_err(load_error)?;
        // The file may enable both. Padding to a fixed size would multiply the cost. Truncation is done below, so that counting
        // sees the whole text.
        tokenizer.with_padding(None);
        tokenizer.with_truncation(None).map_err(load_error)?;
        Ok(Self(tokenizer))
    }

    /// Splits a text into tokens, including the markers of beginning and end.
    fn tokenize(&self, text: &str) -> Result<Vec<i64>, InferenceError> {
        let encoding = self
            .0
            .encode_fast(text, true)
            .map_err(|e| InferenceError::InvalidInput {
                model: MODEL_NAME.into(),
                reason: e.to_string(),
            })?;
        Ok(encoding.get_ids().iter().map(|id| i64::from(*id)).collect())
    }

    /// Like [`WordPieceTokenizer::tokenize`], truncated to [`MAX_TOKENS`]; the end marker stays.
    fn tokenize_truncated(&self, text: &str) -> Result<Vec<i64>, InferenceError> {
        let mut tokens = self.tokenize(text)?;
        if let Some(end) = tokens.last().copied()
            && tokens.len() > MAX_TOKENS
        {
            tokens.truncate(MAX_TOKENS - 1);
            tokens.push(end);
        }
        Ok(tokens)
    }
}

/// The model as one worker runs it.
struct MiniLmModel {
    runner: ModelRunner,
    stop_signal: Arc<ModelRunStopper>,
    tokenizer: Arc<WordPieceTokenizer>,
    /// Whether the network has a mask for padding. The int8 variant has none, so all texts of a run have the same length.
    has_attention_mask: bool,
    allows_padding: bool,
    /// Maximum number of tokens in a run of several texts.
    max_batch_tokens: usize,
}

/// A request with the tokens of its text.
type TokenizedRequest<'a> = (ActiveRequest<'a, String, Vec<f32>>, Vec<i64>);

impl MiniLmModel {
    fn open_model_and_tokenizer(
        file: &ModelRunnerFactory,
        tokenizer: &LazyTokenizer,
        stop: &Arc<ModelRunStopper>,
    ) -> Result<Self, InferenceError> {
        // They load in parallel, because each takes a large part of the time until the first vector.
        let (tokenizer, model) = std::thread::scope(|scope| {
            let tokenizer = scope.spawn(|| tokenizer.get_or_load_tokenizer());
            let model = file.open_runner(MODEL_NAME, stop);
            (tokenizer.join(), model)
        });
        let tokenizer = tokenizer.map_err(|_panicked| InferenceError::Failed {
            model: MODEL_NAME.into(),
            reason: "the tokenizer panicked".into(),
        })?;
        let runner = model?;
        let has_attention_mask = runner.has_input(ATTENTION_MASK);
        let (pads, max_batch_tokens) = match file.execution_provider() {
            ExecutionProvider::Cpu => (false, MAX_USEFUL_CPU_BATCH_TOKENS),
            ExecutionProvider::Cuda(_) => (true, usize::MAX),
        };
        Ok(Self {
            runner,
            stop_signal: Arc::clone(stop),
            tokenizer: tokenizer?,
            has_attention_mask,
            allows_padding: pads && has_attention_mask,
            max_batch_tokens,
        })
    }

    /// Computes the vectors of texts, padded to the first text, which must be the longest.
    fn embed_padded_batch(
        &mut self,
        texts: &[TokenizedRequest<'_>],
    ) -> Result<Vec<Vec<f32>>, InferenceError> {
        let longest = texts.first().map_or(0, |(_, tokens)| tokens.len());
        let (mut ids, mut mask) = (Vec::new(), Vec::new());
        for (row, (_, tokens)) in (1..).zip(texts) {
            ids.extend_from_slice(tokens);
            mask.resize(ids.len(), 1);
            ids.resize(row * longest, 0);
            mask.resize(row * longest, 0);
        }
        let failed = |e: ort::Error| onnx_runtime::run_failed_error(MODEL_NAME, &e);
        let tensor =
            |values| TensorRef::<i64>::from_array_view(([texts.len(), longest], values)).map_err(failed);
        let input_ids = (INPUT_IDS, tensor(ids.as_slice())?);
        let output = if self.has_attention_mask {
            let types = vec![0i64; ids.len()];
            let attention_mask = (ATTENTION_MASK, tensor(mask.as_slice())?);
            let token_types = (TOKEN_TYPE_IDS, tensor(types.as_slice())?);
            let inputs = [input_ids, attention_mask, token_types];
            self.runner.run_model(inputs, LAST_HIDDEN_STATE)?
        } else {
            self.runner.run_model([input_ids], LAST_HIDDEN_STATE)?
        };
        let (_, states) = output.extract_f32_tensor()?;
        if longest == 0 || states.len() != texts.len() * longest * EMBEDDING_DIMENSIONS {
            return Err(InferenceError::Failed {
                model: MODEL_NAME.into(),
                reason: "the shape of its output is not the expected one".into(),
            });
        }
        Ok(states
            .chunks_exact(longest * EMBEDDING_DIMENSIONS)
            .zip(texts)
            .map(|(states, (_, tokens))| mean_pool_and_normalize(states, tokens.len()))
            .collect())
    }
}

impl BatchRunningModel<String, Vec<f32>> for MiniLmModel {
    fn run_batch(&mut self, batch: Vec<ActiveRequest<'_, String, Vec<f32>>>) {
        let mut texts: Vec<TokenizedRequest<'_>> = Vec::with_capacity(batch.len());
        for request in batch {
            match self.tokenizer.tokenize_truncated(&request.item) {
                Ok(tokens) => texts.push((request, tokens)),
                Err(error) => request.send_result(Err(error)),
            }
        }
        // The longest texts come first, so that the memory of the first run serves all others.
        texts.sort_by_key(|(_, tokens)| std::cmp::Reverse(tokens.len()));
        while !texts.is_empty() {
            let lengths = texts.iter().map(|(_, tokens)| tokens.len());
            let count = count_texts_of_first_run(lengths, self.allows_padding, self.max_batch_tokens);
            let remaining = texts.split_off(count);
            let mut group = std::mem::replace(&mut texts, remaining);
            group.retain(|(request, _)| request.is_awaited());
            if self.stop_signal.is_stopped() {
                return;
            }
            if group.is_empty() {
                continue;
            }
            match self.embed_padded_batch(&group) {
                Ok(vectors) => {
                    for ((request, _), vector) in group.into_iter().zip(vectors) {
                        request.send_result(Ok(vector));
                    }
                }
                Err(error) => group
                    .into_iter()
                    .for_each(|(request, _)| request.send_result(Err(error.clone()))),
            }
        }
    }
}

/// Returns how many of the texts, given by their numbers of tokens in descending order, run together: at least one, and the first
/// ones of the same length if they must not be padded.
fn count_texts_of_first_run(
    mut lengths: impl Iterator<Item = usize>,
    allows_padding: bool,
    max_batch_tokens: usize,
) -> usize {
    let longest = lengths.next().unwrap_or(0);
    let others = lengths.take_while(|tokens| allows_padding || *tokens == longest);
    (1 + others.count()).min(max_batch_tokens / longest.max(1)).max(1)
}

/// Returns the mean of the first `tokens` states, normalized to unit length.
fn mean_pool_and_normalize(states: &[f32], tokens: usize) -> Vec<f32> {
    let mut vector = vec![0f32; EMBEDDING_DIMENSIONS];
    for state in states.chunks_exact(EMBEDDING_DIMENSIONS).take(tokens) {
        for (sum, value) in vector.iter_mut().zip(state) {
            *sum += value;
        }
    }
    let length = vector.iter().map(|v| v * v).sum::<f32>().sqrt();
    if length > 0.0 {
        vector.iter_mut().for_each(|v| *v /= length);
    }
    vector
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mean_pooling_ignores_padding() {
        let mut states = vec![0.0; 3 * EMBEDDING_DIMENSIONS];
        states[0] = 3.0;
        states[EMBEDDING_DIMENSIONS + 1] = 4.0;
        states[2 * EMBEDDING_DIMENSIONS + 2] = 100.0;
        let vector = mean_pool_and_normalize(&states, 2);
        assert!((vector[0] - 0.6).abs() < 1e-6 && (vector[1] - 0.8).abs() < 1e-6);
        assert_eq!(vector[2], 0.0);
    }

    #[test]
    fn only_short_texts_of_the_same_length_run_together_without_padding() {
        let count = |lengths: &[usize]| count_texts_of_first_run(lengths.iter().copied(), false, 128);
        assert_eq!(count(&[40, 40, 40, 39, 39]), 3);
        assert_eq!(count(&[40, 40, 40, 40]), 3);
        assert_eq!(count(&[200, 200]), 1);
        assert_eq!(count(&[200]), 1);
    }

    #[test]
    fn texts_of_any_length_run_together_with_padding() {
        let count = |lengths: &[usize]| count_texts_of_first_run(lengths.iter().copied(), true, usize::MAX);
        assert_eq!(count(&[256, 200, 3]), 3);
    }

    #[test]
    fn token_cost_grows_with_the_text_up_to_the_model_limit() {
        assert!(estimate_token_count("a few words") < estimate_token_count("a few words more"));
        assert_eq!(estimate_token_count(&"x".repeat(100_000)), 256.0);
    }
}
