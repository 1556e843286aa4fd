//! Questions decoded together.
//!
//! Each has a seat, a sequence of the model's context with room for `context` tokens. A step gives every answer that is being written
//! its next token, and reads on in the questions that are not read yet, first come first served, as far as [`Chunk`] allows.

use std::num::NonZeroU32;
use std::time::Instant;

use llama_cpp_2::context::LlamaContext;
use llama_cpp_2::context::params::LlamaContextParams;
use llama_cpp_2::llama_batch::{BatchAddError, LlamaBatch};
use llama_cpp_2::model::LlamaModel;
use llama_cpp_2::sampling::LlamaSampler;
use llama_cpp_2::token::LlamaToken;
use tokio::sync::oneshot;
use weir_core::language::{Fault, QuestionKind};

use super::asked::Asked;
use super::chunk::{self, Chunk};
use super::ending;
use super::turns::Turns;
use super::words::heard;
use super::{LocalConfig, weights};
use crate::provider::Reply;
use crate::thoughts;

/// No token of a vocabulary is longer, in bytes: the longest are runs of white space.
const LONGEST_TOKEN: usize = 512;
/// Of tokens less likely than this share of the likeliest none is chosen, however freely.
const LEAST_LIKELY: f32 = 0.05;
/// Tokens in a row that an answer may have twice, as names and figures must.
const SAID_TWICE: i32 = 8;

pub(super) struct Decoder<'model> {
    model: &'model LlamaModel,
    turns: Turns,
    context: LlamaContext<'model>,
    batch: LlamaBatch<'static>,
    /// Each at the place that is its sequence's number.
    seats: Vec<Option<Seat>>,
    /// Questions seated so far.
    seated: u64,
    chunk: Chunk,
    /// Tokens of a sequence.
    room: usize,
    temperature: f32,
}

/// A question, and its answer as far as it goes.
struct Seat {
    kind: QuestionKind,
    came: u64,
    question: Vec<LlamaToken>,
    /// Tokens of the question that were read.
    read: usize,
    /// The answer's last token, which is not read yet.
    last: Option<LlamaToken>,
    /// Tokens of the answer.
    written: u32,
    text: Vec<u8>,
    max_tokens: u32,
    sampler: LlamaSampler,
    /// Where in the batch its next token comes out.
    output: Option<i32>,
    answer: oneshot::Sender<Result<Reply, Fault>>,
}

impl<'model> Decoder<'model> {
    pub(super) fn new(model: &'model LlamaModel, config: &LocalConfig) -> Result<Self, String> {
        let turns =
            Turns::of(model).map_err(|reason| format!("its file {} {reason}", config.file.display()))?;
        let room = config.context.min(model.n_ctx_train().max(1));
        let seats = config.concurrency.max(1);
        let threads = match config.threads {
            0 => std::thread::available_parallelism().map_or(1, usize::from),
            threads => threads as usize,
        };
        let threads = i32::try_from(threads).unwrap_or(1);
        let params = LlamaContextParams::default()
            .with_n_ctx(NonZeroU32::new(room.saturating_mul(seats)))
            .with_n_seq_max(seats)
            .with_n_batch(chunk::MOST as u32)
            .with_n_ubatch(chunk::MOST as u32)
            .with_n_threads(threads)
            .with_n_threads_batch(threads);
        let backend = weights::backend()?;
        let (context, complaints) = heard(|| model.new_context(backend, params));
        let context = context.map_err(|_| {
            format!("no memory for {seats} questions of {room} tokens at once, lower concurrency or context: {complaints}")
        })?;
        Ok(Self {
            model,
            turns,
            context,
            batch: LlamaBatch::new(chunk::MOST, 1),
            seats: (0..seats).map(|_| None).collect(),
            seated: 0,
            chunk: Chunk::new(),
            room: room as usize,
            temperature: config.temperature,
        })
    }

    /// Whether another question can be taken.
    pub(super) fn has_room(&self) -> bool {
        self.seats.iter().any(Option::is_none)
    }

    /// Whether there is nothing to do.
    pub(super) fn is_idle(&self) -> bool {
        self.seats.iter().all(Option::is_none)
    }

    /// Takes a question, unless it is too long or nobody waits for it.
    pub(super) fn seat(&mut self, asked: Asked) {
        if asked.answer.is_closed() {
            return;
        }
        let too_long = |tokens: usize| {
            let needed = tokens.saturating_add(asked.max_tokens as usize);
            (needed > self.room).then_some(Fault::TooLong {
                needed,
                room: self.room,
            })
        };
        // What cannot fit however it is cut into tokens is not cut.
        let bytes = asked.prompt.len() + asked.system.as_ref().map_or(0, String::len);
        if let Some(fault) = too_long(bytes / LONGEST_TOKEN) {
            return asked.fail(fault);
        }
        let question = self
            .turns
            .tokens(self.model, asked.system.as_deref(), &asked.prompt);
        if let Some(fault) = too_long(question.len()) {
            return asked.fail(fault);
        }
        let Some(seat) = self.seats.iter_mut().find(|seat| seat.is_none()) else {
            return asked.fail(Fault::Failed("more questions at once than it decodes".into()));
        };
        self.seated += 1;
        *seat = Some(Seat {
            kind: asked.kind,
            came: self.seated,
            question,
            read: 0,
            last: None,
            written: 0,
            text: Vec::new(),
            max_tokens: asked.max_tokens,
            sampler: sampler(self.model, self.temperature),
            output: None,
            answer: asked.answer,
        });
    }

