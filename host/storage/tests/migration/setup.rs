//! A data folder with content of each kind, the servers, and comparisons of both.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use crate::fixture::{
    DIMENSIONS, MODEL, document_id, make_event, make_point, make_query, open_storage, page_done_entry,
    s3_connection, tenant_id, unit_vector,
};
use rusqlite::Connection;
use rusqlite::types::Value;
use weir_conformance::records::{make_job, make_tenant};
use weir_core::component::ComponentDigest;
use weir_core::ledger::{JobState, LedgerEntry};
use weir_core::ports::Ledger as _;
use weir_core::recording::RecordingSession;
use weir_core::search::{SearchHit, SearchQuery};
use weir_core::tenancy::TenantStore as _;
use weir_core::uploads::StagedUpload;
use weir_core::{JobId, RevisionId, StorageError};
use weir_qdrant_protocol::QdrantProtocolServer;
use weir_s3_server::{ACCESS_KEY, BUCKET, S3TestServer, SECRET_KEY};
use weir_storage::{
    ExternalStores, MigratedContent, Migration, MigrationDirection, MigrationServers,
    PostgresConnectionSettings, QdrantConnection, QdrantVectorStore, S3Bucket, SqlLedger, Storage,
};
use weir_test_services::PostgresServer;

/// The tables of SQLite's schema that a migration does not copy.
pub(crate) const TABLES_OF_RUNNING_NODES: [&str; 4] =
    ["node_duties", "nodes", "provider_call_waits", "provider_calls"];

/// The servers of a test.
pub(crate) struct Servers {
    pub(crate) postgres: PostgresServer,
    pub(crate) s3: S3TestServer,
    pub(crate) qdrant: QdrantProtocolServer,
}

/// The addresses of [`Servers`], which another process can use too.
#[derive(Clone)]
pub(crate) struct Addresses {
    pub(crate) postgres: String,
    pub(crate) s3: String,
    pub(crate) qdrant: String,
}

impl Servers {
    pub(crate) fn start() -> Self {
        Self {
            postgres: PostgresServer::start(),
            s3: S3TestServer::start(),
            qdrant: QdrantProtocolServer::start(),
        }
    }

    pub(crate) fn addresses(&self) -> Addresses {
        Addresses {
            postgres: self.postgres.url(),
            s3: self.s3.url(),
            qdrant: self.qdrant.url(),
        }
    }

    /// Returns what is on the servers, to see that nothing has changed.
    pub(crate) fn content(&self) -> (String, Vec<String>, Vec<(String, usize, u32)>) {
        let tables = self
            .postgres
            .query("SELECT count(*) FROM information_schema.tables WHERE table_schema = 'public'");
        let tenants = match tables.as_str() {
            "0" => String::new(),
            _ => self.postgres.query("SELECT * FROM tenants"),
        };
        (tenants, self.s3.keys(), self.qdrant.collections())
    }
}

impl Addresses {
    pub(crate) fn postgres_settings(&self) -> PostgresConnectionSettings {
        PostgresConnectionSettings {
            url: self.postgres.clone(),
            password: None,
            max_connections: 4,
        }
    }

    pub(crate) async fn bucket(&self) -> Arc<S3Bucket> {
        let location = format!("s3://{BUCKET}/weir");
        let connection = s3_connection(self.s3.clone(), &location, (ACCESS_KEY, SECRET_KEY));
        Arc::new(S3Bucket::connect(&connection).await.unwrap())
    }

    pub(crate) fn qdrant_connection(&self) -> QdrantConnection {
        QdrantConnection {
            url: self.qdrant.clone(),
            api_key: None,
            replication_factor: 1,
        }
    }

    pub(crate) async fn migration(&self, data: &Path, direction: MigrationDirection) -> Migration {
        Migration {
            data: data.to_owned(),
            direction,
            servers: MigrationServers {
                ledger: Some(self.postgres_settings()),
                bucket: Some(self.bucket().await),
                vectors: Some(self.qdrant_connection()),
            },
            model: MODEL.into(),
            dimensions: DIMENSIONS,
        }
    }

    pub(crate) async fn migrate(
        &self,
        data: &Path,
        direction: MigrationDirection,
    ) -> Result<Vec<MigratedContent>, StorageError> {
        self.migration(data, direction).await.run(&|_| {}).await
    }

    pub(crate) async fn open_storage_on_servers(&self, data: &Path) -> Storage {
        let ledger = SqlLedger::connect_postgres(&self.postgres_settings())
            .await
            .unwrap();
        let vectors =
            QdrantVectorStore::connect_and_create_collection(&self.qdrant_connection(), DIMENSIONS, MODEL)
                .await;
        let external = ExternalStores {
            ledger: Some(ledger),
            vectors: Some(Arc::new(vectors.unwrap())),
            bucket: Some(self.bucket().await),
        };
        Storage::open_or_create_with_external_stores(data, DIMENSIONS, MODEL, external)
            .await
            .unwrap()
    }
}

