//! Test cases of `weir component test`. A test case is a folder with calls and their expected decisions or error.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, bail, ensure};
use serde::Deserialize;
use serde_json::Value;
use weir_policy::PolicyFunctionInvocation;

use super::fake_host::FakeResponsesByPageOrText;

const CALL_FILE: &str = "call.json";
const DECISION_FILE: &str = "decision.json";
const ERROR_FILE: &str = "error.json";
const CAPABILITIES_FILE: &str = "capabilities.json";
const SETTINGS_FILE: &str = "settings.json";

/// The calls of one job and the expected result.
#[derive(Debug)]
pub(crate) struct TestCase {
    pub(crate) name: String,
    folder: PathBuf,
    pub(crate) calls: Vec<PolicyFunctionInvocation>,
    /// Whether `call.json` is a list. The decisions are then a list, too.
    calls_are_a_list: bool,
    pub(crate) expectation: Expectation,
    pub(crate) capability_responses: FakeResponsesByPageOrText,
    /// Settings that override those of the manifest.
    pub(crate) settings: BTreeMap<String, toml::Value>,
}

/// The expected result of a test case.
#[derive(Debug)]
pub(crate) enum Expectation {
    /// The case has no expectation yet.
    Missing,
    Decision(Value),
    Error(ExpectedError),
}

/// The expected error of the last call.
#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub(crate) struct ExpectedError {
    /// Stable kind of the error, such as `component-trap`.
    pub(crate) kind: String,
    /// Text that the error message must contain.
    #[serde(default, rename = "message")]
    pub(crate) message_part: String,
}

impl TestCase {
    /// Reads all test cases of a folder, in order of their names. Fails if there is none.
    pub(crate) fn read_all(folder: &Path) -> Result<Vec<Self>> {
        let cannot = || format!("cannot read the test cases in {}", folder.display());
        let mut folders = Vec::new();
        for entry in std::fs::read_dir(folder).with_context(cannot)? {
            let path = entry.with_context(cannot)?.path();
            if path.join(CALL_FILE).is_file() {
                folders.push(path);
            }
        }
        folders.sort();
        ensure!(
            !folders.is_empty(),
            "there are no test cases in {}: a test case is a folder with a {CALL_FILE}",
            folder.display()
        );
        folders.iter().map(|folder| Self::read_folder(folder)).collect()
    }

    fn read_folder(folder: &Path) -> Result<Self> {
        let path = folder.join(CALL_FILE);
        let json =
            read_optional_json(&path)?.with_context(|| format!("{} does not exist", path.display()))?;
        let calls_are_a_list = json.is_array();
        let calls = match json {
            Value::Array(calls) => calls,
            call => vec![call],
        };
        let calls: Result<Vec<_>> = calls.into_iter().map(parse_call).collect();
        let calls = calls.with_context(|| format!("{} is invalid", path.display()))?;
        ensure!(!calls.is_empty(), "{} has no call", path.display());
        let (decision, error) = (
            read_optional_json(&folder.join(DECISION_FILE))?,
            read_optional_json(&folder.join(ERROR_FILE))?,
        );
        let expectation = match (decision, error) {
            (Some(_), Some(_)) => bail!(
                "{} expects both a decision and an error: remove one",
                folder.display()
            ),
            (Some(decision), None) => Expectation::Decision(decision),
            (None, Some(error)) => Expectation::Error(
                serde_json::from_value(error)
                    .with_context(|| format!("{} is invalid", folder.join(ERROR_FILE).display()))?,
            ),
            (None, None) => Expectation::Missing,
        };
        let path = folder.join(CAPABILITIES_FILE);
        let capability_responses = match read_optional_text(&path)? {
            Some(text) => FakeResponsesByPageOrText::parse(&text)
                .with_context(|| format!("{} is invalid", path.display()))?,
            None => FakeResponsesByPageOrText::default(),
        };
        let path = folder.join(SETTINGS_FILE);
        let settings = match read_optional_json(&path)? {
            Some(settings) => serde_json::from_value(settings)
                .with_context(|| format!("{} is not an object of plain values", path.display()))?,
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
            calls_are_a_list,
            expectation,
            capability_responses,
            settings,
        })
    }

    /// Returns the decisions as a list if `call.json` is a list, else the single decision.
    pub(crate) fn decisions_to_json(&self, mut decisions: Vec<Value>) -> Value {
        if self.calls_are_a_list {
            Value::Array(decisions)
        } else {
            decisions.pop().unwrap_or_default()
        }
    }

    /// Writes an expectation to a file of the case.
    pub(crate) fn write_expectation(&self, name: &str, value: &Value) -> Result<()> {
        let path = self.folder.join(name);
        let text = serde_json::to_string_pretty(value)? + "\n";
        std::fs::write(&path, text).with_context(|| format!("cannot write {}", path.display()))
    }

    /// Writes the expected decisions to `decision.json`.
    pub(crate) fn write_expected_decision(&self, decision: &Value) -> Result<()> {
        self.write_expectation(DECISION_FILE, decision)
    }

    /// Writes the kind of the expected error to `error.json`. The message is left out, because it has source positions, which
    /// change with the source.
    pub(crate) fn write_expected_error(&self, kind: &str) -> Result<()> {
        self.write_expectation(ERROR_FILE, &serde_json::json!({ "kind": kind }))
    }
}

