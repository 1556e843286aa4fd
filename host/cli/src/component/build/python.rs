//! Python: componentize-py, which puts CPython and the modules it has already imported into one component.

use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};
use tokio::process::Command;

use super::tool::{find, installed, run};
use super::{Places, Source, embedded, world};

/// Version of componentize-py; `templates/tools/python.txt` has its hashes.
const VERSION: &str = "0.25.1";

/// Builds the folder's `policy.py`; gives the component.
pub(super) async fn build(source: &Source, contract: &Path, places: &Places) -> Result<PathBuf> {
    let modules = source.workshop().join("python");
    embedded::lay(&modules, embedded::PYTHON_SDK)
        .with_context(|| format!("cannot write to {}", modules.display()))?;
    let tool = tool(places).await?.join("bin/componentize-py");
    let command = || {
        let mut command = Command::new(&tool);
        command
            .arg("--quiet")
            .arg("--wit-path")
            .arg(contract)
            .args(["--world", world::NAME])
            .current_dir(&source.folder);
        command
    };
    // For editors and type checkers: the build makes its own.
    let bindings = modules.join("wit_world");
    if bindings.exists() {
        std::fs::remove_dir_all(&bindings)
            .with_context(|| format!("cannot remove {}", bindings.display()))?;
    }
    run(
        command().arg("bindings").arg(&modules),
        "componentize-py bindings",
    )
    .await?;
    let output = source.workshop().join("component.wasm");
    let mut componentize = command();
    componentize
        .args(["componentize", "policy", "--python-path", "."])
        .arg("--python-path")
        .arg(&modules)
        .arg("--output")
        .arg(&output);
    run(&mut componentize, "componentize-py").await?;
    Ok(output)
}

async fn tool(places: &Places) -> Result<PathBuf> {
    let name = format!("componentize-py-{VERSION}");
    installed(places.cache.join("tools").join(&name), &name, async |folder| {
        let remedy =
            "install Python 3.10 or newer, on Debian and Ubuntu `apt-get install python3 python3-venv`";
        let python = find("python3", remedy)?;
        let mut venv = Command::new(python);
        venv.args(["-m", "venv", "--clear", "."]).current_dir(&folder);
        run(&mut venv, "python3 -m venv")
            .await
            .context("on Debian and Ubuntu run `apt-get install python3-venv`")?;
        let wanted = folder.join("requirements.txt");
        embedded::write(&wanted, include_str!("../templates/tools/python.txt"))?;
        let mut pip = Command::new(folder.join("bin/python"));
        pip.args([
            "-m",
            "pip",
            "install",
            "--quiet",
            "--no-deps",
            "--only-binary=:all:",
            "--require-hashes",
        ])
        .arg("--requirement")
        .arg(&wanted);
        run(&mut pip, "pip install").await.map(drop)
    })
    .await
}

#[cfg(test)]
mod tests {
    use super::VERSION;

    #[test]
    fn the_hashes_are_those_of_the_version() {
        let wanted = include_str!("../templates/tools/python.txt");
        assert!(wanted.contains(&format!("componentize-py=={VERSION} ")));
    }
}
