//! Tokens a second of the provider `local`, beside a bare loop around llama.cpp in the same process.
//!
//! ```text
//! cargo bench --profile dev --workspace --features weir-cli/local-llm --bench local -- [ROUNDS] [THREADS] [FILE]
//! ```
//!
//! Both get the same tokens, threads and context, in turns, so that what else the machine does falls on both alike; ratios are
//! medians over the rounds. What the provider takes is measured from outside, as a caller sees it: a question whose answer is cut short
//! after one token, and the same after many. Then several questions at once, which the bare loop would answer one after the other.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::print_stdout
)]

use std::num::NonZeroU32;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use futures::future::join_all;
use llama_cpp_2::context::params::LlamaContextParams;
use llama_cpp_2::llama_backend::LlamaBackend;
use llama_cpp_2::llama_batch::LlamaBatch;
use llama_cpp_2::model::params::LlamaModelParams;
use llama_cpp_2::model::{LlamaChatMessage, LlamaModel};
use llama_cpp_2::sampling::LlamaSampler;
use weir_core::language::{Fault, Question, QuestionKind};
use weir_core::ports::Account;
use weir_core::{Lane, TenantId};
use weir_llm::{Local, LocalConfig, Provider as _};

/// Tokens of an answer.
const ANSWER: u32 = 128;
const CONTEXT: u32 = 2048;
const BATCH: u32 = 512;
/// Nothing ends an answer to this before its limit.
const TASK: &str =
    "Write the numbers from 1 to 1000, each on a line of its own, and leave none out. Leave out this text: ";

/// Tokens a second.
#[derive(Clone, Copy)]
struct Speed {
    prompt: f64,
    answer: f64,
}

