//! The ledger on a PostgreSQL server that several nodes share.
#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing, missing_docs)]

mod fixture;

use std::collections::BTreeMap;

use fixture::{document_id, make_event, page_done_entry, tenant_id};
use weir_conformance::records::{make_api_key, make_job, make_tenant};
use weir_core::event::{ErrorInfo, EventKind};
use weir_core::ledger::{JobState, LedgerEntry};
use weir_core::ports::Ledger as _;
use weir_core::revision::PipelineStore as _;
use weir_core::tenancy::TenantStore as _;
use weir_core::{JobId, RevisionId, StorageError, TenantId};
use weir_storage::{LINK_KEY_BYTES, PostgresConnectionSettings, SqlLedger};
use weir_test_services::PostgresServer;

fn connection_settings(url: String) -> PostgresConnectionSettings {
    PostgresConnectionSettings {
        url,
        password: None,
        max_connections: 4,
    }
}

async fn connect(server: &PostgresServer) -> SqlLedger {
    SqlLedger::connect_postgres(&connection_settings(server.url()))
        .await
        .unwrap()
}

#[tokio::test]
async fn ledger_passes_all_conformance_suites() {
    let server = PostgresServer::start();
    let ledger = connect(&server).await;
    weir_conformance::check_ledger(&ledger).await;
    weir_conformance::check_job_claim_store(&ledger).await;
    weir_conformance::check_node_registry(&ledger).await;
    weir_conformance::check_provider_call_store(&ledger, async |time| {
        for (table, column) in [
            ("provider_calls", "started_millis"),
            ("provider_call_waits", "since_millis"),
            ("provider_call_waits", "expires_millis"),
        ] {
            let millis = time.as_millis();
            server.query(&format!("UPDATE {table} SET {column} = {column} - {millis}"));
        }
    })
    .await;
    weir_conformance::check_component_state(&ledger).await;
    weir_conformance::check_job_request_store(&ledger).await;
    weir_conformance::check_document_removal_store(&ledger).await;
    weir_conformance::check_usage_store(&ledger).await;
    weir_conformance::check_retention_store(&ledger).await;
    weir_conformance::check_pipeline_store(&ledger).await;
    weir_conformance::check_shadow_store(&ledger).await;
    weir_conformance::check_tenant_store(&ledger).await;
    ledger.close().await;
    let closed = ledger.list_tenants().await.unwrap_err();
    assert_eq!(closed.kind(), "storage-failed", "{closed}");
}

#[tokio::test]
async fn nodes_that_start_together_create_one_schema() {
    let server = PostgresServer::start();
    let (a, b, c) = tokio::join!(connect(&server), connect(&server), connect(&server));
    let t = tenant_id("t");
    assert!(a.create_tenant(&make_tenant(&t)).await.unwrap());
    assert!(!b.create_tenant(&make_tenant(&t)).await.unwrap());
    assert_eq!(c.find_tenant(&t).await.unwrap().unwrap().id, t);
    let keys = tokio::join!(
        a.load_or_set_link_key([1; LINK_KEY_BYTES]),
        b.load_or_set_link_key([2; LINK_KEY_BYTES]),
        c.load_or_set_link_key([3; LINK_KEY_BYTES])
    );
    let key = keys.0.unwrap();
    assert_eq!((keys.1.unwrap(), keys.2.unwrap()), (key, key));
    assert_eq!(server.query("SELECT count(*) FROM schema_steps"), "3");
    let take_unknown_step = "INSERT INTO schema_steps SELECT max(step) + 1 FROM schema_steps";
    server.query(take_unknown_step);
    connect(&server).await;
    server.query(take_unknown_step);
    let refused = SqlLedger::connect_postgres(&connection_settings(server.url())).await;
    let refused = refused.err().unwrap().to_string();
    assert!(refused.contains("version 5"), "{refused}");
}

