//! Any GGUF model in this process, by llama.cpp.
//!
//! One thread owns the model (`owner`): it waits for questions, decodes all that are under way together, a token of each in every
//! step (`decoder`), and ends with its provider, which waits for it. Decoding together lets a short question pass a long one at no cost.
//! It is hardly quicker in all: on two cores with a small model 1, 2, 4 and 8 at once answer 3.2, 3.4, 3.4 and 4.0 questions in ten
//! seconds, for a processor is busy computing where a GPU would wait for the weights.
//!
//! Dropping a question's future is all it takes to stop its answer: the owner sees before each step that nobody listens, and a
//! step is kept short (`chunk`). The same way a deadline ends it.
//!
//! The file is looked at when the provider is set up, so that a wrong path or a download that broke off is said at once; its weights
//! are read with the first question, because most commands that set up a provider never ask it anything.

mod asked;
mod chunk;
mod decoder;
mod ending;
mod owner;
mod turns;
mod weights;
mod words;

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;

use async_trait::async_trait;
use tokio::sync::{mpsc, oneshot};
use weir_core::language::{Fault, Question};

use crate::provider::{Provider, Reply};
use asked::Asked;

/// Questions that are decoded together, at most: a step has to leave room to read in.
const MOST_AT_ONCE: u32 = 64;

/// Parameters below which a model is called small. One of 135 million, asked to summarize the samples, copied openings, did not keep to
/// the number of sentences, and stated what the text does not.
const SMALL: u64 = 1_000_000_000;

/// What a process that has a local model should be started with, where its environment does not say otherwise: how often a thread
/// looks whether the others are done with their part of a step, before it sleeps.
///
/// OpenMP reads this before `main` and at no other time. Left alone it looks for milliseconds: that is best on a quiet machine, but
/// where all cores are taken it keeps the thread it waits for from running, and an answer comes at a fifth of the speed. Sleeping at
/// once halves the speed on a quiet machine. With this many looks both are as good as the better of the two (`--bench local`).
pub const ENVIRONMENT: &[(&str, &str)] = &[("GOMP_SPINCOUNT", "2000")];

/// A model of one's own.
#[derive(Debug, Clone, PartialEq)]
pub struct LocalConfig {
    /// The GGUF file.
    pub file: PathBuf,
    /// The model's name; empty: the file's.
    pub model: String,
    /// Tokens of a question and its answer together, at most; less where the model was trained for less.
    pub context: u32,
    /// Questions decoded together, 1 to 64. Each holds memory for `context` tokens from the first question on.
    pub concurrency: u32,
    /// Threads it computes with; 0: one for each core.
    pub threads: u32,
    /// How freely it chooses its words; 0 or below: always the likeliest.
    pub temperature: f32,
}

/// Asks a model in this process.
pub struct Local {
    model: String,
    parameters: u64,
    /// Gone when the provider ends.
    questions: Option<mpsc::Sender<Asked>>,
    ending: Arc<AtomicBool>,
    owner: Option<JoinHandle<()>>,
}

impl Local {
    /// Looks at the file, and reads its weights with the first question. The error says what is wrong with it.
    pub fn open(config: LocalConfig) -> Result<Self, String> {
        if config.concurrency > MOST_AT_ONCE {
            return Err(format!(
                "it decodes at most {MOST_AT_ONCE} questions at once: lower its concurrency"
            ));
        }
        let parameters = weights::inspect(&config.file)?;
        Self::begin(config, parameters)
    }

    fn begin(config: LocalConfig, parameters: u64) -> Result<Self, String> {
        let stem = config.file.file_stem().map(|stem| stem.to_string_lossy());
        let model = match config.model.as_str() {
            "" => stem.unwrap_or_default().into_owned(),
            name => name.to_owned(),
        };
        let (questions, asked) = mpsc::channel(1);
        let ending = Arc::new(AtomicBool::new(false));
        let told = Arc::clone(&ending);
        let owner = std::thread::Builder::new()
            .name("language-model".into())
            .spawn(move || owner::run(&config, asked, &told))
            .map_err(|error| format!("no thread for it: {error}"))?;
        Ok(Self {
            model,
            parameters,
            questions: Some(questions),
            ending,
            owner: Some(owner),
        })
    }
}

#[async_trait]
impl Provider for Local {
    fn model(&self) -> &str {
        &self.model
    }

    fn sees(&self) -> bool {
        false
    }

    fn remark(&self) -> Option<String> {
        let millions = self.parameters / 1_000_000;
        let said = if self.parameters < SMALL {
            ": a small model shows that everything works, but its summaries copy openings and state what the text does not; for \
             summaries that are read, use a larger one or kind = \"extractive\""
        } else {
            ""
        };
        Some(format!("{millions} million parameters, in this process{said}"))
    }

    async fn ask(&self, question: &Question) -> Result<Reply, Fault> {
        let ended = || Fault::Failed("its thread has ended; the log says why".into());
        let (answer, heard) = oneshot::channel();
        let asked = Asked {
            kind: question.kind,
            system: question.system.clone(),
            prompt: question.rendered(),
            max_tokens: question.max_tokens,
            answer,
        };
        let questions = self.questions.as_ref().ok_or_else(ended)?;
        questions.send(asked).await.map_err(|_| ended())?;
        heard.await.map_err(|_| ended())?
    }
}

impl Drop for Local {
    /// Waits for the step that is under way: a thread that went on would use memory that nobody accounts for.
    fn drop(&mut self) {
        self.ending.store(true, Ordering::Relaxed);
        self.questions = None;
        if let Some(owner) = self.owner.take() {
            // Whoever panicked there has said so.
            let _ = owner.join();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use weir_core::language::QuestionKind;
    use weir_core::ports::Account;
    use weir_core::{Lane, TenantId};

    use super::*;

    fn question() -> Question {
        Question {
            account: Account {
                tenant: TenantId::single(),
                lane: Lane::Bulk,
                linger: Duration::ZERO,
                weight: 1.0,
            },
            kind: QuestionKind::Map,
            system: None,
            prompt: "Well?".into(),
            text: String::new(),
            image: None,
            max_tokens: 8,
            patience: Duration::from_secs(1),
            document: None,
        }
    }

    #[tokio::test]
    async fn a_file_that_went_away_fails_each_question_and_the_thread_ends_with_its_provider() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("gone.gguf");
        std::fs::write(&file, b"GGUF").unwrap();
        let config = LocalConfig {
            file,
            model: "gone".into(),
            context: 512,
            concurrency: 1,
            threads: 1,
            temperature: 0.0,
        };
        let local = Local::begin(config, 1).unwrap();
        for _ in 0..2 {
            let fault = local.ask(&question()).await.unwrap_err();
            assert_eq!(fault.kind(), "failed");
            assert!(fault.to_string().contains("gone.gguf cannot be used"), "{fault}");
        }
        let held = Arc::downgrade(&local.ending);
        drop(local);
        assert!(held.upgrade().is_none(), "the thread still holds it");
    }
}
