//! The command line of `weir`: its commands, and the target that each works on.

use anyhow::Result;
use clap::{Parser, Subcommand};

use crate::args::{
    GlobalArgs, KeyCommand, MigrateCommand, RetentionCommand, RunArgs, SearchArgs, ServeArgs, TenantCommand,
};
use crate::command_target::{CommandTarget, SERVER_VARIABLE, SupportedTargets};
use crate::component::{ComponentCommand, DevArgs};
use crate::component_log::JobLogArgs;
use crate::pipeline_commands::PipelineCommand;
use crate::replay::ReplayArgs;

/// The last part of `weir --help`.
const AFTER_HELP: &str = "\
Examples:
  weir run report.pdf                         ingest a document
  weir run papers/ --out results              ingest a folder; write Markdown, page images and text lines
  weir search \"who signed the contract?\"      search the passages of all ingested documents
  weir serve                                  accept documents over HTTP, for many tenants
  weir doctor                                 check the installation

With --server URL or WEIR_SERVER, a command works on that server, with the API key in WEIR_KEY or
--key-file. Without them, it works on the data folder of this machine.
  server or data folder   search, documents, log, replay, nodes
  server only             pipeline, component push, component list, component remove
  data folder only        run, tenant, key, retention

Settings come from weir.toml in the current folder or --config FILE, then from variables
WEIR_SECTION_NAME, then from --set section.name=value. A later source overrides an earlier one.
`weir settings` lists them.

Exit codes: 0 success, 1 a document or the command failed, 2 invalid usage, 130 interrupted.";

/// The last part of `weir migrate --help`.
const MIGRATE_AFTER_HELP: &str = "\
Examples:
  weir migrate to-servers --dry-run                     count what would be copied
  weir migrate to-servers                               copy the data folder to the servers
  weir migrate to-folder --data restored                copy the servers to a new folder

The servers are those of storage.ledger, storage.blobs and storage.vectors. A part without a server
stays where it is. Stop all nodes first. The target must be empty. The source stays as it is. If the
command is interrupted, run it again: it goes on. At its end it compares the number and the content
of all rows, objects and points. responses.db is not copied.

--json prints {\"direction\", \"finished\", \"copied\": [{\"store\", \"name\", \"count\", \"bytes\",
\"digest\"}], \"seconds\"}.";

/// A host for document-ingestion pipelines
#[derive(Debug, Parser)]
#[command(name = "weir", version, about = "A host for document-ingestion pipelines", after_help = AFTER_HELP)]
pub(crate) struct Cli {
    #[command(flatten)]
    pub(crate) global: GlobalArgs,
    #[command(subcommand)]
    pub(crate) command: Command,
}

/// The subcommands of `weir`.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Ingest documents and make them searchable
    Run(RunArgs),
    /// Search the passages of ingested documents
    Search(SearchArgs),
    /// List the ingested documents
    #[command(after_help = "On a server, the API key needs the scope read.")]
    Documents,
    /// Run the HTTP server for many tenants
    Serve(ServeArgs),
    /// Create, change and delete tenants in the data folder
    #[command(subcommand)]
    Tenant(TenantCommand),
    /// Create, list and revoke API keys in the data folder
    #[command(subcommand)]
    Key(KeyCommand),
    /// Push pipelines to a server and roll them out
    #[command(subcommand)]
    Pipeline(PipelineCommand),
    /// Show the log messages and failures of a job's components
    Log(JobLogArgs),
    /// Repeat a job's recorded policy calls, with its components or with others, and compare the decisions
    Replay(ReplayArgs),
    /// Create, build, test and publish components in Rust, JavaScript or Python
    #[command(subcommand)]
    Component(ComponentCommand),
    /// Build and test a component, and ingest a document with it, after each change
    Dev(DevArgs),
    /// List the nodes of a cluster, and the jobs that each of them runs
    #[command(after_help = "\
Examples:
  weir nodes                                            of the ledger in the settings
  weir nodes --server https://weir.example.com --json   of a server; the API key needs the scope admin")]
    Nodes,
    /// Show and remove expired records: ended jobs, usage, audit logs and revoked keys
    #[command(
        subcommand,
        after_help = "\
Examples:
  weir retention show                                   of all tenants
  weir retention run --dry-run                          count what would be removed
  weir tenant set acme --retention ended_jobs_days=7    keep the jobs of a tenant for a week

A server removes expired records each hour. Documents do not expire. The settings
default_retention.* have the periods of tenants without their own."
    )]
    Retention(RetentionCommand),
    /// Copy a data folder to the servers of the settings, or back
    #[command(subcommand, after_help = MIGRATE_AFTER_HELP)]
    Migrate(MigrateCommand),
    /// Check the installation and say how to fix it
    Doctor,
    /// List the settings with their values and descriptions
    Settings,
}

impl Cli {
    /// Returns the target of the command, by its options and the variable. Fails if the target does not support the command or
    /// one of its options.
    pub(crate) fn resolve_folder_or_server_target(&self) -> Result<CommandTarget> {
        let variable = std::env::var(SERVER_VARIABLE).ok();
        self.resolve_target_with_server_variable(variable.as_deref())
    }

    fn resolve_target_with_server_variable(&self, variable: Option<&str>) -> Result<CommandTarget> {
        let (name, targets) = command_name_and_targets(&self.command);
        let target = CommandTarget::resolve(name, &targets, &self.global, variable)?;
        match &self.command {
            Command::Log(log) => log.validate_for_target(&target)?,
            Command::Replay(replay) => replay.validate_for_target(&target)?,
            _ => {}
        }
        Ok(target)
    }
}

/// Returns the name of a command and the targets it supports.
fn command_name_and_targets(command: &Command) -> (&'static str, SupportedTargets) {
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
        Command::Nodes => ("nodes", SupportedTargets::Both),
        Command::Retention(_) => (
            "retention",
            SupportedTargets::FolderOnly("a server removes expired records by itself each hour"),
        ),
        Command::Migrate(_) => ("migrate", SupportedTargets::Neither),
        Command::Doctor => ("doctor", SupportedTargets::Neither),
        Command::Settings => ("settings", SupportedTargets::Neither),
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    use super::*;

    #[test]
    fn clap_definition_is_valid() {
        Cli::command().debug_assert();
    }

    const URL: &str = "http://host:7070";

    fn resolve_target(line: &str, variable: Option<&str>) -> Result<CommandTarget, String> {
        let cli = Cli::try_parse_from(line.split(' ')).unwrap_or_else(|e| panic!("{line}: {e}"));
        cli.resolve_target_with_server_variable(variable)
            .map_err(|e| e.to_string())
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
            "nodes",
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
    fn command_without_target_ignores_the_variable_and_rejects_the_flag() {
        for command in [
            "doctor",
            "settings",
            "migrate to-servers",
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
                "--remote was removed: pass --server URL",
            ),
            (
                format!("log {JOB} --remote"),
                Some(URL),
                "--remote was removed: omit it",
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
