//! ONNX Runtime: the library, the device, and how a session is opened.
//!
//! The library is loaded at run time from the assets folder, so that one binary serves a laptop and a GPU node and the
//! 29 MB of the runtime are installed once. ONNX Runtime keeps process-wide state (its environment), hence one library
//! per process: the first folder wins and a second one is refused rather than ignored.

use std::path::{Path, PathBuf};

use ort::environment::Environment;
use ort::ep::{self, ArenaExtendStrategy};
use ort::session::Session;
use ort::session::builder::GraphOptimizationLevel;
use parking_lot::Mutex;
use weir_core::InferenceError;
use weir_core::decision::Device;
use weir_core::memory::SystemMemory;
use weir_core::settings::DeviceChoice;

use crate::arena;

/// The command that fetches libraries and models.
const REMEDY: &str = "run `make setup`";

/// `x → |x|` of one number, in ONNX format: the smallest model whose session proves that a device works.
const PROBE: &[u8] = b"\x08\x08:6\n\x0b\n\x01x\x12\x01y\"\x03Abs\x12\x05probeZ\x0f\n\x01x\x12\n\n\x08\x08\x01\x12\x04\n\x02\x08\x01b\x0f\n\x01y\x12\n\n\x08\x08\x01\x12\x04\n\x02\x08\x01B\x04\n\x00\x10\x0d";

/// The process's environment and the library it came from. Never released: ONNX Runtime cannot be loaded twice.
static LOADED: Mutex<Option<(PathBuf, Environment)>> = Mutex::new(None);

/// Where sessions run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Provider {
    /// The CPU.
    Cpu,
    /// The CUDA device of this number.
    Cuda(u32),
}

/// The loaded library and the device chosen.
#[derive(Clone)]
pub(crate) struct Runtime {
    environment: Environment,
    provider: Provider,
}

impl Runtime {
    /// Loads `library` unless this process has, and settles on a device.
    pub(crate) fn load(library: &Path, choice: DeviceChoice) -> Result<Self, InferenceError> {
        let environment = environment(library)?;
        let cpu = Self {
            environment,
            provider: Provider::Cpu,
        };
        let number = match choice {
            DeviceChoice::Cpu => return Ok(cpu),
            DeviceChoice::Auto => 0,
            DeviceChoice::Cuda(number) => number,
        };
        let cuda = Self {
            provider: Provider::Cuda(number),
            ..cpu.clone()
        };
        match cuda.probe() {
            Ok(()) => {
                tracing::info!(device = format!("cuda:{number}"), "models run on the GPU");
                Ok(cuda)
            }
            Err(reason) if choice == DeviceChoice::Auto => {
                tracing::info!(device = "cpu", reason, "models run on the CPU");
                Ok(cpu)
            }
            Err(reason) => Err(InferenceError::Unavailable {
                what: format!("device cuda:{number} ({reason})"),
                remedy: "install the NVIDIA driver, CUDA and cuDNN that ONNX Runtime asks for, put the GPU build of \
                         libonnxruntime.so with its providers into the lib folder of the assets, or set \
                         inference.device to auto or cpu"
                    .into(),
            }),
        }
    }

    /// Where sessions run.
    pub(crate) const fn provider(&self) -> Provider {
        self.provider
    }

    /// Opens a model whose runs compute on the thread that calls, and on no other. On a CPU, a run on each core, each of
    /// its own item, loses nothing to synchronization; two threads on one page are 1.6 times as fast as one.
    pub(crate) fn session(&self, model: &Path) -> Result<Session, InferenceError> {
        let (name, path) = (file_name(model), model.display().to_string());
        if !model.is_file() {
            tracing::warn!(path, "a model is missing");
            return Err(missing(&name));
        }
        self.commit(|builder| builder.commit_from_file(model))
            .map_err(|reason| {
                tracing::warn!(path, reason, "a model cannot be used");
                InferenceError::Unavailable {
                    what: format!("model {name} ({})", reason.replace(&path, &name)),
                    remedy: REMEDY.into(),
                }
            })
    }

    fn probe(&self) -> Result<(), String> {
        self.commit(|builder| builder.commit_from_memory(PROBE)).map(drop)
    }

