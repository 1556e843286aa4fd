//! Converts decisions of components to JSON.

use std::ops::Range;

use serde_json::{Value, json};
use weir_core::decision::{
    BatchPlan, DocumentRoute, FailureAction, Label, PageRoute, ProgressUpdate, SummaryPlan, SummaryPrompt,
};

pub(super) fn batch_plan_to_json(plan: &BatchPlan) -> Value {
    json!({
        "pages": plan.pages,
        "dpi": plan.dpi,
        "linger-millis": plan.linger_millis,
        "queue-capacity": plan.queue_capacity,
    })
}

pub(super) fn document_route_to_json(route: DocumentRoute) -> Value {
    json!({
        "collection": route.collection,
        "lane": route.lane,
        "models": { "ocr": route.ocr_model, "text-embedding": route.embedding_model },
        "labels": labels_to_json(route.labels),
    })
}

pub(super) fn page_route_to_json(route: PageRoute) -> Value {
    json!({
        "reading": route.reading_method,
        "embed": route.embed,
        "store": route.store,
        "labels": labels_to_json(route.labels),
    })
}

fn labels_to_json(labels: Vec<Label>) -> Value {
    labels
        .into_iter()
        .map(|(name, value)| json!({ "name": name, "value": value }))
        .collect()
}

pub(super) fn failure_action_to_json(verdict: FailureAction) -> Value {
    match verdict {
        FailureAction::RetryAfter(millis) => json!({ "retry-after": millis }),
        FailureAction::SkipPage => json!("skip-page"),
        FailureAction::FailDocument => json!("fail-document"),
    }
}

pub(super) fn ranges_to_json(ranges: &[Range<u32>]) -> Value {
    ranges
        .iter()
        .map(|range| json!({ "start": range.start, "end": range.end }))
        .collect()
}

pub(super) fn summary_plan_to_json(plan: SummaryPlan) -> Value {
    match plan {
        SummaryPlan::None => json!("none"),
        SummaryPlan::Single(asked) => json!({ "single": summary_prompt_to_json(asked) }),
        SummaryPlan::MapReduce {
            ranges: parts,
            map,
            reduce,
        } => json!({
            "map-reduce": { "ranges": ranges_to_json(&parts), "map": summary_prompt_to_json(map), "reduce": summary_prompt_to_json(reduce) },
        }),
    }
}

fn summary_prompt_to_json(question: SummaryPrompt) -> Value {
    json!({ "prompt": question.prompt, "max-tokens": question.max_tokens })
}

pub(super) fn progress_updates_to_json(updates: &[ProgressUpdate]) -> Value {
    updates
        .iter()
        .map(|update| {
            json!({
                "document": update.document,
                "percent": shortest_decimal(update.percent),
                "message": update.message,
                "seconds-left": update.seconds_left,
            })
        })
        .collect()
}

/// Returns the number with the shortest decimal form that parses to the same `f32`: 33.3 instead of 33.29999923706055.
fn shortest_decimal(value: f32) -> f64 {
    value.to_string().parse().unwrap_or_else(|_| f64::from(value))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn decisions_use_the_names_of_the_contract() {
        assert_eq!(
            failure_action_to_json(FailureAction::RetryAfter(250)),
            json!({"retry-after": 250})
        );
        assert_eq!(
            failure_action_to_json(FailureAction::SkipPage),
            json!("skip-page")
        );
        let route = PageRoute {
            reading_method: weir_core::decision::ReadingMethod::TextLayer,
            embed: true,
            store: false,
            labels: vec![("columns".into(), "2".into())],
        };
        assert_eq!(
            page_route_to_json(route),
            json!({"reading": "text-layer", "embed": true, "store": false, "labels": [{"name": "columns", "value": "2"}]})
        );
        assert_eq!(shortest_decimal(33.3), 33.3);
        assert_eq!(shortest_decimal(100.0 / 3.0), 33.333332);
    }
}
