//! `weir dev`: a component's decisions while it is being written.
//!
//! After each change of its source the component is built, asked what its cases ask, and, if there is a document, run on that by
//! `weir run` in a data folder of its own; what the component decided there is read from the recording of the job. The first
//! time all of it is shown, then what a change has changed.
//!
//! Changes are found by looking at times of modification: a folder of a few files is read in less than a millisecond, and
//! that works on every file system and through every container's mounts.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::{Duration, SystemTime};

use anyhow::{Context as _, Result, ensure};
use tokio::process::Command;
use weir_core::settings::Settings;
use weir_policy::{Frame, read_recording};

use super::args::{Dev, Test};
use super::source::{MANIFEST, Source};
use super::words::Decision;
use super::{build, test};
use crate::places::Places;
use crate::target::on_folder;
use crate::terminal::{error_line, out_line, print};

/// How often the folder is looked at.
const LOOK: Duration = Duration::from_millis(300);
/// Files and folders that are looked at.
const ENTRIES: usize = 10_000;
/// Decisions shown after a run; what is beyond them is counted.
const SHOWN: usize = 60;
/// Characters of a decision.
const CHARS: usize = 160;

/// Builds, tests and runs after each change, until it is interrupted.
pub(crate) async fn run(dev: &Dev, settings: &Settings, places: &Places) -> Result<ExitCode> {
    if let Some(document) = &dev.document {
        ensure!(document.is_file(), "{} is no file", document.display());
    }
    let mut before = Decisions::default();
    let working = async {
        loop {
            let seen = newest(&Source::open(&dev.folder)?.folder)?;
            match round(dev, &before, settings, places).await {
                Ok(decisions) => before = decisions,
                Err(error) => error_line!("weir: {error:#}"),
            }
            error_line!("weir: waiting for a change in {}", dev.folder.display());
            while newest(&dev.folder)? == seen {
                tokio::time::sleep(LOOK).await;
            }
        }
    };
    tokio::select! {
        ended = working => ended,
        interrupted = tokio::signal::ctrl_c() => interrupted.map(|()| ExitCode::SUCCESS).map_err(Into::into),
    }
}

/// One round: build, cases, document.
async fn round(dev: &Dev, before: &Decisions, settings: &Settings, places: &Places) -> Result<Decisions> {
    let source = Source::open(&dev.folder)?;
    out_line!("{}", build::build(&source, places).await?)?;
    if source.folder.join("cases").is_dir() {
        let cases = Test {
            folder: dev.folder.clone(),
            cases: None,
            component: None,
            write: false,
        };
        test::run(&cases, false, settings, places).await?;
    }
    let Some(document) = &dev.document else {
        return Ok(Decisions::default());
    };
    let decisions = decide(&source, document).await?;
    print(format_args!("{}", decisions.told(before)))?;
    Ok(decisions)
}

/// Runs the document and reads what was decided.
async fn decide(source: &Source, document: &Path) -> Result<Decisions> {
    let data = source.workshop().join("data");
    if data.exists() {
        std::fs::remove_dir_all(&data).with_context(|| format!("cannot remove {}", data.display()))?;
    }
    let binary = std::env::current_exe().context("cannot find the weir binary itself")?;
    // How it ended is said by the run itself; what was decided until then is worth showing all the same.
    on_folder(Command::new(binary).arg("run").arg(document), &data)
        .arg("--pipeline")
        .arg(source.folder.join(MANIFEST))
        .args(["--set", "policy.record=true"])
        .kill_on_drop(true)
        .status()
        .await
        .context("cannot start weir run")?;
    let mut decisions = Decisions::default();
    for recording in recordings(&data.join("recordings")) {
        for frame in read_recording(&recording)? {
            if let Frame::Call(call) = frame {
                let decision = Decision::from(call.exchange);
                if source.manifest.components.contains_key(&decision.role) {
                    decisions.add(decision);
                }
            }
        }
    }
    Ok(decisions)
}

/// The files of recordings below a folder: one folder for each tenant.
fn recordings(folder: &Path) -> Vec<PathBuf> {
    let inside = |folder: &Path| {
        std::fs::read_dir(folder)
            .into_iter()
            .flatten()
            .flatten()
            .map(|entry| entry.path())
    };
    inside(folder)
        .flat_map(|tenant| inside(&tenant).collect::<Vec<_>>())
        .collect()
}

