//! Cases: calls with the decisions expected of them, a folder for each.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, bail, ensure};
use serde::Deserialize;
use serde_json::Value;

use super::stand_ins::Answers;
use super::words::Call;

const CALL: &str = "call.json";
const DECISION: &str = "decision.json";
const ERROR: &str = "error.json";
const CAPABILITIES: &str = "capabilities.json";
const SETTINGS: &str = "settings.json";

/// What a component is asked in one job, and what it is to answer.
#[derive(Debug)]
pub(crate) struct Case {
    pub(crate) name: String,
    folder: PathBuf,
    pub(crate) calls: Vec<Call>,
    /// Whether the calls were written as a list, and so are the decisions.
    listed: bool,
    pub(crate) expected: Expected,
    pub(crate) answers: Answers,
    /// Settings over the manifest's.
    pub(crate) settings: BTreeMap<String, toml::Value>,
}

/// What a case expects.
#[derive(Debug)]
pub(crate) enum Expected {
    /// Nothing has been written down yet.
    Nothing,
    Decision(Value),
    Error(ExpectedError),
}

/// The error expected of the last call.
#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub(crate) struct ExpectedError {
    /// Its stable word, such as `component-trap`.
    pub(crate) kind: String,
    /// A part of its message.
    #[serde(default)]
    pub(crate) message: String,
}

impl Case {
    /// The cases of a folder, in order of their names.
    pub(crate) fn all(folder: &Path) -> Result<Vec<Self>> {
        let cannot = || format!("cannot read the cases in {}", folder.display());
        let mut folders = Vec::new();
        for entry in std::fs::read_dir(folder).with_context(cannot)? {
            let path = entry.with_context(cannot)?.path();
            if path.join(CALL).is_file() {
                folders.push(path);
            }
        }
        folders.sort();
        ensure!(
            !folders.is_empty(),
            "there is no case in {}: a case is a folder with a {CALL}",
            folder.display()
        );
        folders.iter().map(|folder| Self::read(folder)).collect()
    }

    fn read(folder: &Path) -> Result<Self> {
        let path = folder.join(CALL);
        let said = json(&path)?.with_context(|| format!("{} is gone", path.display()))?;
        let listed = said.is_array();
        let calls = match said {
            Value::Array(calls) => calls,
            call => vec![call],
        };
        let calls: Result<Vec<_>> = calls.into_iter().map(Call::parse).collect();
        let calls = calls.with_context(|| format!("{} cannot be used", path.display()))?;
        ensure!(!calls.is_empty(), "{} has no call", path.display());
        let (decision, error) = (json(&folder.join(DECISION))?, json(&folder.join(ERROR))?);
        let expected = match (decision, error) {
            (Some(_), Some(_)) => bail!(
                "{} expects both a decision and an error: remove one",
                folder.display()
            ),
            (Some(decision), None) => Expected::Decision(decision),
            (None, Some(error)) => Expected::Error(
                serde_json::from_value(error)
                    .with_context(|| format!("{} cannot be used", folder.join(ERROR).display()))?,
            ),
            (None, None) => Expected::Nothing,
        };
        let path = folder.join(CAPABILITIES);
        let answers = match text(&path)? {
            Some(text) => {
                Answers::parse(&text).with_context(|| format!("{} cannot be used", path.display()))?
            }
            None => Answers::default(),
        };
        let path = folder.join(SETTINGS);
        let settings = match json(&path)? {
            Some(settings) => serde_json::from_value(settings)
                .with_context(|| format!("{} is no object of plain values", path.display()))?,
            None => BTreeMap::new(),
        };
        Ok(Self {
            name: folder
                .file_name()
                .unwrap_or_default()
                .to_string_lossy()
                .into_owned(),
            folder: folder.to_owned(),
            calls,
            listed,
            expected,
            answers,
            settings,
        })
    }

    /// Decisions in the shape the calls were written in.
    pub(crate) fn shaped(&self, mut decisions: Vec<Value>) -> Value {
        if self.listed {
            Value::Array(decisions)
        } else {
            decisions.pop().unwrap_or_default()
        }
    }

    /// Writes down what is to be expected from now on.
    pub(crate) fn expect(&self, name: &str, value: &Value) -> Result<()> {
        let path = self.folder.join(name);
        let text = serde_json::to_string_pretty(value)? + "\n";
        std::fs::write(&path, text).with_context(|| format!("cannot write {}", path.display()))
    }

    /// Writes down decisions.
    pub(crate) fn expect_decision(&self, decision: &Value) -> Result<()> {
        self.expect(DECISION, decision)
    }

    /// Writes down the kind of an error. Its message names places in the source, which move.
    pub(crate) fn expect_error(&self, kind: &str) -> Result<()> {
        self.expect(ERROR, &serde_json::json!({ "kind": kind }))
    }
}

/// A file's text, if there is such a file.
fn text(path: &Path) -> Result<Option<String>> {
    match std::fs::read_to_string(path) {
        Ok(text) => Ok(Some(text)),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error).with_context(|| format!("cannot read {}", path.display())),
    }
}

fn json(path: &Path) -> Result<Option<Value>> {
    let read = text(path)?.map(|text| serde_json::from_str(&text));
    read.transpose()
        .with_context(|| format!("{} is no JSON", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    const PAGE: &str = r#"{"function": "routing.page", "input": {"facts": {"number": 1}}}"#;

    fn read(files: &[(&str, &str)]) -> Result<Case, String> {
        let folder = tempfile::tempdir().unwrap();
        for (name, text) in files {
            std::fs::write(folder.path().join(name), text).unwrap();
        }
        Case::read(folder.path()).map_err(|e| format!("{e:#}"))
    }

    #[test]
    fn one_call_has_one_decision_and_a_list_has_a_list() {
        let one = read(&[("call.json", PAGE), ("decision.json", "\"x\"")]).unwrap();
        assert_eq!(one.shaped(vec![json!(1)]), json!(1));
        assert!(matches!(one.expected, Expected::Decision(x) if x == "x"));
        let listed = read(&[
            ("call.json", &format!("[{PAGE}, {PAGE}]")),
            ("settings.json", r#"{"dpi": 100}"#),
        ])
        .unwrap();
        assert_eq!(listed.shaped(vec![json!(1), json!(2)]), json!([1, 2]));
        assert_eq!(listed.settings["dpi"].as_integer(), Some(100));
    }

    #[test]
    fn what_is_wrong_with_a_case_is_said_with_its_file() {
        for (files, part) in [
            (&[("call.json", "{")][..], "call.json is no JSON"),
            (&[("call.json", "[]")], "no call"),
            (
                &[("call.json", PAGE), ("decision.json", "1"), ("error.json", "{}")],
                "both",
            ),
            (
                &[("call.json", PAGE), ("error.json", r#"{"knd": "x"}"#)],
                "error.json",
            ),
            (
                &[("call.json", PAGE), ("capabilities.json", r#"{"text": {}}"#)],
                "capabilities.json",
            ),
        ] {
            let error = read(files).unwrap_err();
            assert!(error.contains(part), "{error}");
        }
        assert!(
            format!(
                "{:#}",
                Case::all(&std::env::temp_dir().join("no-such-folder")).unwrap_err()
            )
            .contains("cases")
        );
    }
}
