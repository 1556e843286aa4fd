//! The one place where bytes become machine code of this process.

#![allow(unsafe_code)]

use std::path::Path;

use wasmtime::component::Component;
use wasmtime::{Engine, Result};

/// Maps a compiled component.
///
/// The caller vouches for the file: it lies in a folder that this user alone can write, its checksum has been found right,
/// and it is replaced only by renaming another over it, never written in place.
pub(super) fn component(engine: &Engine, vouched: &Path) -> Result<Component> {
    // SAFETY: `deserialize_file` asks for the output of `precompile_component`, unchanged while it is mapped. Only
    // `compile_main` writes such files, with a checksum that the caller has compared; the folder is private and a file in
    // it is never modified once it has its name. Wasmtime itself refuses code of another version or other settings.
    unsafe { Component::deserialize_file(engine, vouched) }
}
