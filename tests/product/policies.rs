//! Components that misbehave: the manifest says whether the default decides instead or the job fails.

use weir_tests::{Ended, Weir};

/// Runs a two-page document with a hostile component in a role.
fn with(role: &str, component: &str, on_trap: &str, more: &str) -> Ended {
    let weir = Weir::new();
    let path = weir_tests::component(component);
    let manifest =
        format!("name = \"hostile\"\non-trap = \"{on_trap}\"\n[components]\n{role} = {path:?}\n{more}");
    let manifest = weir.file("pipeline.toml", manifest.as_bytes());
    let file = weir.file("good.pdf", &weir_samples::book(2, 7));
    weir.ingest(&[file.to_str().unwrap(), "--pipeline", manifest.to_str().unwrap()])
}

#[test]
fn a_component_that_misbehaves_fails_the_document_by_name_or_the_default_decides() {
    for (role, component, kind) in [
        ("routing", "hostile-trap", "component-trap"),
        ("routing", "hostile-loop", "component-deadline"),
        ("routing", "hostile-memory", "component-limit"),
        ("batching", "hostile-nonsense-batching", "component-nonsense"),
        ("chunking", "hostile-nonsense-chunking", "component-nonsense"),
    ] {
        let ended = with(role, component, "fail", "");
        assert_eq!(ended.code, 1, "{component}: {}", ended.errors);
        let error = &ended.event("document-failed")["error"];
        assert_eq!(error["kind"], kind, "{component}: {error}");
        assert!(error["message"].as_str().unwrap().contains(component), "{error}");

        let ended = with(role, component, "default", "");
        assert_eq!(ended.code, 0, "{component}: {}", ended.errors);
        assert_eq!(ended.event("document-done")["searchable"], 2);
        assert_eq!(
            ended.events("policy-failed")[0]["error"]["kind"],
            kind,
            "{component}"
        );
    }
}

#[test]
fn what_is_not_granted_is_refused_before_any_work() {
    let ended = with("routing", "hostile-state", "fail", "");
    assert_eq!(ended.code, 1);
    let told = format!("{} {:?}", ended.errors, ended.lines);
    assert!(told.contains("state") && told.contains("grant"), "{told}");
    assert!(ended.events("page-done").is_empty());
}

#[test]
fn a_job_is_replayed_by_its_own_components_and_by_others() {
    let weir = Weir::new();
    let file = weir.file("good.pdf", &weir_samples::book(3, 7));
    let ran = weir.ingest(&[file.to_str().unwrap()]);
    assert_eq!(ran.code, 0, "{}", ran.errors);
    let job = ran.lines[0]["job"].as_str().unwrap();

    let same = weir.run(&["replay", job, "--json"]);
    assert_eq!(same.code, 0, "{}", same.errors);
    let report = &same.lines[0];
    assert_eq!(
        (&report["differing"], &report["before"]),
        (&0.into(), &report["after"])
    );
    assert!(report["decisions"].as_u64() > Some(10), "{report}");

    let text_only = weir_tests::component("text-only");
    let other = weir.run(&["replay", job, "--with", text_only.to_str().unwrap(), "--json"]);
    assert_eq!(other.code, 1, "{}", other.errors);
    let report = &other.lines[0];
    assert!(report["differing"].as_u64() > Some(0), "{report}");
    assert!(
        report["differences"][0]["function"]
            .as_str()
            .unwrap()
            .starts_with("routing."),
        "{report}"
    );

    // An id has the time of its job in it: one of 2023, and one that is yet to come.
    for (job, said) in [
        ("01890000-0000-7000-8000-000000000000", "policy.record_days is 30"),
        ("0fffffff-0000-7000-8000-000000000000", "were not recorded"),
    ] {
        let never = weir.run(&["replay", job]);
        assert_eq!(never.code, 1);
        assert!(never.errors.contains(said), "{}", never.errors);
    }
}
