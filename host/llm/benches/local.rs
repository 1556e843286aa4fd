//! Measures the tokens per second of the provider `local` and of a bare loop around llama.cpp, on an idle machine and on one
//! with busy cores.
//!
//! ```text
//! cargo bench --profile dev --workspace --features weir-cli/local-llm --bench local -- [ROUNDS] [THREADS] [FILE]
//! ```
//!
//! Both sides get the same tokens, threads and context, and take turns, so that other load on the machine affects both; the
//! ratios are medians over the rounds. Each side runs in a process of its own, because two OpenMP thread teams in one process
//! slow each other down. The provider's process has the environment that `weir` sets ([`weir_llm::LOCAL_MODEL_ENVIRONMENT`]);
//! the bare loop's process has llama.cpp's defaults. The provider is measured from outside, as a caller sees it: one request is
//! truncated after one token, the same request after many. Then several requests run at once, which the bare loop would process
//! one after the other.

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
use weir_core::llm::{LlmRequest, LlmRequestKind, ProviderError};
use weir_core::ports::SchedulingContext;
use weir_core::{PriorityLane, TenantId};
use weir_llm::{LocalConfig, LocalProvider, Provider as _};

/// Tokens of a response.
const RESPONSE_TOKENS: u32 = 128;
const CONTEXT_TOKENS: u32 = 2048;
const BATCH_TOKENS: u32 = 512;
/// A prompt whose response always reaches the token limit.
const PROMPT_TASK: &str =
    "Write the numbers from 1 to 1000, each on a line of its own, and leave none out. Leave out this text: ";

/// Characters of the text that the prompt excludes: about 500 tokens, and about 100.
const LONG_PROMPT_CHARS: usize = 800;
const SHORT_PROMPT_CHARS: usize = 100;

/// Tokens per second.
#[derive(Clone, Copy)]
struct TokenRates {
    prompt_tokens_per_second: f64,
    response_tokens_per_second: f64,
}

