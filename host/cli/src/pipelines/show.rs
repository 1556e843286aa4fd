//! A server's answers about pipelines, for people.

use serde_json::Value;

/// What is there, or null.
pub(super) fn at<'a>(value: &'a Value, pointer: &str) -> &'a Value {
    value.pointer(pointer).unwrap_or(&Value::Null)
}

pub(super) fn text(value: &Value, field: &str) -> String {
    match value.get(field).unwrap_or(&Value::Null) {
        Value::String(text) => text.clone(),
        Value::Null => "-".into(),
        other => other.to_string(),
    }
}

fn list<'a>(value: &'a Value, field: &str) -> impl Iterator<Item = &'a Value> {
    value.get(field).and_then(Value::as_array).into_iter().flatten()
}

#[allow(clippy::print_stdout)]
pub(super) fn show_revision(revision: &Value) {
    let roles: Vec<String> = at(revision, "/components")
        .as_object()
        .into_iter()
        .flatten()
        .map(component)
        .collect();
    let roles = match roles.is_empty() {
        true => "the host's own components".to_owned(),
        false => roles.join(", "),
    };
    println!(
        "{} revision {}: {roles}",
        text(revision, "pipeline"),
        text(revision, "number")
    );
}

fn component((role, digest): (&String, &Value)) -> String {
    let digest = digest.as_str().unwrap_or_default();
    let short: String = digest.chars().take("sha256:".len() + 12).collect();
    format!("{role} {short}")
}

#[allow(clippy::print_stdout)]
pub(super) fn show_pipelines(answer: &Value) {
    for pipeline in list(answer, "pipelines") {
        let (name, revisions) = (text(pipeline, "name"), text(pipeline, "revisions"));
        println!(
            "{name:<24} {revisions:>4} revisions  {}",
            rollout(at(pipeline, "/rollout"))
        );
    }
}

fn rollout(rollout: &Value) -> String {
    let mut said = match at(rollout, "/stable") {
        Value::Null => "none active".to_owned(),
        stable => format!("stable {stable}"),
    };
    let canary = at(rollout, "/canary");
    if canary.is_object() {
        said += &format!(
            ", canary {} for {} %",
            at(canary, "/revision"),
            at(canary, "/percent")
        );
    }
    if let Some(revision) = at(rollout, "/shadow").as_u64() {
        said += &format!(", shadow {revision}");
    }
    if at(rollout, "/pinned") == true {
        said += ", pinned";
    }
    said
}

#[allow(clippy::print_stdout)]
pub(super) fn show_rollout(answer: &Value) {
    println!("{}", rollout(at(answer, "/rollout")));
    let trial = at(answer, "/trial");
    for arm in ["canary", "stable"] {
        let shown = trial.get(arm).unwrap_or(&Value::Null);
        if shown.is_object() {
            println!(
                "  {arm:<7} {} jobs ({} failed), {} pages ({} failed), {} traps, {} timeouts, {} ms",
                at(shown, "/jobs"),
                at(shown, "/failed_jobs"),
                at(shown, "/pages"),
                at(shown, "/failed_pages"),
                at(shown, "/traps"),
                at(shown, "/timeouts"),
                at(shown, "/millis"),
            );
        }
    }
    if let Some(reason) = at(trial, "/reason").as_str() {
        println!("  {}: {reason}", text(trial, "judgement"));
    }
    show_shadow(at(answer, "/shadow"));
}

#[allow(clippy::print_stdout)]
fn show_shadow(shadow: &Value) {
    if !shadow.is_object() {
        return;
    }
    println!(
        "  shadow  {} of {} decisions otherwise, in {} of {} jobs",
        at(shadow, "/differing"),
        at(shadow, "/decisions"),
        at(shadow, "/differing_jobs"),
        at(shadow, "/jobs"),
    );
    for example in list(shadow, "examples") {
        let difference = at(example, "/difference");
        println!(
            "    job {}, {} {}: {} instead of {}",
            text(example, "job"),
            text(difference, "function"),
            text(difference, "about"),
            text(difference, "after"),
            text(difference, "before"),
        );
    }
}

#[allow(clippy::print_stdout)]
pub(super) fn show_revisions(answer: &Value) {
    list(answer, "revisions").for_each(show_revision);
}

#[allow(clippy::print_stdout)]
pub(super) fn show_history(answer: &Value) {
    for entry in list(answer, "entries") {
        let (action, revision) = (text(entry, "action"), text(entry, "revision"));
        let reason = at(entry, "/evidence/reason").as_str().unwrap_or_default();
        println!(
            "{:>4}  {:>13}  {:<12}  {action:<9} {revision:<4} {reason}",
            text(entry, "seq"),
            text(entry, "at_millis"),
            text(entry, "by"),
        );
    }
}
