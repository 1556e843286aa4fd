//! A GGUF file: whether it can be a model, and the model in it.

use std::fs::File;
use std::io::Read as _;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};

use llama_cpp_2::llama_backend::LlamaBackend;
use llama_cpp_2::model::LlamaModel;
use llama_cpp_2::model::params::LlamaModelParams;

use super::turns::Turns;
use super::words::heard;

/// How every GGUF file begins.
const MAGIC: [u8; 4] = *b"GGUF";

/// llama.cpp itself, begun once in a process.
pub(super) fn backend() -> Result<&'static LlamaBackend, String> {
    static BACKEND: OnceLock<Result<LlamaBackend, String>> = OnceLock::new();
    let begun = BACKEND.get_or_init(|| {
        can_compute()?;
        LlamaBackend::init().map_err(|error| format!("llama.cpp does not start: {error}"))
    });
    begun.as_ref().map_err(Clone::clone)
}

/// llama.cpp is compiled for one kind of processor, and ends the process on another.
#[cfg(target_arch = "x86_64")]
fn can_compute() -> Result<(), String> {
    let has = is_x86_feature_detected!("avx2")
        && is_x86_feature_detected!("fma")
        && is_x86_feature_detected!("f16c")
        && is_x86_feature_detected!("bmi2");
    has.then_some(()).ok_or_else(|| {
        "a local model needs a processor with AVX2, FMA, F16C and BMI2: use an endpoint, kind = \"openai\"".into()
    })
}

#[cfg(not(target_arch = "x86_64"))]
const fn can_compute() -> Result<(), String> {
    Ok(())
}

/// Looks at everything but the weights themselves, in a tenth of a second: whether the file is there, is whole, and holds a model that
/// can be talked to. Returns how many parameters it has.
pub(super) fn inspect(file: &Path) -> Result<u64, String> {
    if file.as_os_str().is_empty() {
        return Err("give its file, a GGUF model".into());
    }
    let named = |reason: String| format!("its file {} {reason}", file.display());
    let mut head = [0; MAGIC.len()];
    File::open(file)
        .and_then(|mut opened| opened.read_exact(&mut head))
        .map_err(|error| named(format!("cannot be read: {error}")))?;
    if head != MAGIC {
        return Err(named(
            "is no GGUF model: convert it, or get one in that format".into(),
        ));
    }
    let words_only = LlamaModelParams::default().with_vocab_only(true);
    let model = read(file, &words_only)?;
    Turns::of(&model).map_err(named)?;
    Ok(model.n_params())
}

/// Reads the weights. Ends early, with an error, when nobody needs them any more.
pub(super) fn load(file: &Path, ending: &Arc<AtomicBool>) -> Result<LlamaModel, String> {
    let told = Arc::clone(ending);
    let params =
        LlamaModelParams::default().with_progress_callback(move |_share| !told.load(Ordering::Relaxed));
    read(file, &params)
}

fn read(file: &Path, params: &LlamaModelParams) -> Result<LlamaModel, String> {
    let backend = backend()?;
    let (model, complaints) = heard(|| LlamaModel::load_from_file(backend, file, params));
    model.map_err(|error| {
        let why = if complaints.is_empty() {
            error.to_string()
        } else {
            complaints
        };
        format!(
            "its file {} cannot be used, fetch it again or use another model: {why}",
            file.display()
        )
    })
}
