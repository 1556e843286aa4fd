//! Text to vectors: all-MiniLM-L6-v2, the mean of its token vectors, at unit length.
//!
//! A text costs what its tokens cost, so nothing is padded to a fixed size: texts of a batch are sorted by length and run
//! together only with texts nearly as long. On a CPU even that pays only for short ones ([`ENOUGH`]); on a GPU the whole
//! batch runs at once.
//!
//! On a CPU the model with weights quantized to eight bits is taken where it is installed and allowed: about twice as
//! fast, at a cosine of 0.995 to the original. A GPU wants the original.

use std::ffi::CStr;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use async_trait::async_trait;
use ort::value::TensorRef;
use parking_lot::Mutex;
use tokenizers::Tokenizer;
use weir_core::InferenceError;
use weir_core::decision::Device;
use weir_core::ports::{Account, Embedder};

use crate::runtime::{self, Provider, Runtime};
use crate::scheduler::{Job, Model, ModelStats, Scheduler, Sharing, Stop};
use crate::session::{ModelFile, Runner};

/// The model's name in errors.
pub(crate) const NAME: &str = "embedding";

/// What the network calls what goes in and what comes out.
const IDS: &CStr = c"input_ids";
const MASK: &CStr = c"attention_mask";
const TYPES: &CStr = c"token_type_ids";
const STATES: &CStr = c"last_hidden_state";

/// Length of a vector.
const DIMENSIONS: usize = 384;

/// Tokens the model takes; it was trained on 128 and published with 256.
const MOST_TOKENS: usize = 256;

/// Bytes of a text that are looked at: far more than [`MOST_TOKENS`] words, and a bound on the work a text can cause.
const MOST_BYTES: usize = 32 << 10;

/// Share of a CPU batch that may be padding.
const PADDING: f32 = 0.05;

/// Tokens in a run that a CPU gains nothing beyond: eight texts of 8 tokens take half as long together as one by one, two
/// of 64 take 7 % less, and from 128 on a batch takes longer than its parts and needs as many times their memory.
pub(crate) const ENOUGH: usize = 128;

/// The embedder.
pub(crate) struct TextEmbedder {
    scheduler: Scheduler<String, Vec<f32>>,
    tokenizer: SharedTokenizer,
    workers: u32,
    device: Device,
}

impl TextEmbedder {
    /// Opens nothing yet.
    pub(crate) fn new(runtime: Runtime, model: PathBuf, tokenizer: PathBuf, sharing: Sharing) -> Self {
        let tokenizer = SharedTokenizer::new(tokenizer);
        let worker_tokenizer = tokenizer.clone();
        let device = runtime::describe(runtime.provider());
        let model = ModelFile::new(runtime, model);
        Self {
            workers: u32::try_from(sharing.workers).unwrap_or(u32::MAX),
            scheduler: Scheduler::new(sharing, move |stop| {
                Ok(Box::new(MiniLm::open(&model, &worker_tokenizer, stop)?))
            }),
            tokenizer,
            device,
        }
    }

    pub(crate) fn warm(&self) -> Result<(), InferenceError> {
        self.scheduler.warm()
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
    async fn embed(&self, account: &Account, texts: Vec<String>) -> Result<Vec<Vec<f32>>, InferenceError> {
        let items = texts
            .into_iter()
            .map(|mut text| {
                text.truncate(text.floor_char_boundary(MOST_BYTES));
                let cost = cost(&text);
                (text, cost)
            })
            .collect();
        self.scheduler.submit(account, items).await
    }

    fn count_tokens(&self, text: &str) -> Result<u32, InferenceError> {
        let tokens = self.tokenizer.get()?.tokens(text)?.len();
        Ok(u32::try_from(tokens).unwrap_or(u32::MAX))
    }

    fn dimensions(&self) -> usize {
        DIMENSIONS
    }

    fn max_tokens(&self) -> u32 {
        MOST_TOKENS as u32
    }

    fn workers(&self) -> u32 {
        self.workers
    }

    fn device(&self) -> Device {
        self.device
    }
}

/// What a text will cost, in tokens, near enough for fairness: English has about four bytes to the token.
fn cost(text: &str) -> f64 {
    (text.len() / 4 + 2).min(MOST_TOKENS) as f64
}

/// The tokenizer, read on first use and again after a failure.
#[derive(Clone)]
struct SharedTokenizer {
    path: PathBuf,
    loaded: Arc<Mutex<Option<Arc<WordPieces>>>>,
}

impl SharedTokenizer {
    fn new(path: PathBuf) -> Self {
        Self {
            path,
            loaded: Arc::default(),
        }
    }

