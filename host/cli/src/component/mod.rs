//! `weir component`: decisions written in Rust, JavaScript or Python, from an empty folder to a component that is known to
//! decide as it should.
//!
//! A component's folder is its source (`src/lib.rs`, `policy.js` or `policy.py`), its `pipeline.toml` and its `cases/`. The
//! manifest is the one description of it that everything else follows from: the roles it names are what the component
//! exports, the capabilities it grants are all it can import, and the file it names is where the build puts the result. The
//! contract and the SDK come out of this binary (`.weir/` in the folder, like any build output), so they always are those
//! of the host that will run the component, and writing one needs nothing from a network but the language's own toolchain.

mod args;
mod build;
mod case;
mod dev;
mod difference;
mod embedded;
mod language;
mod published;
mod pushed;
mod scaffold;
mod source;
mod stand_ins;
mod test;
mod words;

use std::process::ExitCode;

use anyhow::Result;
use weir_core::settings::Settings;

use crate::places::Places;
use crate::target::Target;

pub(crate) use args::{ComponentCommand, Dev};
pub(crate) use dev::run as dev;

/// Carries out `weir component …`.
pub(crate) async fn run(
    command: &ComponentCommand,
    json: bool,
    settings: &Settings,
    places: &Places,
    target: &Target,
) -> Result<ExitCode> {
    match command {
        ComponentCommand::New(new) => scaffold::run(new, json),
        ComponentCommand::Build(build) => build::run(build, json, places).await,
        ComponentCommand::Test(test) => test::run(test, json, settings, places).await,
        ComponentCommand::Push { place, name, access } => {
            pushed::push(place, name.as_deref(), *access, target, json).await
        }
        ComponentCommand::Publish {
            file,
            reference,
            access,
        } => published::publish(file, reference, *access, json).await,
        ComponentCommand::Pull {
            reference,
            output,
            access,
        } => published::pull(reference, output.as_deref(), *access, json).await,
        ComponentCommand::List => pushed::list(target, json).await,
        ComponentCommand::Remove { digest } => pushed::remove(digest, target).await,
    }
}
