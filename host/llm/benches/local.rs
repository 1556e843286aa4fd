//! Tokens a second of the provider `local`, beside a bare loop around llama.cpp, on a quiet machine and on one whose cores are taken.
//!
//! ```text
//! cargo bench --profile dev --workspace --features weir-cli/local-llm --bench local -- [ROUNDS] [THREADS] [FILE]
//! ```
//!
//! Both get the same tokens, threads and context, in turns, so that what else the machine does falls on both alike; ratios are
//! medians over the rounds. Each is a process of its own, since two teams of OpenMP in one process make each other wait differently
//! than one does; the provider's has the environment that `weir` starts with ([`weir_llm::ENVIRONMENT`]), the bare loop's has what
//! llama.cpp does by itself. What the provider takes is measured from outside, as a caller sees it: a question whose answer is cut
//! short after one token, and the same after many. Then several questions at once, which the bare loop would answer one after the
//! other.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::print_stdout
)]

use std::num::NonZeroU32;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use futures::future::join_all;
use llama_cpp_2::context::params::LlamaContextParams;
use llama_cpp_2::llama_backend::LlamaBackend;
use llama_cpp_2::llama_batch::LlamaBatch;
use llama_cpp_2::model::params::LlamaModelParams;
use llama_cpp_2::model::{LlamaChatMessage, LlamaModel};
use llama_cpp_2::sampling::LlamaSampler;
use llama_cpp_2::token::LlamaToken;
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

/// Characters of what is left out: a question of some 500 tokens, and one of some 100.
const LONG: usize = 800;
const SHORT: usize = 100;

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

fn prompt(chars: usize) -> String {
    // Different words, as text has them.
    let words: Vec<String> = (0..170)
        .map(|n| format!("gate {} of {}", n * 37 % 101, n * 53 % 89))
        .collect();
    let text: String = words.join(", ").chars().take(chars).collect();
    format!("{TASK}{text}")
}

fn question(chars: usize, max_tokens: u32) -> Question {
    Question {
        account: Account {
            tenant: TenantId::single(),
            lane: Lane::Interactive,
            linger: Duration::ZERO,
            weight: 1.0,
        },
        kind: QuestionKind::Component,
        system: None,
        prompt: prompt(chars),
        text: String::new(),
        image: None,
        max_tokens,
        patience: Duration::from_secs(600),
        document: None,
    }
}

async fn seconds(local: &Local, chars: usize, max_tokens: u32) -> f64 {
    let began = Instant::now();
    let reply = local.ask(&question(chars, max_tokens)).await;
    assert_eq!(reply, Err(Fault::CutShort), "the answer ended before its limit");
    began.elapsed().as_secs_f64()
}

/// What the provider does; `tokens` are those of the question.
async fn provider(local: &Local, chars: usize, tokens: usize) -> Speed {
    let first = seconds(local, chars, 1).await;
    let all = seconds(local, chars, ANSWER).await;
    Speed {
        prompt: tokens as f64 / first,
        answer: f64::from(ANSWER - 1) / (all - first),
    }
}

/// The question as the model reads it.
fn tokens(model: &LlamaModel, chars: usize) -> Vec<LlamaToken> {
    let template = model.chat_template(None).unwrap();
    let turns = [LlamaChatMessage::new("user".into(), prompt(chars)).unwrap()];
    let text = model.apply_chat_template(&template, &turns, true).unwrap();
    let vocab = model.vocab();
    vocab.tokenize(text.as_bytes(), vocab.should_add_bos(), true)
}

/// The least that llama.cpp can be asked to do for the same answer.
fn bare(backend: &LlamaBackend, model: &LlamaModel, chars: usize, threads: i32) -> Speed {
    let tokens = tokens(model, chars);
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
        assert!(!model.vocab().is_eog(token), "the answer ended before its limit");
        batch.clear();
        batch
            .add(token, tokens.len() as i32 + written as i32 - 1, &[0], true)
            .unwrap();
        context.decode(&mut batch).unwrap();
        token = sampler.sample(&context, 0);
    }
    let all = began.elapsed().as_secs_f64();
    Speed {
        prompt: tokens.len() as f64 / first,
        answer: f64::from(ANSWER - 1) / (all - first),
    }
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

/// In a process of its own: the speed of one of them, behind a warm-up.
#[tokio::main]
async fn measure(who: &str, chars: usize, threads: u32, file: &Path) {
    let speed = if who == "provider" {
        let local = open(file, 1, threads);
        seconds(&local, SHORT, 1).await;
        // The vocabulary alone, in a moment.
        let params = LlamaModelParams::default().with_vocab_only(true);
        let model = LlamaModel::load_from_file(&LlamaBackend {}, file, &params).unwrap();
        provider(&local, chars, tokens(&model, chars).len()).await
    } else {
        let backend = LlamaBackend::init().unwrap();
        let model = LlamaModel::load_from_file(&backend, file, &LlamaModelParams::default()).unwrap();
        bare(&backend, &model, SHORT, threads as i32);
        bare(&backend, &model, chars, threads as i32)
    };
    println!("{} {}", speed.prompt, speed.answer);
}

