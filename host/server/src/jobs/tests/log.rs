//! Tests of the component log of a job.

use serde_json::json;
use weir_core::component_log::{
    BacktraceFrame, ComponentFailureReport, ComponentLogRecord, ComponentLogRecordKind, LogLevel,
    NumberedComponentLogRecord,
};
use weir_core::event::ErrorInfo;
use weir_core::ledger::LedgerEntry;
use weir_core::ports::Ledger as _;
use weir_core::tenancy::KeyScope;

use crate::fakes::{TestHost, parse_json as body, parse_problem};

#[tokio::test]
async fn component_log_is_read_in_pages() {
    let host = TestHost::new();
    let (a, key) = host.create_tenant("a", &[KeyScope::Ingest, KeyScope::Read]).await;
    let job = host.submit_accepted_file(&key, "1 pages").await;
    let path = format!("/v1/jobs/{job}/log");
    assert_eq!(
        body(host.send_get(&path, &key).await).await,
        json!({ "entries": [], "next": null })
    );
    let line = |seq| ComponentLogRecordKind::Line {
        level: LogLevel::Warn,
        message: format!("line {seq}"),
    };
    let failure = ComponentLogRecordKind::Failure(Box::new(ComponentFailureReport {
        error: ErrorInfo {
            kind: "component-timeout".into(),
            message: "too late".into(),
        },
        component_digest: "ab".into(),
        call_index: 4,
        request_digest: Some("cd".into()),
        limit: Some("20 ms".into()),
        guest_message: None,
        backtrace: vec![BacktraceFrame {
            function: "ours::page".into(),
            file: Some("src/lib.rs".into()),
            line: Some(3),
        }],
    }));
    for (seq, what) in [(1, line(1)), (2, line(2)), (3, failure)] {
        let entry = NumberedComponentLogRecord {
            job,
            seq,
            since_job_created_millis: seq * 10,
            record: ComponentLogRecord {
                component: "ours".into(),
                function: "routing.page".into(),
                kind: what,
            },
        };
        let entry = LedgerEntry::ComponentLog(a.clone(), entry);
        host.store.commit_entries(vec![entry]).await.unwrap();
    }
    let first = body(host.send_get(&format!("{path}?limit=2"), &key).await).await;
    assert_eq!(first["next"], 2);
    assert_eq!(
        first["entries"][1],
        json!({
            "seq": 2, "at_millis": 20, "component": "ours", "function": "routing.page", "level": "warn",
            "message": "line 2", "failure": null,
        })
    );
    let rest = body(host.send_get(&format!("{path}?limit=2&after=2"), &key).await).await;
    assert_eq!(rest["next"], json!(null));
    assert_eq!(
        rest["entries"],
        json!([{
            "seq": 3, "at_millis": 30, "component": "ours", "function": "routing.page", "level": "error",
            "message": "too late",
            "failure": {
                "error": { "kind": "component-timeout", "message": "too late" },
                "component_digest": "ab", "call_index": 4, "request_digest": "cd", "limit": "20 ms", "guest_message": null,
                "backtrace": [{ "function": "ours::page", "file": "src/lib.rs", "line": 3 }],
            },
        }])
    );
    for wrong in [
        "limit=0",
        "limit=1001",
        "after=-1",
        "after=9223372036854775808",
        "seq=1",
    ] {
        let refused = parse_problem(host.send_get(&format!("{path}?{wrong}"), &key).await).await;
        assert_eq!(refused.status, 400, "{wrong}");
    }
}
