//! The target of a command: a server, or the data folder of this machine.
//!
//! All commands follow one rule: with `--server` or the variable `WEIR_SERVER` they work on that server, otherwise on the data
//! folder. A command that supports only one of the two fails on the other and changes nothing. A fallback to the other target
//! would return results of the wrong target. Commands that use neither, such as `weir component build`, ignore the variable.

use std::path::{Path, PathBuf};

use anyhow::{Result, bail};
use weir_core::tenancy::KeyScope;

use crate::args::GlobalArgs;
use crate::server_client::ServerClient;

/// Variable with the URL of the server.
pub(crate) const SERVER_VARIABLE: &str = "WEIR_SERVER";

/// The targets that a command supports.
pub(crate) enum SupportedTargets {
    Both,
    ServerOnly,
    /// The data folder only. The text says how to do the same on a server.
    FolderOnly(&'static str),
    /// The command uses neither a server nor the data folder.
    Neither,
}

/// The target of a command.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum CommandTarget {
    /// The data folder.
    Folder,
    /// A server.
    Server { url: String, key_file: Option<PathBuf> },
}

impl CommandTarget {
    /// Returns the target of the command `name`, by the flag `--server` and the variable. Fails if the command does not support the
    /// target.
    pub(crate) fn resolve(
        name: &str,
        targets: &SupportedTargets,
        global_args: &GlobalArgs,
        variable: Option<&str>,
    ) -> Result<Self> {
        let flag = global_args.server.as_deref();
        if let (SupportedTargets::Neither, Some(_)) = (targets, flag) {
            bail!("`weir {name}` does not use a server: leave out --server");
        }
        let server = flag.or(variable).map(str::trim).filter(|url| !url.is_empty());
        match (targets, server) {
            (SupportedTargets::Neither, _)
            | (SupportedTargets::Both | SupportedTargets::FolderOnly(_), None) => Ok(Self::Folder),
            (SupportedTargets::Both | SupportedTargets::ServerOnly, Some(url)) => Ok(Self::Server {
                url: url.trim_end_matches('/').to_owned(),
                key_file: global_args.key_file.clone(),
            }),
            (SupportedTargets::ServerOnly, None) => bail!(
                "`weir {name}` works on a server only: set --server URL or {SERVER_VARIABLE}, such as http://127.0.0.1:7070"
            ),
            (SupportedTargets::FolderOnly(instead), Some(_)) => {
                let (named_by, remedy) = match flag {
                    Some(_) => ("--server", "leave it out"),
                    None => (SERVER_VARIABLE, "unset it"),
                };
                bail!(
                    "`weir {name}` works on the data folder of this machine only, but {named_by} names a server: {remedy}, or {instead}"
                )
            }
        }
    }

    /// Returns a client of the server, or `None` if the target is the data folder. Errors name `scope` as the scope that the
    /// API key needs.
    pub(crate) fn server_client(&self, scope: KeyScope) -> Result<Option<ServerClient>> {
        match self {
            Self::Folder => Ok(None),
            Self::Server { url, key_file } => ServerClient::new(url, key_file.as_deref(), scope).map(Some),
        }
    }

    /// Returns a client of the server. Fails if the target is the data folder.
    pub(crate) fn require_server_client(&self, scope: KeyScope) -> Result<ServerClient> {
        match self.server_client(scope)? {
            Some(remote) => Ok(remote),
            None => bail!("this command works on a server only: set --server URL or {SERVER_VARIABLE}"),
        }
    }
}

/// Makes a child process work on this data folder, also if the variable names a server or the settings name stores on servers.
pub(crate) fn force_data_folder_in_child<'a>(
    command: &'a mut tokio::process::Command,
    data: &Path,
) -> &'a mut tokio::process::Command {
    command.env_remove(SERVER_VARIABLE).arg("--data").arg(data);
    for setting in [
        "storage.ledger=",
        "storage.blobs=",
        "storage.vectors=",
        "cluster.redis=",
        "cluster.role=both",
    ] {
        command.args(["--set", setting]);
    }
    command
}
