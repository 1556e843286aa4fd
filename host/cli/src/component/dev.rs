//! `weir dev`: builds and tests a component after each change of its source, and shows its decisions.
//!
//! After each change, the command builds the component, runs its test cases and, with `--document`, ingests the document by
//! `weir run` in a separate data folder. It reads the decisions of the component from the recording of that job. The first
//! round prints all decisions, later rounds print only decisions that differ from the round before.
//!
//! Changes are found by polling modification times. A folder of a few files is read in less than a millisecond, and polling
//! works on every file system and in every container mount.

use std::collections::BTreeMap;
use std::path::Path;
use std::process::ExitCode;
use std::time::{Duration, SystemTime};

use anyhow::{Context as _, Result, ensure};
use serde_json::json;
use tokio::process::Command;
use weir_core::recording::list_recordings;
use weir_core::settings::Settings;
use weir_policy::{RecordedDecision, RecordingFrame, read_recording};
use weir_storage::FileRecordingStore;

use super::args::{DevArgs, TestArgs};
use super::component_source::{ComponentSource, MANIFEST_FILE};
use super::{build, test_command};
use crate::app_folders::AppFolders;
use crate::command_target::force_data_folder_in_child;
use crate::terminal::{error_line, out_line, print_to_stdout};

/// Time between two checks of the folder for changes.
const POLL_INTERVAL: Duration = Duration::from_millis(300);
/// Maximum number of watched files and folders.
const MAX_WATCHED_ENTRIES: usize = 10_000;
/// Maximum number of decisions that are printed after a run. The others are counted.
const MAX_PRINTED_DECISIONS: usize = 60;
/// Maximum number of characters of a printed decision.
const MAX_DECISION_CHARS: usize = 160;

/// Repeats the build, the tests and the run after each change, until Ctrl-C.
pub(crate) async fn run(dev: &DevArgs, settings: &Settings, folders: &AppFolders) -> Result<ExitCode> {
    if let Some(document) = &dev.document {
        ensure!(
            document.is_file(),
            "the document {} is not a file",
            document.display()
        );
    }
    let mut previous = DecisionsByCall::default();
    let rebuild_loop = async {
        loop {
            let fingerprint =
                newest_modification_and_file_count(&ComponentSource::open(&dev.folder)?.folder)?;
            match build_test_and_ingest(dev, &previous, settings, folders).await {
                Ok(decisions) => previous = decisions,
                Err(error) => error_line!("weir: {error:#}"),
            }
            error_line!("weir: waiting for a change in {}", dev.folder.display());
            while newest_modification_and_file_count(&dev.folder)? == fingerprint {
                tokio::time::sleep(POLL_INTERVAL).await;
            }
        }
    };
    tokio::select! {
        ended = rebuild_loop => ended,
        interrupted = tokio::signal::ctrl_c() => interrupted.map(|()| ExitCode::SUCCESS).map_err(Into::into),
    }
}

/// Builds the component, runs its test cases and ingests the document. Returns the decisions about the document.
async fn build_test_and_ingest(
    dev: &DevArgs,
    previous: &DecisionsByCall,
    settings: &Settings,
    folders: &AppFolders,
) -> Result<DecisionsByCall> {
    let source = ComponentSource::open(&dev.folder)?;
    out_line!("{}", build::build_component(&source, folders).await?)?;
    if source.folder.join("cases").is_dir() {
        let cases = TestArgs {
            folder: dev.folder.clone(),
            cases: None,
            component: None,
            write: false,
        };
        test_command::run(&cases, false, settings, folders).await?;
    }
    let Some(document) = &dev.document else {
        return Ok(DecisionsByCall::default());
    };
    let decisions = ingest_and_read_decisions(&source, document).await?;
    print_to_stdout(format_args!("{}", decisions.format_changes(previous)))?;
    Ok(decisions)
}

/// Ingests the document with `weir run` and reads the component's decisions from the recording.
async fn ingest_and_read_decisions(source: &ComponentSource, document: &Path) -> Result<DecisionsByCall> {
    let data = source.build_work_folder().join("data");
    if data.exists() {
        std::fs::remove_dir_all(&data).with_context(|| format!("cannot remove {}", data.display()))?;
    }
    let binary = std::env::current_exe().context("cannot find the weir binary itself")?;
    // The exit status is ignored: `weir run` prints its own errors, and the decisions before a failure are still useful.
    force_data_folder_in_child(Command::new(binary).arg("run").arg(document), &data)
        .arg("--pipeline")
        .arg(source.folder.join(MANIFEST_FILE))
        .args(["--set", "policy.record_calls=true"])
        .kill_on_drop(true)
        .status()
        .await
        .context("cannot start weir run")?;
    let mut decisions = DecisionsByCall::default();
    let recordings = FileRecordingStore::new(&data);
    for recording in list_recordings(&recordings).await? {
        for frame in read_recording(&recordings, &recording.tenant, &recording.job).await? {
            if let RecordingFrame::Call(call) = frame
                && source.manifest.components.contains_key(&call.decision.role())
            {
                decisions.add_decision(&call.decision);
            }
        }
    }
    Ok(decisions)
}

