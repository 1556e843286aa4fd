//! The command line of `weir component` and `weir dev`.

use std::path::PathBuf;

use clap::{Args, Subcommand};
use weir_core::component::ComponentDigest;
use weir_core::manifest::Role;

use super::language::Language;
use crate::registry::{Access, Place, Reference};

/// `weir component …`.
#[derive(Debug, Subcommand)]
pub(crate) enum ComponentCommand {
    /// Make a folder with a component that builds and a test that passes
    New(New),
    /// Build a component
    Build(Build),
    /// Compare a component's decisions with those expected, in the sandbox it will live in
    Test(Test),
    /// Push a component to a server, for pipelines that name it
    #[command(after_help = KEY)]
    Push {
        /// The component: a file, or oci://HOST/NAME:TAG (or @sha256:…) in a registry
        #[arg(value_name = "COMPONENT")]
        place: Place,
        /// What it is called [default: the file's name, or the last of the reference]
        #[arg(long, value_parser = name)]
        name: Option<String>,
        #[command(flatten)]
        access: Access,
    },
    /// Publish a component in an OCI registry, where images are
    #[command(after_help = LOGIN)]
    Publish {
        /// The component
        file: PathBuf,
        /// HOST/NAME:TAG
        reference: Reference,
        #[command(flatten)]
        access: Access,
    },
    /// Pull a component from an OCI registry into a file
    #[command(after_help = LOGIN)]
    Pull {
        /// HOST/NAME:TAG, or HOST/NAME@sha256:… for one that never changes
        reference: Reference,
        /// The file [default: the last of NAME, with .wasm]
        #[arg(long, short, value_name = "FILE")]
        output: Option<PathBuf>,
        #[command(flatten)]
        access: Access,
    },
    /// List the components on a server
    #[command(after_help = KEY)]
    List,
    /// Remove a component that no revision names from a server
    #[command(after_help = KEY)]
    Remove {
        /// Its digest, as `weir component list` shows it
        digest: ComponentDigest,
    },
}

const KEY: &str = "It works on the server of --server or WEIR_SERVER; the key, of WEIR_KEY or --key-file, needs the scope components.";

const LOGIN: &str = "\
A login is taken from where `docker login` or `podman login` have put it, or from WEIR_REGISTRY (the host it is for),
WEIR_REGISTRY_USER and WEIR_REGISTRY_PASSWORD.

Examples:
  weir component publish router.wasm registry.example/team/router:1.2
  weir component pull registry.example/team/router:1.2
  weir component push oci://registry.example/team/router@sha256:…";

/// `weir component new`.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  weir component new contracts --lang python --role routing
  weir component new ours --lang js --role batching,progress")]
pub(crate) struct New {
    /// Its name, and that of its folder: a-z, 0-9 and '-'
    #[arg(value_parser = name)]
    pub(crate) name: String,
    /// What to write it in
    #[arg(long, value_name = "LANGUAGE")]
    pub(crate) lang: Language,
    /// What it decides: batching, routing, chunking, progress
    #[arg(long = "role", required = true, value_name = "ROLE,…", value_delimiter = ',', value_parser = role)]
    pub(crate) roles: Vec<Role>,
}

/// `weir component build`.
#[derive(Debug, Args)]
pub(crate) struct Build {
    /// The component's folder
    #[arg(default_value = ".", value_name = "FOLDER")]
    pub(crate) folder: PathBuf,
}

/// `weir component test`.
#[derive(Debug, Args)]
#[command(after_help = "\
A case is a folder with
  call.json          a call, {\"function\": \"routing.page\", \"input\": {…}}, or a list of calls of one job
  decision.json      the decision expected, or the list of them
  error.json         or the error that is to end them: {\"kind\": \"component-trap\", \"message\": \"part of it\"}
  capabilities.json  what the host answers, if the component asks
  settings.json      settings over the manifest's
Names and words are those of the contract. Ends with 1 if a decision differs.")]
pub(crate) struct Test {
    /// The component's folder
    #[arg(default_value = ".", value_name = "FOLDER")]
    pub(crate) folder: PathBuf,
    /// Folder of the cases [default: FOLDER/cases]
    #[arg(long, value_name = "DIR")]
    pub(crate) cases: Option<PathBuf>,
    /// Put this component in the place of the manifest's
    #[arg(long, value_name = "FILE")]
    pub(crate) component: Option<PathBuf>,
    /// Write down the decisions of cases that expect nothing yet
    #[arg(long)]
    pub(crate) write: bool,
}

/// `weir dev`.
#[derive(Debug, Args)]
#[command(after_help = "\
Example:
  weir dev contracts --document contract.pdf")]
pub(crate) struct Dev {
    /// The component's folder
    #[arg(default_value = ".", value_name = "FOLDER")]
    pub(crate) folder: PathBuf,
    /// A PDF to run through it after each change
    #[arg(long, value_name = "FILE")]
    pub(crate) document: Option<PathBuf>,
}

/// Characters of a component's name.
const NAME: usize = 48;

fn name(text: &str) -> Result<String, String> {
    let begins = text.starts_with(|c: char| c.is_ascii_lowercase());
    let plain = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
    if begins && text.len() <= NAME && text.chars().all(plain) && !text.ends_with('-') {
        Ok(text.to_owned())
    } else {
        Err(format!(
            "use 1 to {NAME} of the characters a-z, 0-9 and '-', a letter first and no '-' last"
        ))
    }
}

fn role(text: &str) -> Result<Role, String> {
    let found = Role::ALL.into_iter().find(|role| role.name() == text.trim());
    found.ok_or_else(|| {
        format!(
            "there is no role '{text}': use {}",
            Role::ALL.map(Role::name).join(", ")
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_makes_a_folder_a_crate_and_a_pipeline() {
        assert_eq!(name("two-columns2"), Ok("two-columns2".into()));
        for wrong in [
            "",
            "-a",
            "2a",
            "A",
            "a_b",
            "a/b",
            "..",
            "a-",
            "ä",
            &"a".repeat(49),
        ] {
            assert!(name(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn an_unknown_role_is_answered_with_those_there_are() {
        assert_eq!(role("routing"), Ok(Role::Routing));
        assert!(
            role("router")
                .unwrap_err()
                .contains("batching, routing, chunking, progress")
        );
    }
}
