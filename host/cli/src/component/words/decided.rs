//! What a component decided.

use std::ops::Range;

use serde_json::{Value, json};
use weir_core::decision::{
    BatchPlan, DocumentRoute, Label, PageRoute, ProgressUpdate, Question, SummaryPlan, Verdict,
};

pub(super) fn batch(plan: &BatchPlan) -> Value {
    json!({
        "pages": plan.pages,
        "dpi": plan.dpi,
        "linger-millis": plan.linger_millis,
        "queue-capacity": plan.queue_capacity,
    })
}

pub(super) fn document_route(route: DocumentRoute) -> Value {
    json!({
        "collection": route.collection,
        "lane": route.lane,
        "models": { "ocr": route.ocr_model, "text-embedding": route.embedding_model },
        "labels": labels(route.labels),
    })
}

pub(super) fn page_route(route: PageRoute) -> Value {
    json!({
        "reading": route.reading,
        "embed": route.embed,
        "store": route.store,
        "labels": labels(route.labels),
    })
}

fn labels(labels: Vec<Label>) -> Value {
    labels
        .into_iter()
        .map(|(name, value)| json!({ "name": name, "value": value }))
        .collect()
}

pub(super) fn verdict(verdict: Verdict) -> Value {
    match verdict {
        Verdict::RetryAfter(millis) => json!({ "retry-after": millis }),
        Verdict::SkipPage => json!("skip-page"),
        Verdict::FailDocument => json!("fail-document"),
    }
}

pub(super) fn ranges(ranges: &[Range<u32>]) -> Value {
    ranges
        .iter()
        .map(|range| json!({ "start": range.start, "end": range.end }))
        .collect()
}

pub(super) fn summary_plan(plan: SummaryPlan) -> Value {
    match plan {
        SummaryPlan::None => json!("none"),
        SummaryPlan::Single(asked) => json!({ "single": question(asked) }),
        SummaryPlan::MapReduce {
            ranges: parts,
            map,
            reduce,
        } => json!({
            "map-reduce": { "ranges": ranges(&parts), "map": question(map), "reduce": question(reduce) },
        }),
    }
}

fn question(question: Question) -> Value {
    json!({ "prompt": question.prompt, "max-tokens": question.max_tokens })
}

pub(super) fn updates(updates: &[ProgressUpdate]) -> Value {
    updates
        .iter()
        .map(|update| {
            json!({
                "document": update.document,
                "percent": short(update.percent),
                "message": update.message,
                "seconds-left": update.seconds_left,
            })
        })
        .collect()
}

/// The shortest number that reads back as the same `f32`: 33.3 and not 33.29999923706055, which is what it is exactly.
fn short(value: f32) -> f64 {
    value.to_string().parse().unwrap_or_else(|_| f64::from(value))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn decisions_are_written_as_the_contract_names_them() {
        assert_eq!(verdict(Verdict::RetryAfter(250)), json!({"retry-after": 250}));
        assert_eq!(verdict(Verdict::SkipPage), json!("skip-page"));
        let route = PageRoute {
            reading: weir_core::decision::Reading::TextLayer,
            embed: true,
            store: false,
            labels: vec![("columns".into(), "2".into())],
        };
        assert_eq!(
            page_route(route),
            json!({"reading": "text-layer", "embed": true, "store": false, "labels": [{"name": "columns", "value": "2"}]})
        );
        assert_eq!(short(33.3), 33.3);
        assert_eq!(short(100.0 / 3.0), 33.333332);
    }
}
