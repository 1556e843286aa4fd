//! The OCR model's name, the names of the inputs and outputs of both networks, and the error of a canceled page.

use std::ffi::CStr;

use weir_core::InferenceError;

/// The model's name in errors and metrics.
pub(crate) const MODEL_NAME: &str = "ocr";

/// The name of the input of both networks.
pub(super) const INPUT_NAME: &CStr = c"x";

/// The name of the output of both networks.
pub(super) const OUTPUT_NAME: &CStr = c"fetch_name_0";

/// The error of a page whose result is no longer awaited.
pub(super) fn page_canceled_error() -> InferenceError {
    InferenceError::Failed {
        model: MODEL_NAME.into(),
        reason: "it was stopped before it finished".into(),
    }
}
