//! No text of a removed document or tenant is left in the files of a data folder.
#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing, missing_docs)]

mod fixture;

use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

use fixture::{
    document_id, make_event, make_point, make_query, open_storage, put_job_request, tenant_id, unit_vector,
};
use weir_conformance::list_files_containing;
use weir_conformance::records::{make_job, make_tenant};
use weir_core::DocumentId;
use weir_core::component_log::{
    ComponentLogRecord, ComponentLogRecordKind, LogLevel, NumberedComponentLogRecord,
};
use weir_core::event::{ErrorInfo, EventKind};
use weir_core::ledger::{DocumentRecord, JobRecord, JobState, LedgerEntry};
use weir_core::llm::{LlmResponse, ResponseCache};
use weir_core::page::OutlineEntry;
use weir_core::ports::Ledger;
use weir_core::replay::{DecisionDifference, ReplayReport};
use weir_core::search::SearchQuery;
use weir_core::shadow::{ShadowRun, ShadowStore};
use weir_core::tenancy::TenantStore;
use weir_storage::{SqliteResponseCache, Storage};

/// Returns a word that every text of a document contains. Compression does not split it.
fn document_marker(name: &str) -> String {
    format!("zq{name}xwv{name}kj")
}

/// Waits for a condition that comes true in the background, for at most a minute.
async fn wait_until(what: &str, is_true: impl Fn() -> bool) {
    let began = Instant::now();
    while !is_true() {
        assert!(began.elapsed() < Duration::from_secs(60), "not yet: {what}");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

fn error_with_marker(marker: &str) -> ErrorInfo {
    ErrorInfo {
        kind: "k".into(),
        message: format!("cannot read {marker}"),
    }
}

/// Writes the rows of a finished job with two documents.
async fn write_job_of_two_documents(storage: &Storage, record: &JobRecord, names: [&str; 2]) {
    let (ledger, tenant) = (&storage.ledger, &record.tenant);
    put_job_request(ledger, record).await;
    let mut entries = Vec::new();
    let mut seq = 0;
    for name in names {
        let marker = document_marker(name);
        entries.push(LedgerEntry::Document(DocumentRecord {
            id: document_id(name),
            tenant: tenant.clone(),
            name: format!("{name}.pdf"),
            bytes: 3,
            pages: 10,
            title: Some(marker.clone()),
            outline: vec![OutlineEntry {
                title: marker.clone(),
                level: 1,
                page: Some(1),
            }],
            collection: "main".into(),
            labels: Vec::new(),
            requested_collection_and_labels:
                weir_core::collection_and_labels::CollectionAndLabelsRequest::default(),
            created_millis: 1,
        }));
        let started = EventKind::DocumentStarted {
            name: format!("{name}.pdf"),
            pages: 10,
            already_done: 0,
        };
        let progress = EventKind::Progress {
            percent: 1.0,
            message: marker.clone(),
            seconds_left: None,
        };
        let section = EventKind::SectionSummarized {
            section: 1,
            title: Some(marker.clone()),
            first_page: 1,
            last_page: 2,
            summary: Some(marker.clone()),
        };
        let whole = EventKind::DocumentSummarized {
            sections: 1,
            summary: Some(marker.clone()),
        };
        let failed = EventKind::SectionFailed {
            section: 2,
            title: Some(marker.clone()),
            error: error_with_marker(&marker),
        };
        let pages = (1..=200).map(|page| EventKind::PageDone {
            page,
            searchable: true,
            passages: 1,
        });
        for kind in [started, progress, section, whole, failed]
            .into_iter()
            .chain(pages)
        {
            seq += 1;
            let mut event = make_event(record.id, seq);
            event.document = Some(document_id(name));
            event.kind = kind;
            entries.push(LedgerEntry::Event(tenant.clone(), event));
        }
        seq += 1;
        let mut event = make_event(record.id, seq);
        event.kind = EventKind::PolicyFallback {
            error: error_with_marker(&marker),
        };
        entries.push(LedgerEntry::Event(tenant.clone(), event));
        entries.push(LedgerEntry::ComponentLog(
            tenant.clone(),
            NumberedComponentLogRecord {
                job: record.id,
                seq,
                since_job_created_millis: 0,
                record: ComponentLogRecord {
                    component: "c".into(),
                    function: "routing.page".into(),
                    kind: ComponentLogRecordKind::Line {
                        level: LogLevel::Info,
                        message: marker,
                    },
                },
            },
        ));
    }
    entries.push(LedgerEntry::Job(JobRecord {
        state: JobState::Done,
        ..record.clone()
    }));
    ledger.commit_entries(entries).await.unwrap();
    ledger
        .put_shadow_run(&make_shadow_run(record, &document_marker(names[0])))
        .await
        .unwrap();
}

fn make_shadow_run(record: &JobRecord, marker: &str) -> ShadowRun {
    ShadowRun {
        tenant: record.tenant.clone(),
        pipeline: "p".into(),
        revision: 1,
        job: record.id,
        compared_at_millis: 1,
        report: Ok(ReplayReport {
            differences: vec![DecisionDifference {
                function: "chunking.summarize".into(),
                subject: "a section".into(),
                before: marker.into(),
                after: String::new(),
            }],
            ..ReplayReport::default()
        }),
    }
}

fn make_response(text: String) -> LlmResponse {
    LlmResponse {
        text,
        quotes: Vec::new(),
        prompt_tokens: None,
        completion_tokens: None,
        provider: "p".into(),
        model: "m".into(),
        cached: false,
        waiting_time: Duration::ZERO,
        provider_time: Duration::ZERO,
    }
}

#[tokio::test]
async fn removed_document_leaves_no_text_in_the_ledger() {
    let dir = tempfile::tempdir().unwrap();
    let storage = open_storage(dir.path()).await;
    let (t, ledger) = (tenant_id("t"), &storage.ledger);
    let (removed, other) = (document_marker("a"), document_marker("b"));
    let mut jobs = Vec::new();
    for created in 1..=20 {
        let record = make_job(&t, JobState::Running, created);
        write_job_of_two_documents(&storage, &record, ["a", "b"]).await;
        jobs.push(record);
    }
    assert!(!list_files_containing(dir.path(), &removed).is_empty());
    assert!(ledger.erase_document(&t, &document_id("a")).await.unwrap());
    assert_eq!(list_files_containing(dir.path(), &removed), Vec::<String>::new());
    assert!(!list_files_containing(dir.path(), &other).is_empty());
    // All jobs and events stay, and so does the text of the other document.
    for record in &jobs {
        assert!(ledger.find_job(&t, &record.id).await.unwrap().is_some());
        let events = ledger.list_job_events(&t, &record.id, 0, 1000).await.unwrap();
        assert_eq!(events.len(), 412);
        let of_other = events.iter().filter(|e| e.document == Some(document_id("b")));
        let summaries = of_other.filter(|e| {
            matches!(&e.kind, EventKind::DocumentSummarized { summary: Some(text), .. } if *text == other)
        });
        assert_eq!(summaries.count(), 1);
        // A shadow run that ends after the removal is not written.
        ledger
            .put_shadow_run(&make_shadow_run(record, &removed))
            .await
            .unwrap();
    }
    assert_eq!(list_files_containing(dir.path(), &removed), Vec::<String>::new());
    storage.close().await.unwrap();
    let storage = open_storage(dir.path()).await;
    assert_eq!(list_files_containing(dir.path(), &removed), Vec::<String>::new());
    storage.ledger.create_tenant(&make_tenant(&t)).await.unwrap();
    assert!(storage.ledger.remove_tenant(&t).await.unwrap());
    assert_eq!(list_files_containing(dir.path(), &other), Vec::<String>::new());
    storage.close().await.unwrap();
}

#[tokio::test]
async fn wal_is_truncated_after_the_last_reader() {
    let dir = tempfile::tempdir().unwrap();
    let storage = open_storage(dir.path()).await;
    let t = tenant_id("t");
    write_job_of_two_documents(&storage, &make_job(&t, JobState::Running, 1), ["a", "b"]).await;
    let reader = rusqlite::Connection::open(dir.path().join("ledger.db")).unwrap();
    reader
        .execute_batch("BEGIN; SELECT count(*) FROM events;")
        .unwrap();
    storage
        .ledger
        .erase_document(&t, &document_id("a"))
        .await
        .unwrap();
    assert!(
        !list_files_containing(dir.path(), &document_marker("a")).is_empty(),
        "the reader must still need the log"
    );
    reader.execute_batch("COMMIT").unwrap();
    wait_until("no file has the marker", || {
        list_files_containing(dir.path(), &document_marker("a")).is_empty()
    })
    .await;
    storage.close().await.unwrap();
}

#[tokio::test]
async fn deleted_small_blobs_leave_no_text_and_no_space() {
    let dir = tempfile::tempdir().unwrap();
    let storage = open_storage(dir.path()).await;
    let (t, other) = (tenant_id("t"), tenant_id("u"));
    let put = async |tenant, name: &str| {
        for page in 1..=100 {
            let (key, lines) = (
                format!("{name}/{page}/ocr.json"),
                document_marker(name).repeat(1000),
            );
            let put = storage.blobs.put_blob(tenant, &key, lines.as_bytes());
            put.await.unwrap();
        }
        storage.blobs.flush_blobs().await.unwrap();
    };
    let database_size = || fs::metadata(dir.path().join("blobs.db")).unwrap().len();
    for name in ["a", "b"] {
        put(&t, name).await;
    }
    put(&other, "c").await;
    assert!(!list_files_containing(dir.path(), &document_marker("a")).is_empty());
    storage.blobs.delete_blobs_with_prefix(&t, "a/").await.unwrap();
    storage.blobs.flush_blobs().await.unwrap();
    assert_eq!(
        list_files_containing(dir.path(), &document_marker("a")),
        Vec::<String>::new()
    );
    let size = database_size();
    assert!(!list_files_containing(dir.path(), &document_marker("b")).is_empty());
    storage.blobs.delete_blobs_with_prefix(&t, "").await.unwrap();
    storage.blobs.flush_blobs().await.unwrap();
    assert_eq!(
        list_files_containing(dir.path(), &document_marker("b")),
        Vec::<String>::new()
    );
    // Some seconds later, so that no flush waits for it.
    wait_until(&format!("the file shrinks from {size} bytes"), || {
        database_size() < size * 3 / 4
    })
    .await;

    // The log has the rows that a killed process has deleted, until the next start.
    storage
        .blobs
        .delete_blobs_with_prefix(&other, "c/")
        .await
        .unwrap();
    assert!(!list_files_containing(dir.path(), &document_marker("c")).is_empty());
    let copy = tempfile::tempdir().unwrap();
    for entry in fs::read_dir(dir.path()).unwrap().map(Result::unwrap) {
        if entry.file_type().unwrap().is_file() {
            fs::copy(entry.path(), copy.path().join(entry.file_name())).unwrap();
        }
    }
    let restarted = open_storage(copy.path()).await;
    assert_eq!(
        list_files_containing(copy.path(), &document_marker("c")),
        Vec::<String>::new()
    );
    restarted.close().await.unwrap();
    storage.close().await.unwrap();
}

/// A reader of the database delays the erasure, and it goes on by itself.
#[tokio::test]
async fn deleted_small_blobs_are_erased_after_the_last_reader() {
    let dir = tempfile::tempdir().unwrap();
    let storage = open_storage(dir.path()).await;
    let t = tenant_id("t");
    let lines = document_marker("a").repeat(1000);
    storage
        .blobs
        .put_blob(&t, "a/1/ocr.json", lines.as_bytes())
        .await
        .unwrap();
    let reader = rusqlite::Connection::open(dir.path().join("blobs.db")).unwrap();
    reader
        .execute_batch("BEGIN; SELECT count(*) FROM blobs;")
        .unwrap();
    storage.blobs.delete_blobs_with_prefix(&t, "").await.unwrap();
    storage.blobs.flush_blobs().await.unwrap();
    assert!(
        !list_files_containing(dir.path(), &document_marker("a")).is_empty(),
        "the reader must still need the log"
    );
    reader.execute_batch("COMMIT").unwrap();
    wait_until("no file has the marker", || {
        list_files_containing(dir.path(), &document_marker("a")).is_empty()
    })
    .await;
    storage.close().await.unwrap();
}

#[tokio::test]
async fn removed_document_leaves_no_cached_response() {
    let dir = tempfile::tempdir().unwrap();
    let t = tenant_id("t");
    let cache = SqliteResponseCache::open_or_create(dir.path(), 1 << 24)
        .await
        .unwrap();
    for number in 0..60_u8 {
        let (key, name) = ([number; 32], ["a", "b", ""][usize::from(number) % 3]);
        let document = (!name.is_empty()).then(|| document_id(name));
        let text = document_marker(name).repeat(100);
        cache
            .put_cached_response(&t, &key, document.as_ref(), &make_response(text))
            .await
            .unwrap();
    }
    assert!(!list_files_containing(dir.path(), &document_marker("a")).is_empty());
    cache
        .remove_cached_document_responses(&t, &document_id("a"))
        .await
        .unwrap();
    assert_eq!(
        list_files_containing(dir.path(), &document_marker("a")),
        Vec::<String>::new()
    );
    // A response of no known document may be of any document, so it is removed too.
    assert_eq!(
        list_files_containing(dir.path(), &document_marker("")),
        Vec::<String>::new()
    );
    assert!(cache.get_cached_response(&t, &[1; 32]).await.unwrap().is_some());
    cache.remove_cached_tenant_responses(&t).await.unwrap();
    assert_eq!(
        list_files_containing(dir.path(), &document_marker("b")),
        Vec::<String>::new()
    );
    let left = make_response(document_marker("b"));
    cache
        .put_cached_response(&t, &[7; 32], None, &left)
        .await
        .unwrap();
    cache.close().await;
    SqliteResponseCache::delete_cache_of_data_folder(dir.path())
        .await
        .unwrap();
    assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0);
}

/// Writes passages of the documents in turn. The texts are too short and too different to be compressed well.
async fn index_passages(storage: &Storage, tenants: &[&str], documents: &[&str], passages: u32) {
    for number in 0..passages {
        let name = documents[number as usize % documents.len()];
        let degrees = number as f32 * 0.7;
        let text = format!(
            "{} {} passage {number}",
            document_marker(name),
            uuid::Uuid::new_v4()
        );
        for t in tenants {
            let point = make_point(name, 1 + number / 10, number, &text, unit_vector(degrees));
            storage
                .vectors
                .upsert_points(&tenant_id(t), "main", vec![point])
                .await
                .unwrap();
        }
    }
    storage.vectors.flush_points().await.unwrap();
}

/// Returns the sorted texts of the passages that a search finds, because hits with equal scores have no fixed order.
async fn list_hit_texts(storage: &Storage, t: &str, document: DocumentId) -> Vec<String> {
    let query = SearchQuery {
        documents: vec![document],
        ..make_query("passage", unit_vector(30.0), 500)
    };
    let hits = storage
        .vectors
        .search_by_vector_and_words(&tenant_id(t), &query)
        .await
        .unwrap();
    let mut texts: Vec<String> = hits.into_iter().map(|hit| hit.text).collect();
    texts.sort();
    texts
}

/// Returns whether a segment of the index of words has a word with a document's marker. Fails if there are files of former segments.
fn has_word_with_marker(vectors: &Path, marker: &str) -> bool {
    let index = tantivy::Index::open_in_dir(vectors.join("words")).unwrap();
    let segments: Vec<_> = index
        .searchable_segment_ids()
        .unwrap()
        .iter()
        .map(|id| id.uuid_string())
        .collect();
    for entry in fs::read_dir(vectors.join("words")).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_some_and(|extension| extension == "term") {
            let segment = path.file_stem().unwrap().to_str().unwrap();
            assert!(segments.iter().any(|id| id == segment), "{}", path.display());
        }
    }
    let field = index.schema().get_field("words").unwrap();
    let searcher = index.reader().unwrap().searcher();
    searcher.segment_readers().iter().any(|segment| {
        let words = segment.inverted_index(field).unwrap();
        let mut words = words.terms().stream().unwrap();
        let mut is_found = false;
        while words.advance() {
            is_found |= String::from_utf8_lossy(words.key()).contains(marker);
        }
        is_found
    })
}

