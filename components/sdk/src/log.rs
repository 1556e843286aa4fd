//! Lines for the tenant's log. A job may write 1,000 lines of 1,000 characters.

pub use crate::bindings::weir::pipeline::log::Level;

/// Writes a line.
pub fn write(level: Level, message: &str) {
    #[cfg(target_family = "wasm")]
    crate::bindings::weir::pipeline::log::write(level, message);
    #[cfg(not(target_family = "wasm"))]
    eprintln!("{level:?}: {message}");
}

/// For someone who looks into the component itself.
pub fn debug(message: &str) {
    write(Level::Debug, message);
}

/// What happened.
pub fn info(message: &str) {
    write(Level::Info, message);
}

/// Something that works, but not as it should.
pub fn warn(message: &str) {
    write(Level::Warn, message);
}

/// Something that does not work.
pub fn error(message: &str) {
    write(Level::Error, message);
}
