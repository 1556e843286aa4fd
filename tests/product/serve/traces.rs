//! One trace from a client's own span over the request to what each stage and component did for it.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::json;
use weir_tests::Weir;
use weir_tests::collector::{Collector, Span, attribute, hex};
use weir_tests::server::Server;

const TRACE: &str = "4bf92f3577b34da6a3ce929d0e0e4736";
const CLIENT: &str = "00f067aa0ba902b7";

#[test]
fn a_trace_leads_from_the_request_to_stages_and_components() {
    let collector = Collector::new();
    let weir = Weir::new();
    let endpoint = format!("otel.endpoint={}", collector.endpoint());
    let server = Server::start(&weir, &["--set", &endpoint]);
    let client = server.admin();
    let parent = format!("00-{TRACE}-{CLIENT}-01");
    let file = weir_samples::text_document(3, 1);
    let answer = client.submit(&[("a.pdf", &file)], &json!({}), &[("traceparent", &parent)]);
    assert_eq!(answer.headers["x-request-id"], TRACE);
    let job = answer.body["id"].as_str().unwrap().to_owned();
    client.wait(&job);
    // What has not been sent is sent at the end.
    assert_eq!(server.stop().code, 0);

    let spans = collector.trace(TRACE);
    let by_id: BTreeMap<String, &Span> = spans.iter().map(|span| (hex(&span.span_id), span)).collect();
    assert_eq!(by_id.len(), spans.len(), "every span has an id of its own");
    let parent = |span: &Span| by_id.get(&hex(&span.parent_span_id)).copied();
    for span in &spans {
        let Some(above) = parent(span) else {
            assert_eq!(
                (span.name.as_str(), hex(&span.parent_span_id)),
                ("request", CLIENT.into())
            );
            continue;
        };
        assert!(
            above.start_time_unix_nano <= span.start_time_unix_nano,
            "{span:?} begins before {above:?}"
        );
        // A job goes on behind the answer to its request; everything else is within what it belongs to.
        assert!(
            span.name == "job" || span.end_time_unix_nano <= above.end_time_unix_nano,
            "{span:?} ends after {above:?}"
        );
    }

    let of = |name: &str| spans.iter().filter(|span| span.name == name).collect::<Vec<_>>();
    let only = |name: &str| match of(name)[..] {
        [span] => span,
        ref found => panic!("{} spans are called {name}", found.len()),
    };
    let below = |above: &Span| {
        let own = |span: &&Span| span.parent_span_id == above.span_id;
        spans.iter().filter(own).collect::<Vec<_>>()
    };
    let request = only("request");
    assert_eq!(attribute(request, "route").as_deref(), Some("/v1/jobs"));
    assert_eq!(attribute(request, "tenant").as_deref(), Some("default"));
    let of_job = only("job");
    assert_eq!(
        (attribute(of_job, "job").as_deref(), &of_job.parent_span_id),
        (Some(job.as_str()), &request.span_id)
    );
    let document = only("document");
    assert_eq!(
        (attribute(document, "name").as_deref(), &document.parent_span_id),
        (Some("a.pdf"), &of_job.span_id)
    );

    let asked = |above: &Span| {
        let guests = below(above).into_iter().filter(|span| span.name == "guest");
        guests
            .map(|span| attribute(span, "function").unwrap())
            .collect::<BTreeSet<_>>()
    };
    let functions = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect();
    assert_eq!(asked(of_job), functions(&["progress.observe"]));
    assert_eq!(
        asked(document),
        functions(&["batching.plan", "routing.document", "routing.page"])
    );
    let pages = of("page");
    let numbers: BTreeSet<_> = pages
        .iter()
        .map(|page| attribute(page, "page").unwrap())
        .collect();
    assert_eq!(numbers, functions(&["1", "2", "3"]));
    for page in pages {
        assert_eq!(page.parent_span_id, document.span_id);
        assert_eq!(asked(page), functions(&["chunking.passages"]));
        let names: BTreeSet<_> = below(page).iter().map(|span| span.name.clone()).collect();
        let wanted = ["rasterize", "store", "read", "guest", "embed", "upsert"];
        assert_eq!(names, functions(&wanted));
    }
}
