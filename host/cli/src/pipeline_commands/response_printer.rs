//! Prints a server's responses about pipelines as text.

use std::io;

use crate::terminal::out_line;
use serde_json::Value;

/// Returns the value at a JSON pointer, or null.
pub(super) fn value_at<'a>(value: &'a Value, pointer: &str) -> &'a Value {
    value.pointer(pointer).unwrap_or(&Value::Null)
}

pub(super) fn field_or_dash(value: &Value, field: &str) -> String {
    match value.get(field).unwrap_or(&Value::Null) {
        Value::String(text) => text.clone(),
        Value::Null => "-".into(),
        other => other.to_string(),
    }
}

fn array_items<'a>(value: &'a Value, field: &str) -> impl Iterator<Item = &'a Value> {
    value.get(field).and_then(Value::as_array).into_iter().flatten()
}

pub(super) fn print_revision(revision: &Value) -> io::Result<()> {
    let roles: Vec<String> = value_at(revision, "/components")
        .as_object()
        .into_iter()
        .flatten()
        .map(format_component)
        .collect();
    let roles = match roles.is_empty() {
        true => "the default components".to_owned(),
        false => roles.join(", "),
    };
    out_line!(
        "{} revision {}: {roles}",
        field_or_dash(revision, "pipeline"),
        field_or_dash(revision, "number")
    )
}

/// Formats a Unix time in milliseconds as an RFC 3339 time in UTC, without fractions of a second.
fn format_rfc3339(millis: i64) -> String {
    chrono::DateTime::from_timestamp_millis(millis).map_or_else(
        || millis.to_string(),
        |time| time.to_rfc3339_opts(chrono::SecondsFormat::Secs, true),
    )
}

fn format_seconds(millis: &Value) -> String {
    format!("{:.1}", millis.as_f64().unwrap_or(0.0) / 1000.0)
}

fn format_component((role, digest): (&String, &Value)) -> String {
    let digest = digest.as_str().unwrap_or_default();
    let short: String = digest.chars().take("sha256:".len() + 12).collect();
    format!("{role} {short}")
}

pub(super) fn print_pipelines(answer: &Value) -> io::Result<()> {
    for pipeline in array_items(answer, "pipelines") {
        let (name, revisions) = (
            field_or_dash(pipeline, "name"),
            field_or_dash(pipeline, "revisions"),
        );
        out_line!(
            "{name:<24} {revisions:>4} revisions  {}",
            format_rollout(value_at(pipeline, "/rollout"))
        )?;
    }
    Ok(())
}

fn format_rollout(rollout: &Value) -> String {
    let mut said = match value_at(rollout, "/stable") {
        Value::Null => "none active".to_owned(),
        stable => format!("stable {stable}"),
    };
    let canary = value_at(rollout, "/canary");
    if canary.is_object() {
        said += &format!(
            ", canary {} for {} % of new jobs",
            value_at(canary, "/revision"),
            value_at(canary, "/percent")
        );
    }
    if let Some(revision) = value_at(rollout, "/shadow").as_u64() {
        said += &format!(", shadow {revision}");
    }
    if value_at(rollout, "/pinned") == true {
        said += ", pinned";
    }
    said
}

pub(super) fn print_rollout(answer: &Value) -> io::Result<()> {
    out_line!("{}", format_rollout(value_at(answer, "/rollout")))?;
    let trial = value_at(answer, "/trial");
    for arm in ["canary", "stable"] {
        let shown = trial.get(arm).unwrap_or(&Value::Null);
        if shown.is_object() {
            out_line!(
                "  {arm:<7} {} jobs ({} failed), {} pages ({} failed), {} traps, {} timeouts, {} s of work",
                value_at(shown, "/jobs"),
                value_at(shown, "/failed_jobs"),
                value_at(shown, "/pages"),
                value_at(shown, "/failed_pages"),
                value_at(shown, "/traps"),
                value_at(shown, "/timeouts"),
                format_seconds(value_at(shown, "/millis")),
            )?;
        }
    }
    if let Some(reason) = value_at(trial, "/reason").as_str() {
        out_line!("  {}: {reason}", field_or_dash(trial, "action"))?;
    }
    print_shadow(value_at(answer, "/shadow"))
}

fn print_shadow(shadow: &Value) -> io::Result<()> {
    if !shadow.is_object() {
        return Ok(());
    }
    out_line!(
        "  shadow  {} of {} decisions differ, in {} of {} jobs",
        value_at(shadow, "/differing"),
        value_at(shadow, "/decisions"),
        value_at(shadow, "/differing_jobs"),
        value_at(shadow, "/jobs"),
    )?;
    for example in array_items(shadow, "examples") {
        let difference = value_at(example, "/difference");
        out_line!(
            "    job {}, {} {}: {} instead of {}",
            field_or_dash(example, "job"),
            field_or_dash(difference, "function"),
            field_or_dash(difference, "about"),
            field_or_dash(difference, "after"),
            field_or_dash(difference, "before"),
        )?;
    }
    Ok(())
}

pub(super) fn print_revisions(answer: &Value) -> io::Result<()> {
    array_items(answer, "revisions").try_for_each(print_revision)
}

pub(super) fn print_history(answer: &Value) -> io::Result<()> {
    for entry in array_items(answer, "entries") {
        let (action, revision) = (field_or_dash(entry, "action"), field_or_dash(entry, "revision"));
        let reason = value_at(entry, "/evidence/reason").as_str().unwrap_or_default();
        out_line!(
            "{:>4}  {}  {:<12}  {action:<9} {revision:<4} {reason}",
            field_or_dash(entry, "seq"),
            value_at(entry, "/at_millis")
                .as_i64()
                .map_or_else(|| "-".into(), format_rfc3339),
            field_or_dash(entry, "by"),
        )?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rfc3339_time_is_utc() {
        assert_eq!(format_rfc3339(1_764_353_289_123), "2025-11-28T18:08:09Z");
    }
}