    /// One step of all that are seated.
    pub(super) fn step(&mut self) {
        self.leave_the_gone();
        let filled = self.fill();
        if let Err(error) = filled {
            return self.fail(&error.to_string());
        }
        let tokens = usize::try_from(self.batch.n_tokens()).unwrap_or(0);
        if tokens == 0 {
            return;
        }
        let began = Instant::now();
        if let Err(error) = self.context.decode(&mut self.batch) {
            return self.fail(&error.to_string());
        }
        self.chunk.took(tokens, began.elapsed());
        self.write();
    }

    /// Frees the seats of questions that nobody waits for.
    fn leave_the_gone(&mut self) {
        for place in 0..self.seats.len() {
            let seat = self.seats.get(place).and_then(Option::as_ref);
            if seat.is_some_and(|seat| seat.answer.is_closed()) {
                self.leave(place);
            }
        }
    }

    /// Frees a seat, and the memory of its sequence for the next.
    fn leave(&mut self, place: usize) -> Option<Seat> {
        let seat = self.seats.get_mut(place)?.take();
        let sequence = u32::try_from(place).ok();
        if let Err(error) = self.context.clear_kv_cache_seq(sequence, None, None) {
            tracing::error!(%error, "a sequence of a language model cannot be cleared");
        }
        seat
    }

    /// What is decoded next: answers first, for one token of each is little and someone waits for it.
    fn fill(&mut self) -> Result<(), BatchAddError> {
        self.batch.clear();
        let mut reading = Vec::new();
        for (sequence, seat) in (0..).zip(&mut self.seats) {
            let Some(seat) = seat else { continue };
            let Some(token) = seat.last.take() else {
                reading.push((sequence, seat));
                continue;
            };
            seat.output = Some(self.batch.n_tokens());
            // The answer's last token comes after all before it.
            let position = seat.question.len() + seat.written.saturating_sub(1) as usize;
            self.batch.add(token, position as i32, &[sequence], true)?;
        }
        reading.sort_by_key(|(_, seat)| seat.came);
        let mut left = self.chunk.size();
        for (sequence, seat) in reading {
            let unread = seat.question.iter().enumerate().skip(seat.read).take(left);
            let last = seat.question.len().saturating_sub(1);
            for (position, token) in unread {
                if position == last {
                    seat.output = Some(self.batch.n_tokens());
                }
                self.batch
                    .add(*token, position as i32, &[sequence], position == last)?;
                seat.read = position + 1;
                left -= 1;
            }
        }
        Ok(())
    }

    /// Chooses the next token of each answer that has one now.
    fn write(&mut self) {
        for place in 0..self.seats.len() {
            let Some(Some(seat)) = self.seats.get_mut(place) else {
                continue;
            };
            let Some(output) = seat.output.take() else {
                continue;
            };
            let vocab = self.model.vocab();
            let mut token = seat.sampler.sample(&self.context, output);
            if seat.written == 0 && vocab.is_eog(token) {
                // Nothing at all is no answer: then what is likeliest after it.
                let words = self.context.candidates_ith(output);
                let words = words.filter(|word| !vocab.is_eog(word.id()));
                let likeliest = words.max_by(|a, b| a.logit().total_cmp(&b.logit()));
                token = likeliest.map_or(token, |word| word.id());
            }
            let ended = vocab.is_eog(token);
            if !ended {
                vocab.token_to_piece_into(token, &mut seat.text, false, None);
                seat.written += 1;
                if seat.written < seat.max_tokens {
                    seat.last = Some(token);
                    continue;
                }
            }
            if let Some(seat) = self.leave(place) {
                seat.end(ended);
            }
        }
    }

    /// A step failed: which question it was is not told, and what the context holds now is not known.
    fn fail(&mut self, reason: &str) {
        for place in 0..self.seats.len() {
            if let Some(seat) = self.leave(place) {
                let _ = seat.answer.send(Err(Fault::Failed(reason.to_owned())));
            }
        }
        self.context.clear_kv_cache();
    }
}

impl Seat {
    /// Hands the answer over.
    fn end(self, ended: bool) {
        let text = String::from_utf8_lossy(&self.text);
        let text = thoughts::without(&text).trim();
        let kept = if ended {
            Some(text.into())
        } else {
            ending::kept(self.kind, text)
        };
        let reply = match kept {
            None => Err(Fault::CutShort),
            // The likeliest words would be the same another time.
            Some(text) if text.is_empty() => Err(Fault::NoAnswer),
            Some(text) => Ok(Reply {
                text: text.into_owned(),
                quotes: Vec::new(),
                prompt_tokens: u32::try_from(self.question.len()).ok(),
                answer_tokens: Some(self.written),
            }),
        };
        // Who asked may be gone.
        let _ = self.answer.send(reply);
    }
}

/// What chooses an answer's tokens. A small model that has begun to say the same again does not stop by itself: a token that would go
/// on with a repetition loses by how long that is already (DRY, with the factors of its author,
/// <https://github.com/oobabooga/text-generation-webui/pull/5677>).
fn sampler(model: &LlamaModel, temperature: f32) -> LlamaSampler {
    let no_breakers: [&str; 0] = [];
    let once = LlamaSampler::dry(model, 0.8, 1.75, SAID_TWICE, 4096, no_breakers);
    if temperature <= 0.0 {
        return LlamaSampler::chain_simple([once, LlamaSampler::greedy()]);
    }
    LlamaSampler::chain_simple([
        once,
        LlamaSampler::min_p(LEAST_LIKELY, 1),
        LlamaSampler::temp(temperature),
        LlamaSampler::dist(fastrand::u32(..)),
    ])
}
