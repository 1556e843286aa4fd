//! Sets how the OpenMP threads of a local language model wait for each other.
//!
//! OpenMP reads its configuration from environment variables before `main`. If they are not set, the program replaces itself
//! with `exec` and sets them. The process id, the standard streams and the arguments stay the same.

use std::os::unix::process::CommandExt as _;
use std::process::Command;

/// Variables that users set to configure OpenMP themselves.
const OPENMP_WAIT_VARIABLES: [&str; 2] = ["GOMP_SPINCOUNT", "OMP_WAIT_POLICY"];

/// Restarts the program with the OpenMP variables set. Returns if they are already set, or if the restart fails. The program
/// then works as well, but language models are slower while other work runs.
pub(crate) fn restart_with_openmp_environment() {
    if OPENMP_WAIT_VARIABLES
        .iter()
        .any(|name| std::env::var_os(name).is_some())
    {
        return;
    }
    let mut arguments = std::env::args_os();
    let (Ok(program), Some(name)) = (std::env::current_exe(), arguments.next()) else {
        return;
    };
    let _not_replaced = Command::new(program)
        .arg0(name)
        .args(arguments)
        .envs(weir_llm::LOCAL_MODEL_ENVIRONMENT.iter().copied())
        .exec();
}
