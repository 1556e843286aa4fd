//! Writing components: a new folder, and components asked what their cases ask, in the host's sandbox.

use std::fs;
use std::path::{Path, PathBuf};

use serde_json::{Value, json};
use weir_tests::{Ended, Weir};

/// A component that `components/build` made.
fn built(name: &str) -> String {
    let folder = std::env::var_os("WEIR_HOSTILE_COMPONENTS")
        .map_or_else(|| repository("target/components"), PathBuf::from);
    let path = folder.join(format!("{name}.wasm"));
    assert!(
        path.exists(),
        "{} is not there: run `make components`",
        path.display()
    );
    path.to_str().unwrap().to_owned()
}

fn repository(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..").join(path)
}

/// A folder with a manifest and one case.
fn folder(weir: &Weir, manifest: &str, case: &[(&str, Value)]) -> String {
    weir.file(
        "ours/pipeline.toml",
        format!("name = \"ours\"\n{manifest}").as_bytes(),
    );
    for (name, value) in case {
        weir.file(&format!("ours/cases/first/{name}"), value.to_string().as_bytes());
    }
    weir.folder().join("ours").to_str().unwrap().to_owned()
}

fn routing(component: &str) -> String {
    format!("[components]\nrouting = {:?}\n", built(component))
}

fn page(facts: &Value) -> Value {
    json!({ "function": "routing.page", "input": { "facts": facts } })
}

/// The only case's differences.
fn differences(ended: &Ended) -> String {
    ended.lines[0]["cases"][0]["differences"].to_string()
}

#[test]
fn the_examples_in_rust_decide_what_their_cases_say() {
    for example in ["contracts", "clauses", "small-gpu", "spanish"] {
        let source = repository(&format!("components/examples/rust/{example}"));
        let cases = repository(&format!("components/examples/cases/{example}"));
        let (source, cases) = (source.to_str().unwrap(), cases.to_str().unwrap());
        let component = built(example);
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
        let ended = Weir::new().run(&arguments);
        assert_eq!(ended.code, 0, "{example}: {:#?}\n{}", ended.lines, ended.errors);
        let told = &ended.lines[0];
        assert_eq!(told["different"], 0);
        assert!(told["as-expected"].as_u64().unwrap() >= 3, "{told}");
    }
}

#[test]
fn a_decision_that_differs_is_shown_where_it_does_and_can_be_written_down() {
    let weir = Weir::new();
    let call = page(&json!({ "number": 1, "text-chars": 30 }));
    let ours = folder(&weir, &routing("text-only"), &[("call.json", call)]);
    let test = |more: &[&str]| weir.run(&[&["component", "test", &ours, "--json"], more].concat());

    let undecided = test(&[]);
    assert_eq!(undecided.code, 1);
    assert!(
        differences(&undecided).contains("--write"),
        "{}",
        differences(&undecided)
    );

    assert_eq!(test(&["--write"]).code, 0);
    let decision = weir.folder().join("ours/cases/first/decision.json");
    let written: Value = serde_json::from_slice(&fs::read(&decision).unwrap()).unwrap();
    assert_eq!(written["reading"], "text-layer");
    assert_eq!(test(&[]).code, 0);

    // A setting of the case stands over the manifest's, and changes the decision.
    weir.file("ours/cases/first/settings.json", b"{\"min-chars\": 31}");
    let changed = test(&[]);
    assert_eq!(changed.code, 1);
    assert!(
        differences(&changed).contains(r#"reading: expected \"text-layer\", decided \"nothing\""#),
        "{}",
        differences(&changed)
    );
}

#[test]
fn an_error_is_expected_by_its_kind_and_a_part_of_its_message() {
    let call = || page(&json!({ "number": 1 }));
    for (component, kind, message, code) in [
        ("hostile-trap", "component-trap", "hostile-trap", 0),
        ("hostile-loop", "component-deadline", "routing.page", 0),
        ("hostile-memory", "component-limit", "memory", 0),
        ("hostile-trap", "component-limit", "", 1),
        ("text-only", "component-trap", "", 1),
    ] {
        let weir = Weir::new();
        let expected = json!({ "kind": kind, "message": message });
        let ours = folder(
            &weir,
            &routing(component),
            &[("call.json", call()), ("error.json", expected)],
        );
        let ended = weir.run(&["component", "test", &ours, "--json"]);
        assert_eq!(
            ended.code, code,
            "{component}: {:?} {}",
            ended.lines, ended.errors
        );
    }
}

#[test]
fn what_is_not_granted_or_not_built_is_said() {
    let weir = Weir::new();
    let call = [("call.json", page(&json!({ "number": 1 })))];
    let ours = folder(&weir, &routing("contracts"), &call);
    let ended = weir.run(&["component", "test", &ours]);
    assert_eq!(ended.code, 1);
    assert!(ended.errors.contains("grant"), "{}", ended.errors);

    let ours = folder(&weir, "[components]\nrouting = 'not-built.wasm'", &call);
    let ended = weir.run(&["component", "test", &ours]);
    assert_eq!(ended.code, 1);
    assert!(ended.errors.contains("weir component build"), "{}", ended.errors);

    let ours = folder(
        &weir,
        &format!("[components]\nprogress = {:?}", built("spanish")),
        &call,
    );
    let ended = weir.run(&["component", "test", &ours]);
    assert!(
        ended.errors.contains("no component for routing"),
        "{}",
        ended.errors
    );
}

#[test]
fn a_new_component_has_a_folder_of_its_own() {
    let weir = Weir::new();
    let new =
        |name: &str, role: &str| weir.run(&["component", "new", name, "--lang", "python", "--role", role]);
    assert_eq!(new("ours", "routing,progress").code, 0);
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
        assert_ne!(ended.code, 0);
        assert!(ended.errors.contains(part), "{}", ended.errors);
    }
    assert!(!weir.folder().join("theirs").exists());
    let after = fs::read_to_string(weir.folder().join("ours/policy.py")).unwrap();
    assert_eq!(after, policy);
}
