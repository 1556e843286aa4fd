//! Programs that build components: found, installed and run.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{Output, Stdio};

use crate::terminal::{announce, error_line, print_error};
use anyhow::{Context as _, Result, bail};
use rustix::fs::{FlockOperation, flock};
use tokio::process::Command;

/// Finds a program; `remedy` says how to come by it.
pub(super) fn find(name: &str, remedy: &str) -> Result<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let found = std::env::split_paths(&path)
        .map(|folder| folder.join(name))
        .find(|file| file.is_file());
    found.with_context(|| format!("{name} is missing: {remedy}"))
}

/// Runs a program to its end and gives what it wrote to its standard output. It ends with this process, or with the future.
pub(super) async fn run(command: &mut Command, doing: &str) -> Result<String> {
    run_or(command, doing, |_| None).await
}

/// The same; from what it wrote before it failed, `explain` may know better than "the reason stands above".
pub(super) async fn run_or(
    command: &mut Command,
    doing: &str,
    explain: impl FnOnce(&str) -> Option<String>,
) -> Result<String> {
    let output = announce(&format!("{doing} runs"), output(command, Stdio::piped())).await?;
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    if output.status.success() {
        return Ok(said);
    }
    // What a compiler has to say about the source belongs to whoever wrote it, unchanged.
    let said = said + &String::from_utf8_lossy(&output.stderr);
    print_error(format_args!("{said}"));
    let reason = explain(&said).unwrap_or_else(|| "the reason stands above".into());
    bail!("{doing} failed ({}): {reason}", output.status)
}

/// The same for a program that takes its time and says what it does meanwhile: its standard error is shown as it comes.
pub(super) async fn run_shown(command: &mut Command, doing: &str) -> Result<String> {
    let output = output(command, Stdio::inherit()).await?;
    if !output.status.success() {
        bail!("{doing} failed ({}): the reason stands above", output.status);
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

async fn output(command: &mut Command, errors: Stdio) -> Result<Output> {
    let child = command
        // Where a tool broke is of no use to whoever wrote what it broke on.
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

/// A toolchain below the cache, installed if it is not there. `install` fills the folder. What was left half installed is
/// installed again, and of two builds at a time one waits for the other.
pub(super) async fn installed<I>(
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
    // Beside the folder, since an installation may begin with emptying it.
    let _turn = turn(&folder.with_file_name(format!("{name}.lock")))
        .await
        .with_context(cannot)?;
    if !done.is_file() {
        error_line!("weir: installing {name} to {}", folder.display());
        install(folder.clone()).await?;
        std::fs::write(&done, "").with_context(cannot)?;
    }
    Ok(folder)
}

/// Waits until nobody else installs there.
async fn turn(lock: &Path) -> Result<File> {
    let lock = File::create(lock)?;
    Ok(
        tokio::task::spawn_blocking(move || flock(&lock, FlockOperation::LockExclusive).map(|()| lock))
            .await??,
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_missing_program_is_answered_with_how_to_get_it() {
        assert!(find("sh", "").unwrap().is_file());
        let error = find("no-such-program", "run: get it").unwrap_err();
        assert_eq!(error.to_string(), "no-such-program is missing: run: get it");
    }

    #[tokio::test]
    async fn what_failed_is_installed_again_and_what_worked_is_not() {
        let folder = tempfile::tempdir().unwrap();
        let place = folder.path().join("tool");
        let failed = installed(place.clone(), "tool", async |_| bail!("no network")).await;
        assert!(failed.is_err());
        let mut times = 0;
        for _ in 0..2 {
            installed(place.clone(), "tool", async |_| {
                times += 1;
                Ok(())
            })
            .await
            .unwrap();
        }
        assert_eq!(times, 1);
    }
}
