use std::path::Path;

use serde_json::json;
use weir_core::decision::{
    ComputeDevice, DeviceKind, DocumentRoute, FailureAction, Heading, ModelPreferences, NextBatchPlan,
    ObservedEvent, PageRoute, ProgressUpdate, QueueState, ReadingMethod, StageTiming, SummaryPlan,
    SummaryPrompt,
};
use weir_core::manifest::{Capability, ComponentLimits};
use weir_core::{DocumentId, PriorityLane, RevisionId, Stage, TenantId};

use super::*;
use crate::capability_trace::RecordedResponse;
use crate::recording::frames::encode_frames;
use crate::recording::{
    RecordedCall, RecordedComponent, RecordingFrame, RoleAssignment, SessionHeader, decode_frames,
};

/// A recording written by the first version of the format, with each function, decision and event.
const FIRST_FORMAT: &str = "src/recording/fixtures/every_function.calls";

fn request(function: &str, input: Value) -> PolicyFunctionInvocation {
    serde_json::from_value(json!({ "function": function, "input": input })).unwrap()
}

fn call<F: PolicyFunctionInput>(request: F, response: F::Decision) -> PolicyFunctionCall<F> {
    PolicyFunctionCall {
        request,
        response: Ok(response),
    }
}

/// Returns the calls in [`FIRST_FORMAT`].
fn sample_decisions() -> Vec<RecordedDecision> {
    use RecordedDecision as D;
    let document = DocumentId::from_content(b"d");
    let facts = PageFacts {
        number: 3,
        width: 612.0,
        height: 792.0,
        text_chars: 900,
        image_coverage: 0.25,
        readable: true,
    };
    let queues = vec![QueueState {
        stage: Stage::Embed,
        depth: 1,
        capacity: 2,
        workers: 3,
    }];
    let stage_timings = vec![StageTiming {
        stage: Stage::Read,
        millis_per_page: 4.5,
        pages: 16,
    }];
    let context = BatchContext {
        document,
        total_pages: 9,
        remaining_pages: 8,
        next_pages: vec![facts],
        queues: queues.clone(),
        stage_timings: stage_timings.clone(),
        device: ComputeDevice {
            kind: DeviceKind::Gpu,
            memory_bytes: 1 << 33,
            cores: 4,
        },
        free_image_bytes: 1 << 28,
    };
    let plan = NextBatchPlan {
        pages: 4,
        dpi: 150,
        linger_millis: 5,
        queue_capacity: 8,
    };
    let document_facts = DocumentFacts {
        document,
        name: "a.pdf".into(),
        bytes: 10,
        pages: 9,
        title: Some("A".into()),
        outline_entries: 2,
        first_pages: vec![facts],
    };
    let labels = vec![("kind".to_owned(), "text".to_owned())];
    let document_route = DocumentRoute {
        collection: "c".into(),
        lane: PriorityLane::Bulk,
        models: ModelPreferences {
            ocr: Some("o".into()),
            text_embedding: None,
        },
        labels: labels.clone(),
    };
    let page_route = PageRoute {
        reading_method: ReadingMethod::VisionModel,
        embed: true,
        store: false,
        labels,
    };
    let failure = PageStageFailure {
        document,
        page: 3,
        stage: Stage::Rasterize,
        attempt: 1,
        kind: "k".into(),
        message: "m".into(),
    };
    let source = PageTextToSplit {
        document,
        page: 3,
        text: "A b".into(),
        headings: vec![Heading {
            range: 0..1,
            level: 2,
        }],
        max_tokens: 256,
    };
    let trapped = PolicyFunctionCall {
        request: source.clone(),
        response: Err(ErrorInfo {
            kind: "component-trap".into(),
            message: "unreachable".into(),
        }),
    };
    let section = SectionToSummarize {
        document,
        title: "T".into(),
        level: 1,
        first_page: 1,
        last_page: 2,
        text: "A b".into(),
    };
    let prompt = SummaryPrompt {
        prompt: "sum {text}".into(),
        max_tokens: 128,
    };
    let map_reduce = SummaryPlan::MapReduce {
        ranges: std::iter::once(0..3).collect(),
        map: prompt.clone(),
        reduce: prompt.clone(),
    };
    let mut decisions = vec![
        D::Plan(call(context, plan)),
        D::Document(call(document_facts, document_route)),
        D::Page(call(PageToRoute { document, facts }, page_route)),
        D::Failed(call(failure.clone(), FailureAction::RetryAfter(250))),
        D::Failed(call(failure, FailureAction::FailDocument)),
        D::Passages(call(source, vec![0..1, 2..3])),
        D::Passages(trapped),
        D::Summarize(call(section.clone(), SummaryPlan::None)),
        D::Summarize(call(section.clone(), SummaryPlan::Single(prompt))),
        D::Summarize(call(section, map_reduce)),
    ];
    let update = ProgressUpdate {
        document,
        percent: 33.3,
        message: "m".into(),
        seconds_left: Some(5),
    };
    let events = [
        ObservedEvent::DocumentStarted {
            document,
            name: "a.pdf".into(),
            pages: 9,
            already_done: 1,
        },
        ObservedEvent::BatchRasterized {
            document,
            pages: 4,
            queues,
            stage_timings,
        },
        ObservedEvent::PageDone {
            document,
            page: 3,
            searchable: true,
            passages: 2,
        },
        ObservedEvent::PageFailed {
            document,
            page: 3,
            stage: Stage::Store,
            message: "m".into(),
        },
        ObservedEvent::DocumentDone {
            document,
            done: 8,
            failed: 1,
        },
        ObservedEvent::DocumentFailed {
            document,
            done: 0,
            failed: 9,
        },
    ];
    decisions.extend(
        events.map(|event| D::Observe(call(TimedEvent { at_millis: 12, event }, vec![update.clone()]))),
    );
    decisions
}