/// Parses a call from JSON.
fn parse_call(value: Value) -> Result<PolicyFunctionInvocation> {
    let function = value.get("function").and_then(Value::as_str).map(str::to_owned);
    serde_json::from_value(value).with_context(|| match function {
        Some(function) => format!("the call of {function} does not match the contract"),
        None => "a call has the format {\"function\": \"routing.page\", \"input\": {…}}".into(),
    })
}

/// Reads a text file. `None` if the file does not exist.
fn read_optional_text(path: &Path) -> Result<Option<String>> {
    match std::fs::read_to_string(path) {
        Ok(text) => Ok(Some(text)),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error).with_context(|| format!("cannot read {}", path.display())),
    }
}

fn read_optional_json(path: &Path) -> Result<Option<Value>> {
    let read = read_optional_text(path)?.map(|text| serde_json::from_str(&text));
    read.transpose()
        .with_context(|| format!("{} is not valid JSON", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    const PAGE_CALL: &str = r#"{"function": "routing.page", "input": {"facts": {"number": 1}}}"#;

    fn read_case(files: &[(&str, &str)]) -> Result<TestCase, String> {
        let folder = tempfile::tempdir().unwrap();
        for (name, text) in files {
            std::fs::write(folder.path().join(name), text).unwrap();
        }
        TestCase::read_folder(folder.path()).map_err(|e| format!("{e:#}"))
    }

    #[test]
    fn decisions_have_the_shape_of_the_calls() {
        let one = read_case(&[("call.json", PAGE_CALL), ("decision.json", "\"x\"")]).unwrap();
        assert_eq!(one.decisions_to_json(vec![json!(1)]), json!(1));
        assert!(matches!(one.expectation, Expectation::Decision(x) if x == "x"));
        let listed = read_case(&[
            ("call.json", &format!("[{PAGE_CALL}, {PAGE_CALL}]")),
            ("settings.json", r#"{"dpi": 100}"#),
        ])
        .unwrap();
        assert_eq!(listed.decisions_to_json(vec![json!(1), json!(2)]), json!([1, 2]));
        assert_eq!(listed.settings["dpi"].as_integer(), Some(100));
    }

    #[test]
    fn invalid_call_error_names_the_wrong_part() {
        let page = json!({"function": "routing.page", "input": {"facts": {"number": 1, "text-chars": 5}}});
        assert!(matches!(parse_call(page), Ok(PolicyFunctionInvocation::Page(_))));
        for (wrong, part) in [
            (
                json!({"function": "routing.page", "input": {"facts": {"number": 1, "text_chars": 5}}}),
                "text_chars",
            ),
            (json!({"function": "routing.pages", "input": {}}), "routing.pages"),
            (
                json!({"function": "batching.plan", "input": {"total-pages": -1}}),
                "batching.plan",
            ),
            (json!([]), "function"),
        ] {
            let error = format!("{:#}", parse_call(wrong).unwrap_err());
            assert!(error.contains(part), "{error}");
        }
    }

    #[test]
    fn invalid_test_case_error_names_the_file() {
        for (files, part) in [
            (&[("call.json", "{")][..], "call.json is not valid JSON"),
            (&[("call.json", "[]")], "no call"),
            (
                &[
                    ("call.json", PAGE_CALL),
                    ("decision.json", "1"),
                    ("error.json", "{}"),
                ],
                "both",
            ),
            (
                &[("call.json", PAGE_CALL), ("error.json", r#"{"knd": "x"}"#)],
                "error.json",
            ),
            (
                &[("call.json", PAGE_CALL), ("capabilities.json", r#"{"text": {}}"#)],
                "capabilities.json",
            ),
        ] {
            let error = read_case(files).unwrap_err();
            assert!(error.contains(part), "{error}");
        }
        assert!(
            format!(
                "{:#}",
                TestCase::read_all(&std::env::temp_dir().join("no-such-folder")).unwrap_err()
            )
            .contains("cases")
        );
    }
}
