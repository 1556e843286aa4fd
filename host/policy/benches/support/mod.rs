//! What the benchmarks of components share: built components, and a host that has nothing to give.

use std::path::{Path, PathBuf};

use async_trait::async_trait;
use sha2::{Digest as _, Sha256};
use weir_core::event::ErrorNote;
use weir_core::manifest::ComponentFile;
use weir_core::ports::{Capabilities, PolicyState};
use weir_core::said::Remark;
use weir_core::state::{StateChange, StateSizes};
use weir_core::{DocumentId, PageNumber, PolicyError, Rect, TenantId};

/// Nobody asks for anything here.
pub(crate) struct Nothing;

fn none<T>() -> Result<T, ErrorNote> {
    Err(ErrorNote {
        kind: "unavailable".into(),
        message: "not in a benchmark".into(),
    })
}

#[async_trait]
impl Capabilities for Nothing {
    async fn preview(&self, _: &DocumentId, _: PageNumber, _: u32) -> Result<(u32, u32, Vec<u8>), ErrorNote> {
        none()
    }
    async fn page_text(&self, _: &DocumentId, _: PageNumber) -> Result<String, ErrorNote> {
        none()
    }
    async fn count_tokens(&self, _: &str) -> Result<u32, ErrorNote> {
        none()
    }
    async fn embed(&self, _: Vec<String>) -> Result<Vec<Vec<f32>>, ErrorNote> {
        none()
    }
    async fn recognize(&self, _: &DocumentId, _: PageNumber, _: Rect) -> Result<String, ErrorNote> {
        none()
    }
    async fn generate(&self, _: &str, _: u32) -> Result<String, ErrorNote> {
        none()
    }
    fn policy_failed(&self, _: &PolicyError) {}
    fn said(&self, _: Remark) {}
}

#[async_trait]
impl PolicyState for Nothing {
    async fn get(&self, _: &TenantId, _: &str, _: &str) -> Result<Option<Vec<u8>>, ErrorNote> {
        none()
    }
    async fn sizes(&self, _: &TenantId, _: &str) -> Result<StateSizes, ErrorNote> {
        none()
    }
    async fn apply(&self, _: &TenantId, _: &str, _: Vec<StateChange>) -> Result<(), ErrorNote> {
        none()
    }
}

/// The folder of built components.
pub(crate) fn built() -> PathBuf {
    std::env::var_os("WEIR_PATHS_COMPONENTS").map_or_else(
        || Path::new(env!("CARGO_MANIFEST_DIR")).join("../../target/components"),
        PathBuf::from,
    )
}

/// A built component.
pub(crate) fn component(path: PathBuf) -> ComponentFile {
    let bytes = std::fs::read(&path)
        .unwrap_or_else(|_| panic!("{} is missing: run components/build", path.display()));
    ComponentFile {
        name: path.file_stem().unwrap().to_string_lossy().into_owned(),
        digest: Sha256::digest(bytes).into(),
        path,
    }
}
