//! A model's session and how workers run it. On a CPU all workers share one session.
//!
//! If each worker had its own session, each would spend the time to open it and hold a copy of the weights (25 MB for the text
//! model). On a CPU a session is only weights and a plan: any number of threads may run it at once, and each run computes on
//! the thread that called it. On a GPU a session owns a stream and buffers, and its runs are not independent, so each worker
//! opens its own.
//!
//! The `ort` crate requires exclusive access to a session on every device, because it does not know the device. This module
//! therefore calls the C interface.

#![allow(unsafe_code)]

use std::ffi::CStr;
use std::fmt::Debug;
use std::marker::PhantomData;
use std::path::PathBuf;
use std::ptr::{self, NonNull};
use std::sync::{Arc, Weak};

use ort::AsPointer;
use ort::session::{NoSelectedOutputs, RunOptions, Session};
use ort::value::{DynValue, PrimitiveTensorElementType, Shape, TensorRef};
use parking_lot::Mutex;
use weir_core::InferenceError;

use crate::onnx_runtime::{self, ExecutionProvider, OnnxRuntime};
use crate::scheduler::ModelRunStopper;

/// The file of a model, which workers can open.
pub(crate) struct ModelRunnerFactory {
    runtime: OnnxRuntime,
    path: PathBuf,
    shared_session: Mutex<Weak<Session>>,
}

impl ModelRunnerFactory {
    /// Creates the handle of a file, without opening a session.
    pub(crate) fn new(runtime: OnnxRuntime, path: PathBuf) -> Self {
        Self {
            runtime,
            path,
            shared_session: Mutex::default(),
        }
    }

    /// Returns the device that the model runs on.
    pub(crate) const fn execution_provider(&self) -> ExecutionProvider {
        self.runtime.execution_provider()
    }

    /// Opens the model for one worker. `stop` ends its runs; `name` is the model's name in errors.
    pub(crate) fn open_runner(
        &self,
        name: &'static str,
        stop: &ModelRunStopper,
    ) -> Result<ModelRunner, InferenceError> {
        // A second worker waits here while the first opens the session; opening its own would take as long.
        let mut shared_session = self.shared_session.lock();
        let session = match shared_session.upgrade() {
            Some(session) => session,
            None => Arc::new(self.runtime.open_model_session(&self.path)?),
        };
        if self.execution_provider() == ExecutionProvider::Cpu {
            *shared_session = Arc::downgrade(&session);
        }
        drop(shared_session);
        Ok(ModelRunner {
            model_name: name,
            run_options: stop
                .new_stoppable_run_options()
                .map_err(|e| onnx_runtime::run_failed_error(name, &e))?,
            session,
        })
    }
}

/// A model that one worker runs.
pub(crate) struct ModelRunner {
    model_name: &'static str,
    run_options: Arc<RunOptions<NoSelectedOutputs>>,
    /// Shared with other runners on a CPU, and only there.
    session: Arc<Session>,
}

impl ModelRunner {
    /// Returns a value of the metadata in the model file.
    pub(crate) fn custom_metadata_value(&self, key: &str) -> Option<String> {
        self.session.metadata().ok().and_then(|m| m.custom(key))
    }

    /// Returns whether the model has an input of this name.
    pub(crate) fn has_input(&self, name: &CStr) -> bool {
        let inputs = self.session.inputs();
        inputs
            .iter()
            .any(|input| input.name().as_bytes() == name.to_bytes())
    }

    /// Runs the model on named `inputs` and returns the output named `output`, a tensor of any shape.
    pub(crate) fn run_model<T: PrimitiveTensorElementType + Debug, const N: usize>(
        &mut self,
        inputs: [(&CStr, TensorRef<'_, T>); N],
        output: &CStr,
    ) -> Result<ModelOutput<'_>, InferenceError> {
        let names = inputs.each_ref().map(|(name, _)| name.as_ptr());
        let values = inputs.each_ref().map(|(_, tensor)| tensor.ptr());
        let mut output_ptr = ptr::null_mut();
        // SAFETY: the pointers belong to values that live to the end of this function, and the counts are those of the arrays.
        // `answer` may be null: then ONNX Runtime creates the value. Other threads may run the same session at the same time:
        // `ModelRunnerFactory::open_runner` shares only sessions of the CPU provider, and ONNX Runtime documents that "multiple threads
        // can invoke the Run() method on the same inference session object" (High Level Design, key design decisions). Its own
        // language bindings rely on that.
        let run_status = unsafe {
            ort::Error::result_from_status((ort::api().Run)(
                self.session.ptr().cast_mut(),
                self.run_options.ptr(),
                names.as_ptr(),
                values.as_ptr(),
                N,
                &output.as_ptr(),
                1,
                &mut output_ptr,
            ))
        };
        run_status.map_err(|e| onnx_runtime::run_failed_error(self.model_name, &e))?;
        let output_value_ptr = NonNull::new(output_ptr).ok_or_else(|| InferenceError::Failed {
            model: self.model_name.to_owned(),
            reason: "the model returned no output".into(),
        })?;
        // SAFETY: the run has succeeded, so the value is valid and owned by this function. Its memory belongs to the session,
        // which the lifetime of the output keeps alive.
        let value = unsafe { DynValue::from_ptr(output_value_ptr, Some(self.session.allocator())) };
        Ok(ModelOutput {
            model_name: self.model_name,
            value,
            _session: PhantomData,
        })
    }
}

/// The output of a run.
pub(crate) struct ModelOutput<'a> {
    model_name: &'static str,
    value: DynValue,
    _session: PhantomData<&'a Session>,
}

impl ModelOutput<'_> {
    /// Returns the shape and the values of the tensor.
    pub(crate) fn extract_f32_tensor(&self) -> Result<(&Shape, &[f32]), InferenceError> {
        self.value
            .try_extract_tensor::<f32>()
            .map_err(|e| onnx_runtime::run_failed_error(self.model_name, &e))
    }
}
