//! ONNX Runtime behind the ports [`OcrEngine`] and [`Embedder`]: OCR with the PP-OCRv6 models and text embedding with
//! all-MiniLM-L6-v2. All tenants and jobs of a host share the models fairly.
//!
//! | module | content |
//! |---|---|
//! | `onnx_runtime` | loads the library, chooses the device, opens sessions |
//! | `model_session` | a model's session, which the workers share on a CPU |
//! | `cpu_arena` | the memory allocator that all models on a CPU share |
//! | `scheduler` | forms batches from the requests of many callers, fairly by tenant; one thread for each worker |
//! | `embedding` | text to vector |
//! | `ocr` | page image to lines with boxes |
//!
//! [`InferenceHost::load_runtime`] loads the library and opens no model. The first request opens its model, unless
//! [`InferenceHost::open_models_in_background`] did.

mod cpu_arena;
mod embedding;
mod model_session;
mod ocr;
mod onnx_runtime;
mod scheduler;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use weir_core::InferenceError;
use weir_core::decision::ComputeDevice;
use weir_core::ports::{Embedder, OcrEngine};
use weir_core::settings::{DeviceChoice, Settings};
use weir_core::usage::UsageMeter;

use embedding::TextEmbedder;
use ocr::PpOcrEngine;
use onnx_runtime::{ExecutionProvider, OnnxRuntime};
use scheduler::{MaxUsefulBatchCost, SchedulerConfig};

/// Niceness of the threads that run OCR. OCR of a page takes about a second. A page with a text layer needs only a few
/// milliseconds and would spend more than that waiting for a core. If both want a core, a thread of niceness 5 gets 335 parts
/// of 1,359 (`sched_prio_to_weight` of Linux). Long calls of components have an even lower priority.
const OCR_NICENESS: i32 = 5;

pub use embedding::EMBEDDING_DIMENSIONS;
pub use scheduler::ModelStats;

/// Configuration of the models.
#[derive(Debug, Clone)]
pub struct InferenceConfig {
    /// Folder with `lib/libonnxruntime.so`, `models/ppocrv6` and `models/minilm`.
    pub assets_folder: PathBuf,
    /// The device that models run on.
    pub device: DeviceChoice,
    /// OCR workers, which share each page; 0: one for each core (CPU) or 2 (GPU).
    pub ocr_workers: u32,
    /// Text embedding workers; 0: one for each core (CPU) or 1 (GPU).
    pub embedding_workers: u32,
    /// Maximum number of texts in an embedding batch, at least 1.
    pub max_batch_texts: u32,
    /// Maximum credit of a tenant or document that was idle: the time of a model, for each of its workers and at weight 1, that
    /// it gets before the others. It is not repaid.
    pub latency_boost: Duration,
    /// Maximum number of a tenant's requests that are queued for a model in each lane, at least 1; further requests wait.
    pub max_queued_per_tenant: u32,
    /// Whether the quantized text model is used on a CPU, if it is installed.
    pub use_quantized_model: bool,
    /// Records how long models worked for each tenant; `None` if usage is not metered.
    pub usage_meter: Option<Arc<dyn UsageMeter>>,
}

impl InferenceConfig {
    /// Reads the configuration from the host's settings; `assets` is the folder that `paths.assets` names.
    pub fn from_settings(settings: &Settings, assets: PathBuf) -> Self {
        Self {
            assets_folder: assets,
            device: settings.inference_device,
            ocr_workers: settings.inference_ocr_workers,
            embedding_workers: settings.inference_embedding_workers,
            max_batch_texts: settings.inference_max_embedding_batch_texts,
            latency_boost: Duration::from_millis(settings.engine_latency_boost_millis.into()),
            max_queued_per_tenant: settings.inference_max_queued_requests_per_tenant,
            use_quantized_model: settings.inference_use_quantized_model,
            usage_meter: None,
        }
    }

    fn onnxruntime_path(&self) -> PathBuf {
        self.assets_folder.join("lib/libonnxruntime.so")
    }

    fn detector_path(&self) -> PathBuf {
        self.assets_folder.join("models/ppocrv6/det.onnx")
    }

    fn recognizer_path(&self) -> PathBuf {
        self.assets_folder.join("models/ppocrv6/rec.onnx")
    }

    fn tokenizer_path(&self) -> PathBuf {
        self.assets_folder.join("models/minilm/tokenizer.json")
    }

    fn choose_embedding_model_path(&self, provider: ExecutionProvider) -> PathBuf {
        let folder = self.assets_folder.join("models/minilm");
        let quantized = folder.join("model-quantized.onnx");
        if self.use_quantized_model && provider == ExecutionProvider::Cpu && quantized.is_file() {
            quantized
        } else {
            folder.join("model.onnx")
        }
    }

    /// Checks that the files of a model exist; the error names the first missing file and how to install it. Opens no file, so
    /// it takes microseconds.
    pub fn check_model_files_exist(&self, kind: ModelKind) -> Result<(), InferenceError> {
        let models = match kind {
            ModelKind::Ocr => [self.detector_path(), self.recognizer_path()],
            ModelKind::Embedding => [
                self.choose_embedding_model_path(ExecutionProvider::Cuda(0)),
                self.tokenizer_path(),
            ],
        };
        std::iter::once(self.onnxruntime_path())
            .chain(models)
            .find(|path| !path.is_file())
            .map_or(Ok(()), |path| {
                Err(onnx_runtime::missing_file_error(&path.display().to_string()))
            })
    }
}

