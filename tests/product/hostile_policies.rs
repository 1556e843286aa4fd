//! Hostile components: as the manifest says, either the default component decides instead or the job fails.

use weir_tests::{CommandOutput, WeirFixture};

/// Ingests a two-page document with a hostile component in a role.
fn run_with_hostile_component(role: &str, component: &str, on_failure: &str, more: &str) -> CommandOutput {
    let weir = WeirFixture::new();
    let path = weir_tests::test_component_path(component);
    let manifest = format!(
        "name = \"hostile\"\non-component-failure = \"{on_failure}\"\n[components]\n{role} = {path:?}\n{more}"
    );
    let manifest = weir.write_file("pipeline.toml", manifest.as_bytes());
    let file = weir.write_file("good.pdf", &weir_samples::generate_book(2, 7));
    weir.ingest_files(&[file.to_str().unwrap(), "--pipeline", manifest.to_str().unwrap()])
}

#[test]
fn hostile_component_fails_the_document_or_the_default_decides() {
    for (role, component, kind) in [
        ("routing", "hostile-trap", "component-trap"),
        ("routing", "hostile-loop", "component-timeout"),
        ("routing", "hostile-memory", "component-limit"),
        (
            "batching",
            "hostile-invalid-batching",
            "component-invalid-decision",
        ),
        (
            "chunking",
            "hostile-invalid-chunking",
            "component-invalid-decision",
        ),
    ] {
        let ended = run_with_hostile_component(role, component, "fail", "");
        assert_eq!(ended.exit_code, 1, "{component}: {}", ended.stderr);
        let error = &ended.single_event("document-failed")["error"];
        assert_eq!(error["kind"], kind, "{component}: {error}");
        assert!(error["message"].as_str().unwrap().contains(component), "{error}");

        let ended = run_with_hostile_component(role, component, "default", "");
        assert_eq!(ended.exit_code, 0, "{component}: {}", ended.stderr);
        assert_eq!(ended.single_event("document-done")["searchable"], 2);
        assert_eq!(
            ended.events_of_type("policy-failed")[0]["error"]["kind"],
            kind,
            "{component}"
        );
    }
}

#[test]
fn ungranted_capability_is_refused_before_any_work() {
    let ended = run_with_hostile_component("routing", "hostile-state", "fail", "");
    assert_eq!(ended.exit_code, 1);
    let output = format!("{} {:?}", ended.stderr, ended.stdout_lines);
    assert!(output.contains("state") && output.contains("grant"), "{output}");
    assert!(ended.events_of_type("page-done").is_empty());
}

#[test]
fn replay_with_same_components_matches_and_with_others_differs() {
    let weir = WeirFixture::new();
    let file = weir.write_file("good.pdf", &weir_samples::generate_book(3, 7));
    let ran = weir.ingest_files(&[file.to_str().unwrap()]);
    assert_eq!(ran.exit_code, 0, "{}", ran.stderr);
    let job = ran.stdout_lines[0]["job"].as_str().unwrap();

    let same = weir.run_command(&["replay", job, "--json"]);
    assert_eq!(same.exit_code, 0, "{}", same.stderr);
    let report = &same.stdout_lines[0];
    assert_eq!(
        (&report["differing"], &report["before"]),
        (&0.into(), &report["after"])
    );
    assert!(report["decisions"].as_u64() > Some(10), "{report}");

    let text_only = weir_tests::test_component_path("text-only");
    let other = weir.run_command(&["replay", job, "--with", text_only.to_str().unwrap(), "--json"]);
    assert_eq!(other.exit_code, 1, "{}", other.stderr);
    let report = &other.stdout_lines[0];
    assert!(report["differing"].as_u64() > Some(0), "{report}");
    assert!(
        report["differences"][0]["function"]
            .as_str()
            .unwrap()
            .starts_with("routing."),
        "{report}"
    );

    // A job id contains its creation time: the first is from 2023, the second from the future.
    for (job, message_part) in [
        (
            "01890000-0000-7000-8000-000000000000",
            "policy.recording_retention_days is 30",
        ),
        ("0fffffff-0000-7000-8000-000000000000", "were not recorded"),
    ] {
        let never = weir.run_command(&["replay", job]);
        assert_eq!(never.exit_code, 1);
        assert!(never.stderr.contains(message_part), "{}", never.stderr);
    }
}
