//! What a job's components said.

use serde_json::json;
use weir_core::event::ErrorNote;
use weir_core::ledger::Entry;
use weir_core::ports::Ledger as _;
use weir_core::said::{FailureReport, Frame, LogEntry, LogLevel, Remark, RemarkKind};
use weir_core::tenancy::Scope;

use crate::fakes::{Host, json as body, refusal};

#[tokio::test]
async fn the_log_is_read_in_pages() {
    let host = Host::new();
    let (a, key) = host.tenant("a", &[Scope::Ingest, Scope::Read]).await;
    let job = host.submitted(&key, "1 pages").await;
    let path = format!("/v1/jobs/{job}/log");
    assert_eq!(
        body(host.get(&path, &key).await).await,
        json!({ "entries": [], "next": null })
    );
    let line = |seq| RemarkKind::Line {
        level: LogLevel::Warn,
        message: format!("line {seq}"),
    };
    let failure = RemarkKind::Failure(Box::new(FailureReport {
        error: ErrorNote {
            kind: "component-deadline".into(),
            message: "too late".into(),
        },
        version: "ab".into(),
        turn: 4,
        question: Some("cd".into()),
        limit: Some("20 ms".into()),
        said: None,
        backtrace: vec![Frame {
            function: "ours::page".into(),
            file: Some("src/lib.rs".into()),
            line: Some(3),
        }],
    }));
    for (seq, what) in [(1, line(1)), (2, line(2)), (3, failure)] {
        let entry = LogEntry {
            job,
            seq,
            at_millis: seq * 10,
            remark: Remark {
                component: "ours".into(),
                function: "routing.page".into(),
                what,
            },
        };
        let entry = Entry::Said(a.clone(), entry);
        host.memory.commit(vec![entry]).await.unwrap();
    }
    let first = body(host.get(&format!("{path}?limit=2"), &key).await).await;
    assert_eq!(first["next"], 2);
    assert_eq!(
        first["entries"][1],
        json!({
            "seq": 2, "at_millis": 20, "component": "ours", "function": "routing.page", "level": "warn",
            "message": "line 2", "failure": null,
        })
    );
    let rest = body(host.get(&format!("{path}?limit=2&after=2"), &key).await).await;
    assert_eq!(rest["next"], json!(null));
    assert_eq!(
        rest["entries"],
        json!([{
            "seq": 3, "at_millis": 30, "component": "ours", "function": "routing.page", "level": "error",
            "message": "too late",
            "failure": {
                "error": { "kind": "component-deadline", "message": "too late" },
                "version": "ab", "turn": 4, "question": "cd", "limit": "20 ms", "said": null,
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
        let refused = refusal(host.get(&format!("{path}?{wrong}"), &key).await).await;
        assert_eq!(refused.status, 400, "{wrong}");
    }
}
