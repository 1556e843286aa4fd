//! ONNX Runtime behind the ports [`Reader`] and [`Embedder`]: OCR with the PP-OCRv6 models and text embedding with
//! all-MiniLM-L6-v2, shared fairly by all tenants and jobs of a host.
//!
//! | module | idea |
//! |---|---|
//! | `runtime` | the library, loaded at run time; the device; how a session is opened |
//! | `session` | a model's session, shared by its workers on a CPU |
//! | `arena` | the memory that all models on a CPU compute in |
//! | `scheduler` | requests of many callers become batches, fair by tenant; a thread for each session |
//! | `embedding` | text → vector |
//! | `ocr` | page image → lines with boxes |
//!
//! [`Inference::load`] checks that everything is there and opens no model; the first request of each kind does, or
//! [`Inference::warm`] before it.

mod arena;
mod embedding;
mod ocr;
mod runtime;
mod scheduler;
mod session;

use std::path::PathBuf;
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use weir_core::InferenceError;
use weir_core::decision::Device;
use weir_core::ports::{Embedder, Reader};
use weir_core::settings::{DeviceChoice, Settings};
use weir_core::usage::Meter;

use embedding::TextEmbedder;
use ocr::Ocr;
use runtime::{Provider, Runtime};
use scheduler::{Gain, Sharing};

/// Niceness of the threads that recognize text. A page takes them about a second, and a page with text of its own a few
/// milliseconds, which it would spend waiting for a core: of one that both want, a thread of niceness 5 gets 335 parts of 1,359
/// (`sched_prio_to_weight` of Linux). Calls of components that run for long give way to both.
const OCR_NICENESS: i32 = 5;

pub use scheduler::ModelStats;

/// What inference needs to know.
#[derive(Debug, Clone)]
pub struct InferenceConfig {
    /// Folder with `lib/libonnxruntime.so`, `models/ppocrv6` and `models/minilm`.
    pub assets: PathBuf,
    /// Where models run.
    pub device: DeviceChoice,
    /// OCR workers, who share the pages at hand; 0: one for each core (CPU) or 2 (GPU).
    pub ocr_workers: u32,
    /// Text embedding workers; 0: one for each core (CPU) or 1 (GPU).
    pub embed_workers: u32,
    /// Texts in an embedding batch, at least 1.
    pub batch: u32,
    /// Requests of one tenant that may wait for a model in each lane, at least 1; its further calls wait for room.
    pub queue: u32,
    /// Whether the quantized text model is taken on a CPU, where it is installed.
    pub quantized: bool,
    /// Hears how long models worked for each tenant, if tenants' usage is metered.
    pub meter: Option<Arc<dyn Meter>>,
}

impl InferenceConfig {
    /// The host's settings; `assets` is the folder that `paths.assets` stands for.
    pub fn from_settings(settings: &Settings, assets: PathBuf) -> Self {
        Self {
            assets,
            device: settings.inference_device,
            ocr_workers: settings.inference_ocr_workers,
            embed_workers: settings.inference_embed_workers,
            batch: settings.inference_batch,
            queue: settings.inference_queue,
            quantized: settings.inference_quantized,
            meter: None,
        }
    }

    fn library(&self) -> PathBuf {
        self.assets.join("lib/libonnxruntime.so")
    }

    fn detector(&self) -> PathBuf {
        self.assets.join("models/ppocrv6/det.onnx")
    }

    fn recognizer(&self) -> PathBuf {
        self.assets.join("models/ppocrv6/rec.onnx")
    }

    fn tokenizer(&self) -> PathBuf {
        self.assets.join("models/minilm/tokenizer.json")
    }

    fn text_model(&self, provider: Provider) -> PathBuf {
        let folder = self.assets.join("models/minilm");
        let quantized = folder.join("model-quantized.onnx");
        if self.quantized && provider == Provider::Cpu && quantized.is_file() {
            quantized
        } else {
            folder.join("model.onnx")
        }
    }

    /// Whether the files are there that `what` needs; the error names the first that is not and how to get it. Opens
    /// nothing, so it costs microseconds.
    pub fn check(&self, what: Capability) -> Result<(), InferenceError> {
        let models = match what {
            Capability::Read => [self.detector(), self.recognizer()],
            Capability::Embed => [self.text_model(Provider::Cuda(0)), self.tokenizer()],
        };
        std::iter::once(self.library())
            .chain(models)
            .find(|path| !path.is_file())
            .map_or(Ok(()), |path| Err(runtime::missing(&path.display().to_string())))
    }
}