/// A kind of model.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ModelKind {
    /// Reads text from page images.
    Ocr,
    /// Computes vectors from text.
    Embedding,
}

/// Statistics of the models since the start.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct InferenceStats {
    /// OCR. A request is one step of a page: it detects the lines, or recognizes some of them.
    pub ocr: ModelStats,
    /// Text embedding. A request is one text.
    pub embedding: ModelStats,
}

/// Handle of a host's OCR and embedding models. Dropping it stops all runs and joins the worker threads. OCR engines and
/// embedders that are used after that return an error.
pub struct InferenceHost {
    config: InferenceConfig,
    device_name: String,
    ocr_engine: Arc<PpOcrEngine>,
    embedder: Arc<TextEmbedder>,
}

impl InferenceHost {
    /// Loads the runtime and chooses a device. Models are opened when they are first used. If metrics are recorded, install their
    /// recorder first.
    ///
    /// # Errors
    /// [`InferenceError::Unavailable`] if the library is missing, if this process has loaded another one, or if the requested
    /// device does not work.
    pub fn load_runtime(config: InferenceConfig) -> Result<Self, InferenceError> {
        let runtime = OnnxRuntime::load_library_and_choose_device(&config.onnxruntime_path(), config.device)?;
        let provider = runtime.execution_provider();
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        let workers = |configured: u32, gpu_default: usize| match (configured, provider) {
            (0, ExecutionProvider::Cpu) => cores,
            (0, ExecutionProvider::Cuda(_)) => gpu_default,
            (n, _) => n as usize,
        };
        let scheduler_config = |name, workers, batch, gain, niceness| SchedulerConfig {
            model_name: name,
            workers,
            max_batch: batch,
            max_useful_batch_cost: gain,
            niceness,
            latency_boost: config.latency_boost,
            max_queued_per_tenant: config.max_queued_per_tenant.max(1) as usize,
            usage_meter: config.usage_meter.clone(),
        };
        // The steps of pages differ in shape, so a batch of them is no faster on any device.
        let ocr_config = scheduler_config(
            ocr::MODEL_NAME,
            workers(config.ocr_workers, 2),
            1,
            MaxUsefulBatchCost::UpToCost(0.0),
            OCR_NICENESS,
        );
        let embedding_config = scheduler_config(
            embedding::MODEL_NAME,
            workers(config.embedding_workers, 1),
            config.max_batch_texts.max(1) as usize,
            match provider {
                ExecutionProvider::Cpu => {
                    MaxUsefulBatchCost::UpToCost(embedding::MAX_USEFUL_CPU_BATCH_TOKENS as f64)
                }
                ExecutionProvider::Cuda(_) => MaxUsefulBatchCost::AnySize,
            },
            0,
        );
        let ocr_engine = PpOcrEngine::new(
            runtime.clone(),
            config.detector_path(),
            config.recognizer_path(),
            ocr_config,
        );
        let embedder = TextEmbedder::new(
            runtime,
            config.choose_embedding_model_path(provider),
            config.tokenizer_path(),
            embedding_config,
        );
        Ok(Self {
            device_name: match provider {
                ExecutionProvider::Cpu => "cpu".into(),
                ExecutionProvider::Cuda(number) => format!("cuda:{number}"),
            },
            config,
            ocr_engine: Arc::new(ocr_engine),
            embedder: Arc::new(embedder),
        })
    }

    /// Returns the OCR engine.
    pub fn ocr_engine(&self) -> Arc<dyn OcrEngine> {
        Arc::<PpOcrEngine>::clone(&self.ocr_engine)
    }

    /// Returns the text embedder.
    pub fn embedder(&self) -> Arc<dyn Embedder> {
        Arc::<TextEmbedder>::clone(&self.embedder)
    }

    /// Opens the models of `what` in the background, for a host that is about to need them. Opening takes a tenth of a second
    /// on a CPU, which the first request then saves.
    ///
    /// # Errors
    /// [`InferenceError::Failed`] if no thread can be started. If a model cannot be opened, the first request fails.
    pub fn open_models_in_background(&self, kind: ModelKind) -> Result<(), InferenceError> {
        match kind {
            ModelKind::Ocr => self.ocr_engine.open_models_in_background(),
            ModelKind::Embedding => self.embedder.open_model_in_background(),
        }
    }

    /// Checks that the files of `what` exist; see [`InferenceConfig::check_model_files_exist`].
    pub fn check_model_files_exist(&self, kind: ModelKind) -> Result<(), InferenceError> {
        self.config.check_model_files_exist(kind)
    }

    /// Returns the device that models run on: `cpu` or `cuda:N`.
    pub fn device_name(&self) -> &str {
        &self.device_name
    }

    /// Describes the device that models run on.
    pub fn compute_device(&self) -> ComputeDevice {
        self.embedder.compute_device()
    }

    /// Returns the statistics since the start.
    pub fn stats(&self) -> InferenceStats {
        InferenceStats {
            ocr: self.ocr_engine.stats(),
            embedding: self.embedder.stats(),
        }
    }
}

impl Drop for InferenceHost {
    fn drop(&mut self) {
        self.ocr_engine.close();
        self.embedder.close();
    }
}
