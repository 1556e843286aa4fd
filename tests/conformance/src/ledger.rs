//! Conformance checks of the ledger's lists: event positions, order, limits and isolation of tenants.

use weir_core::component_log::{
    ComponentLogRecord, ComponentLogRecordKind, LogLevel, NumberedComponentLogRecord,
};
use weir_core::ledger::{DocumentRecord, FinalPageState, LedgerEntry, PageRecord};
use weir_core::page_text::TextSource;
use weir_core::ports::Ledger;
use weir_core::{DocumentId, JobId, PageNumber, RevisionId, TenantId};

use crate::records::{make_document, page_done_event};

/// Checks an empty ledger. Panics if the ledger breaks the contract of its port.
pub async fn check_ledger(ledger: &dyn Ledger) {
    let (a, b): (TenantId, TenantId) = ("a".parse().unwrap(), "b".parse().unwrap());
    check_tenant_event_positions(ledger, &a, &b).await;
    check_last_job_event(ledger, &a, &b).await;
    check_document_listing(ledger, &a, &b).await;
    check_page_listing(ledger, &a, &b).await;
    check_last_component_log_seq(ledger, &a, &b).await;
}

async fn check_tenant_event_positions(ledger: &dyn Ledger, a: &TenantId, b: &TenantId) {
    assert_eq!(
        ledger.last_tenant_event_position(a).await.unwrap(),
        0,
        "without events the position is 0"
    );
    let (first, second) = (JobId::new(), JobId::new());
    let of = |tenant: &TenantId, job, seq| LedgerEntry::Event(tenant.clone(), page_done_event(job, seq));
    let group = vec![of(a, first, 1), of(b, second, 1), of(a, first, 2)];
    ledger.commit_entries(group).await.unwrap();
    let position = ledger.last_tenant_event_position(a).await.unwrap();
    let events = ledger.list_tenant_events(a, 0, 10).await.unwrap();
    assert_eq!(events.len(), 2);
    assert_eq!(events.last().map(|(position, _)| *position), Some(position));
    ledger
        .commit_entries(vec![of(b, second, 2), of(a, first, 2)])
        .await
        .unwrap();
    assert_eq!(
        ledger.last_tenant_event_position(a).await.unwrap(),
        position,
        "neither another tenant's event nor a duplicate changes the position"
    );
    assert!(ledger.last_tenant_event_position(b).await.unwrap() > position);
    assert!(
        ledger
            .list_tenant_events(a, position, 10)
            .await
            .unwrap()
            .is_empty()
    );
}

async fn check_last_job_event(ledger: &dyn Ledger, a: &TenantId, b: &TenantId) {
    let (job, other) = (JobId::new(), JobId::new());
    let last = async |tenant| ledger.last_job_event(tenant, &job).await.unwrap();
    assert_eq!(last(a).await, None);
    // With ten events or more, an order by the text of the number would differ.
    let events = (1..=12).map(|seq| LedgerEntry::Event(a.clone(), page_done_event(job, seq)));
    let later = LedgerEntry::Event(a.clone(), page_done_event(other, 20));
    ledger
        .commit_entries(events.chain([later]).collect())
        .await
        .unwrap();
    assert_eq!(last(a).await, Some(page_done_event(job, 12)));
    assert_eq!(last(b).await, None, "the job belongs to another tenant");
}

async fn check_document_listing(ledger: &dyn Ledger, a: &TenantId, b: &TenantId) {
    let all = async |after, limit| ledger.list_tenant_documents_after(a, after, limit).await.unwrap();
    assert_eq!(all(None, 9).await, []);
    // Two creation times with several documents each, and a document of another tenant.
    let mut expected: Vec<DocumentRecord> = ["one", "two", "three", "four", "five"]
        .iter()
        .zip([1, 2, 2, 2, 1])
        .map(|(name, age)| make_document(a, name, age))
        .collect();
    let mut group: Vec<LedgerEntry> = expected.iter().cloned().map(LedgerEntry::Document).collect();
    group.push(LedgerEntry::Document(make_document(b, "one", 3)));
    ledger.commit_entries(group).await.unwrap();
    // Recording a known document again keeps its creation time.
    ledger
        .commit_entries(vec![LedgerEntry::Document(make_document(a, "one", 9))])
        .await
        .unwrap();
    expected.sort_by_key(|document| std::cmp::Reverse((document.created_millis, document.id)));
    assert_eq!(
        all(None, 9).await,
        expected,
        "newest first; equal creation times are ordered by descending id"
    );
    for (index, document) in expected.iter().enumerate() {
        let (page, rest) = (
            all(Some((document.created_millis, document.id)), 2).await,
            expected.get(index + 1..).unwrap(),
        );
        assert_eq!(page, rest.get(..2).unwrap_or(rest), "two after document {index}");
    }
    assert_eq!(all(None, 0).await, []);
    // The position of a deleted document still works as a cursor.
    let gone = expected.remove(1);
    assert!(ledger.erase_document(a, &gone.id).await.unwrap());
    let rest = all(Some((gone.created_millis, gone.id)), 9).await;
    assert_eq!(Some(rest.as_slice()), expected.get(1..));
    assert_eq!(
        ledger.list_tenant_documents_after(b, None, 9).await.unwrap(),
        [make_document(b, "one", 3)]
    );
}

