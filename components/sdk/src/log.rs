//! Writes lines to the job's component log. A job may write 1,000 lines of 1,000 characters.

pub use crate::bindings::weir::pipeline::log::Level;

/// Writes a line with this level.
pub fn write(level: Level, message: &str) {
    #[cfg(target_family = "wasm")]
    crate::bindings::weir::pipeline::log::write(level, message);
    #[cfg(not(target_family = "wasm"))]
    eprintln!("{level:?}: {message}");
}

/// Writes a line for debugging the component.
pub fn debug(message: &str) {
    write(Level::Debug, message);
}

/// Writes a line about a normal event.
pub fn info(message: &str) {
    write(Level::Info, message);
}

/// Writes a line about a problem that the component could handle.
pub fn warn(message: &str) {
    write(Level::Warn, message);
}

/// Writes a line about an error.
pub fn error(message: &str) {
    write(Level::Error, message);
}
