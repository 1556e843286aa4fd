//! Main function of the child process that compiles a component.

use std::ffi::OsString;
use std::fs::File;
use std::io::Write as _;
use std::process::ExitCode;

use rustix::process::{Resource, Rlimit, setrlimit};

use super::cache::compute_checksum;
use super::debug_info::strip_large_debug_info;
use super::{CPU_SECONDS_VARIABLE, MEMORY_BYTES_VARIABLE};

/// Bytes that the child process may write to a file.
const MAX_CODE_BYTES: u64 = 512 << 20;

/// Increment of the nice value. On a contended core, Linux gives a thread of this process one thirtieth of the time that it
/// gives a thread of the host.
const NICE_INCREMENT: i32 = 15;

/// Compiles a component; the main function of the child process.
///
/// The last two command-line arguments are the component and the file to write. The host passes the limits of the process in its
/// environment. They are applied before the component is read.
#[allow(clippy::print_stderr)]
pub fn compile_main() -> ExitCode {
    match compile_from_arguments() {
        Ok(()) => ExitCode::SUCCESS,
        Err(reason) => {
            // The host reads the reason from standard error.
            eprintln!("{}", reason.trim().replace('\n', " "));
            ExitCode::FAILURE
        }
    }
}

fn compile_from_arguments() -> Result<(), String> {
    apply_process_limits()?;
    let arguments: Vec<OsString> = std::env::args_os().skip(1).collect();
    let [.., source, target] = arguments.as_slice() else {
        return Err("pass a component and the file to write".into());
    };
    let component = std::fs::read(source).map_err(|e| format!("cannot read the component: {e}"))?;
    let code = crate::wasm_engine::new_compiling_engine()
        .and_then(|engine| engine.precompile_component(&strip_large_debug_info(&component)))
        .map_err(|e| format!("{e:#}"))?;
    let mut file = File::create(target).map_err(|e| format!("cannot write the compiled code: {e}"))?;
    file.write_all(&code)
        .and_then(|()| file.write_all(&compute_checksum(&code)))
        .map_err(|e| format!("cannot write the compiled code: {e}"))
}

fn apply_process_limits() -> Result<(), String> {
    let limit_from_environment = |name: &str| {
        let value = std::env::var(name).ok().and_then(|v| v.parse::<u64>().ok());
        value.ok_or_else(|| format!("the limit {name} is not set in the environment"))
    };
    let set = |resource, soft: u64, hard: u64| {
        let limit = Rlimit {
            current: Some(soft),
            maximum: Some(hard),
        };
        setrlimit(resource, limit).map_err(|e| format!("cannot set a limit of the process: {e}"))
    };
    // Active jobs have priority over compilation.
    rustix::process::nice(NICE_INCREMENT).map_err(|e| format!("cannot lower the priority: {e}"))?;
    set(Resource::Core, 0, 0)?;
    set(Resource::Fsize, MAX_CODE_BYTES, MAX_CODE_BYTES)?;
    let (seconds, bytes) = (
        limit_from_environment(CPU_SECONDS_VARIABLE)?,
        limit_from_environment(MEMORY_BYTES_VARIABLE)?,
    );
    set(Resource::Cpu, seconds, seconds.saturating_add(1))?;
    set(Resource::As, bytes, bytes)
}
