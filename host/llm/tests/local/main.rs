//! The provider `local` with a real model: its responses, token limits, errors and clean-up.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing
)]

mod local_model;
mod model_files;

use std::path::PathBuf;
use std::time::Duration;

use weir_core::PriorityLane;
use weir_core::TenantId;
use weir_core::llm::{LlmRequest, LlmRequestKind};
use weir_core::ports::SchedulingContext;
use weir_llm::{LocalConfig, LocalProvider};

/// The small model that the setup downloads.
pub(crate) fn small_model_file() -> PathBuf {
    let assets = std::env::var_os("WEIR_PATHS_ASSETS").map_or_else(
        || {
            let data = std::env::var_os("XDG_DATA_HOME").map(PathBuf::from);
            let home = std::env::home_dir().unwrap();
            data.unwrap_or_else(|| home.join(".local/share"))
                .join("weir/assets")
        },
        PathBuf::from,
    );
    let file = assets.join("models/smollm2/SmolLM2-135M-Instruct.Q4_1.gguf");
    assert!(
        file.is_file(),
        "{} is missing: run `deploy/setup local`",
        file.display()
    );
    file
}

pub(crate) fn local_config() -> LocalConfig {
    LocalConfig {
        model_file: small_model_file(),
        model_name: String::new(),
        context_tokens: 1024,
        max_concurrency: 2,
        threads: 2,
        temperature: 0.0,
    }
}

pub(crate) fn open_local_provider() -> LocalProvider {
    LocalProvider::inspect_file_and_start(local_config()).unwrap()
}

pub(crate) fn build_request(prompt: &str, max_tokens: u32) -> LlmRequest {
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
        prompt: prompt.into(),
        text: String::new(),
        image: None,
        max_response_tokens: max_tokens,
        timeout: Duration::from_secs(60),
        document: None,
    }
}
