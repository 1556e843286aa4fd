//! Where a command works: on a server, or on the data folder of this machine.
//!
//! One rule holds for every command: with `--server` or the variable `WEIR_SERVER` it works on that server, otherwise on the data
//! folder. A command that exists on one side only says so and changes nothing, since its result on the other side would be mistaken
//! for the one that was asked for. Commands that use neither, such as `weir component build`, ignore the variable.

use std::path::{Path, PathBuf};

use anyhow::{Result, bail};
use weir_core::tenancy::Scope;

use crate::args::{Command, Shared};
use crate::component::ComponentCommand;
use crate::remote::Remote;

const VARIABLE: &str = "WEIR_SERVER";

/// The sides on which a command exists.
enum Sides {
    Both,
    ServerOnly,
    /// With the way to do the same on a server.
    FolderOnly(&'static str),
    /// It works on neither.
    None,
}

/// Where a command works.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Target {
    /// The data folder.
    Folder,
    /// A server.
    Server { url: String, key_file: Option<PathBuf> },
}

impl Target {
    /// Where this command works, by its options and the variable. Fails if the command or its options do not exist there.
    pub(crate) fn of(command: &Command, shared: &Shared) -> Result<Self> {
        let variable = std::env::var(VARIABLE).ok();
        Self::chosen(command, shared, variable.as_deref())
    }

    fn chosen(command: &Command, shared: &Shared, variable: Option<&str>) -> Result<Self> {
        let flag = shared.server.as_deref();
        let (name, sides) = sides(command);
        if let (Sides::None, Some(_)) = (&sides, flag) {
            bail!("`weir {name}` uses no server and no data folder: leave out --server");
        }
        let server = flag.or(variable).map(str::trim).filter(|url| !url.is_empty());
        let target = match (&sides, server) {
            (Sides::None, _) | (Sides::Both | Sides::FolderOnly(_), None) => Self::Folder,
            (Sides::Both | Sides::ServerOnly, Some(url)) => Self::Server {
                url: url.trim_end_matches('/').to_owned(),
                key_file: shared.key_file.clone(),
            },
            (Sides::ServerOnly, None) => bail!(
                "`weir {name}` works on a server only: name it with --server URL or {VARIABLE}, such as http://127.0.0.1:7070"
            ),
            (Sides::FolderOnly(instead), Some(_)) => {
                let (named_by, remedy) = match flag {
                    Some(_) => ("--server", "leave it out"),
                    None => (VARIABLE, "unset it"),
                };
                bail!(
                    "`weir {name}` works on the data folder of this machine only, but {named_by} names a server: {remedy}, or {instead}"
                )
            }
        };
        match command {
            Command::Log(log) => log.check(&target)?,
            Command::Replay(replay) => replay.check(&target)?,
            _ => {}
        }
        Ok(target)
    }

    /// The server, for a command that works there; none if it works on the data folder. The key needs the scope.
    pub(crate) fn server(&self, scope: Scope) -> Result<Option<Remote>> {
        match self {
            Self::Folder => Ok(None),
            Self::Server { url, key_file } => Remote::new(url, key_file.as_deref(), scope).map(Some),
        }
    }

    /// The server, for a command that works nowhere else.
    pub(crate) fn only_server(&self, scope: Scope) -> Result<Remote> {
        match self.server(scope)? {
            Some(remote) => Ok(remote),
            None => bail!("this command works on a server only: name it with --server URL or {VARIABLE}"),
        }
    }
}

/// A command's name and sides.
fn sides(command: &Command) -> (&'static str, Sides) {
    match command {
        Command::Run(_) => (
            "run",
            Sides::FolderOnly("send the files to the server with POST /v1/jobs"),
        ),
        Command::Search(_) => ("search", Sides::Both),
        Command::Documents => ("documents", Sides::Both),
        Command::Serve(_) => ("serve", Sides::None),
        Command::Tenant(_) => (
            "tenant",
            Sides::FolderOnly("use /v1/tenants of the server with a key that has the scope admin"),
        ),
        Command::Key(_) => (
            "key",
            Sides::FolderOnly(
                "use /v1/tenants/TENANT/keys of the server with a key that has the scope admin",
            ),
        ),
        Command::Pipeline(_) => ("pipeline", Sides::ServerOnly),
        Command::Log(_) => ("log", Sides::Both),
        Command::Replay(_) => ("replay", Sides::Both),
        Command::Component(command) => match command {
            ComponentCommand::Push { .. } => ("component push", Sides::ServerOnly),
            ComponentCommand::List => ("component list", Sides::ServerOnly),
            ComponentCommand::Remove { .. } => ("component remove", Sides::ServerOnly),
            ComponentCommand::New(_) => ("component new", Sides::None),
            ComponentCommand::Build(_) => ("component build", Sides::None),
            ComponentCommand::Test(_) => ("component test", Sides::None),
            ComponentCommand::Publish { .. } => ("component publish", Sides::None),
            ComponentCommand::Pull { .. } => ("component pull", Sides::None),
        },
        Command::Dev(_) => ("dev", Sides::None),
        Command::Doctor => ("doctor", Sides::None),
        Command::Settings => ("settings", Sides::None),
    }
}