#[test]
fn recording_format_is_unchanged_since_first_version() {
    let header = SessionHeader {
        tenant: TenantId::default_tenant(),
        job: "01980000-0000-7000-8000-000000000001".parse().unwrap(),
        pipeline: "p".into(),
        revision: RevisionId::from_content(b"r"),
        settings: [("dpi".to_owned(), "150".to_owned())].into(),
        components: vec![RecordedComponent {
            name: "routing".into(),
            digest: [7; 32],
        }],
        role_assignments: vec![RoleAssignment {
            role: Role::Routing,
            primary: 0,
            fallback: Some(1),
        }],
        granted_capabilities: vec![Capability::State],
        limits: ComponentLimits::default(),
    };
    let mut frames = vec![RecordingFrame::SessionStarted(Box::new(header))];
    frames.extend((0..).zip(sample_decisions()).map(|(sequence, decision)| {
        RecordingFrame::Call(Box::new(RecordedCall {
            component_index: 1,
            sequence,
            elapsed_micros: 300,
            responses: vec![RecordedResponse {
                request_hash: 7,
                response: vec![1, 2],
            }],
            decision,
        }))
    }));
    frames.push(RecordingFrame::RecordingStopped("full".into()));
    frames.push(RecordingFrame::SessionEnded { calls: 16 });

    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join(FIRST_FORMAT);
    let bytes = std::fs::read(file).unwrap();
    assert_eq!(decode_frames(&bytes).unwrap(), frames);
    assert_eq!(encode_frames(&frames).unwrap(), bytes);
}