async fn check_page_listing(ledger: &dyn Ledger, a: &TenantId, b: &TenantId) {
    let (r, s) = (RevisionId::from_content(b"r"), RevisionId::from_content(b"s"));
    let document = DocumentId::from_content(b"paged");
    let pages = async |after, limit| -> Vec<(PageNumber, RevisionId)> {
        let pages = ledger.list_pages_after(a, &document, after, limit).await.unwrap();
        pages.into_iter().map(|page| (page.page, page.revision)).collect()
    };
    assert_eq!(pages(0, 9).await, []);
    let done = |tenant: &TenantId, document: DocumentId, page, revision| {
        LedgerEntry::Page(done_page_record(tenant, document, page, revision))
    };
    let group = vec![
        done(a, document, 3, r),
        done(a, document, 1, r),
        done(a, document, 2, r),
        done(b, document, 4, r),
        done(a, DocumentId::from_content(b"other"), 5, r),
    ];
    ledger.commit_entries(group).await.unwrap();
    // Page 2 is done again with another revision; page 1 with the other revision and then with the first again.
    ledger
        .commit_entries(vec![done(a, document, 2, s), done(a, document, 1, s)])
        .await
        .unwrap();
    ledger
        .commit_entries(vec![done(a, document, 1, r)])
        .await
        .unwrap();
    assert_eq!(
        pages(0, 9).await,
        [(1, r), (2, s), (3, r)],
        "the latest record of each page, in page order"
    );
    assert_eq!(pages(1, 1).await, [(2, s)]);
    assert_eq!(pages(3, 9).await, []);
    assert_eq!(pages(0, 0).await, []);
    let page = async |tenant, number, revision| {
        let found = ledger
            .find_page(tenant, &document, number, revision)
            .await
            .unwrap();
        found.map(|page| (page.page, page.revision))
    };
    assert_eq!(page(a, 1, None).await, Some((1, r)), "the record written last");
    assert_eq!(page(a, 2, None).await, Some((2, s)));
    assert_eq!(page(a, 2, Some(&r)).await, Some((2, r)));
    assert_eq!(
        page(a, 3, Some(&s)).await,
        None,
        "done under another revision only"
    );
    assert_eq!(page(a, 4, None).await, None, "a page of another tenant");
    assert_eq!(page(a, 0, None).await, None);
}

async fn check_last_component_log_seq(ledger: &dyn Ledger, a: &TenantId, b: &TenantId) {
    let job = JobId::new();
    assert_eq!(ledger.last_component_log_seq(a, &job).await.unwrap(), 0);
    let log_entry = |tenant: &TenantId, job, seq| {
        LedgerEntry::ComponentLog(tenant.clone(), component_log_entry(job, seq))
    };
    let group = vec![
        log_entry(a, job, 1),
        log_entry(a, job, 2),
        log_entry(a, JobId::new(), 1),
    ];
    ledger.commit_entries(group).await.unwrap();
    assert_eq!(ledger.last_component_log_seq(a, &job).await.unwrap(), 2);
    assert_eq!(ledger.last_component_log_seq(b, &job).await.unwrap(), 0);
}

pub(crate) fn component_log_entry(job: JobId, seq: u64) -> NumberedComponentLogRecord {
    NumberedComponentLogRecord {
        job,
        seq,
        since_job_created_millis: seq,
        record: ComponentLogRecord {
            component: "routing".into(),
            function: "routing.page".into(),
            kind: ComponentLogRecordKind::Line {
                level: LogLevel::Info,
                message: "a line".into(),
            },
        },
    }
}

fn done_page_record(
    tenant: &TenantId,
    document: DocumentId,
    page: PageNumber,
    revision: RevisionId,
) -> PageRecord {
    PageRecord {
        tenant: tenant.clone(),
        document,
        page,
        revision,
        job: JobId::new(),
        state: FinalPageState::Done {
            source: TextSource::TextLayer,
            passages: 1,
            image: None,
            text: None,
        },
    }
}