fn median(values: impl Iterator<Item = f64>) -> f64 {
    let mut values: Vec<f64> = values.collect();
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

fn build_prompt(chars: usize) -> String {
    // Varied words, as in real text.
    let words: Vec<String> = (0..170)
        .map(|n| format!("gate {} of {}", n * 37 % 101, n * 53 % 89))
        .collect();
    let text: String = words.join(", ").chars().take(chars).collect();
    format!("{PROMPT_TASK}{text}")
}

fn build_request(chars: usize, max_tokens: u32) -> LlmRequest {
    LlmRequest {
        scheduling: SchedulingContext {
            tenant: TenantId::default_tenant(),
            lane: PriorityLane::Interactive,
            group: 0,
            batch_linger: Duration::ZERO,
            tenant_weight: 1.0,
        },
        kind: LlmRequestKind::Component,
        system_prompt: None,
        prompt: build_prompt(chars),
        text: String::new(),
        image: None,
        max_response_tokens: max_tokens,
        timeout: Duration::from_secs(600),
        document: None,
    }
}

async fn time_call_seconds(local: &LocalProvider, chars: usize, max_tokens: u32) -> f64 {
    let began = Instant::now();
    let reply = local.call_model(&build_request(chars, max_tokens)).await;
    assert_eq!(
        reply,
        Err(ProviderError::TokenLimitReached),
        "the response ended before the token limit"
    );
    began.elapsed().as_secs_f64()
}

/// Measures the provider; `tokens` is the length of the prompt.
async fn measure_provider(local: &LocalProvider, chars: usize, tokens: usize) -> TokenRates {
    let first = time_call_seconds(local, chars, 1).await;
    let all = time_call_seconds(local, chars, RESPONSE_TOKENS).await;
    TokenRates {
        prompt_tokens_per_second: tokens as f64 / first,
        response_tokens_per_second: f64::from(RESPONSE_TOKENS - 1) / (all - first),
    }
}

/// The tokens of the prompt in the model's chat template.
fn tokenize_prompt(model: &LlamaModel, chars: usize) -> Vec<LlamaToken> {
    let template = model.chat_template(None).unwrap();
    let turns = [LlamaChatMessage::new("user".into(), build_prompt(chars)).unwrap()];
    let text = model.apply_chat_template(&template, &turns, true).unwrap();
    let vocab = model.vocab();
    vocab.tokenize(text.as_bytes(), vocab.should_add_bos(), true)
}

/// Measures the minimum that llama.cpp needs for the same response.
fn measure_bare_llama(backend: &LlamaBackend, model: &LlamaModel, chars: usize, threads: i32) -> TokenRates {
    let tokens = tokenize_prompt(model, chars);
    let params = LlamaContextParams::default()
        .with_n_ctx(NonZeroU32::new(CONTEXT_TOKENS))
        .with_n_batch(BATCH_TOKENS)
        .with_n_ubatch(BATCH_TOKENS)
        .with_n_threads(threads)
        .with_n_threads_batch(threads);
    let mut context = model.new_context(backend, params).unwrap();
    let mut batch = LlamaBatch::new(BATCH_TOKENS as usize, 1);
    let mut sampler = LlamaSampler::greedy();
    let began = Instant::now();
    for (at, part) in tokens.chunks(BATCH_TOKENS as usize).enumerate() {
        batch.clear();
        for (i, token) in part.iter().enumerate() {
            let position = at * BATCH_TOKENS as usize + i;
            batch
                .add(*token, position as i32, &[0], position + 1 == tokens.len())
                .unwrap();
        }
        context.decode(&mut batch).unwrap();
    }
    let mut token = sampler.sample(&context, batch.n_tokens() - 1);
    let first = began.elapsed().as_secs_f64();
    for written in 1..RESPONSE_TOKENS {
        assert!(
            !model.vocab().is_eog(token),
            "the response ended before the token limit"
        );
        batch.clear();
        batch
            .add(token, tokens.len() as i32 + written as i32 - 1, &[0], true)
            .unwrap();
        context.decode(&mut batch).unwrap();
        token = sampler.sample(&context, 0);
    }
    let all = began.elapsed().as_secs_f64();
    TokenRates {
        prompt_tokens_per_second: tokens.len() as f64 / first,
        response_tokens_per_second: f64::from(RESPONSE_TOKENS - 1) / (all - first),
    }
}

fn open_provider(file: &Path, concurrency: u32, threads: u32) -> LocalProvider {
    LocalProvider::inspect_file_and_start(LocalConfig {
        model_file: file.into(),
        model_name: String::new(),
        context_tokens: CONTEXT_TOKENS,
        max_concurrency: concurrency,
        threads,
        temperature: 0.0,
    })
    .unwrap()
}

fn small_model_file() -> PathBuf {
    let data = std::env::var_os("XDG_DATA_HOME").map(PathBuf::from);
    let share = data.unwrap_or_else(|| std::env::home_dir().unwrap().join(".local/share"));
    let assets =
        std::env::var_os("WEIR_PATHS_ASSETS").map_or_else(|| share.join("weir/assets"), PathBuf::from);
    assets.join("models/smollm2/SmolLM2-135M-Instruct.Q4_1.gguf")
}

/// Measures one side after a warm-up, in a process of its own.
#[tokio::main]
async fn run_measurement(who: &str, chars: usize, threads: u32, file: &Path) {
    let speed = if who == "provider" {
        let local = open_provider(file, 1, threads);
        time_call_seconds(&local, SHORT_PROMPT_CHARS, 1).await;
        // Loads only the vocabulary, which is fast.
        let params = LlamaModelParams::default().with_vocab_only(true);
        let model = LlamaModel::load_from_file(&LlamaBackend {}, file, &params).unwrap();
        measure_provider(&local, chars, tokenize_prompt(&model, chars).len()).await
    } else {
        let backend = LlamaBackend::init().unwrap();
        let model = LlamaModel::load_from_file(&backend, file, &LlamaModelParams::default()).unwrap();
        measure_bare_llama(&backend, &model, SHORT_PROMPT_CHARS, threads as i32);
        measure_bare_llama(&backend, &model, chars, threads as i32)
    };
    println!(
        "{} {}",
        speed.prompt_tokens_per_second, speed.response_tokens_per_second
    );
}

/// Measures concurrent requests in a process of its own.
#[tokio::main]
async fn run_concurrent_calls(threads: u32, file: &Path) {
    for at_once in [1, 2, 4, 8] {
        let local = open_provider(file, at_once, threads);
        time_call_seconds(&local, LONG_PROMPT_CHARS, 1).await;
        let began = Instant::now();
        join_all((0..at_once).map(|_| time_call_seconds(&local, LONG_PROMPT_CHARS, RESPONSE_TOKENS))).await;
        let took = began.elapsed().as_secs_f64();
        println!(
            "{at_once} at once: {took:5.1} s, {:5.2} responses in ten seconds",
            10.0 * f64::from(at_once) / took
        );
    }
}

fn run_self(words: &[String], with: &[(&str, &str)]) -> String {
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

fn measure_in_child(who: &str, chars: usize, threads: u32, file: &Path) -> TokenRates {
    let with = if who == "provider" {
        weir_llm::LOCAL_MODEL_ENVIRONMENT
    } else {
        &[]
    };
    let file = file.to_str().unwrap();
    let words = ["measure", who, &chars.to_string(), &threads.to_string(), file].map(String::from);
    let said = run_self(&words, with);
    let (prompt, answer) = said.trim().split_once(' ').unwrap();
    TokenRates {
        prompt_tokens_per_second: prompt.parse().unwrap(),
        response_tokens_per_second: answer.parse().unwrap(),
    }
}

fn compare_speeds(what: &str, chars: usize, rounds: usize, threads: u32, file: &Path) {
    let speed = |who| measure_in_child(who, chars, threads, file);
    let (mut ours, mut theirs) = (Vec::new(), Vec::new());
    for round in 0..rounds {
        // The sides alternate in order from round to round.
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
            own.prompt_tokens_per_second,
            own.response_tokens_per_second,
            bare.prompt_tokens_per_second,
            bare.response_tokens_per_second
        );
    }
    for (side, of) in [
        (
            "prompt",
            (|speed: &TokenRates| speed.prompt_tokens_per_second) as fn(&TokenRates) -> f64,
        ),
        ("response", |speed: &TokenRates| speed.response_tokens_per_second),
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

/// Keeps a number of cores busy until it is dropped.
struct BusyCores(Arc<AtomicBool>);

impl BusyCores {
    fn occupy(count: usize) -> Self {
        let over = Arc::new(AtomicBool::new(false));
        for _ in 0..count {
            let over = Arc::clone(&over);
            std::thread::spawn(move || while !over.load(Ordering::Relaxed) {});
        }
        Self(over)
    }
}

impl Drop for BusyCores {
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
            return run_measurement(
                who,
                chars.parse().unwrap(),
                threads.parse().unwrap(),
                Path::new(file),
            );
        }
        ["together", threads, file] => {
            return run_concurrent_calls(threads.parse().unwrap(), Path::new(file));
        }
        _ => {}
    }
    let number =
        |word: Option<&&str>, usual: usize| word.map_or(usual, |word| word.parse().expect("a number"));
    let rounds = number(words.first(), 5);
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let threads = number(words.get(1), cores) as u32;
    let file = words.get(2).map_or_else(small_model_file, PathBuf::from);
    println!(
        "{}: {RESPONSE_TOKENS} response tokens, {threads} threads, {rounds} rounds",
        file.display()
    );
    compare_speeds("short", SHORT_PROMPT_CHARS, rounds, threads, &file);
    compare_speeds("long", LONG_PROMPT_CHARS, rounds, threads, &file);
    let words = ["together", &threads.to_string(), file.to_str().unwrap()].map(String::from);
    print!("{}", run_self(&words, weir_llm::LOCAL_MODEL_ENVIRONMENT));
    let taken = BusyCores::occupy(cores);
    compare_speeds(
        "busy cores",
        SHORT_PROMPT_CHARS,
        rounds.div_ceil(2),
        threads,
        &file,
    );
    drop(taken);
}
