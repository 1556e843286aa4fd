//! Finds, installs and runs the programs that build components.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{Output, Stdio};

use crate::terminal::{await_with_progress, error_line, print_to_stderr};
use anyhow::{Context as _, Result, bail};
use rustix::fs::{FlockOperation, flock};
use tokio::process::Command;

/// Finds a program in `PATH`. If it is missing, the error contains `remedy`, which describes how to install it.
pub(super) fn find_program(name: &str, remedy: &str) -> Result<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let found = std::env::split_paths(&path)
        .map(|folder| folder.join(name))
        .find(|file| file.is_file());
    found.with_context(|| format!("{name} is missing: {remedy}"))
}

/// Runs a program and returns its standard output. Fails if the exit code is not 0. The program is killed if the future is dropped.
pub(super) async fn run_program(command: &mut Command, command_name: &str) -> Result<String> {
    run_program_explaining_failure(command, command_name, |_| None).await
}

/// Like `run_program`. If the program fails, `explain` gets its output and may return the reason, which becomes part of
/// the error.
pub(super) async fn run_program_explaining_failure(
    command: &mut Command,
    command_name: &str,
    explain: impl FnOnce(&str) -> Option<String>,
) -> Result<String> {
    let output = await_with_progress(
        &format!("running {command_name}"),
        run_and_collect_output(command, Stdio::piped()),
    )
    .await?;
    let stdout = String::from_utf8_lossy(&output.stdout).into_owned();
    if output.status.success() {
        return Ok(stdout);
    }
    // The compiler's messages are printed unchanged, because they are about the user's source.
    let combined_output = stdout + &String::from_utf8_lossy(&output.stderr);
    print_to_stderr(format_args!("{combined_output}"));
    let reason = explain(&combined_output).unwrap_or_else(|| "see the output above".into());
    bail!("{command_name} failed ({}): {reason}", output.status)
}

/// Like `run_program` for a program that runs long and reports its progress. Its standard error is not captured, so that the user
/// sees it at once.
pub(super) async fn run_program_showing_stderr(command: &mut Command, command_name: &str) -> Result<String> {
    let output = run_and_collect_output(command, Stdio::inherit()).await?;
    if !output.status.success() {
        bail!("{command_name} failed ({}): see the output above", output.status);
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

async fn run_and_collect_output(command: &mut Command, errors: Stdio) -> Result<Output> {
    let child = command
        // A backtrace of the tool does not help the author of a component.
        .env("RUST_BACKTRACE", "0")
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(errors)
        .kill_on_drop(true)
        .spawn();
    let cannot = || format!("cannot run {}", command.as_std().get_program().display());
    child
        .with_context(cannot)?
        .wait_with_output()
        .await
        .with_context(cannot)
}

/// Installs a toolchain into a folder of the cache unless it is there, and returns the folder. `install` fills the folder. An
/// interrupted installation starts again, and concurrent builds wait for each other.
pub(super) async fn ensure_installed<I>(
    folder: PathBuf,
    name: &str,
    install: impl FnOnce(PathBuf) -> I,
) -> Result<PathBuf>
where
    I: Future<Output = Result<()>>,
{
    let done = folder.join(".installed");
    if done.is_file() {
        return Ok(folder);
    }
    let cannot = || format!("cannot write to {}", folder.display());
    std::fs::create_dir_all(&folder).with_context(cannot)?;
    // The lock file is next to the folder, because an installation may clear the folder.
    let _lock = acquire_install_lock(&folder.with_file_name(format!("{name}.lock")))
        .await
        .with_context(cannot)?;
    if !done.is_file() {
        error_line!("weir: installing {name} to {}", folder.display());
        install(folder.clone()).await?;
        std::fs::write(&done, "").with_context(cannot)?;
    }
    Ok(folder)
}

/// Acquires the lock file. Waits while another process installs the toolchain.
async fn acquire_install_lock(lock_file: &Path) -> Result<File> {
    let lock = File::create(lock_file)?;
    Ok(
        tokio::task::spawn_blocking(move || flock(&lock, FlockOperation::LockExclusive).map(|()| lock))
            .await??,
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn missing_program_error_says_how_to_install_it() {
        assert!(find_program("sh", "").unwrap().is_file());
        let error = find_program("no-such-program", "run: get it").unwrap_err();
        assert_eq!(error.to_string(), "no-such-program is missing: run: get it");
    }

    #[tokio::test]
    async fn failed_installation_is_repeated_and_a_complete_one_is_not() {
        let folder = tempfile::tempdir().unwrap();
        let tool_folder = folder.path().join("tool");
        let failed = ensure_installed(tool_folder.clone(), "tool", async |_| bail!("no network")).await;
        assert!(failed.is_err());
        let mut times = 0;
        for _ in 0..2 {
            ensure_installed(tool_folder.clone(), "tool", async |_| {
                times += 1;
                Ok(())
            })
            .await
            .unwrap();
        }
        assert_eq!(times, 1);
    }
}
