//! The compiling process.

use std::ffi::OsString;
use std::fs::File;
use std::io::Write as _;
use std::process::ExitCode;

use rustix::process::{Resource, Rlimit, setrlimit};

use super::checksum;
use super::strip::stripped;
use super::{BYTES, SECONDS};

/// Bytes of compiled code a child may write.
const CODE_BYTES: u64 = 512 << 20;

/// By how much its priority is lowered. Linux gives a thread of this one the thirtieth part of what it gives a thread of the
/// host's, on a core that both want.
const PRIORITY: i32 = 15;

/// The compiling process: the last two arguments of the command line are the component and the file to write. The host
/// starts it with the limits in its environment; they are taken before the component is looked at.
#[allow(clippy::print_stderr)]
pub fn compile_main() -> ExitCode {
    match compile() {
        Ok(()) => ExitCode::SUCCESS,
        Err(reason) => {
            // Standard error is what the host reads the reason from.
            eprintln!("{}", reason.trim().replace('\n', " "));
            ExitCode::FAILURE
        }
    }
}

fn compile() -> Result<(), String> {
    limit()?;
    let arguments: Vec<OsString> = std::env::args_os().skip(1).collect();
    let [.., source, target] = arguments.as_slice() else {
        return Err("give a component and the file to write".into());
    };
    let component = std::fs::read(source).map_err(|e| format!("the component cannot be read: {e}"))?;
    let code = crate::engine::compiling()
        .and_then(|engine| engine.precompile_component(&stripped(&component)))
        .map_err(|e| format!("{e:#}"))?;
    let mut file = File::create(target).map_err(|e| format!("the compiled code cannot be written: {e}"))?;
    file.write_all(&code)
        .and_then(|()| file.write_all(&checksum::of(&code)))
        .map_err(|e| format!("the compiled code cannot be written: {e}"))
}

fn limit() -> Result<(), String> {
    let given = |name: &str| {
        let value = std::env::var(name).ok().and_then(|v| v.parse::<u64>().ok());
        value.ok_or_else(|| format!("the limit {name} is not set, and nothing is compiled without one"))
    };
    let set = |resource, soft: u64, hard: u64| {
        let limit = Rlimit {
            current: Some(soft),
            maximum: Some(hard),
        };
        setrlimit(resource, limit).map_err(|e| format!("a limit cannot be set: {e}"))
    };
    // Whoever waits for a component has less of a claim to the machine than the jobs in work.
    rustix::process::nice(PRIORITY).map_err(|e| format!("the priority cannot be lowered: {e}"))?;
    set(Resource::Core, 0, 0)?;
    set(Resource::Fsize, CODE_BYTES, CODE_BYTES)?;
    let (seconds, bytes) = (given(SECONDS)?, given(BYTES)?);
    set(Resource::Cpu, seconds, seconds.saturating_add(1))?;
    set(Resource::As, bytes, bytes)
}