/// What inference can do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Capability {
    /// Text from page images.
    Read,
    /// Vectors from text.
    Embed,
}

/// What the models have done so far.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct InferenceStats {
    /// OCR; a request is a step of a page: to find its lines, or to read some of them.
    pub ocr: ModelStats,
    /// Text embedding; a request is a text.
    pub embedding: ModelStats,
}

/// The models of a host. Dropping it ends what runs and waits until no thread is left; readers and embedders that
/// outlive it answer with an error.
pub struct Inference {
    config: InferenceConfig,
    device: String,
    reader: Arc<Ocr>,
    embedder: Arc<TextEmbedder>,
}

impl Inference {
    /// Loads the runtime and settles on a device. Models are opened when they are first used. To be called after the recorder
    /// of metrics has been installed, if there is to be one.
    ///
    /// # Errors
    /// [`InferenceError::Unavailable`] if the library is missing, if another one is loaded in this process, or if the
    /// device asked for does not work.
    pub fn load(config: InferenceConfig) -> Result<Self, InferenceError> {
        let runtime = Runtime::load(&config.library(), config.device)?;
        let provider = runtime.provider();
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        let workers = |asked: u32, gpu: usize| match (asked, provider) {
            (0, Provider::Cpu) => cores,
            (0, Provider::Cuda(_)) => gpu,
            (n, _) => n as usize,
        };
        let sharing = |name, workers, batch, gain, niceness| Sharing {
            name,
            workers,
            batch,
            gain,
            niceness,
            room: config.queue.max(1) as usize,
            meter: config.meter.clone(),
        };
        // Steps of pages have nothing in common, so a batch of them gains nothing on any device.
        let pages = sharing(
            ocr::NAME,
            workers(config.ocr_workers, 2),
            1,
            Gain::UpTo(0.0),
            OCR_NICENESS,
        );
        let texts = sharing(
            embedding::NAME,
            workers(config.embed_workers, 1),
            config.batch.max(1) as usize,
            match provider {
                Provider::Cpu => Gain::UpTo(embedding::ENOUGH as f64),
                Provider::Cuda(_) => Gain::Fill,
            },
            0,
        );
        let reader = Ocr::new(runtime.clone(), config.detector(), config.recognizer(), pages);
        let embedder = TextEmbedder::new(runtime, config.text_model(provider), config.tokenizer(), texts);
        Ok(Self {
            device: match provider {
                Provider::Cpu => "cpu".into(),
                Provider::Cuda(number) => format!("cuda:{number}"),
            },
            config,
            reader: Arc::new(reader),
            embedder: Arc::new(embedder),
        })
    }

    /// Recognizes text in page images.
    pub fn reader(&self) -> Arc<dyn Reader> {
        Arc::<Ocr>::clone(&self.reader)
    }

    /// Turns text into vectors.
    pub fn embedder(&self) -> Arc<dyn Embedder> {
        Arc::<TextEmbedder>::clone(&self.embedder)
    }

    /// Has the models of `what` opened in the background, for a host that knows it will need them: that takes a CPU a
    /// tenth of a second, which the first request need not wait for.
    ///
    /// # Errors
    /// [`InferenceError::Failed`] if no thread can be started. A model that cannot be opened is the first request's error.
    pub fn warm(&self, what: Capability) -> Result<(), InferenceError> {
        match what {
            Capability::Read => self.reader.warm(),
            Capability::Embed => self.embedder.warm(),
        }
    }

    /// Whether the files of `what` are there; see [`InferenceConfig::check`].
    pub fn check(&self, what: Capability) -> Result<(), InferenceError> {
        self.config.check(what)
    }

    /// Where models run: `cpu` or `cuda:N`.
    pub fn device_name(&self) -> &str {
        &self.device
    }

    /// What that device offers.
    pub fn device(&self) -> Device {
        self.embedder.device()
    }

    /// What the models have done so far.
    pub fn stats(&self) -> InferenceStats {
        InferenceStats {
            ocr: self.reader.stats(),
            embedding: self.embedder.stats(),
        }
    }
}

impl Drop for Inference {
    fn drop(&mut self) {
        self.reader.close();
        self.embedder.close();
    }
}
