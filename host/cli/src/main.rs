//! The `weir` command. This crate depends on all others and connects the engine's ports to their implementations.
//!
//! PDF workers and component compilers are child processes that run this binary with a hidden command. So only one file has
//! to be installed. `main` checks for the hidden commands first, because a worker process has no runtime, no settings and no log.

mod app_folders;
mod args;
mod cli;
mod command_target;
mod component;
mod component_log;
mod configuration;
mod display;
mod doctor;
mod documents;
mod host_services;
mod input_files;
mod ledger_access;
mod logging;
mod migrate;
mod node_lease;
mod nodes;
#[cfg(all(feature = "local-llm", target_os = "linux"))]
mod openmp_environment;
mod output_folder;
mod pipeline_commands;
mod pipeline_loader;
mod registry;
mod replay;
mod retention;
mod run;
mod search;
mod serve;
mod server_client;
mod store_connections;
mod summaries;
mod tenant_and_key_commands;
mod terminal;
mod trace_export;

use std::process::ExitCode;

use clap::Parser as _;

use crate::app_folders::AppFolders;
use crate::cli::{Cli, Command};
use crate::host_services::{COMPILE_COMPONENT_COMMAND, RASTER_WORKER_COMMAND};
use crate::terminal::{EXIT_FAILED, EXIT_INVALID_USAGE, print_error_returning_exit_code};

fn main() -> ExitCode {
    match std::env::args().nth(1).as_deref() {
        Some(RASTER_WORKER_COMMAND) => weir_raster::worker_main(),
        Some(COMPILE_COMPONENT_COMMAND) => weir_policy::compile_main(),
        _ => {
            #[cfg(all(feature = "local-llm", target_os = "linux"))]
            openmp_environment::restart_with_openmp_environment();
            run_command(&Cli::parse())
        }
    }
}

fn run_command(cli: &Cli) -> ExitCode {
    let mut settings = match configuration::load_settings(&cli.global) {
        Ok(settings) => settings,
        Err(error) => return print_error_returning_exit_code(&error, EXIT_INVALID_USAGE),
    };
    if let Command::Serve(arguments) = &cli.command {
        arguments.override_settings(&mut settings);
    }
    let target = match cli.resolve_folder_or_server_target() {
        Ok(target) => target,
        Err(error) => return print_error_returning_exit_code(&error, EXIT_INVALID_USAGE),
    };
    let folders = AppFolders::new(cli.global.data.as_deref(), &settings);
    let runtime = match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => return print_error_returning_exit_code(&error.into(), EXIT_FAILED),
    };
    let shows_events = matches!(cli.command, Command::Run(_));
    let traces =
        match logging::init_logging_and_traces(cli.global.verbose, shows_events, &settings, runtime.handle())
        {
            Ok(traces) => traces,
            Err(error) => return print_error_returning_exit_code(&error, EXIT_INVALID_USAGE),
        };
    let json = cli.global.json;
    let ended = runtime.block_on(async {
        match &cli.command {
            Command::Run(run) => run::run(run, json, &settings, &folders).await,
            Command::Search(search) => search::run(search, json, &settings, &folders, &target).await,
            Command::Documents => documents::run(json, &settings, &folders, &target).await,
            Command::Serve(_) => serve::run(json, &settings, &folders).await,
            Command::Tenant(command) => {
                tenant_and_key_commands::run_tenant_command(command, json, &settings, &folders).await
            }
            Command::Key(command) => {
                tenant_and_key_commands::run_key_command(command, json, &settings, &folders).await
            }
            Command::Pipeline(command) => pipeline_commands::run(command, json, &target).await,
            Command::Log(log) => component_log::run(log, json, &settings, &folders, &target).await,
            Command::Replay(replay) => replay::run(replay, json, &settings, &folders, &target).await,
            Command::Component(command) => component::run(command, json, &settings, &folders, &target).await,
            Command::Dev(dev) => component::dev(dev, &settings, &folders).await,
            Command::Nodes => nodes::run(json, &settings, &folders, &target).await,
            Command::Retention(command) => retention::run(command, json, &settings, &folders).await,
            Command::Migrate(command) => migrate::run(command, json, &settings, &folders).await,
            Command::Doctor => doctor::run(json, &settings, &folders).await,
            Command::Settings => configuration::print_settings(&settings, json).map(|()| ExitCode::SUCCESS),
        }
    });
    if let Some(traces) = traces {
        traces.flush_and_close();
    }
    // All resources are already closed. Do not wait for blocking threads: they can only run reads whose results are unused.
    runtime.shutdown_background();
    ended.unwrap_or_else(|error| print_error_returning_exit_code(&error, EXIT_FAILED))
}
