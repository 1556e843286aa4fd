//! The command-line arguments of `weir component` and `weir dev`.

use std::path::PathBuf;

use clap::{Args, Subcommand};
use weir_core::component::ComponentDigest;
use weir_core::manifest::Role;

use super::component_source::Language;
use crate::registry::{ArtifactReference, ComponentLocation, PlainHttpArg};

/// The subcommands of `weir component`.
#[derive(Debug, Subcommand)]
pub(crate) enum ComponentCommand {
    /// Create a folder with the source of a component and test cases that pass
    New(NewArgs),
    /// Build a component
    Build(BuildArgs),
    /// Compare a component's decisions with the expected ones, in the same sandbox as in production
    Test(TestArgs),
    /// Push a component to a server, so that pipelines can use it
    #[command(after_help = SERVER_KEY_HELP)]
    Push {
        /// The component: a file, or oci://HOST/NAME:TAG or oci://HOST/NAME@sha256:… in a registry
        #[arg(value_name = "COMPONENT")]
        location: ComponentLocation,
        /// Name of the component on the server [default: from the file name or the reference]
        #[arg(long, value_parser = parse_component_name)]
        name: Option<String>,
        #[command(flatten)]
        access: PlainHttpArg,
    },
    /// Publish a component to an OCI registry for container images
    #[command(after_help = REGISTRY_LOGIN_HELP)]
    Publish {
        /// File of the component
        file: PathBuf,
        /// HOST/NAME:TAG
        reference: ArtifactReference,
        #[command(flatten)]
        access: PlainHttpArg,
    },
    /// Pull a component from an OCI registry into a file
    #[command(after_help = REGISTRY_LOGIN_HELP)]
    Pull {
        /// HOST/NAME:TAG, or HOST/NAME@sha256:… for an immutable reference
        reference: ArtifactReference,
        /// File to write [default: the last part of NAME with .wasm]
        #[arg(long, short, value_name = "FILE")]
        output: Option<PathBuf>,
        #[command(flatten)]
        access: PlainHttpArg,
    },
    /// List the components on a server
    #[command(after_help = SERVER_KEY_HELP)]
    List,
    /// Remove a component from a server; no revision may use it
    #[command(after_help = SERVER_KEY_HELP)]
    Remove {
        /// Digest of the component; `weir component list` lists the digests
        digest: ComponentDigest,
    },
}

const SERVER_KEY_HELP: &str = "The command works on the server of --server or WEIR_SERVER. The API key in WEIR_KEY or --key-file needs the scope components.";

const REGISTRY_LOGIN_HELP: &str = "\
Credentials come from `docker login` or `podman login`, or from the variables WEIR_REGISTRY (the host that they are for),
WEIR_REGISTRY_USER and WEIR_REGISTRY_PASSWORD.

Examples:
  weir component publish router.wasm registry.example/team/router:1.2
  weir component pull registry.example/team/router:1.2
  weir component push oci://registry.example/team/router@sha256:…";

/// Arguments of `weir component new`.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  weir component new contracts --lang python --role routing
  weir component new ours --lang js --role batching,progress")]
pub(crate) struct NewArgs {
    /// Name of the component and of its folder: a-z, 0-9 and '-'
    #[arg(value_parser = parse_component_name)]
    pub(crate) name: String,
    /// Programming language of the component
    #[arg(long, value_name = "LANGUAGE")]
    pub(crate) lang: Language,
    /// Roles of the component: batching, routing, chunking, progress
    #[arg(long = "role", required = true, value_name = "ROLE,…", value_delimiter = ',', value_parser = parse_role)]
    pub(crate) roles: Vec<Role>,
}

/// Arguments of `weir component build`.
#[derive(Debug, Args)]
pub(crate) struct BuildArgs {
    /// The component's folder
    #[arg(default_value = ".", value_name = "FOLDER")]
    pub(crate) folder: PathBuf,
}

/// Arguments of `weir component test`.
#[derive(Debug, Args)]
#[command(after_help = "\
A test case is a folder with these files:
  call.json          a call, {\"function\": \"routing.page\", \"input\": {…}}, or a list of calls of one job
  decision.json      the expected decision, or the list of expected decisions
  error.json         or the expected error: {\"kind\": \"component-trap\", \"message\": \"part of the message\"}
  capabilities.json  responses of the host to calls of capabilities (optional)
  settings.json      settings that override those of the manifest (optional)
The files use the names of the WIT contract. Exit code 1 means that a decision differs.")]
pub(crate) struct TestArgs {
    /// The component's folder
    #[arg(default_value = ".", value_name = "FOLDER")]
    pub(crate) folder: PathBuf,
    /// Folder of the test cases [default: FOLDER/cases]
    #[arg(long, value_name = "DIR")]
    pub(crate) cases: Option<PathBuf>,
    /// Test this component instead of the one in the manifest
    #[arg(long, value_name = "FILE")]
    pub(crate) component: Option<PathBuf>,
    /// Write the decisions of test cases without an expectation to decision.json
    #[arg(long)]
    pub(crate) write: bool,
}

/// Arguments of `weir dev`.
#[derive(Debug, Args)]
#[command(after_help = "\
Example:
  weir dev contracts --document contract.pdf")]
pub(crate) struct DevArgs {
    /// The component's folder
    #[arg(default_value = ".", value_name = "FOLDER")]
    pub(crate) folder: PathBuf,
    /// PDF file to ingest with the component after each change
    #[arg(long, value_name = "FILE")]
    pub(crate) document: Option<PathBuf>,
}

/// Maximum length of a component's name.
const MAX_NAME_CHARS: usize = 48;

fn parse_component_name(text: &str) -> Result<String, String> {
    let begins = text.starts_with(|c: char| c.is_ascii_lowercase());
    let plain = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
    if begins && text.len() <= MAX_NAME_CHARS && text.chars().all(plain) && !text.ends_with('-') {
        Ok(text.to_owned())
    } else {
        Err(format!(
            "a name has 1 to {MAX_NAME_CHARS} of the characters a-z, 0-9 and '-', starts with a letter and does not end with '-'"
        ))
    }
}

fn parse_role(text: &str) -> Result<Role, String> {
    let found = Role::ALL.into_iter().find(|role| role.name() == text.trim());
    found.ok_or_else(|| {
        format!(
            "there is no role '{text}': use one of {}",
            Role::ALL.map(Role::name).join(", ")
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn component_name_is_validated() {
        assert_eq!(parse_component_name("two-columns2"), Ok("two-columns2".into()));
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
            assert!(parse_component_name(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn unknown_role_error_lists_the_roles() {
        assert_eq!(parse_role("routing"), Ok(Role::Routing));
        assert!(
            parse_role("router")
                .unwrap_err()
                .contains("batching, routing, chunking, progress")
        );
    }
}
