//! Commands for component authors: `weir component new` creates a folder, and `weir component test` runs its cases.

use std::fs;
use std::path::{Path, PathBuf};

use serde_json::{Value, json};
use weir_tests::{CommandOutput, WeirFixture};

/// Returns the path of a component that `components/build` built.
fn built_component_path(name: &str) -> String {
    let folder = std::env::var_os("WEIR_HOSTILE_COMPONENTS")
        .map_or_else(|| repository_path("target/components"), PathBuf::from);
    let path = folder.join(format!("{name}.wasm"));
    assert!(
        path.exists(),
        "{} does not exist: run `make components`",
        path.display()
    );
    path.to_str().unwrap().to_owned()
}

fn repository_path(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..").join(path)
}

/// Writes a folder with a manifest and one case. Returns its path.
fn write_component_folder(weir: &WeirFixture, manifest: &str, case: &[(&str, Value)]) -> String {
    weir.write_file(
        "ours/pipeline.toml",
        format!("name = \"ours\"\n{manifest}").as_bytes(),
    );
    for (name, value) in case {
        weir.write_file(&format!("ours/cases/first/{name}"), value.to_string().as_bytes());
    }
    weir.folder().join("ours").to_str().unwrap().to_owned()
}

fn routing_manifest(component: &str) -> String {
    format!("[components]\nrouting = {:?}\n", built_component_path(component))
}

fn route_page_call(facts: &Value) -> Value {
    json!({ "function": "routing.page", "input": { "facts": facts } })
}

/// Returns the differences of the first case.
fn first_case_differences(ended: &CommandOutput) -> String {
    ended.stdout_lines[0]["cases"][0]["differences"].to_string()
}

#[test]
fn rust_examples_decide_as_their_cases_expect() {
    for example in ["contracts", "clauses", "small-gpu", "spanish"] {
        let source = repository_path(&format!("components/examples/rust/{example}"));
        let cases = repository_path(&format!("components/examples/cases/{example}"));
        let (source, cases) = (source.to_str().unwrap(), cases.to_str().unwrap());
        let component = built_component_path(example);
        let arguments = [
            "component",
            "test",
            source,
            "--cases",
            cases,
            "--component",
            &component,
            "--json",
        ];
        let ended = WeirFixture::new().run_command(&arguments);
        assert_eq!(
            ended.exit_code, 0,
            "{example}: {:#?}\n{}",
            ended.stdout_lines, ended.stderr
        );
        let report = &ended.stdout_lines[0];
        assert_eq!(report["failed"], 0);
        assert!(report["passed"].as_u64().unwrap() >= 3, "{report}");
    }
}

#[test]
fn missing_expectation_is_written_and_changed_decision_shown() {
    let weir = WeirFixture::new();
    let call = route_page_call(&json!({ "number": 1, "text-chars": 30 }));
    let folder = write_component_folder(&weir, &routing_manifest("text-only"), &[("call.json", call)]);
    let test = |more: &[&str]| weir.run_command(&[&["component", "test", &folder, "--json"], more].concat());

    let undecided = test(&[]);
    assert_eq!(undecided.exit_code, 1);
    assert!(
        first_case_differences(&undecided).contains("--write"),
        "{}",
        first_case_differences(&undecided)
    );

    assert_eq!(test(&["--write"]).exit_code, 0);
    let decision = weir.folder().join("ours/cases/first/decision.json");
    let written: Value = serde_json::from_slice(&fs::read(&decision).unwrap()).unwrap();
    assert_eq!(written["reading"], "text-layer");
    assert_eq!(test(&[]).exit_code, 0);

    // A setting of the case overrides the manifest's and changes the decision.
    weir.write_file("ours/cases/first/settings.json", b"{\"min-chars\": 31}");
    let changed = test(&[]);
    assert_eq!(changed.exit_code, 1);
    assert!(
        first_case_differences(&changed).contains(r#"reading: expected \"text-layer\", decided \"nothing\""#),
        "{}",
        first_case_differences(&changed)
    );
}

#[test]
fn error_case_matches_kind_and_part_of_the_message() {
    let call = || route_page_call(&json!({ "number": 1 }));
    for (component, kind, message, code) in [
        ("hostile-trap", "component-trap", "hostile-trap", 0),
        ("hostile-loop", "component-timeout", "routing.page", 0),
        ("hostile-memory", "component-limit", "memory", 0),
        ("hostile-trap", "component-limit", "", 1),
        ("text-only", "component-trap", "", 1),
    ] {
        let weir = WeirFixture::new();
        let expected = json!({ "kind": kind, "message": message });
        let folder = write_component_folder(
            &weir,
            &routing_manifest(component),
            &[("call.json", call()), ("error.json", expected)],
        );
        let ended = weir.run_command(&["component", "test", &folder, "--json"]);
        assert_eq!(
            ended.exit_code, code,
            "{component}: {:?} {}",
            ended.stdout_lines, ended.stderr
        );
    }
}

#[test]
fn ungranted_or_unbuilt_component_fails_with_a_hint() {
    let weir = WeirFixture::new();
    let call = [("call.json", route_page_call(&json!({ "number": 1 })))];
    let folder = write_component_folder(&weir, &routing_manifest("contracts"), &call);
    let ended = weir.run_command(&["component", "test", &folder]);
    assert_eq!(ended.exit_code, 1);
    assert!(ended.stderr.contains("grant"), "{}", ended.stderr);

    let folder = write_component_folder(&weir, "[components]\nrouting = 'not-built.wasm'", &call);
    let ended = weir.run_command(&["component", "test", &folder]);
    assert_eq!(ended.exit_code, 1);
    assert!(ended.stderr.contains("weir component build"), "{}", ended.stderr);

    let folder = write_component_folder(
        &weir,
        &format!("[components]\nprogress = {:?}", built_component_path("spanish")),
        &call,
    );
    let ended = weir.run_command(&["component", "test", &folder]);
    assert!(
        ended.stderr.contains("no component for routing"),
        "{}",
        ended.stderr
    );
}

#[test]
fn component_new_creates_a_folder_and_refuses_bad_names() {
    let weir = WeirFixture::new();
    let new = |name: &str, role: &str| {
        weir.run_command(&["component", "new", name, "--lang", "python", "--role", role])
    };
    assert_eq!(new("ours", "routing,progress").exit_code, 0);
    let policy = fs::read_to_string(weir.folder().join("ours/policy.py")).unwrap();
    assert!(
        policy.contains("Routing = roles.Routing") && !policy.contains("Batching"),
        "{policy}"
    );
    for (name, role, part) in [
        ("ours", "routing", "already there"),
        ("theirs", "router", "batching, routing, chunking, progress"),
        ("Not A Name", "routing", "a-z"),
        ("../up", "routing", "a-z"),
    ] {
        let ended = new(name, role);
        assert_ne!(ended.exit_code, 0);
        assert!(ended.stderr.contains(part), "{}", ended.stderr);
    }
    assert!(!weir.folder().join("theirs").exists());
    let after = fs::read_to_string(weir.folder().join("ours/policy.py")).unwrap();
    assert_eq!(after, policy);
}
