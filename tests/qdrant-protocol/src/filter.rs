//! Filters: which payloads match the conditions that weir uses.

use std::collections::HashMap;

use qdrant_client::qdrant::condition::ConditionOneOf;
use qdrant_client::qdrant::r#match::MatchValue;
use qdrant_client::qdrant::value::Kind;
use qdrant_client::qdrant::{Condition, Filter, Value};
use tonic::Status;

/// Returns whether a payload matches all `must` conditions of a filter, or there is no filter. Other clauses are not implemented.
pub(crate) fn matches_filter(
    filter: Option<&Filter>,
    payload: &HashMap<String, Value>,
) -> Result<bool, Status> {
    let Some(filter) = filter else { return Ok(true) };
    if !filter.should.is_empty() || !filter.must_not.is_empty() || filter.min_should.is_some() {
        return Err(Status::unimplemented("only `must` is implemented in filters"));
    }
    for condition in &filter.must {
        if !matches_condition(condition, payload)? {
            return Ok(false);
        }
    }
    Ok(true)
}

fn matches_condition(condition: &Condition, payload: &HashMap<String, Value>) -> Result<bool, Status> {
    let Some(ConditionOneOf::Field(field)) = &condition.condition_one_of else {
        return Err(Status::unimplemented("only conditions on fields are implemented"));
    };
    let wanted = field
        .r#match
        .as_ref()
        .and_then(|wanted| wanted.match_value.as_ref())
        .ok_or_else(|| Status::unimplemented("only `match` is implemented in conditions"))?;
    let Some(value) = payload.get(&field.key) else {
        return Ok(false);
    };
    for value in scalar_values(value) {
        let found = match (wanted, &value.kind) {
            (MatchValue::Keyword(wanted), Some(Kind::StringValue(text))) => wanted == text,
            (MatchValue::Keywords(wanted), Some(Kind::StringValue(text))) => wanted.strings.contains(text),
            (MatchValue::Integer(wanted), Some(Kind::IntegerValue(number))) => wanted == number,
            (MatchValue::Integers(wanted), Some(Kind::IntegerValue(number))) => {
                wanted.integers.contains(number)
            }
            (
                MatchValue::Keyword(_)
                | MatchValue::Keywords(_)
                | MatchValue::Integer(_)
                | MatchValue::Integers(_),
                _,
            ) => false,
            _ => return Err(Status::unimplemented("this `match` is not implemented")),
        };
        if found {
            return Ok(true);
        }
    }
    Ok(false)
}

/// Returns the elements of an array, or the value itself.
fn scalar_values(value: &Value) -> Vec<&Value> {
    match &value.kind {
        Some(Kind::ListValue(list)) => list.values.iter().collect(),
        _ => vec![value],
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_condition_matches_a_value_or_an_element_of_an_array() {
        let payload = HashMap::from([
            ("tenant".to_owned(), Value::from("a")),
            (
                "keys".to_owned(),
                Value::from(vec![Value::from("x"), Value::from("y")]),
            ),
            ("page".to_owned(), Value::from(3_i64)),
        ]);
        let matches =
            |conditions: Vec<Condition>| matches_filter(Some(&Filter::must(conditions)), &payload).unwrap();
        let keyword = |field: &str, value: &str| Condition::matches(field, value.to_owned());
        assert!(matches(vec![keyword("tenant", "a"), keyword("keys", "y")]));
        assert!(!matches(vec![keyword("tenant", "a"), keyword("keys", "z")]));
        assert!(matches(vec![Condition::matches("page", vec![1_i64, 3])]));
        assert!(!matches(vec![Condition::matches("page", vec![1_i64])]));
        assert!(!matches(vec![keyword("absent", "a")]));
        assert!(matches_filter(Some(&Filter::must_not([keyword("tenant", "a")])), &payload).is_err());
    }
}
