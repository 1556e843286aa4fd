//! `weir component`: creates, builds, tests and publishes components in Rust, JavaScript or Python.
//!
//! A component's folder has its source (`src/lib.rs`, `policy.js` or `policy.py`), its `pipeline.toml` and its `cases/`. The
//! manifest `pipeline.toml` determines the rest: the component exports the roles in the manifest, it can import only the granted
//! capabilities, and the build writes its result to the file in the manifest. The WIT contract and the SDK are embedded in this
//! binary and written to `.weir/` in the folder. So they always match the host that runs the component, and a build needs the
//! network only for the toolchain of the language.

mod args;
mod build;
mod component_source;
mod dev;
mod embedded_wit_and_sdk_files;
mod expected_decision_diff;
mod fake_host;
mod registry_commands;
mod scaffold;
mod server_commands;
mod test_case;
mod test_command;

use std::process::ExitCode;

use anyhow::Result;
use weir_core::settings::Settings;

use crate::app_folders::AppFolders;
use crate::command_target::CommandTarget;

pub(crate) use args::{ComponentCommand, DevArgs};
pub(crate) use dev::run as dev;

/// Runs a `weir component` command.
pub(crate) async fn run(
    command: &ComponentCommand,
    json: bool,
    settings: &Settings,
    folders: &AppFolders,
    target: &CommandTarget,
) -> Result<ExitCode> {
    match command {
        ComponentCommand::New(new) => scaffold::run(new, json),
        ComponentCommand::Build(build) => build::run(build, json, folders).await,
        ComponentCommand::Test(test) => test_command::run(test, json, settings, folders).await,
        ComponentCommand::Push {
            location,
            name,
            access,
        } => server_commands::push_component_command(location, name.as_deref(), *access, target, json).await,
        ComponentCommand::Publish {
            file,
            reference,
            access,
        } => registry_commands::publish_component(file, reference, *access, json).await,
        ComponentCommand::Pull {
            reference,
            output,
            access,
        } => registry_commands::pull_component(reference, output.as_deref(), *access, json).await,
        ComponentCommand::List => server_commands::list_components(target, json).await,
        ComponentCommand::Remove { digest } => server_commands::remove_component(digest, target).await,
    }
}
