//! The worker as a separate program, for the tests and benchmarks of this crate.

use std::process::ExitCode;

fn main() -> ExitCode {
    weir_raster::worker_main()
}
