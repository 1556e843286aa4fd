//! How the threads of a language model in this process wait for each other.
//!
//! OpenMP is told by the environment, which it reads before `main`, so a command that was not told starts itself once more, in its
//! own place: the process, its streams and its arguments stay what they are.

use std::os::unix::process::CommandExt as _;
use std::process::Command;

/// What users set who know better.
const SAID_OTHERWISE: [&str; 2] = ["GOMP_SPINCOUNT", "OMP_WAIT_POLICY"];

/// Returns in a process whose environment says it, or if it cannot be said: everything works then, too, if more slowly beside
/// other work.
pub(crate) fn wait_briefly() {
    if SAID_OTHERWISE.iter().any(|name| std::env::var_os(name).is_some()) {
        return;
    }
    let mut words = std::env::args_os();
    let (Ok(program), Some(name)) = (std::env::current_exe(), words.next()) else {
        return;
    };
    let _not_replaced = Command::new(program)
        .arg0(name)
        .args(words)
        .envs(weir_llm::ENVIRONMENT.iter().copied())
        .exec();
}
