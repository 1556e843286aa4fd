//! The configuration of a local model.

use std::path::PathBuf;

/// The configuration of a local model.
#[derive(Debug, Clone, PartialEq)]
pub struct LocalConfig {
    /// The GGUF file.
    pub model_file: PathBuf,
    /// The name of the model; if empty, the name of the file.
    pub model_name: String,
    /// Maximum number of tokens of a request and its response together. The model's training context may lower it.
    pub context_tokens: u32,
    /// Maximum number of requests that are decoded together, 1 to 64. Each reserves memory for `context_tokens`
    /// tokens from the first request on.
    pub max_concurrency: u32,
    /// Number of threads; 0 means one per core.
    pub threads: u32,
    /// Sampling temperature; with 0 or less, the most likely token is always chosen.
    pub temperature: f32,
}
