//! Builds Python components with componentize-py. The component contains CPython with all modules already imported.

use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};
use tokio::process::Command;

use super::toolchain::{ensure_installed, find_program, run_program};
use super::{AppFolders, ComponentSource, component_world, embedded_wit_and_sdk_files};

/// Version of componentize-py. `templates/tools/python.txt` has its hashes.
const COMPONENTIZE_PY_VERSION: &str = "0.25.1";

/// Builds `policy.py` and returns the path of the component.
pub(super) async fn build(
    source: &ComponentSource,
    contract: &Path,
    folders: &AppFolders,
) -> Result<PathBuf> {
    let modules = source.build_work_folder().join("python");
    embedded_wit_and_sdk_files::write_files(&modules, embedded_wit_and_sdk_files::PYTHON_SDK_FILES)
        .with_context(|| format!("cannot write to {}", modules.display()))?;
    let tool = install_componentize_py(folders)
        .await?
        .join("bin/componentize-py");
    let command = || {
        let mut command = Command::new(&tool);
        command
            .arg("--quiet")
            .arg("--wit-path")
            .arg(contract)
            .args(["--world", component_world::WORLD_NAME])
            .current_dir(&source.folder);
        command
    };
    // These bindings are for editors and type checkers. The build creates its own.
    let bindings = modules.join("wit_world");
    if bindings.exists() {
        std::fs::remove_dir_all(&bindings)
            .with_context(|| format!("cannot remove {}", bindings.display()))?;
    }
    run_program(
        command().arg("bindings").arg(&modules),
        "componentize-py bindings",
    )
    .await?;
    let output = source.build_work_folder().join("component.wasm");
    let mut componentize = command();
    componentize
        .args(["componentize", "policy", "--python-path", "."])
        .arg("--python-path")
        .arg(&modules)
        .arg("--output")
        .arg(&output);
    run_program(&mut componentize, "componentize-py").await?;
    Ok(output)
}

async fn install_componentize_py(folders: &AppFolders) -> Result<PathBuf> {
    let name = format!("componentize-py-{COMPONENTIZE_PY_VERSION}");
    ensure_installed(folders.cache.join("tools").join(&name), &name, async |folder| {
        let remedy =
            "install Python 3.10 or newer, on Debian and Ubuntu `apt-get install python3 python3-venv`";
        let python = find_program("python3", remedy)?;
        let mut venv = Command::new(python);
        venv.args(["-m", "venv", "--clear", "."]).current_dir(&folder);
        run_program(&mut venv, "python3 -m venv")
            .await
            .context("on Debian and Ubuntu run `apt-get install python3-venv`")?;
        let requirements_file = folder.join("requirements.txt");
        embedded_wit_and_sdk_files::write_if_changed(
            &requirements_file,
            include_str!("../templates/tools/python.txt"),
        )?;
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
        .arg(&requirements_file);
        run_program(&mut pip, "pip install").await.map(drop)
    })
    .await
}

#[cfg(test)]
mod tests {
    use super::COMPONENTIZE_PY_VERSION;

    #[test]
    fn requirements_pin_the_tool_version() {
        let requirements = include_str!("../templates/tools/python.txt");
        assert!(requirements.contains(&format!("componentize-py=={COMPONENTIZE_PY_VERSION} ")));
    }
}
