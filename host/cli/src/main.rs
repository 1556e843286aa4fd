//! The `weir` command: the only place that knows every crate, and joins the engine's ports to what implements them.
//!
//! PDF workers and component compilers are this same binary, started again under a hidden name, so that one file is all a
//! machine needs. They are told apart before anything else happens: a worker has no runtime, no settings and no log.

mod args;
mod component;
mod configuration;
mod display;
mod doctor;
mod documents;
mod files;
mod host;
mod log;
mod output;
mod pipeline;
mod pipelines;
mod places;
mod registry;
mod remote;
mod replay;
mod run;
mod said;
mod search;
mod serve;
mod summaries;
mod target;
mod tenants;
mod terminal;
#[cfg(all(feature = "local-llm", target_os = "linux"))]
mod threads;
mod traces;

use std::process::ExitCode;

use clap::Parser as _;

use crate::args::{Cli, Command, Serve};
use crate::places::Places;
use crate::target::Target;
use crate::terminal::error_line;

/// A PDF worker process.
pub(crate) const RASTER_WORKER: &str = "raster-worker";
/// A process that compiles a component.
pub(crate) const COMPILE_COMPONENT: &str = "compile-component";

/// The command failed, or a document did.
const FAILED: u8 = 1;
/// The command line or a setting is wrong; clap uses the same.
const WRONG_USE: u8 = 2;

fn main() -> ExitCode {
    match std::env::args().nth(1).as_deref() {
        Some(RASTER_WORKER) => weir_raster::worker_main(),
        Some(COMPILE_COMPONENT) => weir_policy::compile_main(),
        _ => {
            #[cfg(all(feature = "local-llm", target_os = "linux"))]
            threads::wait_briefly();
            command(&Cli::parse())
        }
    }
}

fn command(cli: &Cli) -> ExitCode {
    let mut settings = match configuration::load(&cli.shared) {
        Ok(settings) => settings,
        Err(error) => return complain(&error, WRONG_USE),
    };
    if let Command::Serve(Serve {
        listen: Some(address),
    }) = &cli.command
    {
        settings.server_listen = *address;
    }
    let target = match Target::of(&cli.command, &cli.shared) {
        Ok(target) => target,
        Err(error) => return complain(&error, WRONG_USE),
    };
    let places = Places::new(cli.shared.data.as_deref(), &settings);
    let runtime = match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => return complain(&error.into(), FAILED),
    };
    let shows_events = matches!(cli.command, Command::Run(_));
    let traces = match log::start(cli.shared.verbose, shows_events, &settings, runtime.handle()) {
        Ok(traces) => traces,
        Err(error) => return complain(&error, WRONG_USE),
    };
    let json = cli.shared.json;
    let ended = runtime.block_on(async {
        match &cli.command {
            Command::Run(run) => run::run(run, json, &settings, &places).await,
            Command::Search(search) => search::run(search, json, &settings, &places, &target).await,
            Command::Documents => documents::run(json, &places, &target).await,
            Command::Serve(_) => serve::run(json, &settings, &places).await,
            Command::Tenant(command) => tenants::tenant(command, json, &places).await,
            Command::Key(command) => tenants::key(command, json, &places).await,
            Command::Pipeline(command) => pipelines::run(command, json, &target).await,
            Command::Log(log) => said::run(log, json, &places, &target).await,
            Command::Replay(replay) => replay::run(replay, json, &settings, &places, &target).await,
            Command::Component(command) => component::run(command, json, &settings, &places, &target).await,
            Command::Dev(dev) => component::dev(dev, &settings, &places).await,
            Command::Doctor => doctor::run(json, &settings, &places).await,
            Command::Settings => configuration::list(&settings, json).map(|()| ExitCode::SUCCESS),
        }
    });
    if let Some(traces) = traces {
        traces.close();
    }
    // Whatever has an owner has been closed by now; what may still sit on a blocking thread is a read that nobody waits for.
    runtime.shutdown_background();
    ended.unwrap_or_else(|error| complain(&error, FAILED))
}

/// An error on one line, whatever it is made of.
fn complain(error: &anyhow::Error, code: u8) -> ExitCode {
    let line = format!("{error:#}").replace('\n', " ");
    error_line!("weir: {line}");
    ExitCode::from(code)
}
