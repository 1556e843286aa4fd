//! One trace links a client's span, the request, the job's stages and the calls of components.

use std::collections::{BTreeMap, BTreeSet};

use data_encoding::HEXLOWER;
use serde_json::json;
use weir_tests::WeirFixture;
use weir_tests::server::TestServer;
use weir_tests::trace_collector::{Span, TraceCollector, attribute_as_text};

const TRACE_ID: &str = "4bf92f3577b34da6a3ce929d0e0e4736";
const CLIENT_SPAN_ID: &str = "00f067aa0ba902b7";

#[test]
fn trace_links_the_request_to_its_stages_and_component_calls() {
    let collector = TraceCollector::new();
    let weir = WeirFixture::new();
    let endpoint = format!("otel.traces_endpoint={}", collector.endpoint_url());
    let server = TestServer::start(&weir, &["--set", &endpoint]);
    let client = server.admin_client();
    let parent = format!("00-{TRACE_ID}-{CLIENT_SPAN_ID}-01");
    let file = weir_samples::generate_text_document(3, 1);
    let response = client.submit_files(&[("a.pdf", &file)], &json!({}), &[("traceparent", &parent)]);
    assert_eq!(response.headers["x-request-id"], TRACE_ID);
    let job = response.body["id"].as_str().unwrap().to_owned();
    client.wait_for_job(&job);
    // A stop sends the spans that are still queued.
    assert_eq!(server.stop().exit_code, 0);

    let spans = collector.spans_of_trace(TRACE_ID);
    let by_id: BTreeMap<String, &Span> = spans
        .iter()
        .map(|span| (HEXLOWER.encode(&span.span_id), span))
        .collect();
    assert_eq!(by_id.len(), spans.len(), "span ids are unique");
    let parent = |span: &Span| by_id.get(&HEXLOWER.encode(&span.parent_span_id)).copied();
    for span in &spans {
        let Some(above) = parent(span) else {
            assert_eq!(
                (span.name.as_str(), HEXLOWER.encode(&span.parent_span_id)),
                ("request", CLIENT_SPAN_ID.into())
            );
            continue;
        };
        assert!(
            above.start_time_unix_nano <= span.start_time_unix_nano,
            "{span:?} begins before its parent {above:?}"
        );
        // A job continues after the response to its request. Every other span ends before its parent.
        assert!(
            span.name == "job" || span.end_time_unix_nano <= above.end_time_unix_nano,
            "{span:?} ends after its parent {above:?}"
        );
    }

    let of = |name: &str| spans.iter().filter(|span| span.name == name).collect::<Vec<_>>();
    let only = |name: &str| match of(name)[..] {
        [span] => span,
        ref found => panic!("{} spans are named {name}", found.len()),
    };
    let children = |above: &Span| {
        let own = |span: &&Span| span.parent_span_id == above.span_id;
        spans.iter().filter(own).collect::<Vec<_>>()
    };
    let request = only("request");
    assert_eq!(attribute_as_text(request, "route").as_deref(), Some("/v1/jobs"));
    assert_eq!(attribute_as_text(request, "tenant").as_deref(), Some("default"));
    let job_span = only("job");
    assert_eq!(
        (
            attribute_as_text(job_span, "job").as_deref(),
            &job_span.parent_span_id
        ),
        (Some(job.as_str()), &request.span_id)
    );
    let document = only("document");
    assert_eq!(
        (
            attribute_as_text(document, "name").as_deref(),
            &document.parent_span_id
        ),
        (Some("a.pdf"), &job_span.span_id)
    );

    let called_functions = |above: &Span| {
        let policy_calls = children(above)
            .into_iter()
            .filter(|span| span.name == "policy_call");
        policy_calls
            .map(|span| attribute_as_text(span, "function").unwrap())
            .collect::<BTreeSet<_>>()
    };
    let functions = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect();
    assert_eq!(called_functions(job_span), functions(&["progress.observe"]));
    assert_eq!(
        called_functions(document),
        functions(&["batching.plan", "routing.document", "routing.page"])
    );
    let pages = of("page");
    let numbers: BTreeSet<_> = pages
        .iter()
        .map(|page| attribute_as_text(page, "page").unwrap())
        .collect();
    assert_eq!(numbers, functions(&["1", "2", "3"]));
    for page in pages {
        assert_eq!(page.parent_span_id, document.span_id);
        assert_eq!(called_functions(page), functions(&["chunking.passages"]));
        let names: BTreeSet<_> = children(page).iter().map(|span| span.name.clone()).collect();
        let wanted = ["rasterize", "store", "read", "policy_call", "embed", "upsert"];
        assert_eq!(names, functions(&wanted));
    }
}
