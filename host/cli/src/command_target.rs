//! The target of a command: a server, or the data folder of this machine.
//!
//! All commands follow one rule: with `--server` or the variable `WEIR_SERVER` they work on that server, otherwise on the data
//! folder. A command that supports only one of the two fails on the other and changes nothing. A fallback to the other target
//! would return results of the wrong target. Commands that use neither, such as `weir component build`, ignore the variable.

use std::path::{Path, PathBuf};

use anyhow::{Result, bail};
use weir_core::tenancy::KeyScope;

use crate::args::{Command, GlobalArgs};
use crate::component::ComponentCommand;
use crate::server_client::ServerClient;

const SERVER_VARIABLE: &str = "WEIR_SERVER";

/// The targets that a command supports.
enum SupportedTargets {
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
    /// Returns the target of the command, by its options and the variable. Fails if the target does not support the command or
    /// one of its options.
    pub(crate) fn from_command(command: &Command, shared: &GlobalArgs) -> Result<Self> {
        let variable = std::env::var(SERVER_VARIABLE).ok();
        Self::resolve(command, shared, variable.as_deref())
    }

    fn resolve(command: &Command, shared: &GlobalArgs, variable: Option<&str>) -> Result<Self> {
        let flag = shared.server.as_deref();
        let (name, sides) = supported_targets(command);
        if let (SupportedTargets::Neither, Some(_)) = (&sides, flag) {
            bail!("`weir {name}` does not use a server: leave out --server");
        }
        let server = flag.or(variable).map(str::trim).filter(|url| !url.is_empty());
        let target = match (&sides, server) {
            (SupportedTargets::Neither, _)
            | (SupportedTargets::Both | SupportedTargets::FolderOnly(_), None) => Self::Folder,
            (SupportedTargets::Both | SupportedTargets::ServerOnly, Some(url)) => Self::Server {
                url: url.trim_end_matches('/').to_owned(),
                key_file: shared.key_file.clone(),
            },
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
        };
        match command {
            Command::Log(log) => log.validate_for_target(&target)?,
            Command::Replay(replay) => replay.validate_for_target(&target)?,
            _ => {}
        }
        Ok(target)
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

/// Returns the name of a command and the targets it supports.
fn supported_targets(command: &Command) -> (&'static str, SupportedTargets) {
    match command {
        Command::Run(_) => (
            "run",
            SupportedTargets::FolderOnly("send the files to the server with POST /v1/jobs"),
        ),
        Command::Search(_) => ("search", SupportedTargets::Both),
        Command::Documents => ("documents", SupportedTargets::Both),
        Command::Serve(_) => ("serve", SupportedTargets::Neither),
        Command::Tenant(_) => (
            "tenant",
            SupportedTargets::FolderOnly(
                "use /v1/tenants of the server with an API key that has the scope admin",
            ),
        ),
        Command::Key(_) => (
            "key",
            SupportedTargets::FolderOnly(
                "use /v1/tenants/TENANT/keys of the server with an API key that has the scope admin",
            ),
        ),
        Command::Pipeline(_) => ("pipeline", SupportedTargets::ServerOnly),
        Command::Log(_) => ("log", SupportedTargets::Both),
        Command::Replay(_) => ("replay", SupportedTargets::Both),
        Command::Component(command) => match command {
            ComponentCommand::Push { .. } => ("component push", SupportedTargets::ServerOnly),
            ComponentCommand::List => ("component list", SupportedTargets::ServerOnly),
            ComponentCommand::Remove { .. } => ("component remove", SupportedTargets::ServerOnly),
            ComponentCommand::New(_) => ("component new", SupportedTargets::Neither),
            ComponentCommand::Build(_) => ("component build", SupportedTargets::Neither),
            ComponentCommand::Test(_) => ("component test", SupportedTargets::Neither),
            ComponentCommand::Publish { .. } => ("component publish", SupportedTargets::Neither),
            ComponentCommand::Pull { .. } => ("component pull", SupportedTargets::Neither),
        },
        Command::Dev(_) => ("dev", SupportedTargets::Neither),
        Command::Doctor => ("doctor", SupportedTargets::Neither),
        Command::Settings => ("settings", SupportedTargets::Neither),
    }
}

/// Makes a child process work on this data folder, also if the variable names a server.
pub(crate) fn force_data_folder<'a>(
    command: &'a mut tokio::process::Command,
    data: &Path,
) -> &'a mut tokio::process::Command {
    command.env_remove(SERVER_VARIABLE).arg("--data").arg(data)
}

