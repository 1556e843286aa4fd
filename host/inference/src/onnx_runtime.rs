//! ONNX Runtime: loads the library, chooses the device and opens sessions.
//!
//! The library is loaded at run time from the assets folder. One binary thus serves a laptop and a GPU node, and the 29 MB of the
//! library are installed once. ONNX Runtime keeps process-wide state (its environment), so a process can load only one library. A
//! request for a second one fails.

use std::path::{Path, PathBuf};

use ort::environment::Environment;
use ort::ep::{self, ArenaExtendStrategy};
use ort::session::Session;
use ort::session::builder::GraphOptimizationLevel;
use parking_lot::Mutex;
use weir_core::InferenceError;
use weir_core::decision::{ComputeDevice, DeviceKind};
use weir_core::settings::DeviceChoice;
use weir_core::system_memory::SystemMemory;

use crate::cpu_arena;

/// The command that installs libraries and models.
const SETUP_REMEDY: &str = "run `make setup`";

/// A model that computes `x → |x|` of one number, in ONNX format. It is the smallest model whose session proves that a device
/// works.
const PROBE_MODEL: &[u8] = b"\x08\x08:6\n\x0b\n\x01x\x12\x01y\"\x03Abs\x12\x05probeZ\x0f\n\x01x\x12\n\n\x08\x08\x01\x12\x04\n\x02\x08\x01b\x0f\n\x01y\x12\n\n\x08\x08\x01\x12\x04\n\x02\x08\x01B\x04\n\x00\x10\x0d";

/// The environment of the process and the path of its library. Never released: ONNX Runtime cannot be loaded twice.
static LOADED_ENVIRONMENT: Mutex<Option<(PathBuf, Environment)>> = Mutex::new(None);

/// The device that sessions run on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum ExecutionProvider {
    /// The CPU.
    Cpu,
    /// The CUDA device with this number.
    Cuda(u32),
}

/// The loaded library and the chosen device.
#[derive(Clone)]
pub(crate) struct OnnxRuntime {
    environment: Environment,
    execution_provider: ExecutionProvider,
}