/// The angle of a passage's vector, in degrees. No two passages have the same.
pub(crate) fn passage_angle(page: u32, passage: u32) -> f32 {
    0.33 * (3 * page + passage) as f32
}

/// A query with a clear order of hits: one passage has its word, and the similarities of the vectors differ by more than an index may
/// change them.
pub(crate) fn query_for_page(page: u32) -> SearchQuery {
    make_query(&format!("word{page}x1"), unit_vector(-40.0), 10)
}

/// The hits without their scores: an index may change the last digit of a vector.
pub(crate) fn hit_texts(hits: &[SearchHit]) -> Vec<(u32, &str)> {
    hits.iter().map(|hit| (hit.page, hit.text.as_str())).collect()
}

/// Writes documents of two tenants into a data folder: uploads, a component, a recording, blobs, passages and rows.
pub(crate) async fn fill_folder(data: &Path, pages: u32) {
    let storage = open_storage(data).await;
    for name in ["acme", "other"] {
        let t = tenant_id(name);
        storage.ledger.create_tenant(&make_tenant(&t)).await.unwrap();
        weir_conformance::store_upload(&*storage.uploads, &t, format!("upload of {name}").as_bytes()).await;
        let component = storage.components.new_temporary_path();
        std::fs::write(&component, name).unwrap();
        let digest = ComponentDigest::from_content(name.as_bytes());
        storage
            .components
            .commit_component(&t, &component, &digest)
            .await
            .unwrap();
        let session = RecordingSession::start(t.clone(), JobId::new());
        let calls = format!("calls of {name}");
        let recorded = storage.recordings.append_part(&session, 0, calls.as_bytes());
        recorded.await.unwrap();
        let staged = StagedUpload {
            tenant: t.clone(),
            job: JobId::new(),
            document: document_id("staged"),
        };
        let received = storage.uploads.new_temporary_path();
        std::fs::write(&received, "staged").unwrap();
        storage
            .uploads
            .stage_received_file(&received, &staged)
            .await
            .unwrap();
        let (revision, mut job) = (RevisionId::from_content(b"r"), make_job(&t, JobState::Queued, 1));
        let mut entries = vec![LedgerEntry::Job(job.clone())];
        for page in 1..=pages {
            let points = (0..3)
                .map(|passage| {
                    let text = format!("the torque of bolt {page} is word{page}x{passage}");
                    make_point(
                        name,
                        page,
                        passage,
                        &text,
                        unit_vector(passage_angle(page, passage)),
                    )
                })
                .collect();
            storage.vectors.upsert_points(&t, "main", points).await.unwrap();
            // A file and a row of the database of small blobs.
            for (name_of_blob, bytes) in [("image/150.jpg", 40_000), ("ocr.json", 1_000)] {
                let key = format!("{}/{page}/{name_of_blob}", document_id(name));
                let bytes = vec![page as u8; bytes];
                storage.blobs.put_blob(&t, &key, &bytes).await.unwrap();
            }
            entries.push(page_done_entry(&t, name, page, &revision, 3));
            entries.push(LedgerEntry::Event(t.clone(), make_event(job.id, u64::from(page))));
        }
        job.state = JobState::Done;
        entries.push(LedgerEntry::Job(job));
        storage.ledger.commit_entries(entries).await.unwrap();
    }
    storage.close().await.unwrap();
}

pub(crate) fn open_ledger_file(data: &Path) -> Connection {
    Connection::open(data.join("ledger.db")).unwrap()
}

pub(crate) fn table_names(c: &Connection) -> Vec<String> {
    let sql = "SELECT name FROM sqlite_schema WHERE type = 'table' AND name NOT LIKE 'sqlite%' ORDER BY name";
    let mut statement = c.prepare(sql).unwrap();
    statement
        .query_map([], |row| row.get(0))
        .unwrap()
        .collect::<Result<_, _>>()
        .unwrap()
}

/// Returns all rows of all tables, and the highest position of an event that was ever used.
pub(crate) fn dump_ledger(data: &Path) -> BTreeMap<String, Vec<Vec<Value>>> {
    let c = open_ledger_file(data);
    let mut dump = BTreeMap::new();
    for table in table_names(&c).into_iter().chain(["sqlite_sequence".to_owned()]) {
        let hidden = if table == "pages" { "rowid, " } else { "" };
        let mut statement = c.prepare(&format!("SELECT {hidden}* FROM {table}")).unwrap();
        let columns = statement.column_count();
        let rows = statement
            .query_map([], |row| (0..columns).map(|column| row.get(column)).collect())
            .unwrap();
        let mut rows: Vec<Vec<Value>> = rows.collect::<Result<_, _>>().unwrap();
        rows.sort_by_key(|row| format!("{row:?}"));
        dump.insert(table, rows);
    }
    dump
}