/// In a process of its own: several questions at once.
#[tokio::main]
async fn together(threads: u32, file: &Path) {
    for at_once in [1, 2, 4, 8] {
        let local = open(file, at_once, threads);
        seconds(&local, LONG, 1).await;
        let began = Instant::now();
        join_all((0..at_once).map(|_| seconds(&local, LONG, ANSWER))).await;
        let took = began.elapsed().as_secs_f64();
        println!(
            "{at_once} at once: {took:5.1} s, {:5.2} questions answered in ten seconds",
            10.0 * f64::from(at_once) / took
        );
    }
}

fn another(words: &[String], with: &[(&str, &str)]) -> String {
    let program = std::env::current_exe().unwrap();
    let ended = Command::new(program)
        .args(words)
        .envs(with.iter().copied())
        .stderr(Stdio::null())
        .output()
        .unwrap();
    assert!(ended.status.success(), "{words:?}: {}", ended.status);
    String::from_utf8(ended.stdout).unwrap()
}

fn speed_of(who: &str, chars: usize, threads: u32, file: &Path) -> Speed {
    let with = if who == "provider" {
        weir_llm::ENVIRONMENT
    } else {
        &[]
    };
    let file = file.to_str().unwrap();
    let words = ["measure", who, &chars.to_string(), &threads.to_string(), file].map(String::from);
    let said = another(&words, with);
    let (prompt, answer) = said.trim().split_once(' ').unwrap();
    Speed {
        prompt: prompt.parse().unwrap(),
        answer: answer.parse().unwrap(),
    }
}

fn compare(what: &str, chars: usize, rounds: usize, threads: u32, file: &Path) {
    let speed = |who| speed_of(who, chars, threads, file);
    let (mut ours, mut theirs) = (Vec::new(), Vec::new());
    for round in 0..rounds {
        // Whoever goes first in a round goes second in the next.
        if round % 2 == 0 {
            ours.push(speed("provider"));
            theirs.push(speed("bare"));
        } else {
            theirs.push(speed("bare"));
            ours.push(speed("provider"));
        }
        let (own, bare) = (ours[round], theirs[round]);
        println!(
            "  round {round}: provider {:6.1} {:6.1}   llama.cpp alone {:6.1} {:6.1}",
            own.prompt, own.answer, bare.prompt, bare.answer
        );
    }
    for (side, of) in [
        ("question", (|speed: &Speed| speed.prompt) as fn(&Speed) -> f64),
        ("answer", |speed: &Speed| speed.answer),
    ] {
        let ratios = ours
            .iter()
            .zip(&theirs)
            .map(|(ours, theirs)| of(ours) / of(theirs));
        println!(
            "{what}, {side:8}  provider {:6.1} tokens/s   llama.cpp alone {:6.1} tokens/s   ratio {:.3}",
            median(ours.iter().map(of)),
            median(theirs.iter().map(of)),
            median(ratios),
        );
    }
}

/// While it lives, each core has something else to do.
struct Taken(Arc<AtomicBool>);

impl Taken {
    fn cores(count: usize) -> Self {
        let over = Arc::new(AtomicBool::new(false));
        for _ in 0..count {
            let over = Arc::clone(&over);
            std::thread::spawn(move || while !over.load(Ordering::Relaxed) {});
        }
        Self(over)
    }
}

impl Drop for Taken {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

fn main() {
    let given: Vec<String> = std::env::args()
        .skip(1)
        .filter(|word| !word.starts_with("--"))
        .collect();
    let words: Vec<&str> = given.iter().map(String::as_str).collect();
    match words[..] {
        ["measure", who, chars, threads, file] => {
            return measure(
                who,
                chars.parse().unwrap(),
                threads.parse().unwrap(),
                Path::new(file),
            );
        }
        ["together", threads, file] => return together(threads.parse().unwrap(), Path::new(file)),
        _ => {}
    }
    let number =
        |word: Option<&&str>, usual: usize| word.map_or(usual, |word| word.parse().expect("a number"));
    let rounds = number(words.first(), 5);
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let threads = number(words.get(1), cores) as u32;
    let file = words.get(2).map_or_else(small, PathBuf::from);
    println!(
        "{}: {ANSWER} tokens answered, {threads} threads, {rounds} rounds",
        file.display()
    );
    compare("short", SHORT, rounds, threads, &file);
    compare("long", LONG, rounds, threads, &file);
    let words = ["together", &threads.to_string(), file.to_str().unwrap()].map(String::from);
    print!("{}", another(&words, weir_llm::ENVIRONMENT));
    let taken = Taken::cores(cores);
    compare("cores taken", SHORT, rounds.div_ceil(2), threads, &file);
    drop(taken);
}