#[tokio::test]
async fn removed_passages_are_gone_from_all_files_of_the_index() {
    let dir = tempfile::tempdir().unwrap();
    let mut storage = open_storage(dir.path()).await;
    index_passages(&storage, &["t", "u"], &["a", "b", "c"], 300).await;
    let vectors = dir.path().join("vectors");
    let files = list_files_containing(&vectors, &document_marker("a"));
    assert!(files.iter().any(|file| file.contains("passages.db")), "{files:?}");
    let before = list_hit_texts(&storage, "t", document_id("b")).await;
    assert!(has_word_with_marker(&vectors, &document_marker("a")));
    let pages = storage
        .vectors
        .count_passages_by_page(&tenant_id("t"), &document_id("b"))
        .await
        .unwrap();
    let mut markers = Vec::new();
    for (t, name) in [("t", "a"), ("u", "a"), ("u", "b")] {
        storage
            .vectors
            .remove_document_or_page_points(&tenant_id(t), &document_id(name), None)
            .await
            .unwrap();
        storage.vectors.flush_points().await.unwrap();
        storage.compact_index().await.unwrap();
        if t == "u" && name == "a" {
            markers.push(document_marker("a"));
        }
        for marker in &markers {
            assert_eq!(list_files_containing(&vectors, marker), Vec::<String>::new());
            assert!(!has_word_with_marker(&vectors, marker), "{marker}");
        }
        // Other passages are still found, also after a restart, and new passages are found too.
        for _ in 0..2 {
            assert_eq!(list_hit_texts(&storage, "t", document_id("b")).await, before);
            assert_eq!(
                storage
                    .vectors
                    .count_passages_by_page(&tenant_id("t"), &document_id("b"))
                    .await
                    .unwrap(),
                pages
            );
            storage.close().await.unwrap();
            storage = open_storage(dir.path()).await;
        }
        index_passages(&storage, &["t"], &["new"], 20).await;
        assert_eq!(list_hit_texts(&storage, "t", document_id("new")).await.len(), 20);
    }
    assert!(!list_files_containing(&vectors, &document_marker("c")).is_empty());
    storage
        .vectors
        .remove_tenant_points(&tenant_id("t"))
        .await
        .unwrap();
    storage
        .vectors
        .remove_tenant_points(&tenant_id("u"))
        .await
        .unwrap();
    storage.close().await.unwrap();
    for name in ["a", "b", "c", "new"] {
        assert_eq!(
            list_files_containing(&vectors, &document_marker(name)),
            Vec::<String>::new()
        );
        assert!(!has_word_with_marker(&vectors, &document_marker(name)), "{name}");
    }
}

