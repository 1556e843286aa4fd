//! Helpers of the benchmarks: built components, and capabilities that are always unavailable.

use std::path::{Path, PathBuf};

use async_trait::async_trait;
use sha2::{Digest as _, Sha256};
use weir_core::component_log::ComponentLogRecord;
use weir_core::event::ErrorInfo;
use weir_core::manifest::ResolvedComponentFile;
use weir_core::ports::HostCapabilities;
use weir_core::{DocumentId, PageNumber, PolicyError, Rect};

/// Capabilities and state that fail in every call; the benchmarks do not use them.
pub(crate) struct UnavailableCapabilities;

fn unavailable_error<T>() -> Result<T, ErrorInfo> {
    Err(ErrorInfo {
        kind: "unavailable".into(),
        message: "not available in a benchmark".into(),
    })
}

#[async_trait]
impl HostCapabilities for UnavailableCapabilities {
    async fn render_preview(
        &self,
        _: &DocumentId,
        _: PageNumber,
        _: u32,
    ) -> Result<(u32, u32, Vec<u8>), ErrorInfo> {
        unavailable_error()
    }
    async fn read_page_text_layer(&self, _: &DocumentId, _: PageNumber) -> Result<String, ErrorInfo> {
        unavailable_error()
    }
    async fn count_embedding_tokens(&self, _: &str) -> Result<u32, ErrorInfo> {
        unavailable_error()
    }
    async fn embed_texts(&self, _: Vec<String>) -> Result<Vec<Vec<f32>>, ErrorInfo> {
        unavailable_error()
    }
    async fn recognize_region(&self, _: &DocumentId, _: PageNumber, _: Rect) -> Result<String, ErrorInfo> {
        unavailable_error()
    }
    async fn generate_text(&self, _: &str, _: u32) -> Result<String, ErrorInfo> {
        unavailable_error()
    }
    fn report_policy_fallback(&self, _: &PolicyError) {}
    fn append_component_log(&self, _: ComponentLogRecord) {}
}

/// Returns the folder of built components.
pub(crate) fn components_folder() -> PathBuf {
    std::env::var_os("WEIR_PATHS_DEFAULT_COMPONENTS").map_or_else(
        || Path::new(env!("CARGO_MANIFEST_DIR")).join("../../target/components"),
        PathBuf::from,
    )
}

/// Reads a built component.
pub(crate) fn component_file(path: PathBuf) -> ResolvedComponentFile {
    let bytes = std::fs::read(&path)
        .unwrap_or_else(|_| panic!("{} is missing: run components/build", path.display()));
    ResolvedComponentFile {
        name: path.file_stem().unwrap().to_string_lossy().into_owned(),
        digest: Sha256::digest(bytes).into(),
        file: path.into(),
    }
}

/// Returns the proportional set size of this process in KiB.
pub(crate) fn read_pss_kib() -> u64 {
    std::fs::read_to_string("/proc/self/smaps_rollup")
        .unwrap()
        .lines()
        .find_map(|line| {
            line.strip_prefix("Pss:")?
                .trim()
                .strip_suffix(" kB")?
                .trim()
                .parse()
                .ok()
        })
        .unwrap()
}