#[cfg(test)]
mod tests {
    use clap::Parser as _;

    use super::*;
    use crate::args::Cli;

    const URL: &str = "http://host:7070";

    fn resolve_target(line: &str, variable: Option<&str>) -> Result<CommandTarget, String> {
        let cli = Cli::try_parse_from(line.split(' ')).unwrap_or_else(|e| panic!("{line}: {e}"));
        CommandTarget::resolve(&cli.command, &cli.global, variable).map_err(|e| e.to_string())
    }

    fn server_target() -> CommandTarget {
        CommandTarget::Server {
            url: URL.into(),
            key_file: None,
        }
    }

    const JOB: &str = "0193a5a0-0000-7000-8000-000000000000";

    #[test]
    fn target_is_the_server_if_set_else_the_data_folder() {
        for command in [
            "search x",
            "documents",
            &format!("log {JOB}"),
            &format!("replay {JOB}"),
        ] {
            let line = format!("weir {command}");
            assert_eq!(resolve_target(&line, None), Ok(CommandTarget::Folder), "{line}");
            assert_eq!(
                resolve_target(&line, Some("")),
                Ok(CommandTarget::Folder),
                "{line}"
            );
            assert_eq!(
                resolve_target(&line, Some(&format!("{URL}/"))),
                Ok(server_target()),
                "{line}"
            );
            let named = format!("{line} --server {URL}");
            assert_eq!(
                resolve_target(&named, Some("http://other")),
                Ok(server_target()),
                "{line}"
            );
        }
    }

    #[test]
    fn command_fails_on_an_unsupported_target() {
        for command in [
            "pipeline list",
            "pipeline show a",
            "component list",
            "component push a.wasm",
        ] {
            let line = format!("weir {command}");
            assert_eq!(resolve_target(&line, Some(URL)), Ok(server_target()), "{line}");
            let refused = resolve_target(&line, None).unwrap_err();
            assert!(
                refused.contains("works on a server only") && refused.contains("--server URL"),
                "{refused}"
            );
        }
        for command in ["run a.pdf", "tenant list", "key list a"] {
            let line = format!("weir {command}");
            assert_eq!(resolve_target(&line, None), Ok(CommandTarget::Folder), "{line}");
            let refused = resolve_target(&line, Some(URL)).unwrap_err();
            assert!(
                refused.contains("WEIR_SERVER names a server") && refused.contains("/v1/"),
                "{refused}"
            );
            let refused = resolve_target(&format!("{line} --server {URL}"), None).unwrap_err();
            assert!(refused.contains("--server names a server"), "{refused}");
        }
    }

    #[test]
    fn command_without_target_ignores_the_variable_not_the_flag() {
        for command in [
            "doctor",
            "settings",
            "serve",
            "dev",
            "component build",
            "component new a --lang js --role routing",
        ] {
            let line = format!("weir {command}");
            assert_eq!(
                resolve_target(&line, Some(URL)),
                Ok(CommandTarget::Folder),
                "{line}"
            );
            let refused = resolve_target(&format!("{line} --server {URL}"), None).unwrap_err();
            assert!(refused.contains("leave out --server"), "{refused}");
        }
    }

    #[test]
    fn option_fails_on_an_unsupported_target() {
        for (line, variable, part) in [
            (
                format!("log {JOB} --remote"),
                None,
                "--remote is gone: give --server URL",
            ),
            (
                format!("log {JOB} --remote"),
                Some(URL),
                "--remote is gone: leave it out",
            ),
            (format!("log {JOB} --tenant a"), Some(URL), "--tenant"),
            (format!("replay {JOB} --tenant a"), Some(URL), "--tenant"),
            (format!("replay {JOB} --with a.wasm"), Some(URL), "--with"),
            (format!("replay {JOB} --revision 2"), None, "--revision"),
        ] {
            let refused = resolve_target(&format!("weir {line}"), variable).unwrap_err();
            assert!(refused.contains(part), "{line}: {refused}");
        }
    }
}
