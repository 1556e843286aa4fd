//! Prints a server's responses about pipelines as text.

use std::io;

use crate::terminal::out_line;
use serde_json::Value;

/// Returns the value at a JSON pointer, or null.
pub(super) fn value_at_pointer<'a>(value: &'a Value, pointer: &str) -> &'a Value {
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
    let roles: Vec<String> = value_at_pointer(revision, "/components")
        .as_object()
        .into_iter()
        .flatten()
        .map(format_role_and_digest)
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

fn format_millis_as_seconds(millis: &Value) -> String {
    format!("{:.1}", millis.as_f64().unwrap_or(0.0) / 1000.0)
}

fn format_role_and_digest((role, digest): (&String, &Value)) -> String {
    let digest = digest.as_str().unwrap_or_default();
    let short: String = digest.chars().take("sha256:".len() + 12).collect();
    format!("{role} {short}")
}

pub(super) fn print_pipelines(response: &Value) -> io::Result<()> {
    for pipeline in array_items(response, "pipelines") {
        let (name, revisions) = (
            field_or_dash(pipeline, "name"),
            field_or_dash(pipeline, "revisions"),
        );
        out_line!(
            "{name:<24} {revisions:>4} revisions  {}",
            format_rollout(value_at_pointer(pipeline, "/rollout"))
        )?;
    }
    Ok(())
}

fn format_rollout(rollout: &Value) -> String {
    let mut text = match value_at_pointer(rollout, "/stable") {
        Value::Null => "none active".to_owned(),
        stable => format!("stable {stable}"),
    };
    let canary = value_at_pointer(rollout, "/canary");
    if canary.is_object() {
        text += &format!(
            ", canary {} for {} % of new jobs",
            value_at_pointer(canary, "/revision"),
            value_at_pointer(canary, "/percent")
        );
    }
    if let Some(revision) = value_at_pointer(rollout, "/shadow").as_u64() {
        text += &format!(", shadow {revision}");
    }
    if value_at_pointer(rollout, "/pinned") == true {
        text += ", pinned";
    }
    text
}

pub(super) fn print_rollout(response: &Value) -> io::Result<()> {
    out_line!("{}", format_rollout(value_at_pointer(response, "/rollout")))?;
    let trial = value_at_pointer(response, "/trial");
    for arm in ["canary", "stable"] {
        let metrics = trial.get(arm).unwrap_or(&Value::Null);
        if metrics.is_object() {
            out_line!(
                "  {arm:<7} {} jobs ({} failed), {} pages ({} failed), {} traps, {} timeouts, {} s of work",
                value_at_pointer(metrics, "/jobs"),
                value_at_pointer(metrics, "/failed_jobs"),
                value_at_pointer(metrics, "/pages"),
                value_at_pointer(metrics, "/failed_pages"),
                value_at_pointer(metrics, "/traps"),
                value_at_pointer(metrics, "/timeouts"),
                format_millis_as_seconds(value_at_pointer(metrics, "/millis")),
            )?;
        }
    }
    if let Some(reason) = value_at_pointer(trial, "/reason").as_str() {
        out_line!("  {}: {reason}", field_or_dash(trial, "action"))?;
    }
    print_shadow_results(value_at_pointer(response, "/shadow"))
}

fn print_shadow_results(shadow: &Value) -> io::Result<()> {
    if !shadow.is_object() {
        return Ok(());
    }
    out_line!(
        "  shadow  {} of {} decisions differ, in {} of {} jobs",
        value_at_pointer(shadow, "/differing"),
        value_at_pointer(shadow, "/decisions"),
        value_at_pointer(shadow, "/differing_jobs"),
        value_at_pointer(shadow, "/jobs"),
    )?;
    for example in array_items(shadow, "examples") {
        let difference = value_at_pointer(example, "/difference");
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

pub(super) fn print_revisions(response: &Value) -> io::Result<()> {
    array_items(response, "revisions").try_for_each(print_revision)
}

pub(super) fn print_rollout_history(response: &Value) -> io::Result<()> {
    for entry in array_items(response, "entries") {
        let (action, revision) = (field_or_dash(entry, "action"), field_or_dash(entry, "revision"));
        let reason = value_at_pointer(entry, "/evidence/reason")
            .as_str()
            .unwrap_or_default();
        out_line!(
            "{:>4}  {}  {:<12}  {action:<9} {revision:<4} {reason}",
            field_or_dash(entry, "seq"),
            value_at_pointer(entry, "/at_millis")
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