#[test]
fn decision_json_uses_the_field_names_of_the_wit_contract() {
    let decisions: Vec<Value> = sample_decisions()
        .iter()
        .map(RecordedDecision::decision_to_json)
        .collect();
    let document = DocumentId::from_content(b"d");
    let prompt = json!({"prompt": "sum {text}", "max-tokens": 128});
    let update = json!([{"document": document, "percent": 33.3, "message": "m", "seconds-left": 5}]);
    assert_eq!(
        decisions[..11],
        [
            json!({"pages": 4, "dpi": 150, "linger-millis": 5, "queue-capacity": 8}),
            json!({
                "collection": "c",
                "lane": "bulk",
                "models": {"ocr": "o", "text-embedding": null},
                "labels": [{"name": "kind", "value": "text"}],
            }),
            json!({
                "reading": "vision-model",
                "embed": true,
                "store": false,
                "labels": [{"name": "kind", "value": "text"}],
            }),
            json!({"retry-after": 250}),
            json!("fail-document"),
            json!([{"start": 0, "end": 1}, {"start": 2, "end": 3}]),
            Value::Null,
            json!("none"),
            json!({"single": prompt}),
            json!({"map-reduce": {"ranges": [{"start": 0, "end": 3}], "map": prompt, "reduce": prompt}}),
            update,
        ]
    );
}

#[test]
fn inputs_may_leave_out_fields_with_a_default() {
    let document = DocumentId::from_digest([0; 32]);
    let plan = json!({"total-pages": 9, "remaining-pages": 8, "next": [{"number": 2}], "device": {"kind": "gpu"},
        "queues": [{"stage": "read", "depth": 1, "capacity": 2}],
        "times": [{"stage": "read", "millis-per-page": 4.5, "pages": 1}]});
    let expected = BatchContext {
        document,
        total_pages: 9,
        remaining_pages: 8,
        next_pages: vec![PageFacts {
            number: 2,
            width: 595.0,
            height: 842.0,
            text_chars: 0,
            image_coverage: 0.0,
            readable: true,
        }],
        queues: vec![QueueState {
            stage: Stage::Read,
            depth: 1,
            capacity: 2,
            workers: 1,
        }],
        stage_timings: vec![StageTiming {
            stage: Stage::Read,
            millis_per_page: 4.5,
            pages: 1,
        }],
        device: ComputeDevice {
            kind: DeviceKind::Gpu,
            memory_bytes: 8 << 30,
            cores: 4,
        },
        free_image_bytes: 256 << 20,
    };
    assert_eq!(
        request("batching.plan", plan),
        PolicyFunctionInvocation::Plan(expected)
    );
    let source = PageTextToSplit {
        document,
        page: 1,
        text: "a".into(),
        headings: Vec::new(),
        max_tokens: 256,
    };
    assert_eq!(
        request("chunking.passages", json!({"text": "a"})),
        PolicyFunctionInvocation::Passages(source)
    );
    let event = ObservedEvent::PageDone {
        document,
        page: 2,
        searchable: true,
        passages: 1,
    };
    assert_eq!(
        request(
            "progress.observe",
            json!({"at-millis": 5, "event": {"page-done": {"page": 2}}})
        ),
        PolicyFunctionInvocation::Observe(TimedEvent { at_millis: 5, event })
    );
}

#[test]
fn function_name_starts_with_its_role() {
    for (function, input) in [
        ("batching.plan", json!({"total-pages": 9, "remaining-pages": 9})),
        ("routing.document", json!({"name": "a.pdf", "pages": 1})),
        ("routing.page", json!({"facts": {"number": 1}})),
        (
            "routing.failed",
            json!({"page": 1, "stage": "read", "attempt": 1, "kind": "model-failed"}),
        ),
        ("chunking.passages", json!({"page": 1, "text": "a"})),
        ("chunking.summarize", json!({"title": "a", "text": "a"})),
        (
            "progress.observe",
            json!({"at-millis": 5, "event": {"document-done": {"done": 1}}}),
        ),
    ] {
        let call = request(function, input);
        assert_eq!(call.function_name(), function);
        assert!(
            call.function_name().starts_with(call.role().name()),
            "{}",
            call.function_name()
        );
    }
}
