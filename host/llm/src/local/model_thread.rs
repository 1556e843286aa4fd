//! The thread that owns the model.
//!
//! It is a thread and not a task, because a step computes for up to a second, and llama.cpp's context must stay on the thread
//! that decodes with it.

use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use llama_cpp_2::model::LlamaModel;
use tokio::sync::mpsc;
use weir_core::llm::ProviderError;

use super::config::LocalConfig;
use super::decoder::{BatchDecoder, LocalRequest};
use super::model_file;

/// Loads the model with the first request and serves requests until the provider stops. If the model cannot be loaded, the
/// request fails and the next request tries again, because memory may be freed and the file may be replaced.
pub(super) fn run_model_thread(
    config: &LocalConfig,
    mut requests: mpsc::Receiver<LocalRequest>,
    stopping: &Arc<AtomicBool>,
) {
    while let Some(first) = requests.blocking_recv() {
        if first.response_sender.is_closed() {
            continue;
        }
        match model_file::load_model_weights(&config.model_file, stopping) {
            Ok(model) => serve_requests(&model, config, first, &mut requests),
            Err(reason) => first.send_error(log_and_build_model_error(config, &reason)),
        }
    }
}

/// Tenants see the error, so it contains only the name of the file; the log contains the path.
fn log_and_build_model_error(config: &LocalConfig, reason: &str) -> ProviderError {
    let path = config.model_file.display().to_string();
    tracing::warn!(path, reason, "cannot use a local language model");
    let name = config
        .model_file
        .file_name()
        .unwrap_or_default()
        .display()
        .to_string();
    ProviderError::LocalFailure(reason.replace(&path, &name))
}

/// Serves requests until the provider stops. If the model cannot be used, fails the first request and returns.
fn serve_requests(
    model: &LlamaModel,
    config: &LocalConfig,
    first: LocalRequest,
    requests: &mut mpsc::Receiver<LocalRequest>,
) {
    let mut decoder = match BatchDecoder::new(model, config) {
        Ok(decoder) => decoder,
        Err(reason) => return first.send_error(log_and_build_model_error(config, &reason)),
    };
    decoder.start_sequence(first);
    loop {
        while decoder.has_free_sequence() {
            let idle = decoder.is_idle();
            let next = if idle {
                requests.blocking_recv()
            } else {
                requests.try_recv().ok()
            };
            match next {
                Some(request) => decoder.start_sequence(request),
                None if idle => return,
                None => break,
            }
        }
        decoder.run_decoding_step();
    }
}