    fn get(&self) -> Result<Arc<WordPieces>, InferenceError> {
        let mut loaded = self.loaded.lock();
        if let Some(tokenizer) = loaded.as_ref() {
            return Ok(Arc::clone(tokenizer));
        }
        let tokenizer = Arc::new(WordPieces::open(&self.path)?);
        *loaded = Some(Arc::clone(&tokenizer));
        Ok(tokenizer)
    }
}

struct WordPieces(Tokenizer);

impl WordPieces {
    fn open(path: &Path) -> Result<Self, InferenceError> {
        if !path.is_file() {
            return Err(runtime::missing(&runtime::file_name(path)));
        }
        let wrong = |e: tokenizers::Error| {
            tracing::warn!(path = %path.display(), error = %e, "the tokenizer cannot be used");
            InferenceError::Unavailable {
                what: format!("tokenizer {} ({e})", runtime::file_name(path)),
                remedy: "run `make setup`".into(),
            }
        };
        let mut tokenizer = Tokenizer::from_file(path).map_err(wrong)?;
        // The file may ask for both; padding to a fixed size would cost a multiple, and the cut is made below, so that
        // counting sees the whole text.
        tokenizer.with_padding(None);
        tokenizer.with_truncation(None).map_err(wrong)?;
        Ok(Self(tokenizer))
    }

    /// Tokens with the marks of beginning and end.
    fn tokens(&self, text: &str) -> Result<Vec<i64>, InferenceError> {
        let encoding = self
            .0
            .encode_fast(text, true)
            .map_err(|e| InferenceError::Input {
                model: NAME.into(),
                reason: e.to_string(),
            })?;
        Ok(encoding.get_ids().iter().map(|id| i64::from(*id)).collect())
    }

    /// The same, cut to what the model takes: the mark of the end stays.
    fn tokens_cut(&self, text: &str) -> Result<Vec<i64>, InferenceError> {
        let mut tokens = self.tokens(text)?;
        if let Some(end) = tokens.last().copied()
            && tokens.len() > MOST_TOKENS
        {
            tokens.truncate(MOST_TOKENS - 1);
            tokens.push(end);
        }
        Ok(tokens)
    }
}

/// The model of one worker.
struct MiniLm {
    model: Runner,
    stop: Arc<Stop>,
    tokenizer: Arc<WordPieces>,
    padding: f32,
    /// Tokens in a run of several texts.
    most: usize,
}

/// A text on its way to the model.
type Tokenized<'a> = (Job<'a, String, Vec<f32>>, Vec<i64>);

impl MiniLm {
    fn open(file: &ModelFile, tokenizer: &SharedTokenizer, stop: &Arc<Stop>) -> Result<Self, InferenceError> {
        // Each takes a good part of the time until the first vector.
        let (tokenizer, model) = std::thread::scope(|scope| {
            let tokenizer = scope.spawn(|| tokenizer.get());
            let model = file.open(NAME, stop);
            (tokenizer.join(), model)
        });
        let tokenizer = tokenizer.map_err(|_panicked| InferenceError::Failed {
            model: NAME.into(),
            reason: "the tokenizer panicked".into(),
        })?;
        let (padding, most) = match file.provider() {
            Provider::Cpu => (PADDING, ENOUGH),
            Provider::Cuda(_) => (1.0, usize::MAX),
        };
        Ok(Self {
            model: model?,
            stop: Arc::clone(stop),
            tokenizer: tokenizer?,
            padding,
            most,
        })
    }

