//! Maps compiled components into this process. Only this file turns bytes into machine code.

#![allow(unsafe_code)]

use std::path::Path;

use wasmtime::component::Component;
use wasmtime::{Engine, Result};

/// Memory-maps a file of compiled code as a component, without copying it.
///
/// The caller guarantees that the file lies in a folder that only this user can write, that its checksum is right, and that the
/// file is only ever replaced by a rename and never written in place.
pub(super) fn map_compiled_component(engine: &Engine, verified_file: &Path) -> Result<Component> {
    // SAFETY: `deserialize_file` requires the output of `precompile_component`, unchanged while it is mapped. Only
    // `compile_main` writes such files, with a checksum that the caller has verified. The folder is private, and a file in it
    // is never modified after it has its final name. Wasmtime itself rejects code of another version or other settings.
    unsafe { Component::deserialize_file(engine, verified_file) }
}