impl OnnxRuntime {
    /// Loads `library`, unless this process has loaded it already, and chooses a device.
    pub(crate) fn load_library_and_choose_device(
        library: &Path,
        choice: DeviceChoice,
    ) -> Result<Self, InferenceError> {
        let environment = load_library_and_environment(library)?;
        let cpu = Self {
            environment,
            execution_provider: ExecutionProvider::Cpu,
        };
        let number = match choice {
            DeviceChoice::Cpu => return Ok(cpu),
            DeviceChoice::Auto => 0,
            DeviceChoice::Cuda(number) => number,
        };
        let cuda = Self {
            execution_provider: ExecutionProvider::Cuda(number),
            ..cpu.clone()
        };
        match cuda.check_device_works() {
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

    /// Returns the device that sessions run on.
    pub(crate) const fn execution_provider(&self) -> ExecutionProvider {
        self.execution_provider
    }

    /// Opens a model. A run computes only on the thread that calls it. On a CPU, one run on each core needs no synchronization;
    /// two threads on one page would be only 1.6 times as fast as one.
    pub(crate) fn open_model_session(&self, model: &Path) -> Result<Session, InferenceError> {
        let (name, path) = (asset_name_for_errors(model), model.display().to_string());
        if !model.is_file() {
            tracing::warn!(path, "a model is missing");
            return Err(missing_file_error(&name));
        }
        self.configure_and_build_session(|builder| builder.commit_from_file(model))
            .map_err(|reason| {
                tracing::warn!(path, reason, "cannot open a model");
                InferenceError::Unavailable {
                    what: format!("model {name} ({})", reason.replace(&path, &name)),
                    remedy: SETUP_REMEDY.into(),
                }
            })
    }

    fn check_device_works(&self) -> Result<(), String> {
        self.configure_and_build_session(|builder| builder.commit_from_memory(PROBE_MODEL))
            .map(drop)
    }

    fn configure_and_build_session(
        &self,
        commit: impl FnOnce(&mut ort::session::builder::SessionBuilder) -> ort::Result<Session>,
    ) -> Result<Session, String> {
        let open = || -> ort::Result<Session> {
            let provider = match self.execution_provider {
                ExecutionProvider::Cpu => ep::CPU::default().build(),
                ExecutionProvider::Cuda(number) => ep::CUDA::default()
                    .with_device_id(i32::try_from(number).unwrap_or(i32::MAX))
                    // Shapes vary from line to line, and an exhaustive search would run for each of them.
                    .with_conv_algorithm_search(ep::cuda::ConvAlgorithmSearch::Heuristic)
                    .with_arena_extend_strategy(ArenaExtendStrategy::SameAsRequested)
                    .build()
                    .error_on_failure(),
            };
            let mut builder = Session::builder(&self.environment)?
                .with_optimization_level(GraphOptimizationLevel::All)?
                .with_intra_threads(1)?
                .with_inter_threads(1)?
                // ONNX Runtime would plan and keep a memory pattern for each shape; varying shapes make that a waste of memory.
                .with_memory_pattern(false)?
                .with_execution_providers([provider])?
                // Weights live as long as the session; inside the arena they would fragment the memory between short-lived
                // blocks.
                .with_device_allocated_initializers()?;
            if self.execution_provider == ExecutionProvider::Cpu {
                builder = builder.with_env_allocators()?;
            }
            commit(&mut builder)
        };
        open().map_err(|e| to_single_line(e.message()))
    }
}

fn load_library_and_environment(library: &Path) -> Result<Environment, InferenceError> {
    if !library.is_file() {
        return Err(missing_file_error(&library.display().to_string()));
    }
    let mut loaded = LOADED_ENVIRONMENT.lock();
    if let Some((path, environment)) = loaded.as_ref() {
        if path == library {
            return Ok(environment.clone());
        }
        return Err(InferenceError::Unavailable {
            what: format!("ONNX Runtime in {}", library.display()),
            remedy: format!("this process already runs the one in {}", path.display()),
        });
    }
    let load_error = |reason: &str| InferenceError::Unavailable {
        what: format!(
            "ONNX Runtime in {} ({})",
            library.display(),
            to_single_line(reason)
        ),
        remedy: SETUP_REMEDY.into(),
    };
    let builder = ort::init_from(library).map_err(|e| load_error(&e.to_string()))?;
    let environment = builder
        .with_name("weir")
        .build()
        .map_err(|e| load_error(e.message()))?;
    cpu_arena::register_cpu_arena(&environment).map_err(|e| load_error(e.message()))?;
    *loaded = Some((library.to_owned(), environment.clone()));
    Ok(environment)
}

/// Names a file of the assets in an error: its folder's name and its own. Tenants read errors, so they show no path of the host.
pub(crate) fn asset_name_for_errors(path: &Path) -> String {
    let folder = path.parent().and_then(Path::file_name).unwrap_or_default();
    let name = path.file_name().unwrap_or_default();
    Path::new(folder).join(name).display().to_string()
}

/// The error for a missing file.
pub(crate) fn missing_file_error(path: &str) -> InferenceError {
    InferenceError::Unavailable {
        what: path.to_owned(),
        remedy: SETUP_REMEDY.into(),
    }
}

/// The error of a failed run.
pub(crate) fn run_failed_error(model: &str, error: &ort::Error) -> InferenceError {
    InferenceError::Failed {
        model: model.to_owned(),
        reason: to_single_line(error.message()),
    }
}

/// Describes a device. The memory of a CPU is what this process may use of the system's. The memory of a GPU comes from the
/// tool of its driver, since ONNX Runtime does not report it.
pub(crate) fn compute_device_of_provider(provider: ExecutionProvider) -> ComputeDevice {
    let cores =
        std::thread::available_parallelism().map_or(1, |n| u32::try_from(n.get()).unwrap_or(u32::MAX));
    let (kind, memory_bytes) = match provider {
        ExecutionProvider::Cpu => (DeviceKind::Cpu, SystemMemory::read().total_bytes),
        ExecutionProvider::Cuda(number) => (DeviceKind::Gpu, query_gpu_memory_bytes(number)),
    };
    ComputeDevice {
        kind,
        memory_bytes: memory_bytes.unwrap_or(0),
        cores,
    }
}

fn query_gpu_memory_bytes(number: u32) -> Option<u64> {
    let output = std::process::Command::new("nvidia-smi")
        .args(["--query-gpu=memory.total", "--format=csv,noheader,nounits", "-i"])
        .arg(number.to_string())
        .output()
        .ok()?;
    let mib: u64 = String::from_utf8(output.stdout).ok()?.trim().parse().ok()?;
    mib.checked_mul(1 << 20)
}

fn to_single_line(message: &str) -> String {
    message.split_whitespace().collect::<Vec<_>>().join(" ")
}
