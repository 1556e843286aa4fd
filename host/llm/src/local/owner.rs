//! The thread that has the model.
//!
//! A thread and not a task: a step computes for as long as a second, and llama.cpp's context belongs to who decodes with it.

use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use llama_cpp_2::model::LlamaModel;
use tokio::sync::mpsc;
use weir_core::language::Fault;

use super::asked::Asked;
use super::decoder::Decoder;
use super::{LocalConfig, weights};

/// The thread's life: until its provider has ended. A model that cannot be loaded fails the question and is tried again with the next:
/// memory comes back, files are replaced.
pub(super) fn run(config: &LocalConfig, mut questions: mpsc::Receiver<Asked>, ending: &Arc<AtomicBool>) {
    while let Some(first) = questions.blocking_recv() {
        if first.answer.is_closed() {
            continue;
        }
        match weights::load(&config.file, ending) {
            Ok(model) => serve(&model, config, first, &mut questions),
            Err(reason) => first.fail(unusable(config, &reason)),
        }
    }
}

/// Tenants read the error, so it has the file's name and the log its path.
fn unusable(config: &LocalConfig, reason: &str) -> Fault {
    let path = config.file.display().to_string();
    tracing::warn!(path, reason, "a model cannot be used");
    let name = config.file.file_name().unwrap_or_default().display().to_string();
    Fault::Failed(reason.replace(&path, &name))
}

/// Answers until nobody can ask any more, or at once if the model cannot be used.
fn serve(model: &LlamaModel, config: &LocalConfig, first: Asked, questions: &mut mpsc::Receiver<Asked>) {
    let mut decoder = match Decoder::new(model, config) {
        Ok(decoder) => decoder,
        Err(reason) => return first.fail(unusable(config, &reason)),
    };
    decoder.seat(first);
    loop {
        while decoder.has_room() {
            let idle = decoder.is_idle();
            let next = if idle {
                questions.blocking_recv()
            } else {
                questions.try_recv().ok()
            };
            match next {
                Some(asked) => decoder.seat(asked),
                None if idle => return,
                None => break,
            }
        }
        decoder.step();
    }
}
