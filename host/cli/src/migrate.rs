//! `weir migrate`: copies a data folder to the servers of the settings, or back.

use std::process::ExitCode;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use indicatif::{ProgressBar, ProgressStyle};
use parking_lot::Mutex;
use serde_json::json;
use weir_core::settings::Settings;
use weir_storage::{
    MigratedContent, Migration, MigrationDirection, MigrationProgress, MigrationServers, MigrationStep,
};

use crate::app_folders::AppFolders;
use crate::args::{MigrateArgs, MigrateCommand};
use crate::ledger_access::postgres_connection;
use crate::store_connections::{EMBEDDING_MODEL, connect_s3_bucket, qdrant_connection};
use crate::terminal::{error_line, is_stderr_interactive, out_line};

/// Time between two lines about one step if standard error is no terminal.
const REMINDER_INTERVAL: Duration = Duration::from_secs(10);

/// Migrates, or counts what would be copied, and prints the result.
pub(crate) async fn run(
    command: &MigrateCommand,
    json: bool,
    settings: &Settings,
    folders: &AppFolders,
) -> Result<ExitCode> {
    let (direction, MigrateArgs { dry_run }) = match command {
        MigrateCommand::ToServers(args) => (MigrationDirection::ToServers, args),
        MigrateCommand::ToFolder(args) => (MigrationDirection::ToFolder, args),
    };
    let migration = Migration {
        data: folders.data.clone(),
        direction,
        servers: MigrationServers {
            ledger: postgres_connection(settings)?,
            bucket: connect_s3_bucket(settings).await?,
            vectors: qdrant_connection(settings)?,
        },
        model: EMBEDDING_MODEL.into(),
        dimensions: weir_inference::EMBEDDING_DIMENSIONS,
    };
    let started = Instant::now();
    let context = || format!("cannot migrate the data folder {}", folders.data.display());
    let copied = match dry_run {
        true => migration.count_source().await.with_context(context)?,
        false => {
            let display = Arc::new(ProgressDisplay::start());
            let shown = Arc::clone(&display);
            let copied = migration.run(&move |progress| shown.show(progress)).await;
            display.clear();
            copied.with_context(context)?
        }
    };
    let seconds = started.elapsed().as_secs_f64();
    if json {
        let output = json!({
            "direction": direction.name(), "finished": !dry_run, "copied": copied, "seconds": seconds,
        });
        out_line!("{output}")?;
        return Ok(ExitCode::SUCCESS);
    }
    copied.iter().try_for_each(print_content)?;
    if !dry_run {
        out_line!("copied and compared in {seconds:.1} s. The source is unchanged.")?;
        print_next_steps(direction, settings, folders)?;
    }
    Ok(ExitCode::SUCCESS)
}

fn print_content(content: &MigratedContent) -> std::io::Result<()> {
    let unit = match content.store.as_str() {
        "ledger" => "rows",
        "blobs" => "objects",
        _ => "points",
    };
    let bytes = content
        .bytes
        .map_or_else(String::new, |bytes| format!("  {bytes} bytes"));
    let name = format!("{} {}", content.store, content.name);
    out_line!("{name:<40} {:>12} {unit}{bytes}", content.count)
}

/// Prints what to set in `weir.toml`, and what was not copied.
fn print_next_steps(
    direction: MigrationDirection,
    settings: &Settings,
    folders: &AppFolders,
) -> std::io::Result<()> {
    let servers = [
        ("ledger", &settings.storage_ledger),
        ("blobs", &settings.storage_blobs),
        ("vectors", &settings.storage_vectors),
    ];
    let servers = servers.iter().filter(|(_, address)| !address.is_empty());
    let data = folders.data.display();
    match direction {
        MigrationDirection::ToServers => {
            out_line!("Set in weir.toml of every node:\n\n[storage]")?;
            for (name, address) in servers {
                out_line!("{name} = {}", json!(address))?;
            }
            out_line!(
                "\nwith the other settings of these servers. responses.db stays in {data}, and a node that uses this folder goes on with it. Its \
                 other files are not used any more."
            )
        }
        MigrationDirection::ToFolder => {
            let names: Vec<String> = servers.map(|(name, _)| format!("storage.{name}")).collect();
            out_line!(
                "Remove {} from weir.toml, and start weir with --data {data}. To keep the cached responses of language models, copy \
                 responses.db of a node to {data} before.",
                names.join(", ")
            )
        }
    }
}

/// The progress on standard error: a bar on a terminal, otherwise a line for each step, and another every ten seconds.
struct ProgressDisplay {
    /// `None` if standard error is no terminal.
    bar: Option<ProgressBar>,
    last_line: Mutex<Option<(String, Instant)>>,
}

impl ProgressDisplay {
    fn start() -> Self {
        let bar = is_stderr_interactive().then(|| {
            let bar = ProgressBar::new_spinner();
            bar.enable_steady_tick(Duration::from_millis(100));
            bar
        });
        Self {
            bar,
            last_line: Mutex::default(),
        }
    }

    fn show(&self, progress: &MigrationProgress) {
        let activity = match progress.step {
            MigrationStep::Copy => "copying",
            MigrationStep::Verify => "comparing",
        };
        let title = format!("{activity} {}", progress.subject);
        if let Some(bar) = &self.bar {
            let template = match progress.total {
                Some(_) => "{spinner} {msg:40!} {bar:24} {human_pos}/{human_len} {per_sec}",
                None => "{spinner} {msg:40!} {human_pos} {per_sec}",
            };
            if bar.message() != title {
                bar.reset();
                if let Ok(style) = ProgressStyle::with_template(template) {
                    bar.set_style(style);
                }
                bar.set_message(title);
            }
            bar.set_length(progress.total.unwrap_or(0));
            bar.set_position(progress.done);
            return;
        }
        let mut last = self.last_line.lock();
        let is_due = last
            .as_ref()
            .is_none_or(|(shown, at)| *shown != title || at.elapsed() >= REMINDER_INTERVAL);
        if is_due {
            match progress.total {
                Some(total) => error_line!("weir: {title}: {} of {total}", progress.done),
                None => error_line!("weir: {title}: {}", progress.done),
            }
            *last = Some((title, Instant::now()));
        }
    }

    fn clear(&self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }
}
