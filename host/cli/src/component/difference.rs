//! Where two decisions differ, a line for each place.

use serde_json::Value;

/// Lines shown of a difference; what is beyond them is counted.
const SHOWN: usize = 20;
/// Characters of a value in a line.
const CHARS: usize = 200;

/// The places at which a decision is not what was expected; none if it is.
pub(crate) fn between(expected: &Value, decided: &Value) -> Vec<String> {
    let mut lines = Vec::new();
    compare("", expected, decided, &mut lines);
    if lines.len() > SHOWN {
        let more = lines.len() - SHOWN;
        lines.truncate(SHOWN);
        lines.push(format!("and {more} more"));
    }
    lines
}

fn compare(place: &str, expected: &Value, decided: &Value, lines: &mut Vec<String>) {
    match (expected, decided) {
        (Value::Object(wanted), Value::Object(given)) => {
            for (name, expected) in wanted {
                let decided = given.get(name).unwrap_or(&Value::Null);
                compare(&format!("{place}.{name}"), expected, decided, lines);
            }
            for (name, decided) in given.iter().filter(|(name, _)| !wanted.contains_key(*name)) {
                compare(&format!("{place}.{name}"), &Value::Null, decided, lines);
            }
        }
        (Value::Array(wanted), Value::Array(given)) => {
            for (i, pair) in wanted.iter().zip(given).enumerate() {
                compare(&format!("{place}[{i}]"), pair.0, pair.1, lines);
            }
            for (i, missing) in wanted.iter().enumerate().skip(given.len()) {
                lines.push(format!(
                    "{}expected {}, decided nothing",
                    at(&format!("{place}[{i}]")),
                    short(missing)
                ));
            }
            for (i, more) in given.iter().enumerate().skip(wanted.len()) {
                lines.push(format!(
                    "{}expected nothing, decided {}",
                    at(&format!("{place}[{i}]")),
                    short(more)
                ));
            }
        }
        _ if same(expected, decided) => {}
        _ => lines.push(format!(
            "{}expected {}, decided {}",
            at(place),
            short(expected),
            short(decided)
        )),
    }
}

/// Numbers are the same however they are written: 50 is 50.0.
fn same(a: &Value, b: &Value) -> bool {
    a == b || matches!((a, b), (Value::Number(a), Value::Number(b)) if a.as_f64() == b.as_f64())
}

fn at(place: &str) -> String {
    match place.trim_start_matches('.') {
        "" => String::new(),
        place => format!("{place}: "),
    }
}

fn short(value: &Value) -> String {
    let text = value.to_string();
    match text.char_indices().nth(CHARS) {
        Some((end, _)) => format!("{}…", text.get(..end).unwrap_or_default()),
        None => text,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn the_same_decision_differs_nowhere() {
        assert!(between(&json!({"a": [1, {"b": 50}]}), &json!({"a": [1, {"b": 50.0}]})).is_empty());
        assert!(between(&json!({"a": null}), &json!({})).is_empty());
    }

    #[test]
    fn each_place_that_differs_is_named() {
        let expected = json!([{"reading": "ocr", "labels": [{"name": "a"}]}, {"pages": 2}]);
        let decided = json!([{"reading": "nothing", "labels": [], "store": true}, {"pages": 3}]);
        assert_eq!(
            between(&expected, &decided),
            [
                r#"[0].reading: expected "ocr", decided "nothing""#,
                r#"[0].labels[0]: expected {"name":"a"}, decided nothing"#,
                "[0].store: expected null, decided true",
                "[1].pages: expected 2, decided 3",
            ]
        );
        assert_eq!(
            between(&json!("skip-page"), &json!("x")),
            [r#"expected "skip-page", decided "x""#]
        );
    }

    #[test]
    fn long_differences_are_cut() {
        let lines = between(&json!([]), &json!(vec!["ä".repeat(1000); 30]));
        assert_eq!(lines.len(), SHOWN + 1);
        assert_eq!(lines[SHOWN], "and 10 more");
        assert!(lines[0].chars().count() < 300);
    }
}
