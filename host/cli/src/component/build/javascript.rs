//! Builds JavaScript components with componentize-qjs. The component contains QuickJS with the source already loaded.

use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};
use tokio::process::Command;

use super::toolchain::{ensure_installed, find_program, run_program, run_program_explaining_failure};
use super::{AppFolders, ComponentSource, component_world, embedded_wit_and_sdk_files};

/// Version of componentize-qjs. `templates/tools/js` has its hashes.
const COMPONENTIZE_QJS_VERSION: &str = "0.4.5";

/// Builds `policy.js` and returns the path of the component.
pub(super) async fn build(
    source: &ComponentSource,
    contract: &Path,
    folders: &AppFolders,
) -> Result<PathBuf> {
    // The toolchain and editors resolve bare imports from this folder.
    let sdk = source.folder.join("node_modules/weir-sdk");
    embedded_wit_and_sdk_files::write_files(&sdk, embedded_wit_and_sdk_files::JS_SDK_FILES)
        .with_context(|| format!("cannot write to {}", sdk.display()))?;
    let node = find_program(
        "node",
        "install Node.js 18 or newer, on Debian and Ubuntu `apt-get install nodejs npm`",
    )?;
    let tool = install_componentize_qjs(folders).await?;
    let output = source.build_work_folder().join("component.wasm");
    let mut command = Command::new(node);
    command
        .arg(tool.join("node_modules/componentize-qjs/bin/componentize-qjs"))
        .arg("--wit")
        .arg(contract)
        .args([
            "--world",
            component_world::WORLD_NAME,
            "--sync",
            "--js",
            source.language.marker_file_name(),
        ])
        .args(["--module-root", "."])
        .arg("--output")
        .arg(&output)
        .current_dir(&source.folder);
    run_program_explaining_failure(&mut command, "componentize-qjs", explain_missing_capability).await?;
    Ok(output)
}

/// Returns an explanation if the build failed because the source imports a capability that is not granted.
fn explain_missing_capability(build_output: &str) -> Option<String> {
    let missing =
        |name: &&str| build_output.contains(&format!("Error resolving module 'weir:pipeline/{name}@"));
    let name = ["state", "rasterizer", "inference"].into_iter().find(missing)?;
    Some(format!(
        "pipeline.toml does not grant the capability {name}: add \"{name}\" to [capabilities] grant"
    ))
}

async fn install_componentize_qjs(folders: &AppFolders) -> Result<PathBuf> {
    let name = format!("componentize-qjs-{COMPONENTIZE_QJS_VERSION}");
    ensure_installed(folders.cache.join("tools").join(&name), &name, async |folder| {
        embedded_wit_and_sdk_files::write_if_changed(
            &folder.join("package.json"),
            include_str!("../templates/tools/js/package.json"),
        )?;
        embedded_wit_and_sdk_files::write_if_changed(
            &folder.join("package-lock.json"),
            include_str!("../templates/tools/js/package-lock.json"),
        )?;
        let npm = find_program("npm", "on Debian and Ubuntu run `apt-get install npm`")?;
        let mut command = Command::new(npm);
        // `npm ci` fails here, because the lock file lacks packages for platforms that are not published.
        command
            .args(["install", "--ignore-scripts", "--no-audit", "--no-fund"])
            .current_dir(&folder);
        run_program(&mut command, "npm install").await.map(drop)
    })
    .await
}

#[cfg(test)]
mod tests {
    use super::{COMPONENTIZE_QJS_VERSION, explain_missing_capability};

    #[test]
    fn build_error_names_the_missing_capability() {
        let build_output = "Error: Error resolving module 'weir:pipeline/inference@0.1.0' from '/node_modules/weir-sdk/inference.js'";
        assert!(
            explain_missing_capability(build_output)
                .unwrap()
                .contains("add \"inference\"")
        );
        assert_eq!(explain_missing_capability("Error: expecting ';'"), None);
    }

    #[test]
    fn lock_file_pins_the_tool_version() {
        let lock = include_str!("../templates/tools/js/package-lock.json");
        assert!(lock.contains(&format!("\"componentize-qjs\": \"{COMPONENTIZE_QJS_VERSION}\"")));
    }
}
