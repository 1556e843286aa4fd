//! Pools and files for the tests.

#![allow(dead_code)]

use std::collections::HashSet;
use std::path::PathBuf;
use std::sync::Arc;

use tempfile::TempDir;
use weir_core::error::RasterError;
use weir_core::page::{PageImage, PixelFormat};
use weir_core::ports::{Drawing, OpenDocument, Rasterizer, Source};
use weir_core::settings::Settings;
use weir_raster::{RasterConfig, RasterPool};

/// Both, at 150 dpi.
pub(crate) const BOTH: Drawing = Drawing {
    dpi: 150,
    pixels: true,
    encoded: true,
};

/// Pixels only, coarse.
pub(crate) const COARSE: Drawing = Drawing {
    dpi: 72,
    pixels: true,
    encoded: false,
};

fn assets() -> PathBuf {
    if let Some(set) = std::env::var_os("WEIR_PATHS_ASSETS") {
        return set.into();
    }
    let data = std::env::var_os("XDG_DATA_HOME").map(PathBuf::from);
    let data = data.or_else(|| Some(PathBuf::from(std::env::var_os("HOME")?).join(".local/share")));
    data.expect("neither XDG_DATA_HOME nor HOME is set")
        .join("weir/assets")
}

/// The settings' defaults with two workers.
pub(crate) fn config() -> RasterConfig {
    let pdfium = assets().join("lib/libpdfium.so");
    assert!(
        pdfium.is_file(),
        "PDFium is missing at {}: run 'make setup'",
        pdfium.display()
    );
    let worker = vec![env!("CARGO_BIN_EXE_weir-raster-worker").into()];
    RasterConfig {
        workers: 2,
        ..RasterConfig::new(&Settings::default(), worker, pdfium)
    }
}

/// A folder for documents.
pub(crate) struct Files(TempDir);

impl Files {
    pub(crate) fn new() -> Self {
        Self(TempDir::new().unwrap())
    }

    /// A file of these bytes.
    pub(crate) fn source(&self, name: &str, bytes: &[u8]) -> Source {
        let path = self.0.path().join(name);
        std::fs::write(&path, bytes).unwrap();
        Source {
            path,
            password: None,
            party: 0,
        }
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }
}

/// A pool and a document open in it.
pub(crate) async fn opened(config: RasterConfig, pdf: &[u8]) -> (RasterPool, Arc<dyn OpenDocument>) {
    let pool = RasterPool::new(config).unwrap();
    let files = Files::new();
    let document = pool.open(&files.source("document.pdf", pdf)).await.unwrap();
    (pool, document)
}

/// The error of opening these bytes.
pub(crate) async fn refused(config: RasterConfig, pdf: &[u8], password: Option<&str>) -> RasterError {
    let pool = RasterPool::new(config).unwrap();
    let files = Files::new();
    let source = Source {
        password: password.map(str::to_owned),
        ..files.source("document.pdf", pdf)
    };
    pool.open(&source).await.err().expect("it was opened")
}

/// The blue, green and red of a pixel at a place given in shares of the page.
pub(crate) fn colour(image: &PageImage, x: f32, y: f32) -> [u8; 3] {
    let (column, row) = (
        (x * image.width as f32) as usize,
        (y * image.height as f32) as u32,
    );
    let row = image.row(row).unwrap();
    match image.format {
        PixelFormat::Gray => [row[column]; 3],
        PixelFormat::Bgr => row[column * 3..column * 3 + 3].try_into().unwrap(),
    }
}

/// Process ids of this process's children, zombies included.
pub(crate) fn children() -> HashSet<u32> {
    let own = std::process::id();
    let processes = std::fs::read_dir("/proc").unwrap().flatten();
    processes
        .filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok())
        .filter(|pid| {
            let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
            let after = stat.rsplit(')').next().unwrap_or_default();
            after.split_whitespace().nth(1) == Some(&own.to_string())
        })
        .collect()
}

/// Descriptors this process has open.
pub(crate) fn descriptors() -> usize {
    std::fs::read_dir("/proc/self/fd").unwrap().count()
}
