//! Nothing of a removed document or tenant is left in the files of a data folder.
#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing, missing_docs)]

mod fixture;

use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

use fixture::{direction, document, event, job, open, order, point, query, tenant, tenant_record};
use weir_core::DocumentId;
use weir_core::event::{ErrorNote, EventKind};
use weir_core::language::{Answer, AnswerCache};
use weir_core::ledger::{DocumentRecord, Entry, JobRecord, JobState};
use weir_core::order::Orders;
use weir_core::page::OutlineEntry;
use weir_core::ports::{Ledger, VectorStore};
use weir_core::replay::{Difference, ReplayReport};
use weir_core::said::{LogEntry, LogLevel, Remark, RemarkKind};
use weir_core::search::Query;
use weir_core::shadow::{ShadowBook, ShadowRun};
use weir_core::tenancy::Registry;
use weir_storage::{SqliteAnswers, Storage};

/// Files below a folder that have these bytes.
fn files_with(folder: &Path, marker: &str) -> Vec<String> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            found.extend(files_with(&path, marker));
        } else if let Ok(bytes) = fs::read(&path)
            && bytes
                .windows(marker.len())
                .any(|window| window == marker.as_bytes())
        {
            found.push(path.display().to_string());
        }
    }
    found
}

/// A word that is in every text of a document, and not in pieces when a text is compressed.
fn marker(name: &str) -> String {
    format!("zq{name}xwv{name}kj")
}

fn error(marker: &str) -> ErrorNote {
    ErrorNote {
        kind: "k".into(),
        message: format!("cannot read {marker}"),
    }
}

