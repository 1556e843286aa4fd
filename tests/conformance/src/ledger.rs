//! The ledger's lists: places, order, limits, and that tenants are apart.

use weir_core::event::{Event, EventKind};
use weir_core::filing::Filing;
use weir_core::ledger::{DocumentRecord, Entry, PageRecord, PageState};
use weir_core::ports::Ledger;
use weir_core::said::{LogEntry, LogLevel, Remark, RemarkKind};
use weir_core::text::TextSource;
use weir_core::{DocumentId, JobId, PageNumber, RevisionId, TenantId};

/// Checks an empty ledger; panics where it does not do as the port says.
pub async fn check_ledger(ledger: &dyn Ledger) {
    let (a, b): (TenantId, TenantId) = ("a".parse().unwrap(), "b".parse().unwrap());
    check_tenant_place(ledger, &a, &b).await;
    check_documents_after(ledger, &a, &b).await;
    check_pages_after(ledger, &a, &b).await;
    check_last_said(ledger, &a, &b).await;
}

async fn check_tenant_place(ledger: &dyn Ledger, a: &TenantId, b: &TenantId) {
    assert_eq!(ledger.tenant_place(a).await.unwrap(), 0, "no event has no place");
    let (first, second) = (JobId::new(), JobId::new());
    let of = |tenant: &TenantId, job, seq| Entry::Event(tenant.clone(), event(job, seq));
    let group = vec![of(a, first, 1), of(b, second, 1), of(a, first, 2)];
    ledger.commit(group).await.unwrap();
    let place = ledger.tenant_place(a).await.unwrap();
    let events = ledger.tenant_events(a, 0, 10).await.unwrap();
    assert_eq!(events.len(), 2);
    assert_eq!(events.last().map(|(place, _)| *place), Some(place));
    ledger
        .commit(vec![of(b, second, 2), of(a, first, 2)])
        .await
        .unwrap();
    assert_eq!(
        ledger.tenant_place(a).await.unwrap(),
        place,
        "another tenant's event, and one that is known"
    );
    assert!(ledger.tenant_place(b).await.unwrap() > place);
    assert!(ledger.tenant_events(a, place, 10).await.unwrap().is_empty());
}

async fn check_documents_after(ledger: &dyn Ledger, a: &TenantId, b: &TenantId) {
    let all = async |after, limit| ledger.documents_after(a, after, limit).await.unwrap();
    assert_eq!(all(None, 9).await, []);
    // Two ages, each of several documents, and another tenant's beside them.
    let mut expected: Vec<DocumentRecord> = ["one", "two", "three", "four", "five"]
        .iter()
        .zip([1, 2, 2, 2, 1])
        .map(|(name, age)| record(a, name, age))
        .collect();
    let mut group: Vec<Entry> = expected.iter().cloned().map(Entry::Document).collect();
    group.push(Entry::Document(record(b, "one", 3)));
    ledger.commit(group).await.unwrap();
    // A document that is known keeps its age.
    ledger
        .commit(vec![Entry::Document(record(a, "one", 9))])
        .await
        .unwrap();
    expected.sort_by_key(|document| std::cmp::Reverse((document.created_millis, document.id)));
    assert_eq!(
        all(None, 9).await,
        expected,
        "newest first, and of one age by descending id"
    );
    for (place, document) in expected.iter().enumerate() {
        let (page, rest) = (
            all(Some((document.created_millis, document.id)), 2).await,
            expected.get(place + 1..).unwrap(),
        );
        assert_eq!(page, rest.get(..2).unwrap_or(rest), "two after document {place}");
    }
    assert_eq!(all(None, 0).await, []);
    // A document that is gone still says where to go on.
    let gone = expected.remove(1);
    assert!(ledger.forget(a, &gone.id).await.unwrap());
    let rest = all(Some((gone.created_millis, gone.id)), 9).await;
    assert_eq!(Some(rest.as_slice()), expected.get(1..));
    assert_eq!(
        ledger.documents_after(b, None, 9).await.unwrap(),
        [record(b, "one", 3)]
    );
}

async fn check_pages_after(ledger: &dyn Ledger, a: &TenantId, b: &TenantId) {
    let (r, s) = (RevisionId::of(b"r"), RevisionId::of(b"s"));
    let document = DocumentId::of(b"paged");
    let pages = async |after, limit| -> Vec<(PageNumber, RevisionId)> {
        let pages = ledger.pages_after(a, &document, after, limit).await.unwrap();
        pages.into_iter().map(|page| (page.page, page.revision)).collect()
    };
    assert_eq!(pages(0, 9).await, []);
    let done = |tenant: &TenantId, document: DocumentId, page, revision| {
        Entry::Page(page_done(tenant, document, page, revision))
    };
    let group = vec![
        done(a, document, 3, r),
        done(a, document, 1, r),
        done(a, document, 2, r),
        done(b, document, 4, r),
        done(a, DocumentId::of(b"other"), 5, r),
    ];
    ledger.commit(group).await.unwrap();
    // Page 2 under another revision; page 1 under another and then under the first again.
    ledger
        .commit(vec![done(a, document, 2, s), done(a, document, 1, s)])
        .await
        .unwrap();
    ledger.commit(vec![done(a, document, 1, r)]).await.unwrap();
    assert_eq!(
        pages(0, 9).await,
        [(1, r), (2, s), (3, r)],
        "the latest of each page, in order"
    );
    assert_eq!(pages(1, 1).await, [(2, s)]);
    assert_eq!(pages(3, 9).await, []);
    assert_eq!(pages(0, 0).await, []);
}

async fn check_last_said(ledger: &dyn Ledger, a: &TenantId, b: &TenantId) {
    let job = JobId::new();
    assert_eq!(ledger.last_said(a, &job).await.unwrap(), 0);
    let said = |tenant: &TenantId, job, seq| Entry::Said(tenant.clone(), log_entry(job, seq));
    let group = vec![said(a, job, 1), said(a, job, 2), said(a, JobId::new(), 1)];
    ledger.commit(group).await.unwrap();
    assert_eq!(ledger.last_said(a, &job).await.unwrap(), 2);
    assert_eq!(ledger.last_said(b, &job).await.unwrap(), 0);
}

fn event(job: JobId, seq: u64) -> Event {
    Event {
        seq,
        job,
        document: None,
        at_millis: seq,
        what: EventKind::PageDone {
            page: 1,
            searchable: true,
            passages: 1,
        },
    }
}

fn log_entry(job: JobId, seq: u64) -> LogEntry {
    LogEntry {
        job,
        seq,
        at_millis: seq,
        remark: Remark {
            component: "routing".into(),
            function: "routing.page".into(),
            what: RemarkKind::Line {
                level: LogLevel::Info,
                message: "a line".into(),
            },
        },
    }
}

fn record(tenant: &TenantId, name: &str, created_millis: u64) -> DocumentRecord {
    DocumentRecord {
        id: DocumentId::of(name.as_bytes()),
        tenant: tenant.clone(),
        name: format!("{name}.pdf"),
        bytes: 7,
        pages: 3,
        title: None,
        outline: Vec::new(),
        collection: "default".into(),
        labels: Vec::new(),
        requested: Filing::default(),
        created_millis,
    }
}

fn page_done(tenant: &TenantId, document: DocumentId, page: PageNumber, revision: RevisionId) -> PageRecord {
    PageRecord {
        tenant: tenant.clone(),
        document,
        page,
        revision,
        job: JobId::new(),
        state: PageState::Done {
            source: TextSource::TextLayer,
            passages: 1,
            image: None,
            text: None,
        },
    }
}
