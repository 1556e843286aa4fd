//! Pools and files for the tests and the benchmark.

#![allow(dead_code)]

use std::collections::HashSet;
use std::path::PathBuf;
use std::sync::Arc;

use tempfile::TempDir;
use weir_core::error::RasterError;
use weir_core::page::{PixelFormat, RawPageImage};
use weir_core::ports::{OpenedPdf, PdfFileToOpen, RasterizeOptions, Rasterizer};
use weir_core::settings::Settings;
use weir_raster::{RasterConfig, RasterPool};

/// Pixels and a JPEG, at 150 dpi.
pub(crate) const PIXELS_AND_JPEG: RasterizeOptions = RasterizeOptions {
    dpi: 150,
    want_pixels: true,
    want_encoded: true,
};

/// Pixels only, at 72 dpi.
pub(crate) const PIXELS_AT_72_DPI: RasterizeOptions = RasterizeOptions {
    dpi: 72,
    want_pixels: true,
    want_encoded: false,
};

fn assets_folder() -> PathBuf {
    if let Some(set) = std::env::var_os("WEIR_PATHS_ASSETS") {
        return set.into();
    }
    let data = std::env::var_os("XDG_DATA_HOME").map(PathBuf::from);
    let data = data.or_else(|| Some(PathBuf::from(std::env::var_os("HOME")?).join(".local/share")));
    data.expect("neither XDG_DATA_HOME nor HOME is set")
        .join("weir/assets")
}

/// The default settings with two workers.
pub(crate) fn test_config() -> RasterConfig {
    let pdfium = assets_folder().join("lib/libpdfium.so");
    assert!(
        pdfium.is_file(),
        "PDFium is missing at {}: run 'make setup'",
        pdfium.display()
    );
    let worker = vec![env!("CARGO_BIN_EXE_weir-raster-worker").into()];
    RasterConfig {
        workers: 2,
        ..RasterConfig::from_settings(&Settings::default(), worker, pdfium)
    }
}

/// A temporary folder for documents.
pub(crate) struct TempFiles(TempDir);

impl TempFiles {
    pub(crate) fn new() -> Self {
        Self(TempDir::new().unwrap())
    }

    /// Writes a file with these bytes.
    pub(crate) fn write_source(&self, name: &str, bytes: &[u8]) -> PdfFileToOpen {
        let path = self.0.path().join(name);
        std::fs::write(&path, bytes).unwrap();
        PdfFileToOpen {
            path,
            password: None,
            flow_id: 0,
        }
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }
}

/// Opens a document in a new pool.
pub(crate) async fn open_in_new_pool(config: RasterConfig, pdf: &[u8]) -> (RasterPool, Arc<dyn OpenedPdf>) {
    let pool = RasterPool::new(config).unwrap();
    let files = TempFiles::new();
    let document = pool
        .open_document(&files.write_source("document.pdf", pdf))
        .await
        .unwrap();
    (pool, document)
}

/// Returns the error of opening these bytes in a new pool.
pub(crate) async fn open_error(config: RasterConfig, pdf: &[u8], password: Option<&str>) -> RasterError {
    let pool = RasterPool::new(config).unwrap();
    let files = TempFiles::new();
    let source = PdfFileToOpen {
        password: password.map(str::to_owned),
        ..files.write_source("document.pdf", pdf)
    };
    pool.open_document(&source)
        .await
        .err()
        .expect("the document was opened")
}

/// Returns blue, green and red of the pixel at a position given in shares of the page.
pub(crate) fn pixel_at(image: &RawPageImage, x: f32, y: f32) -> [u8; 3] {
    let (column, row) = (
        (x * image.width as f32) as usize,
        (y * image.height as f32) as u32,
    );
    let row = image.row_pixels(row).unwrap();
    match image.format {
        PixelFormat::Gray => [row[column]; 3],
        PixelFormat::Bgr => row[column * 3..column * 3 + 3].try_into().unwrap(),
    }
}

/// Returns the process ids of this process's children, including zombies.
pub(crate) fn child_pids() -> HashSet<u32> {
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

/// Returns the number of descriptors that this process has open.
pub(crate) fn open_descriptor_count() -> usize {
    std::fs::read_dir("/proc/self/fd").unwrap().count()
}