#[tokio::test]
async fn interrupted_compaction_is_completed_at_the_next_open() {
    let dir = tempfile::tempdir().unwrap();
    let storage = open_storage(dir.path()).await;
    index_passages(&storage, &["t"], &["a", "b"], 40).await;
    // The index of words is updated with the first search.
    assert!(!list_hit_texts(&storage, "t", document_id("a")).await.is_empty());
    storage
        .vectors
        .remove_document_or_page_points(&tenant_id("t"), &document_id("a"), None)
        .await
        .unwrap();
    storage.vectors.flush_points().await.unwrap();
    // Neither compacted nor closed, like a killed process.
    std::mem::forget(storage);
    let vectors = dir.path().join("vectors");
    assert!(!list_files_containing(&vectors, &document_marker("a")).is_empty());
    let copy = tempfile::tempdir().unwrap();
    let copied = std::process::Command::new("cp")
        .arg("-r")
        .arg(dir.path())
        .arg(copy.path())
        .status();
    assert!(copied.unwrap().success());
    let data = copy.path().join(dir.path().file_name().unwrap());
    let storage = open_storage(&data).await;
    storage.close().await.unwrap();
    assert_eq!(
        list_files_containing(&data, &document_marker("a")),
        Vec::<String>::new()
    );
    assert!(!has_word_with_marker(
        &data.join("vectors"),
        &document_marker("a")
    ));
}