fn median(values: impl Iterator<Item = f64>) -> f64 {
    let mut values: Vec<f64> = values.collect();
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

fn prompt() -> String {
    // Different words, as text has them: some 500 tokens.
    let words: Vec<String> = (0..170)
        .map(|n| format!("gate {} of {}", n * 37 % 101, n * 53 % 89))
        .collect();
    let text: String = words.join(", ").chars().take(800).collect();
    format!("{TASK}{text}")
}

fn question(max_tokens: u32) -> Question {
    Question {
        account: Account {
            tenant: TenantId::single(),
            lane: Lane::Interactive,
            linger: Duration::ZERO,
            weight: 1.0,
        },
        kind: QuestionKind::Component,
        system: None,
        prompt: prompt(),
        text: String::new(),
        image: None,
        max_tokens,
        patience: Duration::from_secs(600),
    }
}

async fn seconds(local: &Local, max_tokens: u32) -> f64 {
    let began = Instant::now();
    let reply = local.ask(&question(max_tokens)).await;
    assert_eq!(reply, Err(Fault::CutShort), "the answer ended before its limit");
    began.elapsed().as_secs_f64()
}

async fn weir(local: &Local, tokens: usize) -> Speed {
    let first = seconds(local, 1).await;
    let all = seconds(local, ANSWER).await;
    Speed {
        prompt: tokens as f64 / first,
        answer: f64::from(ANSWER - 1) / (all - first),
    }
}

/// The least that llama.cpp can be asked to do for the same answer; how many tokens the question has.
fn bare(backend: &LlamaBackend, model: &LlamaModel, threads: i32) -> (Speed, usize) {
    let template = model.chat_template(None).unwrap();
    let turns = [LlamaChatMessage::new("user".into(), prompt()).unwrap()];
    let text = model.apply_chat_template(&template, &turns, true).unwrap();
    let vocab = model.vocab();
    let tokens = vocab.tokenize(text.as_bytes(), vocab.should_add_bos(), true);
    let params = LlamaContextParams::default()
        .with_n_ctx(NonZeroU32::new(CONTEXT))
        .with_n_batch(BATCH)
        .with_n_ubatch(BATCH)
        .with_n_threads(threads)
        .with_n_threads_batch(threads);
    let mut context = model.new_context(backend, params).unwrap();
    let mut batch = LlamaBatch::new(BATCH as usize, 1);
    let mut sampler = LlamaSampler::greedy();
    let began = Instant::now();
    for (at, part) in tokens.chunks(BATCH as usize).enumerate() {
        batch.clear();
        for (i, token) in part.iter().enumerate() {
            let position = at * BATCH as usize + i;
            batch
                .add(*token, position as i32, &[0], position + 1 == tokens.len())
                .unwrap();
        }
        context.decode(&mut batch).unwrap();
    }
    let mut token = sampler.sample(&context, batch.n_tokens() - 1);
    let first = began.elapsed().as_secs_f64();
    for written in 1..ANSWER {
        assert!(!vocab.is_eog(token), "the answer ended before its limit");
        batch.clear();
        batch
            .add(token, tokens.len() as i32 + written as i32 - 1, &[0], true)
            .unwrap();
        context.decode(&mut batch).unwrap();
        token = sampler.sample(&context, 0);
    }
    let all = began.elapsed().as_secs_f64();
    let speed = Speed {
        prompt: tokens.len() as f64 / first,
        answer: f64::from(ANSWER - 1) / (all - first),
    };
    (speed, tokens.len())
}

fn open(file: &Path, concurrency: u32, threads: u32) -> Local {
    Local::open(LocalConfig {
        file: file.into(),
        model: String::new(),
        context: CONTEXT,
        concurrency,
        threads,
        temperature: 0.0,
    })
    .unwrap()
}

fn small() -> PathBuf {
    let data = std::env::var_os("XDG_DATA_HOME").map(PathBuf::from);
    let share = data.unwrap_or_else(|| std::env::home_dir().unwrap().join(".local/share"));
    let assets =
        std::env::var_os("WEIR_PATHS_ASSETS").map_or_else(|| share.join("weir/assets"), PathBuf::from);
    assets.join("models/smollm2/SmolLM2-135M-Instruct.Q4_1.gguf")
}

#[tokio::main]
async fn main() {
    let mut given = std::env::args().skip(1).filter(|word| !word.starts_with("--"));
    let rounds: usize = given
        .next()
        .map_or(5, |word| word.parse().expect("ROUNDS is a number"));
    let cores = std::thread::available_parallelism().map_or(1, usize::from) as u32;
    let threads: u32 = given
        .next()
        .map_or(cores, |word| word.parse().expect("THREADS is a number"));
    let file = given.next().map_or_else(small, PathBuf::from);
    let local = open(&file, 1, threads);
    // llama.cpp begins once in a process, and the provider has begun it.
    seconds(&local, 1).await;
    let backend = LlamaBackend {};
    let model = LlamaModel::load_from_file(&backend, &file, &LlamaModelParams::default()).unwrap();
    let (_, tokens) = bare(&backend, &model, threads as i32);
    println!(
        "{}: {tokens} tokens asked, {ANSWER} answered, {threads} threads, {rounds} rounds",
        file.display()
    );

    let (mut ours, mut theirs) = (Vec::new(), Vec::new());
    for round in 0..rounds {
        // Whoever goes first in a round goes second in the next.
        if round % 2 == 0 {
            ours.push(weir(&local, tokens).await);
            theirs.push(bare(&backend, &model, threads as i32).0);
        } else {
            theirs.push(bare(&backend, &model, threads as i32).0);
            ours.push(weir(&local, tokens).await);
        }
        let (own, bare) = (ours[round], theirs[round]);
        println!(
            "round {round}: provider {:6.1} {:6.1}   llama.cpp alone {:6.1} {:6.1}",
            own.prompt, own.answer, bare.prompt, bare.answer
        );
    }
    for (what, of) in [
        ("question", (|speed: &Speed| speed.prompt) as fn(&Speed) -> f64),
        ("answer", |speed: &Speed| speed.answer),
    ] {
        let ratio = median(
            ours.iter()
                .zip(&theirs)
                .map(|(ours, theirs)| of(ours) / of(theirs)),
        );
        println!(
            "{what:8}  provider {:6.1} tokens/s   llama.cpp alone {:6.1} tokens/s   ratio {ratio:.3}",
            median(ours.iter().map(of)),
            median(theirs.iter().map(of)),
        );
    }
    drop(local);

    for at_once in [1, 2, 4, 8] {
        let local = open(&file, at_once, threads);
        seconds(&local, 1).await;
        let began = Instant::now();
        join_all((0..at_once).map(|_| seconds(&local, ANSWER))).await;
        let took = began.elapsed().as_secs_f64();
        println!(
            "{at_once} at once: {took:5.1} s, {:5.2} questions answered in ten seconds",
            10.0 * f64::from(at_once) / took
        );
    }
}
