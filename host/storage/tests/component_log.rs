//! Log entries of components are read by their tenant only, and the oldest are deleted.
#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing, missing_docs)]

mod fixture;

use fixture::{open_storage, tenant_id};
use weir_core::JobId;
use weir_core::component_log::{
    BacktraceFrame, ComponentFailureReport, ComponentLogRecord, ComponentLogRecordKind, LogLevel,
    NumberedComponentLogRecord,
};
use weir_core::event::ErrorInfo;
use weir_core::ledger::LedgerEntry;
use weir_core::ports::Ledger;

fn make_log_line(job: JobId, seq: u64) -> NumberedComponentLogRecord {
    NumberedComponentLogRecord {
        job,
        seq,
        since_job_created_millis: 7,
        record: ComponentLogRecord {
            component: "ours".into(),
            function: "routing.page".into(),
            kind: ComponentLogRecordKind::Line {
                level: LogLevel::Warn,
                message: format!("line {seq}"),
            },
        },
    }
}

#[tokio::test]
async fn component_log_is_read_by_its_tenant_only() {
    let dir = tempfile::tempdir().unwrap();
    let storage = open_storage(dir.path()).await;
    let (a, b, id) = (tenant_id("a"), tenant_id("b"), JobId::new());
    let report = ComponentFailureReport {
        error: ErrorInfo {
            kind: "component-trap".into(),
            message: "it trapped".into(),
        },
        component_digest: "00".into(),
        call_index: 3,
        request_digest: None,
        limit: Some("20 ms".into()),
        guest_message: Some("two\nlines".into()),
        backtrace: vec![BacktraceFrame {
            function: "f".into(),
            file: Some("src/lib.rs".into()),
            line: Some(7),
        }],
    };
    let mut failure = make_log_line(id, 2);
    failure.record.kind = ComponentLogRecordKind::Failure(Box::new(report));
    let entries = [make_log_line(id, 1), failure, make_log_line(id, 3)];
    let written: Vec<LedgerEntry> = entries
        .iter()
        .map(|e| LedgerEntry::ComponentLog(a.clone(), e.clone()))
        .collect();
    for _ in 0..2 {
        storage.ledger.commit_entries(written.clone()).await.unwrap();
    }
    let ledger = &storage.ledger;
    assert_eq!(ledger.list_component_log(&a, &id, 0, 10).await.unwrap(), entries);
    assert_eq!(
        ledger.list_component_log(&a, &id, 1, 1).await.unwrap(),
        entries[1..2]
    );
    assert_eq!(ledger.last_component_log_seq(&a, &id).await.unwrap(), 3);
    assert_eq!(ledger.list_component_log(&b, &id, 0, 10).await.unwrap(), []);
    assert_eq!(ledger.last_component_log_seq(&b, &id).await.unwrap(), 0);
}

#[tokio::test]
async fn tenant_keeps_its_latest_ten_thousand_component_log_entries() {
    let dir = tempfile::tempdir().unwrap();
    let storage = open_storage(dir.path()).await;
    let (a, b) = (tenant_id("a"), tenant_id("b"));
    let ledger = &storage.ledger;
    let jobs: Vec<JobId> = (0..12).map(|_| JobId::new()).collect();
    assert!(jobs.is_sorted());
    let other = JobId::new();
    ledger
        .commit_entries(vec![LedgerEntry::ComponentLog(
            b.clone(),
            make_log_line(other, 1),
        )])
        .await
        .unwrap();
    for job in &jobs {
        let lines = (1..=1000).map(|seq| LedgerEntry::ComponentLog(a.clone(), make_log_line(*job, seq)));
        ledger.commit_entries(lines.collect()).await.unwrap();
    }
    let mut last_seqs = Vec::new();
    for job in &jobs {
        last_seqs.push(ledger.last_component_log_seq(&a, job).await.unwrap());
    }
    // Only the first line of a job deletes old entries, so up to 11,000 entries are left.
    assert_eq!(last_seqs, [[0; 1].as_slice(), [1000; 11].as_slice()].concat());
    assert_eq!(ledger.last_component_log_seq(&b, &other).await.unwrap(), 1);
}