/// Several nodes write events of one tenant while another follows them by position.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn reader_of_a_tenant_skips_no_event_of_any_node() {
    const JOBS_PER_NODE: u64 = 4;
    const EVENTS: u64 = 40;
    let server = PostgresServer::start();
    let t = tenant_id("t");
    let mut writers = Vec::new();
    for _ in 0..3 {
        let ledger = std::sync::Arc::new(connect(&server).await);
        for _ in 0..JOBS_PER_NODE {
            let (ledger, t, job) = (ledger.clone(), t.clone(), JobId::new());
            writers.push(tokio::spawn(async move {
                for seq in 1..=EVENTS {
                    let event = LedgerEntry::Event(t.clone(), make_event(job, seq));
                    ledger.commit_entries(vec![event]).await.unwrap();
                }
            }));
        }
    }
    let reader = connect(&server).await;
    let (mut after, mut seen) = (0, BTreeMap::<JobId, u64>::new());
    while seen.values().sum::<u64>() < 3 * JOBS_PER_NODE * EVENTS {
        assert!(
            seen.len() < 12 || seen.values().any(|&seq| seq < EVENTS),
            "events are missing: {seen:?}"
        );
        for (position, event) in reader.list_tenant_events(&t, after, 50).await.unwrap() {
            assert!(position > after);
            after = position;
            let last = seen.entry(event.job).or_default();
            assert_eq!(event.seq, *last + 1);
            *last = event.seq;
        }
    }
    for writer in writers {
        writer.await.unwrap();
    }
}

#[tokio::test]
async fn entries_of_a_commit_are_written_in_their_order() {
    let server = PostgresServer::start();
    let ledger = connect(&server).await;
    let t = tenant_id("t");
    let mut job = make_job(&t, JobState::Queued, 1);
    let mut entries = Vec::new();
    for pipeline in 0..500 {
        job.pipeline = pipeline.to_string();
        entries.push(LedgerEntry::Job(job.clone()));
    }
    ledger.commit_entries(entries).await.unwrap();
    assert_eq!(
        ledger.find_job(&t, &job.id).await.unwrap().unwrap().pipeline,
        "499"
    );
    // 500 updates of one row and the commit are one round trip, and one transaction.
    assert_eq!(server.query("SELECT count(DISTINCT xmin::text) FROM jobs"), "1");
}

