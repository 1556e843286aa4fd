//! Lists the differences between an expected and an actual decision, one line per JSON path.

use serde_json::Value;

/// Maximum number of lines. Further differences are counted.
const MAX_LINES: usize = 20;
/// Maximum number of characters of a value in a line.
const MAX_VALUE_CHARS: usize = 200;

/// Returns one line per JSON path at which the values differ. Empty if they are equal.
pub(crate) fn list_differences(expected: &Value, decided: &Value) -> Vec<String> {
    let mut lines = Vec::new();
    compare_values("", expected, decided, &mut lines);
    if lines.len() > MAX_LINES {
        let more = lines.len() - MAX_LINES;
        lines.truncate(MAX_LINES);
        lines.push(format!("and {more} more"));
    }
    lines
}

fn compare_values(path: &str, expected: &Value, decided: &Value, lines: &mut Vec<String>) {
    match (expected, decided) {
        (Value::Object(expected_fields), Value::Object(decided_fields)) => {
            for (name, expected) in expected_fields {
                let decided = decided_fields.get(name).unwrap_or(&Value::Null);
                compare_values(&format!("{path}.{name}"), expected, decided, lines);
            }
            for (name, decided) in decided_fields
                .iter()
                .filter(|(name, _)| !expected_fields.contains_key(*name))
            {
                compare_values(&format!("{path}.{name}"), &Value::Null, decided, lines);
            }
        }
        (Value::Array(expected_items), Value::Array(decided_items)) => {
            for (i, pair) in expected_items.iter().zip(decided_items).enumerate() {
                compare_values(&format!("{path}[{i}]"), pair.0, pair.1, lines);
            }
            for (i, missing) in expected_items.iter().enumerate().skip(decided_items.len()) {
                lines.push(format!(
                    "{}expected {}, decided nothing",
                    format_path_prefix(&format!("{path}[{i}]")),
                    format_truncated_value(missing)
                ));
            }
            for (i, more) in decided_items.iter().enumerate().skip(expected_items.len()) {
                lines.push(format!(
                    "{}expected nothing, decided {}",
                    format_path_prefix(&format!("{path}[{i}]")),
                    format_truncated_value(more)
                ));
            }
        }
        _ if values_equal(expected, decided) => {}
        _ => lines.push(format!(
            "{}expected {}, decided {}",
            format_path_prefix(path),
            format_truncated_value(expected),
            format_truncated_value(decided)
        )),
    }
}

/// Whether two values are equal. Numbers are compared by value: 50 equals 50.0.
fn values_equal(a: &Value, b: &Value) -> bool {
    a == b || matches!((a, b), (Value::Number(a), Value::Number(b)) if a.as_f64() == b.as_f64())
}

fn format_path_prefix(path: &str) -> String {
    match path.trim_start_matches('.') {
        "" => String::new(),
        path => format!("{path}: "),
    }
}

fn format_truncated_value(value: &Value) -> String {
    let text = value.to_string();
    match text.char_indices().nth(MAX_VALUE_CHARS) {
        Some((end, _)) => format!("{}…", text.get(..end).unwrap_or_default()),
        None => text,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn equal_decisions_have_no_differences() {
        assert!(list_differences(&json!({"a": [1, {"b": 50}]}), &json!({"a": [1, {"b": 50.0}]})).is_empty());
        assert!(list_differences(&json!({"a": null}), &json!({})).is_empty());
    }

    #[test]
    fn each_difference_has_its_json_path() {
        let expected = json!([{"reading": "ocr", "labels": [{"name": "a"}]}, {"pages": 2}]);
        let decided = json!([{"reading": "nothing", "labels": [], "store": true}, {"pages": 3}]);
        assert_eq!(
            list_differences(&expected, &decided),
            [
                r#"[0].reading: expected "ocr", decided "nothing""#,
                r#"[0].labels[0]: expected {"name":"a"}, decided nothing"#,
                "[0].store: expected null, decided true",
                "[1].pages: expected 2, decided 3",
            ]
        );
        assert_eq!(
            list_differences(&json!("skip-page"), &json!("x")),
            [r#"expected "skip-page", decided "x""#]
        );
    }

    #[test]
    fn long_differences_are_truncated() {
        let lines = list_differences(&json!([]), &json!(vec!["ä".repeat(1000); 30]));
        assert_eq!(lines.len(), MAX_LINES + 1);
        assert_eq!(lines[MAX_LINES], "and 10 more");
        assert!(lines[0].chars().count() < 300);
    }
}
