//! Inspects and loads a GGUF file.

use std::fs::File;
use std::io::Read as _;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};

use llama_cpp_2::llama_backend::LlamaBackend;
use llama_cpp_2::model::LlamaModel;
use llama_cpp_2::model::params::LlamaModelParams;

use super::chat_template::ChatTemplate;
use super::llama_log::capture_llama_errors;

/// The first bytes of every GGUF file.
const GGUF_MAGIC: [u8; 4] = *b"GGUF";

/// Returns the llama.cpp backend, which is initialized once per process.
pub(super) fn llama_backend() -> Result<&'static LlamaBackend, String> {
    static BACKEND: OnceLock<Result<LlamaBackend, String>> = OnceLock::new();
    let backend = BACKEND.get_or_init(|| {
        check_cpu_features()?;
        LlamaBackend::init().map_err(|error| format!("cannot start llama.cpp: {error}"))
    });
    backend.as_ref().map_err(Clone::clone)
}

/// Checks the processor, because llama.cpp is compiled for certain instructions and aborts the process without them.
#[cfg(target_arch = "x86_64")]
fn check_cpu_features() -> Result<(), String> {
    let has = is_x86_feature_detected!("avx2")
        && is_x86_feature_detected!("fma")
        && is_x86_feature_detected!("f16c")
        && is_x86_feature_detected!("bmi2");
    has.then_some(()).ok_or_else(|| {
        "a local model needs a processor with AVX2, FMA, F16C and BMI2: use an endpoint, kind = \"openai\"".into()
    })
}

#[cfg(not(target_arch = "x86_64"))]
const fn check_cpu_features() -> Result<(), String> {
    Ok(())
}

/// Inspects the file without its weights, which takes a tenth of a second: the file must exist, be complete and hold a model
/// with a chat template. Returns the number of parameters.
pub(super) fn check_model_and_count_parameters(file: &Path) -> Result<u64, String> {
    if file.as_os_str().is_empty() {
        return Err("set its file to a GGUF model".into());
    }
    let named = |reason: String| format!("its file {} {reason}", file.display());
    let mut head = [0; GGUF_MAGIC.len()];
    File::open(file)
        .and_then(|mut opened| opened.read_exact(&mut head))
        .map_err(|error| named(format!("cannot be read: {error}")))?;
    if head != GGUF_MAGIC {
        return Err(named(
            "is no GGUF model: convert it, or get one in that format".into(),
        ));
    }
    let vocab_only = LlamaModelParams::default().with_vocab_only(true);
    let model = load_model_with_params(file, &vocab_only)?;
    ChatTemplate::from_model(&model).map_err(named)?;
    Ok(model.n_params())
}

/// Loads the weights. Stops early with an error when `ending` is set.
pub(super) fn load_model_weights(file: &Path, stopping: &Arc<AtomicBool>) -> Result<LlamaModel, String> {
    let stop_flag = Arc::clone(stopping);
    let params =
        LlamaModelParams::default().with_progress_callback(move |_share| !stop_flag.load(Ordering::Relaxed));
    load_model_with_params(file, &params)
}

fn load_model_with_params(file: &Path, params: &LlamaModelParams) -> Result<LlamaModel, String> {
    let backend = llama_backend()?;
    let (model, errors) = capture_llama_errors(|| LlamaModel::load_from_file(backend, file, params));
    model.map_err(|error| {
        let why = if errors.is_empty() {
            error.to_string()
        } else {
            errors
        };
        format!(
            "cannot load its file {}; download it again or use another model: {why}",
            file.display()
        )
    })
}
