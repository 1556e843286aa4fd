//! A provider that runs a GGUF model in this process with llama.cpp.
//!
//! One thread owns the model (`model_thread`). It receives requests and decodes all of them together, one token of each per
//! step (`decoder`). It stops with its provider, which waits for it. Decoding together lets a short request overtake a long one
//! at no cost. It hardly increases the throughput: on two cores with a small model, 1, 2, 4 and 8 concurrent requests give 3.2,
//! 3.4, 3.4 and 4.0 responses in ten seconds, because a processor is limited by computation, where a GPU is limited by memory
//! bandwidth.
//!
//! Dropping the future of a request stops its response: the thread checks before each step whether the caller has gone, and
//! steps are short (`step_budget`). The timeout of a request works the same way.
//!
//! The file is inspected when the provider is set up, so that a wrong path or an incomplete download is reported at once. The
//! weights are loaded with the first request, because most commands that set up a provider never send one.

mod chat_template;
mod config;
mod decoder;
mod llama_log;
mod model_file;
mod model_thread;
mod step_prompt_token_budget;
mod truncated_output;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;

use async_trait::async_trait;
use tokio::sync::{mpsc, oneshot};
use weir_core::llm::{LlmRequest, ProviderError};

use crate::provider::{Provider, ProviderResponse};
use decoder::LocalRequest;

pub use config::LocalConfig;

/// Maximum number of requests that are decoded together; a step must leave tokens for prompts.
const MAX_CONCURRENCY: u32 = 64;

/// Models with fewer parameters count as small. A model with 135 million parameters was asked to summarize the samples. It
/// copied openings, ignored the number of sentences, and stated facts that the text does not contain.
const SMALL_MODEL_PARAMETERS: u64 = 1_000_000_000;

/// Environment variables for a process with a local model, unless its environment sets them already. The value is the number of
/// times that a thread checks whether the other threads have finished their part of a step, before it sleeps.
///
/// OpenMP reads the variable only before `main`. By default, a thread spins for milliseconds. That is best on an idle machine.
/// If all cores are busy, it keeps the thread that it waits for from running, and the speed drops to a fifth. Sleeping at once
/// halves the speed on an idle machine. With this value, the speed in both cases equals the better of the two (`--bench
/// local`).
pub const LOCAL_MODEL_ENVIRONMENT: &[(&str, &str)] = &[("GOMP_SPINCOUNT", "2000")];

/// A provider that runs a model in this process.
pub struct LocalProvider {
    model_name: String,
    parameter_count: u64,
    /// `None` once the provider stops.
    request_sender: Option<mpsc::Sender<LocalRequest>>,
    stopping: Arc<AtomicBool>,
    model_thread: Option<JoinHandle<()>>,
}

impl LocalProvider {
    /// Inspects the file; the weights are loaded with the first request. The error states the reason and the remedy.
    pub fn inspect_file_and_start(config: LocalConfig) -> Result<Self, String> {
        if config.max_concurrency > MAX_CONCURRENCY {
            return Err(format!(
                "the maximum is {MAX_CONCURRENCY} concurrent requests: lower its concurrency"
            ));
        }
        let parameters = model_file::check_model_and_count_parameters(&config.model_file)?;
        Self::start_model_thread(config, parameters)
    }

    fn start_model_thread(config: LocalConfig, parameters: u64) -> Result<Self, String> {
        let stem = config.model_file.file_stem().map(|stem| stem.to_string_lossy());
        let model = match config.model_name.as_str() {
            "" => stem.unwrap_or_default().into_owned(),
            name => name.to_owned(),
        };
        let (request_sender, request_receiver) = mpsc::channel(1);
        let stopping = Arc::new(AtomicBool::new(false));
        let thread_stopping = Arc::clone(&stopping);
        let thread = std::thread::Builder::new()
            .name("language-model".into())
            .spawn(move || model_thread::run_model_thread(&config, request_receiver, &thread_stopping))
            .map_err(|error| format!("cannot start its thread: {error}"))?;
        Ok(Self {
            model_name: model,
            parameter_count: parameters,
            request_sender: Some(request_sender),
            stopping,
            model_thread: Some(thread),
        })
    }
}

#[async_trait]
impl Provider for LocalProvider {
    fn model_name(&self) -> &str {
        &self.model_name
    }

    fn supports_images(&self) -> bool {
        false
    }

    fn note_for_operator(&self) -> Option<String> {
        let millions = self.parameter_count / 1_000_000;
        let size_note = if self.parameter_count < SMALL_MODEL_PARAMETERS {
            ": a small model shows that everything works, but its summaries copy openings and state facts that the text does not \
             contain; for useful summaries, use a larger one or kind = \"extractive\""
        } else {
            ""
        };
        Some(format!(
            "{millions} million parameters, in this process{size_note}"
        ))
    }

    async fn call_model(&self, request: &LlmRequest) -> Result<ProviderResponse, ProviderError> {
        let ended =
            || ProviderError::LocalFailure("the model thread has stopped; see the log for the reason".into());
        let (response_sender, response_receiver) = oneshot::channel();
        let local_request = LocalRequest {
            kind: request.kind,
            system: request.system_prompt.clone(),
            prompt: request.render_prompt(),
            max_tokens: request.max_response_tokens,
            response_sender,
        };
        let request_sender = self.request_sender.as_ref().ok_or_else(ended)?;
        request_sender.send(local_request).await.map_err(|_| ended())?;
        response_receiver.await.map_err(|_| ended())?
    }
}

impl Drop for LocalProvider {
    /// Waits for the step in progress, because a thread that continued would use memory that is not accounted for.
    fn drop(&mut self) {
        self.stopping.store(true, Ordering::Relaxed);
        self.request_sender = None;
        if let Some(thread) = self.model_thread.take() {
            // A panic of the thread is in the log already.
            let _ = thread.join();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use weir_core::llm::LlmRequestKind;
    use weir_core::ports::SchedulingContext;
    use weir_core::{PriorityLane, TenantId};

    use super::*;

    fn build_request() -> LlmRequest {
        LlmRequest {
            scheduling: SchedulingContext {
                tenant: TenantId::default_tenant(),
                lane: PriorityLane::Bulk,
                group: 0,
                batch_linger: Duration::ZERO,
                tenant_weight: 1.0,
            },
            kind: LlmRequestKind::Map,
            system_prompt: None,
            prompt: "Well?".into(),
            text: String::new(),
            image: None,
            max_response_tokens: 8,
            timeout: Duration::from_secs(1),
            document: None,
        }
    }

    #[tokio::test]
    async fn missing_file_fails_requests_and_the_model_thread_stops() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("gone.gguf");
        std::fs::write(&file, b"GGUF").unwrap();
        let config = LocalConfig {
            model_file: file,
            model_name: "gone".into(),
            context_tokens: 512,
            max_concurrency: 1,
            threads: 1,
            temperature: 0.0,
        };
        let local = LocalProvider::start_model_thread(config, 1).unwrap();
        for _ in 0..2 {
            let fault = local.call_model(&build_request()).await.unwrap_err();
            assert_eq!(fault.kind(), "local-failure");
            assert!(
                fault.to_string().contains("cannot load its file gone.gguf"),
                "{fault}"
            );
        }
        let held = Arc::downgrade(&local.stopping);
        drop(local);
        assert!(held.upgrade().is_none(), "the thread still holds it");
    }
}