    /// Vectors of texts, padded to the first, which is the longest.
    fn embed(&mut self, texts: &[Tokenized<'_>]) -> Result<Vec<Vec<f32>>, InferenceError> {
        let longest = texts.first().map_or(0, |(_, tokens)| tokens.len());
        let (mut ids, mut mask) = (Vec::new(), Vec::new());
        for (row, (_, tokens)) in (1..).zip(texts) {
            ids.extend_from_slice(tokens);
            mask.resize(ids.len(), 1);
            ids.resize(row * longest, 0);
            mask.resize(row * longest, 0);
        }
        let types = vec![0i64; ids.len()];
        let failed = |e: ort::Error| runtime::failed(NAME, &e);
        let tensor =
            |values| TensorRef::<i64>::from_array_view(([texts.len(), longest], values)).map_err(failed);
        let inputs = [
            (IDS, tensor(ids.as_slice())?),
            (MASK, tensor(mask.as_slice())?),
            (TYPES, tensor(types.as_slice())?),
        ];
        let output = self.model.run(inputs, STATES)?;
        let (_, states) = output.numbers()?;
        if longest == 0 || states.len() != texts.len() * longest * DIMENSIONS {
            return Err(InferenceError::Failed {
                model: NAME.into(),
                reason: "its output is not what this version was made for".into(),
            });
        }
        Ok(states
            .chunks_exact(longest * DIMENSIONS)
            .zip(texts)
            .map(|(states, (_, tokens))| pooled(states, tokens.len()))
            .collect())
    }
}

impl Model<String, Vec<f32>> for MiniLm {
    fn run(&mut self, batch: Vec<Job<'_, String, Vec<f32>>>) {
        let mut texts: Vec<Tokenized<'_>> = Vec::with_capacity(batch.len());
        for job in batch {
            match self.tokenizer.tokens_cut(&job.item) {
                Ok(tokens) => texts.push((job, tokens)),
                Err(error) => job.answer(Err(error)),
            }
        }
        // The longest first, so that the memory of one run serves all that follow.
        texts.sort_by_key(|(_, tokens)| std::cmp::Reverse(tokens.len()));
        while let Some((_, longest)) = texts.first() {
            let least = longest.len() as f32 * (1.0 - self.padding);
            let alike = texts.partition_point(|(_, tokens)| tokens.len() as f32 >= least);
            let later = texts.split_off(alike.min(self.most / longest.len().max(1)).max(1));
            let mut group = std::mem::replace(&mut texts, later);
            group.retain(|(job, _)| job.is_wanted());
            if self.stop.is_told() {
                return;
            }
            if group.is_empty() {
                continue;
            }
            match self.embed(&group) {
                Ok(vectors) => {
                    for ((job, _), vector) in group.into_iter().zip(vectors) {
                        job.answer(Ok(vector));
                    }
                }
                Err(error) => group
                    .into_iter()
                    .for_each(|(job, _)| job.answer(Err(error.clone()))),
            }
        }
    }
}

/// The mean of the first `tokens` states, at unit length.
fn pooled(states: &[f32], tokens: usize) -> Vec<f32> {
    let mut vector = vec![0f32; DIMENSIONS];
    for state in states.chunks_exact(DIMENSIONS).take(tokens) {
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
    fn pooling_leaves_padding_out() {
        let mut states = vec![0.0; 3 * DIMENSIONS];
        states[0] = 3.0;
        states[DIMENSIONS + 1] = 4.0;
        states[2 * DIMENSIONS + 2] = 100.0;
        let vector = pooled(&states, 2);
        assert!((vector[0] - 0.6).abs() < 1e-6 && (vector[1] - 0.8).abs() < 1e-6);
        assert_eq!(vector[2], 0.0);
    }

    #[test]
    fn cost_grows_with_the_text_and_no_further_than_the_model_looks() {
        assert!(cost("a few words") < cost("a few words more"));
        assert_eq!(cost(&"x".repeat(100_000)), 256.0);
    }
}