/// Decisions as JSON text, by function, number of the repetition and subject of the call.
#[derive(Debug, Default)]
struct DecisionsByCall {
    by_call: BTreeMap<(&'static str, u32, String), String>,
}

impl DecisionsByCall {
    fn add_decision(&mut self, decision: &RecordedDecision) {
        let text = match decision.error() {
            Some(error) => json!({ "failed": error.kind, "message": error.message }),
            None => decision.decision_to_json(),
        };
        let (function, subject) = (decision.function_name(), decision.describe_subject());
        // Calls can repeat with the same function and subject, such as calls for events. The count keeps them apart.
        let mut times = 0;
        while self.by_call.contains_key(&(function, times, subject.clone())) {
            times += 1;
        }
        self.by_call.insert((function, times, subject), text.to_string());
    }

    /// Formats the decisions that are new or differ from those of the previous round, and a line with their number. In the first
    /// round these are all decisions.
    fn format_changes(&self, previous: &Self) -> String {
        let new: Vec<_> = self
            .by_call
            .iter()
            .filter(|(call, text)| previous.by_call.get(*call) != Some(text))
            .collect();
        let mut output = String::new();
        for ((function, _, subject), text) in new.iter().take(MAX_PRINTED_DECISIONS) {
            output += &format!("{function:20}{subject:28} {}\n", truncate_text(text));
        }
        if new.len() > MAX_PRINTED_DECISIONS {
            output += &format!("and {} more\n", new.len() - MAX_PRINTED_DECISIONS);
        }
        let all = self.by_call.len();
        if previous.by_call.is_empty() {
            output + &format!("{all} decisions\n")
        } else {
            output + &format!("{} of {all} decisions changed\n", new.len())
        }
    }
}

fn truncate_text(text: &str) -> String {
    match text.char_indices().nth(MAX_DECISION_CHARS) {
        Some((end, _)) => format!("{}…", text.get(..end).unwrap_or_default()),
        None => text.to_owned(),
    }
}

/// Returns the latest modification time and the number of the source files below a folder. Build output and hidden files are
/// excluded.
fn newest_modification_and_file_count(folder: &Path) -> Result<(Option<SystemTime>, usize)> {
    let mut newest = None;
    let mut entries = 0;
    let mut folders = vec![folder.to_owned()];
    while let Some(folder) = folders.pop() {
        let cannot = || format!("cannot read {}", folder.display());
        for entry in std::fs::read_dir(&folder).with_context(cannot)?.flatten() {
            entries += 1;
            ensure!(
                entries <= MAX_WATCHED_ENTRIES,
                "{} has more than {MAX_WATCHED_ENTRIES} files: is it the folder of a component?",
                folder.display()
            );
            let name = entry.file_name();
            let name = name.to_string_lossy();
            let is_excluded = name.starts_with('.')
                || [".wasm", ".wasm.new", ".lock"]
                    .iter()
                    .any(|ending| name.ends_with(ending))
                || ["target", "node_modules", "__pycache__"].contains(&&*name);
            // The entry was removed after the listing.
            let Ok(metadata) = entry.metadata() else { continue };
            if is_excluded {
                entries -= 1;
            } else if metadata.is_dir() {
                folders.push(entry.path());
            } else {
                newest = newest.max(metadata.modified().ok());
            }
        }
    }
    Ok((newest, entries))
}

#[cfg(test)]
mod tests {
    use super::*;
    use weir_core::decision::{PageRoute, PageToRoute, ReadingMethod};
    use weir_policy::PolicyFunctionCall;

    fn make_decisions(pages: &[(u32, ReadingMethod)]) -> DecisionsByCall {
        let mut decisions = DecisionsByCall::default();
        for (page, reading_method) in pages {
            let request: PageToRoute =
                serde_json::from_value(json!({ "facts": { "number": page } })).unwrap();
            let route = PageRoute {
                reading_method: *reading_method,
                embed: false,
                store: false,
                labels: Vec::new(),
            };
            decisions.add_decision(&RecordedDecision::Page(PolicyFunctionCall {
                request,
                response: Ok(route),
            }));
        }
        decisions
    }

    #[test]
    fn first_round_prints_all_decisions_later_rounds_changes() {
        let first = make_decisions(&[(1, ReadingMethod::Ocr), (2, ReadingMethod::Ocr)]);
        let all = first.format_changes(&DecisionsByCall::default());
        assert!(all.contains("page 1") && all.ends_with("2 decisions\n"), "{all}");
        let second = make_decisions(&[(1, ReadingMethod::Ocr), (2, ReadingMethod::Nothing)]);
        let changed = second.format_changes(&first);
        assert!(!changed.contains("page 1 "), "{changed}");
        assert!(
            changed.contains("nothing") && changed.ends_with("1 of 2 decisions changed\n"),
            "{changed}"
        );
    }

    #[test]
    fn build_output_does_not_change_the_fingerprint() {
        let folder = tempfile::tempdir().unwrap();
        let write = |name: &str| std::fs::write(folder.path().join(name), name).unwrap();
        write("policy.js");
        let before = newest_modification_and_file_count(folder.path()).unwrap();
        for name in ["policy.wasm", ".hidden", "Cargo.lock"] {
            write(name);
        }
        std::fs::create_dir(folder.path().join("node_modules")).unwrap();
        assert_eq!(newest_modification_and_file_count(folder.path()).unwrap(), before);
        write("helper.js");
        assert_ne!(newest_modification_and_file_count(folder.path()).unwrap(), before);
    }
}
