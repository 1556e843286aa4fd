//! The provider `local`, with a real model: what it answers, where it stops, what it refuses and what it leaves behind.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing
)]

mod files;
mod model;

use std::path::PathBuf;
use std::time::Duration;

use weir_core::Lane;
use weir_core::TenantId;
use weir_core::language::{Question, QuestionKind};
use weir_core::ports::Account;
use weir_llm::{Local, LocalConfig};

/// The small model of the set-up.
pub(crate) fn small() -> PathBuf {
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

pub(crate) fn config() -> LocalConfig {
    LocalConfig {
        file: small(),
        model: String::new(),
        context: 1024,
        concurrency: 2,
        threads: 2,
        temperature: 0.0,
    }
}

pub(crate) fn local() -> Local {
    Local::open(config()).unwrap()
}

pub(crate) fn question(prompt: &str, max_tokens: u32) -> Question {
    Question {
        account: Account {
            tenant: TenantId::single(),
            lane: Lane::Interactive,
            linger: Duration::ZERO,
            weight: 1.0,
        },
        kind: QuestionKind::Component,
        system: None,
        prompt: prompt.into(),
        text: String::new(),
        image: None,
        max_tokens,
        patience: Duration::from_secs(60),
        document: None,
    }
}