/// What a job leaves of two documents, whose file is `a` or `b`.
async fn fill(storage: &Storage, record: &JobRecord, names: [&str; 2]) {
    let (ledger, tenant) = (&storage.ledger, &record.tenant);
    ledger.put(record, &order(record), None).await.unwrap();
    let mut entries = Vec::new();
    let mut seq = 0;
    for name in names {
        let marker = marker(name);
        entries.push(Entry::Document(DocumentRecord {
            id: document(name),
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
            requested: weir_core::filing::Filing::default(),
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
            error: error(&marker),
        };
        let pages = (1..=200).map(|page| EventKind::PageDone {
            page,
            searchable: true,
            passages: 1,
        });
        for what in [started, progress, section, whole, failed]
            .into_iter()
            .chain(pages)
        {
            seq += 1;
            let mut event = event(record.id, seq);
            event.document = Some(document(name));
            event.what = what;
            entries.push(Entry::Event(tenant.clone(), event));
        }
        seq += 1;
        let mut event = event(record.id, seq);
        event.what = EventKind::PolicyFailed {
            error: error(&marker),
        };
        entries.push(Entry::Event(tenant.clone(), event));
        entries.push(Entry::Said(
            tenant.clone(),
            LogEntry {
                job: record.id,
                seq,
                at_millis: 0,
                remark: Remark {
                    component: "c".into(),
                    function: "routing.page".into(),
                    what: RemarkKind::Line {
                        level: LogLevel::Info,
                        message: marker,
                    },
                },
            },
        ));
    }
    entries.push(Entry::Job(JobRecord {
        state: JobState::Done,
        ..record.clone()
    }));
    ledger.commit(entries).await.unwrap();
    ledger
        .put_shadow_run(&shadow_run(record, &marker(names[0])))
        .await
        .unwrap();
}

fn shadow_run(record: &JobRecord, marker: &str) -> ShadowRun {
    ShadowRun {
        tenant: record.tenant.clone(),
        pipeline: "p".into(),
        revision: 1,
        job: record.id,
        at_millis: 1,
        report: Ok(ReplayReport {
            differences: vec![Difference {
                function: "chunking.summarize".into(),
                about: "a section".into(),
                before: marker.into(),
                after: String::new(),
            }],
            ..ReplayReport::default()
        }),
    }
}

fn answer(text: String) -> Answer {
    Answer {
        text,
        quotes: Vec::new(),
        prompt_tokens: None,
        answer_tokens: None,
        provider: "p".into(),
        model: "m".into(),
        cached: false,
        waited: Duration::ZERO,
        spent: Duration::ZERO,
    }
}

#[tokio::test]
async fn removed_document_leaves_no_text_in_the_ledger() {
    let dir = tempfile::tempdir().unwrap();
    let storage = open(dir.path()).await;
    let (t, ledger) = (tenant("t"), &storage.ledger);
    let (removed, other) = (marker("a"), marker("b"));
    let mut jobs = Vec::new();
    for created in 1..=20 {
        let record = job(&t, JobState::Running, created);
        fill(&storage, &record, ["a", "b"]).await;
        jobs.push(record);
    }
    assert!(!files_with(dir.path(), &removed).is_empty());
    assert!(ledger.forget(&t, &document("a")).await.unwrap());
    assert_eq!(files_with(dir.path(), &removed), Vec::<String>::new());
    assert!(!files_with(dir.path(), &other).is_empty());
    // Its jobs and their events stay, all of them, and so does the text of the other document.
    for record in &jobs {
        assert!(ledger.job(&t, &record.id).await.unwrap().is_some());
        let events = ledger.events(&t, &record.id, 0, 1000).await.unwrap();
        assert_eq!(events.len(), 412);
        let of_other = events.iter().filter(|e| e.document == Some(document("b")));
        let summaries = of_other.filter(|e| {
            matches!(&e.what, EventKind::DocumentSummarized { summary: Some(text), .. } if *text == other)
        });
        assert_eq!(summaries.count(), 1);
        // A shadow that was asked meanwhile is too late.
        ledger
            .put_shadow_run(&shadow_run(record, &removed))
            .await
            .unwrap();
    }
    assert_eq!(files_with(dir.path(), &removed), Vec::<String>::new());
    storage.close().await.unwrap();
    let storage = open(dir.path()).await;
    assert_eq!(files_with(dir.path(), &removed), Vec::<String>::new());
    storage.ledger.create_tenant(&tenant_record(&t)).await.unwrap();
    assert!(storage.ledger.remove_tenant(&t).await.unwrap());
    assert_eq!(files_with(dir.path(), &other), Vec::<String>::new());
    storage.close().await.unwrap();
}

#[tokio::test]
async fn log_is_emptied_once_a_reader_has_ended() {
    let dir = tempfile::tempdir().unwrap();
    let storage = open(dir.path()).await;
    let t = tenant("t");
    fill(&storage, &job(&t, JobState::Running, 1), ["a", "b"]).await;
    let reader = rusqlite::Connection::open(dir.path().join("ledger.db")).unwrap();
    reader
        .execute_batch("BEGIN; SELECT count(*) FROM events;")
        .unwrap();
    storage.ledger.forget(&t, &document("a")).await.unwrap();
    assert!(
        !files_with(dir.path(), &marker("a")).is_empty(),
        "the reader needs the log"
    );
    reader.execute_batch("COMMIT").unwrap();
    let began = Instant::now();
    while !files_with(dir.path(), &marker("a")).is_empty() {
        assert!(began.elapsed() < Duration::from_secs(60));
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    storage.close().await.unwrap();
}

#[tokio::test]
async fn removed_document_leaves_no_cached_answer() {
    let dir = tempfile::tempdir().unwrap();
    let t = tenant("t");
    let answers = SqliteAnswers::open(dir.path(), 1 << 24).await.unwrap();
    for number in 0..60_u8 {
        let (key, name) = ([number; 32], ["a", "b", ""][usize::from(number) % 3]);
        let document = (!name.is_empty()).then(|| document(name));
        let text = marker(name).repeat(100);
        answers
            .put(&t, &key, document.as_ref(), &answer(text))
            .await
            .unwrap();
    }
    assert!(!files_with(dir.path(), &marker("a")).is_empty());
    answers.remove(&t, &document("a")).await.unwrap();
    assert_eq!(files_with(dir.path(), &marker("a")), Vec::<String>::new());
    // An answer of no known document may be of any.
    assert_eq!(files_with(dir.path(), &marker("")), Vec::<String>::new());
    assert!(answers.get(&t, &[1; 32]).await.unwrap().is_some());
    answers.clear(&t).await.unwrap();
    assert_eq!(files_with(dir.path(), &marker("b")), Vec::<String>::new());
    let left = answer(marker("b"));
    answers.put(&t, &[7; 32], None, &left).await.unwrap();
    answers.close().await;
    SqliteAnswers::discard(dir.path()).await.unwrap();
    assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0);
}

/// Passages of documents `a`, `b` and so on in turn, with texts that are too short and too different to be compressed well.
async fn index(storage: &Storage, tenants: &[&str], documents: &[&str], passages: u32) {
    for number in 0..passages {
        let name = documents[number as usize % documents.len()];
        let degrees = number as f32 * 0.7;
        let text = format!("{} {} passage {number}", marker(name), uuid::Uuid::new_v4());
        for t in tenants {
            let point = point(name, 1 + number / 10, number, &text, direction(degrees));
            storage
                .vectors
                .upsert(&tenant(t), "main", vec![point])
                .await
                .unwrap();
        }
    }
    storage.vectors.flush().await.unwrap();
}

/// The passages that a search finds, by text: those that are equally good have no order of their own.
async fn hits(storage: &Storage, t: &str, document: DocumentId) -> Vec<String> {
    let query = Query {
        documents: vec![document],
        ..query("passage", direction(30.0), 500)
    };
    let hits = storage.vectors.search(&tenant(t), &query).await.unwrap();
    let mut texts: Vec<String> = hits.into_iter().map(|hit| hit.text).collect();
    texts.sort();
    texts
}

#[tokio::test]
async fn removed_passages_are_gone_from_all_files_of_the_index() {
    let dir = tempfile::tempdir().unwrap();
    let mut storage = open(dir.path()).await;
    index(&storage, &["t", "u"], &["a", "b", "c"], 300).await;
    let vectors = dir.path().join("vectors");
    let files = files_with(&vectors, &marker("a"));
    for place in ["/payload_storage/", "/wal/"] {
        assert!(files.iter().any(|file| file.contains(place)), "{files:?}");
    }
    let before = hits(&storage, "t", document("b")).await;
    let pages = storage.vectors.pages(&tenant("t"), &document("b")).await.unwrap();
    let mut markers = Vec::new();
    for (t, name) in [("t", "a"), ("u", "a"), ("u", "b")] {
        storage
            .vectors
            .remove(&tenant(t), &document(name), None)
            .await
            .unwrap();
        storage.vectors.flush().await.unwrap();
        storage.vectors.compact().await.unwrap();
        if t == "u" && name == "a" {
            markers.push(marker("a"));
        }
        for marker in &markers {
            assert_eq!(files_with(&vectors, marker), Vec::<String>::new());
        }
        // Found as before, also after a restart, and what is written then is found, too.
        for _ in 0..2 {
            assert_eq!(hits(&storage, "t", document("b")).await, before);
            assert_eq!(
                storage.vectors.pages(&tenant("t"), &document("b")).await.unwrap(),
                pages
            );
            storage.close().await.unwrap();
            storage = open(dir.path()).await;
        }
        index(&storage, &["t"], &["new"], 20).await;
        assert_eq!(hits(&storage, "t", document("new")).await.len(), 20);
    }
    assert!(!files_with(&vectors, &marker("c")).is_empty());
    storage.vectors.clear(&tenant("t")).await.unwrap();
    storage.vectors.clear(&tenant("u")).await.unwrap();
    storage.close().await.unwrap();
    for name in ["a", "b", "c", "new"] {
        assert_eq!(files_with(&vectors, &marker(name)), Vec::<String>::new());
    }
}

#[tokio::test]
async fn compaction_that_was_cut_short_is_made_up_for() {
    let dir = tempfile::tempdir().unwrap();
    let storage = open(dir.path()).await;
    index(&storage, &["t"], &["a", "b"], 40).await;
    storage
        .vectors
        .remove(&tenant("t"), &document("a"), None)
        .await
        .unwrap();
    storage.vectors.flush().await.unwrap();
    // Neither compacted nor closed, as when the process is killed.
    std::mem::forget(storage);
    let vectors = dir.path().join("vectors");
    assert!(vectors.join("removed").exists());
    let copy = tempfile::tempdir().unwrap();
    let copied = std::process::Command::new("cp")
        .arg("-r")
        .arg(dir.path())
        .arg(copy.path())
        .status();
    assert!(copied.unwrap().success());
    let data = copy.path().join(dir.path().file_name().unwrap());
    fs::create_dir(data.join("vectors/temp_segments")).unwrap();
    fs::write(data.join("vectors/temp_segments/left"), marker("a")).unwrap();
    let storage = open(&data).await;
    storage.close().await.unwrap();
    assert_eq!(files_with(&data, &marker("a")), Vec::<String>::new());
    assert!(!data.join("vectors/removed").exists());
}