    fn commit(
        &self,
        commit: impl FnOnce(&mut ort::session::builder::SessionBuilder) -> ort::Result<Session>,
    ) -> Result<Session, String> {
        let open = || -> ort::Result<Session> {
            let provider = match self.provider {
                Provider::Cpu => ep::CPU::default().build(),
                Provider::Cuda(number) => ep::CUDA::default()
                    .with_device_id(i32::try_from(number).unwrap_or(i32::MAX))
                    // Shapes vary from line to line: an exhaustive search would run for each of them.
                    .with_conv_algorithm_search(ep::cuda::ConvAlgorithmSearch::Heuristic)
                    .with_arena_extend_strategy(ArenaExtendStrategy::SameAsRequested)
                    .build()
                    .error_on_failure(),
            };
            let mut builder = Session::builder(&self.environment)?
                .with_optimization_level(GraphOptimizationLevel::All)?
                .with_intra_threads(1)?
                .with_inter_threads(1)?
                // A pattern is planned for each shape and kept; with shapes that vary it only costs memory.
                .with_memory_pattern(false)?
                .with_execution_providers([provider])?
                // Weights stay as long as the session: in the arena they would stand between what comes and goes.
                .with_device_allocated_initializers()?;
            if self.provider == Provider::Cpu {
                builder = builder.with_env_allocators()?;
            }
            commit(&mut builder)
        };
        open().map_err(|e| one_line(e.message()))
    }
}

fn environment(library: &Path) -> Result<Environment, InferenceError> {
    if !library.is_file() {
        return Err(missing(&library.display().to_string()));
    }
    let mut loaded = LOADED.lock();
    if let Some((path, environment)) = loaded.as_ref() {
        if path == library {
            return Ok(environment.clone());
        }
        return Err(InferenceError::Unavailable {
            what: format!("ONNX Runtime in {}", library.display()),
            remedy: format!("this process already runs the one in {}", path.display()),
        });
    }
    let wrong = |reason: &str| InferenceError::Unavailable {
        what: format!("ONNX Runtime in {} ({})", library.display(), one_line(reason)),
        remedy: REMEDY.into(),
    };
    let builder = ort::init_from(library).map_err(|e| wrong(&e.to_string()))?;
    let environment = builder
        .with_name("weir")
        .build()
        .map_err(|e| wrong(e.message()))?;
    arena::register(&environment).map_err(|e| wrong(e.message()))?;
    *loaded = Some((library.to_owned(), environment.clone()));
    Ok(environment)
}

/// What errors call a file of the assets: its folder's name and its own. Tenants read them, so they have no path of the host.
pub(crate) fn file_name(path: &Path) -> String {
    let folder = path.parent().and_then(Path::file_name).unwrap_or_default();
    let name = path.file_name().unwrap_or_default();
    Path::new(folder).join(name).display().to_string()
}

/// The error for a file that is not there.
pub(crate) fn missing(path: &str) -> InferenceError {
    InferenceError::Unavailable {
        what: path.to_owned(),
        remedy: REMEDY.into(),
    }
}

/// The error of a run.
pub(crate) fn failed(model: &str, error: &ort::Error) -> InferenceError {
    InferenceError::Failed {
        model: model.to_owned(),
        reason: one_line(error.message()),
    }
}

/// What `provider` offers. A CPU's memory is what this process may use of the system's; a GPU's is asked of its driver's own tool, since
/// ONNX Runtime does not tell.
pub(crate) fn describe(provider: Provider) -> Device {
    let cores =
        std::thread::available_parallelism().map_or(1, |n| u32::try_from(n.get()).unwrap_or(u32::MAX));
    let memory_bytes = match provider {
        Provider::Cpu => SystemMemory::read().total_bytes,
        Provider::Cuda(number) => gpu_memory(number),
    };
    Device {
        gpu: provider != Provider::Cpu,
        memory_bytes: memory_bytes.unwrap_or(0),
        cores,
    }
}

fn gpu_memory(number: u32) -> Option<u64> {
    let output = std::process::Command::new("nvidia-smi")
        .args(["--query-gpu=memory.total", "--format=csv,noheader,nounits", "-i"])
        .arg(number.to_string())
        .output()
        .ok()?;
    let mib: u64 = String::from_utf8(output.stdout).ok()?.trim().parse().ok()?;
    mib.checked_mul(1 << 20)
}

fn one_line(message: &str) -> String {
    message.split_whitespace().collect::<Vec<_>>().join(" ")
}
