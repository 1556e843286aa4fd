//! A model's session and how workers run it: on a CPU all of them run the same one.
//!
//! A session of its own for each worker would cost each time what opening costs and hold the weights as often (the text
//! model's alone are 60 MB). On a CPU a session is no more than weights and a plan: ONNX Runtime lets any number of
//! threads run it at once and each run computes on the thread that called. On a GPU a session owns a stream and buffers,
//! and its runs are not independent, so each worker opens its own there.
//!
//! The `ort` crate asks for a session exclusively, whatever the device, because it cannot know which. Hence the call of
//! the C interface here.

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

use crate::runtime::{self, Provider, Runtime};
use crate::scheduler::Stop;

/// A model that can be opened.
pub(crate) struct ModelFile {
    runtime: Runtime,
    path: PathBuf,
    open: Mutex<Weak<Session>>,
}

impl ModelFile {
    /// Opens nothing yet.
    pub(crate) fn new(runtime: Runtime, path: PathBuf) -> Self {
        Self {
            runtime,
            path,
            open: Mutex::default(),
        }
    }

    /// Where the model runs.
    pub(crate) const fn provider(&self) -> Provider {
        self.runtime.provider()
    }

    /// The model in the hands of one worker, whose runs `stop` ends. `name` is the model's in errors.
    pub(crate) fn open(&self, name: &'static str, stop: &Stop) -> Result<Runner, InferenceError> {
        // A second worker waits for the first to open the session: that is the time it would take itself.
        let mut open = self.open.lock();
        let session = match open.upgrade() {
            Some(session) => session,
            None => Arc::new(self.runtime.session(&self.path)?),
        };
        if self.provider() == Provider::Cpu {
            *open = Arc::downgrade(&session);
        }
        drop(open);
        Ok(Runner {
            name,
            options: stop.options().map_err(|e| runtime::failed(name, &e))?,
            session,
        })
    }
}

/// A model as one worker runs it.
pub(crate) struct Runner {
    name: &'static str,
    options: Arc<RunOptions<NoSelectedOutputs>>,
    /// Shared with other runners if it runs on a CPU, and only then.
    session: Arc<Session>,
}

impl Runner {
    /// A value that the model's author has put beside the weights.
    pub(crate) fn metadata(&self, key: &str) -> Option<String> {
        self.session.metadata().ok().and_then(|m| m.custom(key))
    }

    /// Runs the model on named `inputs` for its output of the name `output`, numbers in any shape.
    pub(crate) fn run<T: PrimitiveTensorElementType + Debug, const N: usize>(
        &mut self,
        inputs: [(&CStr, TensorRef<'_, T>); N],
        output: &CStr,
    ) -> Result<Output<'_>, InferenceError> {
        let names = inputs.each_ref().map(|(name, _)| name.as_ptr());
        let values = inputs.each_ref().map(|(_, tensor)| tensor.ptr());
        let mut answer = ptr::null_mut();
        // SAFETY: the pointers are those of values that live to the end of this function, the counts are those of the
        // arrays, and `answer` may be null: then the value is ONNX Runtime's to make. Other threads may be in the same
        // call with the same session: `ModelFile::open` shares sessions of the CPU provider only, and ONNX Runtime
        // documents that "multiple threads can invoke the Run() method on the same inference session object" (its
        // High Level Design, key design decisions), which its own language bindings build on.
        let ran = unsafe {
            ort::Error::result_from_status((ort::api().Run)(
                self.session.ptr().cast_mut(),
                self.options.ptr(),
                names.as_ptr(),
                values.as_ptr(),
                N,
                &output.as_ptr(),
                1,
                &mut answer,
            ))
        };
        ran.map_err(|e| runtime::failed(self.name, &e))?;
        let answer = NonNull::new(answer).ok_or_else(|| InferenceError::Failed {
            model: self.name.to_owned(),
            reason: "the model gave no output".into(),
        })?;
        // SAFETY: the run has succeeded, so the value is valid and ours. Its memory belongs to the session, which the
        // output's lifetime keeps.
        let value = unsafe { DynValue::from_ptr(answer, Some(self.session.allocator())) };
        Ok(Output {
            name: self.name,
            value,
            _session: PhantomData,
        })
    }
}

/// What a run has given.
pub(crate) struct Output<'a> {
    name: &'static str,
    value: DynValue,
    _session: PhantomData<&'a Session>,
}

impl Output<'_> {
    /// Its shape and numbers.
    pub(crate) fn numbers(&self) -> Result<(&Shape, &[f32]), InferenceError> {
        self.value
            .try_extract_tensor::<f32>()
            .map_err(|e| runtime::failed(self.name, &e))
    }
}