/// Removes the variable from the environment of a command that is to work on a data folder.
pub(crate) fn on_folder<'a>(
    command: &'a mut tokio::process::Command,
    data: &Path,
) -> &'a mut tokio::process::Command {
    command.env_remove(VARIABLE).arg("--data").arg(data)
}

#[cfg(test)]
mod tests {
    use clap::Parser as _;

    use super::*;
    use crate::args::Cli;

    const URL: &str = "http://host:7070";

    fn chosen(line: &str, variable: Option<&str>) -> Result<Target, String> {
        let cli = Cli::try_parse_from(line.split(' ')).unwrap_or_else(|e| panic!("{line}: {e}"));
        Target::chosen(&cli.command, &cli.shared, variable).map_err(|e| e.to_string())
    }

    fn server() -> Target {
        Target::Server {
            url: URL.into(),
            key_file: None,
        }
    }

    const JOB: &str = "0193a5a0-0000-7000-8000-000000000000";

    #[test]
    fn server_is_used_if_it_is_set_and_else_the_data_folder() {
        for command in [
            "search x",
            "documents",
            &format!("log {JOB}"),
            &format!("replay {JOB}"),
        ] {
            let line = format!("weir {command}");
            assert_eq!(chosen(&line, None), Ok(Target::Folder), "{line}");
            assert_eq!(chosen(&line, Some("")), Ok(Target::Folder), "{line}");
            assert_eq!(chosen(&line, Some(&format!("{URL}/"))), Ok(server()), "{line}");
            let named = format!("{line} --server {URL}");
            assert_eq!(chosen(&named, Some("http://other")), Ok(server()), "{line}");
        }
    }

    #[test]
    fn command_of_one_side_is_refused_on_the_other() {
        for command in [
            "pipeline list",
            "pipeline show a",
            "component list",
            "component push a.wasm",
        ] {
            let line = format!("weir {command}");
            assert_eq!(chosen(&line, Some(URL)), Ok(server()), "{line}");
            let refused = chosen(&line, None).unwrap_err();
            assert!(
                refused.contains("works on a server only") && refused.contains("--server URL"),
                "{refused}"
            );
        }
        for command in ["run a.pdf", "tenant list", "key list a"] {
            let line = format!("weir {command}");
            assert_eq!(chosen(&line, None), Ok(Target::Folder), "{line}");
            let refused = chosen(&line, Some(URL)).unwrap_err();
            assert!(
                refused.contains("WEIR_SERVER names a server") && refused.contains("/v1/"),
                "{refused}"
            );
            let refused = chosen(&format!("{line} --server {URL}"), None).unwrap_err();
            assert!(refused.contains("--server names a server"), "{refused}");
        }
    }

    #[test]
    fn command_without_data_ignores_the_variable_but_not_the_flag() {
        for command in [
            "doctor",
            "settings",
            "serve",
            "dev",
            "component build",
            "component new a --lang js --role routing",
        ] {
            let line = format!("weir {command}");
            assert_eq!(chosen(&line, Some(URL)), Ok(Target::Folder), "{line}");
            let refused = chosen(&format!("{line} --server {URL}"), None).unwrap_err();
            assert!(refused.contains("leave out --server"), "{refused}");
        }
    }

    #[test]
    fn option_of_one_side_is_refused_on_the_other() {
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
            let refused = chosen(&format!("weir {line}"), variable).unwrap_err();
            assert!(refused.contains(part), "{line}: {refused}");
        }
    }
}
