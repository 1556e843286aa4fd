//! A server's answers about pipelines, for people.

use std::io;

use crate::terminal::out_line;
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

pub(super) fn show_revision(revision: &Value) -> io::Result<()> {
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
    out_line!(
        "{} revision {}: {roles}",
        text(revision, "pipeline"),
        text(revision, "number")
    )
}

/// A time in milliseconds since 1970, as people read it.
fn rfc3339(millis: i64) -> String {
    chrono::DateTime::from_timestamp_millis(millis).map_or_else(
        || millis.to_string(),
        |time| time.to_rfc3339_opts(chrono::SecondsFormat::Secs, true),
    )
}

fn seconds(millis: &Value) -> String {
    format!("{:.1}", millis.as_f64().unwrap_or(0.0) / 1000.0)
}

fn component((role, digest): (&String, &Value)) -> String {
    let digest = digest.as_str().unwrap_or_default();
    let short: String = digest.chars().take("sha256:".len() + 12).collect();
    format!("{role} {short}")
}

pub(super) fn show_pipelines(answer: &Value) -> io::Result<()> {
    for pipeline in list(answer, "pipelines") {
        let (name, revisions) = (text(pipeline, "name"), text(pipeline, "revisions"));
        out_line!(
            "{name:<24} {revisions:>4} revisions  {}",
            rollout(at(pipeline, "/rollout"))
        )?;
    }
    Ok(())
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

pub(super) fn show_rollout(answer: &Value) -> io::Result<()> {
    out_line!("{}", rollout(at(answer, "/rollout")))?;
    let trial = at(answer, "/trial");
    for arm in ["canary", "stable"] {
        let shown = trial.get(arm).unwrap_or(&Value::Null);
        if shown.is_object() {
            out_line!(
                "  {arm:<7} {} jobs ({} failed), {} pages ({} failed), {} traps, {} timeouts, {} s of work",
                at(shown, "/jobs"),
                at(shown, "/failed_jobs"),
                at(shown, "/pages"),
                at(shown, "/failed_pages"),
                at(shown, "/traps"),
                at(shown, "/timeouts"),
                seconds(at(shown, "/millis")),
            )?;
        }
    }
    if let Some(reason) = at(trial, "/reason").as_str() {
        out_line!("  {}: {reason}", text(trial, "judgement"))?;
    }
    show_shadow(at(answer, "/shadow"))
}

fn show_shadow(shadow: &Value) -> io::Result<()> {
    if !shadow.is_object() {
        return Ok(());
    }
    out_line!(
        "  shadow  {} of {} decisions otherwise, in {} of {} jobs",
        at(shadow, "/differing"),
        at(shadow, "/decisions"),
        at(shadow, "/differing_jobs"),
        at(shadow, "/jobs"),
    )?;
    for example in list(shadow, "examples") {
        let difference = at(example, "/difference");
        out_line!(
            "    job {}, {} {}: {} instead of {}",
            text(example, "job"),
            text(difference, "function"),
            text(difference, "about"),
            text(difference, "after"),
            text(difference, "before"),
        )?;
    }
    Ok(())
}

pub(super) fn show_revisions(answer: &Value) -> io::Result<()> {
    list(answer, "revisions").try_for_each(show_revision)
}

pub(super) fn show_history(answer: &Value) -> io::Result<()> {
    for entry in list(answer, "entries") {
        let (action, revision) = (text(entry, "action"), text(entry, "revision"));
        let reason = at(entry, "/evidence/reason").as_str().unwrap_or_default();
        out_line!(
            "{:>4}  {}  {:<12}  {action:<9} {revision:<4} {reason}",
            text(entry, "seq"),
            at(entry, "/at_millis")
                .as_i64()
                .map_or_else(|| "-".into(), rfc3339),
            text(entry, "by"),
        )?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rfc3339_is_utc() {
        assert_eq!(rfc3339(1_764_353_289_123), "2025-11-28T18:08:09Z");
    }
}