/// Returns the relative paths and contents of all uploads, components, blobs and recordings, as if every blob were a file.
pub(crate) fn dump_files(data: &Path) -> BTreeMap<String, Vec<u8>> {
    let c = Connection::open(data.join("blobs.db")).unwrap();
    let mut select = c
        .prepare("SELECT 'blobs/' || tenant || '/' || key, bytes FROM blobs")
        .unwrap();
    let rows = select
        .query_map([], |row| Ok((row.get(0)?, row.get(1)?)))
        .unwrap();
    let mut files: BTreeMap<String, Vec<u8>> = rows.collect::<Result<_, _>>().unwrap();
    assert!(!files.is_empty(), "the samples have small blobs");
    let mut folders: Vec<_> = ["uploads", "components", "blobs", "recordings"]
        .map(|name| data.join(name))
        .into();
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(&folder).unwrap() {
            let path = entry.unwrap().path();
            match path.is_dir() {
                true => folders.push(path),
                false => {
                    let name = path.strip_prefix(data).unwrap().display().to_string();
                    files.insert(name, std::fs::read(&path).unwrap());
                }
            }
        }
    }
    files
}

/// Inserts rows with unusual values into every table, by its columns.
pub(crate) fn insert_unusual_rows(data: &Path) {
    let long = "long ".repeat(50_000);
    let texts = [
        "",
        "plain",
        "it's \"quoted\" \\ back\\slash",
        "line\nfeed\ttab\r",
        "žluťoučký 学习 🦀 \u{fffd} \u{10ffff} e\u{301}",
        "?1 $1 %s {} --",
        &long,
    ];
    let integers = [i64::MIN, -1, 0, 1, i64::from(u32::MAX) + 1, i64::MAX];
    let reals = [
        0.0,
        -0.0,
        1.5,
        f64::MIN_POSITIVE,
        f64::MAX,
        f64::INFINITY,
        0.1 + 0.2,
    ];
    let blobs: [Vec<u8>; 3] = [Vec::new(), (0..=255).collect(), vec![0; 100_000]];
    let c = open_ledger_file(data);
    for table in table_names(&c) {
        // Triggers fill this table.
        if table == "storage_usage" || TABLES_OF_RUNNING_NODES.contains(&table.as_str()) {
            continue;
        }
        let mut statement = c
            .prepare(&format!(
                "SELECT name, type, \"notnull\", pk FROM pragma_table_info('{table}')"
            ))
            .unwrap();
        let columns: Vec<(String, String, bool, i64)> = statement
            .query_map([], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?, row.get(3)?)))
            .unwrap()
            .collect::<Result<_, _>>()
            .unwrap();
        for number in 0..14_usize {
            let values: Vec<Value> = columns
                .iter()
                .map(
                    |(name, kind, not_null, key)| match (name.as_str(), kind.as_str()) {
                        // Booleans in PostgreSQL. A path that is changing would be measured.
                        ("is_changing", _) => Value::Integer(0),
                        ("is_canary" | "removed" | "cancel_requested", _) => {
                            Value::Integer((number % 2) as i64)
                        }
                        // Their sum is an integer.
                        ("bytes", _) if table == "stored_path_sizes" => Value::Integer(number as i64),
                        ("seq", _) if table == "events" => Value::Integer(number as i64),
                        ("position", _) => Value::Integer(10 * number as i64 + 1_000_000),
                        // A claim would be released when the ledger is opened.
                        ("owner" | "lease_until_millis", _) if table == "jobs" => Value::Null,
                        (_, "TEXT") if *key > 0 => Value::Text(format!("{} {number}", texts[number % 6])),
                        (_, "INTEGER") if *key > 0 => Value::Integer(integers[number % 6]),
                        (_, "BLOB") if *key > 0 => Value::Blob(vec![number as u8; number]),
                        _ if !not_null && number % 2 == 0 => Value::Null,
                        // Indexes have these.
                        ("tenant" | "state" | "pipeline" | "job", "TEXT") => {
                            Value::Text(texts[number % 6].to_owned())
                        }
                        (_, "TEXT") => Value::Text(texts[number % 7].to_owned()),
                        (_, "INTEGER") => Value::Integer(integers[number % 6]),
                        (_, "REAL") => Value::Real(reals[number % 7]),
                        (_, "BLOB") => Value::Blob(blobs[number % 3].clone()),
                        other => panic!("{table}: {other:?}"),
                    },
                )
                .collect();
            let names: Vec<&str> = columns.iter().map(|(name, ..)| name.as_str()).collect();
            let holes = vec!["?"; names.len()].join(", ");
            c.execute(
                &format!("INSERT INTO {table} ({}) VALUES ({holes})", names.join(", ")),
                rusqlite::params_from_iter(values),
            )
            .unwrap();
        }
    }
    // The last position was used by an event that was removed.
    c.execute_batch("DELETE FROM events WHERE position > 1000100")
        .unwrap();
}