/// Decisions by what they were about.
#[derive(Debug, Default)]
struct Decisions {
    by_call: BTreeMap<(&'static str, u32, String), String>,
}

impl Decisions {
    fn add(&mut self, decision: Decision) {
        let text = decision.decided.to_string();
        // A document is asked about a page once, and about an event each time it happens.
        let mut times = 0;
        while self
            .by_call
            .contains_key(&(decision.function, times, decision.about.clone()))
        {
            times += 1;
        }
        self.by_call
            .insert((decision.function, times, decision.about), text);
    }

    /// What is new since before; everything, if there was nothing before.
    fn told(&self, before: &Self) -> String {
        let new: Vec<_> = self
            .by_call
            .iter()
            .filter(|(call, text)| before.by_call.get(*call) != Some(text))
            .collect();
        let mut told = String::new();
        for ((function, _, about), text) in new.iter().take(SHOWN) {
            told += &format!("{function:20}{about:28} {}\n", short(text));
        }
        if new.len() > SHOWN {
            told += &format!("and {} more\n", new.len() - SHOWN);
        }
        let all = self.by_call.len();
        if before.by_call.is_empty() {
            told + &format!("{all} decisions\n")
        } else {
            told + &format!("{} of {all} decisions are others than before\n", new.len())
        }
    }
}

fn short(text: &str) -> String {
    match text.char_indices().nth(CHARS) {
        Some((end, _)) => format!("{}…", text.get(..end).unwrap_or_default()),
        None => text.to_owned(),
    }
}

/// When anything in a folder that a person writes last changed, and how many files there are.
fn newest(folder: &Path) -> Result<(Option<SystemTime>, usize)> {
    let mut newest = None;
    let mut entries = 0;
    let mut folders = vec![folder.to_owned()];
    while let Some(folder) = folders.pop() {
        let cannot = || format!("cannot read {}", folder.display());
        for entry in std::fs::read_dir(&folder).with_context(cannot)?.flatten() {
            entries += 1;
            ensure!(
                entries <= ENTRIES,
                "{} has more than {ENTRIES} files: is it a component's folder?",
                folder.display()
            );
            let name = entry.file_name();
            let name = name.to_string_lossy();
            let made = name.starts_with('.')
                || [".wasm", ".wasm.new", ".lock"]
                    .iter()
                    .any(|ending| name.ends_with(ending))
                || ["target", "node_modules", "__pycache__"].contains(&&*name);
            // What has gone since it was listed is no change to wait for.
            let Ok(known) = entry.metadata() else { continue };
            if made {
                entries -= 1;
            } else if known.is_dir() {
                folders.push(entry.path());
            } else {
                newest = newest.max(known.modified().ok());
            }
        }
    }
    Ok((newest, entries))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn decisions(pages: &[(u32, &str)]) -> Decisions {
        let mut decisions = Decisions::default();
        for (page, reading) in pages {
            decisions.add(Decision {
                role: weir_core::manifest::Role::Routing,
                function: "routing.page",
                about: format!("page {page}"),
                decided: json!({ "reading": reading }),
            });
        }
        decisions
    }

    #[test]
    fn first_everything_is_told_and_then_what_changed() {
        let first = decisions(&[(1, "ocr"), (2, "ocr")]);
        let all = first.told(&Decisions::default());
        assert!(all.contains("page 1") && all.ends_with("2 decisions\n"), "{all}");
        let second = decisions(&[(1, "ocr"), (2, "nothing")]);
        let changed = second.told(&first);
        assert!(!changed.contains("page 1 "), "{changed}");
        assert!(
            changed.contains("nothing") && changed.ends_with("1 of 2 decisions are others than before\n"),
            "{changed}"
        );
    }

    #[test]
    fn what_a_build_writes_is_no_change() {
        let folder = tempfile::tempdir().unwrap();
        let write = |name: &str| std::fs::write(folder.path().join(name), name).unwrap();
        write("policy.js");
        let before = newest(folder.path()).unwrap();
        for name in ["policy.wasm", ".hidden", "Cargo.lock"] {
            write(name);
        }
        std::fs::create_dir(folder.path().join("node_modules")).unwrap();
        assert_eq!(newest(folder.path()).unwrap(), before);
        write("helper.js");
        assert_ne!(newest(folder.path()).unwrap(), before);
    }
}