#[tokio::test]
async fn failed_commit_writes_nothing_and_the_next_succeeds() {
    let server = PostgresServer::start();
    let ledger = connect(&server).await;
    let t = tenant_id("t");
    let job = make_job(&t, JobState::Queued, 1);
    server.query("ALTER TABLE pages ADD CONSTRAINT refused CHECK (page < 7)");
    let revision = RevisionId::from_content(b"r");
    let page = |number| page_done_entry(&t, "document", number, &revision, 1);
    let entries = vec![page(1), LedgerEntry::Job(job.clone()), page(7), page(2)];
    let failed = ledger.commit_entries(entries).await.unwrap_err();
    assert!(failed.to_string().contains("refused"), "{failed}");
    assert_eq!(failed.kind(), "storage-failed");
    assert_eq!(ledger.find_job(&t, &job.id).await.unwrap(), None);
    let listed = ledger.list_pages(&t, &document_id("document"), None).await;
    assert_eq!(listed.unwrap(), []);
    ledger
        .commit_entries(vec![page(1), LedgerEntry::Job(job.clone())])
        .await
        .unwrap();
    assert_eq!(ledger.find_job(&t, &job.id).await.unwrap(), Some(job));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn stopped_server_is_unavailable_until_it_is_back() {
    let mut server = PostgresServer::start();
    let ledger = connect(&server).await;
    let t = tenant_id("t");
    ledger.create_tenant(&make_tenant(&t)).await.unwrap();
    server.stop();
    for _ in 0..6 {
        let read = ledger.find_tenant(&t).await.unwrap_err();
        assert!(matches!(read, StorageError::Unavailable { .. }), "{read}");
        let written = ledger.put_api_key(&make_api_key(&t, "key", 1)).await.unwrap_err();
        assert!(matches!(written, StorageError::Unavailable { .. }), "{written}");
    }
    server.start_again();
    ledger.put_api_key(&make_api_key(&t, "key", 1)).await.unwrap();
    assert_eq!(ledger.list_api_keys(&t).await.unwrap().len(), 1);
    // Connections that the server closed while they were idle are replaced.
    server.stop();
    server.start_again();
    assert_eq!(ledger.list_api_keys(&t).await.unwrap().len(), 1);
}

#[tokio::test]
async fn refused_connections_name_the_reason() {
    let server = PostgresServer::start();
    let refused = async |url: String| {
        let connected = SqlLedger::connect_postgres(&connection_settings(url)).await;
        connected.err().unwrap()
    };
    let no_database = refused(server.url() + "_absent").await;
    assert!(
        no_database.to_string().contains("\"weir_absent\" does not exist"),
        "{no_database}"
    );
    assert_eq!(no_database.kind(), "missing");
    let invalid = refused("postgres://weir@host:port/weir".into()).await;
    assert!(invalid.to_string().contains("invalid URL"), "{invalid}");
    let nobody = refused("postgres://weir@127.0.0.1:1/weir".into()).await;
    assert!(matches!(nobody, StorageError::Unavailable { .. }), "{nobody}");
    let no_tls = refused(format!("{}?sslmode=require", server.url())).await;
    assert!(no_tls.to_string().contains("TLS"), "{no_tls}");
}

/// A node changes a tenant while another decides from what it read.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn changes_of_a_tenant_on_several_nodes_exclude_each_other() {
    let server = PostgresServer::start();
    let t = tenant_id("t");
    let nodes = [
        connect(&server).await,
        connect(&server).await,
        connect(&server).await,
    ];
    nodes[0].create_tenant(&make_tenant(&t)).await.unwrap();
    nodes[0].put_api_key(&make_api_key(&t, "key", 1)).await.unwrap();
    let pushes = (0..30_u32).map(|number| {
        let (node, t) = (&nodes[number as usize % 3], t.clone());
        async move {
            let spec = weir_conformance::records::make_revision_spec(number);
            node.add_revision_if_changed(&t, "p", &spec, "key", u64::from(number))
                .await
                .unwrap()
                .unwrap()
        }
    });
    let mut numbers: Vec<u32> = futures::future::join_all(pushes)
        .await
        .into_iter()
        .map(|revision| revision.number)
        .collect();
    numbers.sort_unstable();
    assert_eq!(numbers, (1..=30).collect::<Vec<_>>());
    let log = nodes[1].list_audit_log(&t, "p", None, 100).await.unwrap();
    let seqs: Vec<u64> = log.iter().map(|record| record.seq).rev().collect();
    assert_eq!(seqs, (1..=30).collect::<Vec<_>>());
}

#[tokio::test]
async fn text_with_a_null_character_is_stored_and_erased() {
    let server = PostgresServer::start();
    let ledger = connect(&server).await;
    let t = TenantId::default_tenant();
    let mut event = make_event(JobId::new(), 1);
    event.kind = EventKind::DocumentStarted {
        name: "a\0b.pdf".into(),
        pages: 1,
        already_done: 0,
    };
    event.document = Some(document_id("document"));
    ledger
        .commit_entries(vec![LedgerEntry::Event(t.clone(), event.clone())])
        .await
        .unwrap();
    assert_eq!(
        ledger.last_job_event(&t, &event.job).await.unwrap(),
        Some(event.clone())
    );

    // PostgreSQL's own functions for JSON refuse such a text.
    let mut failed = make_event(event.job, 2);
    failed.kind = EventKind::DocumentFailed {
        name: "a\0b.pdf".into(),
        error: ErrorInfo {
            kind: "raster".into(),
            message: "text of the document".into(),
        },
        done: 0,
    };
    failed.document = event.document;
    let failed = vec![LedgerEntry::Event(t.clone(), failed)];
    ledger.commit_entries(failed).await.unwrap();
    ledger.erase_document(&t, &document_id("document")).await.unwrap();
    let events = ledger.list_job_events(&t, &event.job, 0, 10).await.unwrap();
    assert!(
        !format!("{events:?}").contains("text of the document"),
        "{events:?}"
    );
}
