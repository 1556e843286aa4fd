//! JavaScript: componentize-qjs, which puts the source into a QuickJS that has already read it.

use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};
use tokio::process::Command;

use super::tool::{find, installed, run, run_or};
use super::{Places, Source, embedded, world};

/// Version of componentize-qjs; `templates/tools/js` has its hashes.
const VERSION: &str = "0.4.5";

/// Builds the folder's `policy.js`; gives the component.
pub(super) async fn build(source: &Source, contract: &Path, places: &Places) -> Result<PathBuf> {
    // Where a bare import is looked for, by the toolchain and by editors alike.
    let sdk = source.folder.join("node_modules/weir-sdk");
    embedded::lay(&sdk, embedded::JS_SDK).with_context(|| format!("cannot write to {}", sdk.display()))?;
    let node = find(
        "node",
        "install Node.js 18 or newer, on Debian and Ubuntu `apt-get install nodejs npm`",
    )?;
    let tool = tool(places).await?;
    let output = source.workshop().join("component.wasm");
    let mut command = Command::new(node);
    command
        .arg(tool.join("node_modules/componentize-qjs/bin/componentize-qjs"))
        .arg("--wit")
        .arg(contract)
        .args(["--world", world::NAME, "--sync", "--js", source.language.entry()])
        .args(["--module-root", "."])
        .arg("--output")
        .arg(&output)
        .current_dir(&source.folder);
    run_or(&mut command, "componentize-qjs", not_granted).await?;
    Ok(output)
}

/// Whether a build failed because the world lacks a capability that was imported.
fn not_granted(said: &str) -> Option<String> {
    let missing = |name: &&str| said.contains(&format!("Error resolving module 'weir:pipeline/{name}@"));
    let name = ["state", "rasterizer", "inference"].into_iter().find(missing)?;
    Some(format!(
        "pipeline.toml does not grant it: add \"{name}\" to [capabilities] grant"
    ))
}

async fn tool(places: &Places) -> Result<PathBuf> {
    let name = format!("componentize-qjs-{VERSION}");
    installed(places.cache.join("tools").join(&name), &name, async |folder| {
        embedded::write(
            &folder.join("package.json"),
            include_str!("../templates/tools/js/package.json"),
        )?;
        embedded::write(
            &folder.join("package-lock.json"),
            include_str!("../templates/tools/js/package-lock.json"),
        )?;
        let npm = find("npm", "on Debian and Ubuntu run `apt-get install npm`")?;
        let mut command = Command::new(npm);
        // Not `npm ci`, which refuses a lock file that lacks the packages of platforms nobody has published.
        command
            .args(["install", "--ignore-scripts", "--no-audit", "--no-fund"])
            .current_dir(&folder);
        run(&mut command, "npm install").await.map(drop)
    })
    .await
}

#[cfg(test)]
mod tests {
    use super::{VERSION, not_granted};

    #[test]
    fn a_capability_that_is_not_granted_is_named() {
        let said = "Error: Error resolving module 'weir:pipeline/inference@0.1.0' from '/node_modules/weir-sdk/inference.js'";
        assert!(not_granted(said).unwrap().contains("add \"inference\""));
        assert_eq!(not_granted("Error: expecting ';'"), None);
    }

    #[test]
    fn the_hashes_are_those_of_the_version() {
        let lock = include_str!("../templates/tools/js/package-lock.json");
        assert!(lock.contains(&format!("\"componentize-qjs\": \"{VERSION}\"")));
    }
}
