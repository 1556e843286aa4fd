//! A worker as a program of its own, for this crate's tests and benchmarks.

use std::process::ExitCode;

fn main() -> ExitCode {
    weir_raster::worker_main()
}
