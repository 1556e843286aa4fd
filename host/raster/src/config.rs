//! The configuration of the pool.

use std::ffi::OsString;
use std::path::PathBuf;

use weir_core::settings::{SandboxMode, Settings};

/// Configuration of the pool.
#[derive(Debug, Clone)]
pub struct RasterConfig {
    /// Program and arguments of a worker; the program must call [`crate::worker_main`].
    pub worker_command: Vec<OsString>,
    /// Path of the PDFium library.
    pub pdfium_path: PathBuf,
    /// Number of worker processes; 0: one for each core.
    pub workers: u32,
    /// Maximum bytes of all page images on the host.
    pub max_image_bytes: u64,
    /// Maximum bytes of one page image.
    pub max_page_image_bytes: u64,
    /// Timeout of a page, from its start in a worker.
    pub page_timeout_seconds: u32,
    /// Timeout of a page without progress.
    pub stall_timeout_seconds: u32,
    /// A worker is replaced after this many pages.
    pub max_pages_per_worker: u32,
    /// Maximum private memory of a worker, in bytes.
    pub max_worker_heap_bytes: u64,
    /// Maximum number of pages in a document.
    pub max_document_pages: u32,
    /// JPEG quality of encoded images, 1 to 100.
    pub jpeg_quality: u32,
    /// Whether a worker must have its full sandbox.
    pub sandbox_mode: SandboxMode,
}

impl RasterConfig {
    /// Reads the configuration from the host's settings.
    pub fn from_settings(settings: &Settings, worker_command: Vec<OsString>, pdfium: PathBuf) -> Self {
        Self {
            worker_command,
            pdfium_path: pdfium,
            workers: settings.raster_worker_processes,
            max_image_bytes: settings.raster_max_total_image_bytes,
            max_page_image_bytes: settings.raster_max_page_image_bytes,
            page_timeout_seconds: settings.raster_page_timeout_seconds,
            stall_timeout_seconds: settings.raster_stall_timeout_seconds,
            max_pages_per_worker: settings.raster_max_pages_per_worker,
            max_worker_heap_bytes: settings.raster_max_worker_memory_bytes,
            max_document_pages: settings.raster_max_document_pages,
            jpeg_quality: settings.raster_jpeg_quality,
            sandbox_mode: settings.raster_sandbox_mode,
        }
    }

    /// Returns the maximum bytes of one image.
    pub(crate) fn max_single_image_bytes(&self) -> u64 {
        self.max_page_image_bytes.min(self.max_image_bytes)
    }
}
