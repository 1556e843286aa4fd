//! Copies of a data folder on servers, and of servers in a data folder: nothing is lost or changed on the way, an interrupted copy goes on, and
//! no side is used meanwhile.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::print_stdout,
    missing_docs
)]

mod fixture;

use std::collections::BTreeMap;
use std::io::{BufRead as _, BufReader};
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use fixture::{
    DIMENSIONS, MODEL, document_id, make_event, make_point, make_query, open_storage, page_done_entry,
    sleep_random_time, tenant_id, unit_vector,
};
use rusqlite::Connection;
use rusqlite::types::Value;
use weir_conformance::records::{make_job, make_tenant};
use weir_core::component::ComponentDigest;
use weir_core::job_claim::NodeId;
use weir_core::job_claim_store::JobClaimStore as _;
use weir_core::ledger::{JobState, LedgerEntry};
use weir_core::node::{NodeInfo, NodeRegistry as _, NodeRole};
use weir_core::ports::Ledger as _;
use weir_core::search::{SearchHit, SearchQuery};
use weir_core::tenancy::TenantStore as _;
use weir_core::uploads::StagedUpload;
use weir_core::usage::UsageStore as _;
use weir_core::{JobId, RevisionId, StorageError};
use weir_qdrant_protocol::QdrantProtocolServer;
use weir_s3_server::{ACCESS_KEY, BUCKET, Fault, S3TestServer, SECRET_KEY};
use weir_storage::{
    ExternalStores, MigratedContent, Migration, MigrationDirection, MigrationServers,
    PostgresConnectionSettings, QdrantConnection, QdrantVectorStore, S3Bucket, S3Connection, S3Credentials,
    ServerSideEncryption, SqlLedger, Storage, search_data_folder,
};
use weir_test_services::PostgresServer;

use MigrationDirection::{ToFolder, ToServers};

/// The tables of SQLite's schema that a migration does not copy.
const TABLES_OF_RUNNING_NODES: [&str; 4] = ["node_duties", "nodes", "provider_call_waits", "provider_calls"];

/// The servers of a test.
struct Servers {
    postgres: PostgresServer,
    s3: S3TestServer,
    qdrant: QdrantProtocolServer,
}

/// The addresses of [`Servers`], which another process can use too.
#[derive(Clone)]
struct Addresses {
    postgres: String,
    s3: String,
    qdrant: String,
}

impl Servers {
    fn start() -> Self {
        Self {
            postgres: PostgresServer::start(),
            s3: S3TestServer::start(),
            qdrant: QdrantProtocolServer::start(),
        }
    }

    fn addresses(&self) -> Addresses {
        Addresses {
            postgres: self.postgres.url(),
            s3: self.s3.url(),
            qdrant: self.qdrant.url(),
        }
    }

    /// Returns what is on the servers, to see that nothing has changed.
    fn content(&self) -> (String, Vec<String>, Vec<(String, usize, u32)>) {
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
    fn postgres_settings(&self) -> PostgresConnectionSettings {
        PostgresConnectionSettings {
            url: self.postgres.clone(),
            password: None,
            max_connections: 4,
        }
    }

    async fn bucket(&self) -> Arc<S3Bucket> {
        let connection = S3Connection {
            location: format!("s3://{BUCKET}/weir").parse().unwrap(),
            endpoint: Some(self.s3.clone()),
            region: Some("eu-central-1".into()),
            path_style: true,
            credentials: Some(S3Credentials {
                access_key: ACCESS_KEY.into(),
                secret_key: SECRET_KEY.into(),
            }),
            server_side_encryption: ServerSideEncryption::BucketDefault,
            max_cache_bytes: 1 << 20,
            attempt_timeout: Duration::from_secs(5),
        };
        Arc::new(S3Bucket::connect(&connection).await.unwrap())
    }

    fn qdrant_connection(&self) -> QdrantConnection {
        QdrantConnection {
            url: self.qdrant.clone(),
            api_key: None,
            replication_factor: 1,
        }
    }

    async fn migration(&self, data: &Path, direction: MigrationDirection) -> Migration {
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

    async fn migrate(
        &self,
        data: &Path,
        direction: MigrationDirection,
    ) -> Result<Vec<MigratedContent>, StorageError> {
        self.migration(data, direction).await.run(&|_| {}).await
    }

    async fn open_storage_on_servers(&self, data: &Path) -> Storage {
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
fn passage_angle(page: u32, passage: u32) -> f32 {
    0.33 * (3 * page + passage) as f32
}

/// A query with a clear order of hits: one passage has its word, and no two vectors are equally near.
fn query_for_page(page: u32) -> SearchQuery {
    make_query(
        &format!("word{page}x1"),
        unit_vector(passage_angle(page, 1) + 0.07),
        10,
    )
}

/// The hits without their scores: an index may change the last digit of a vector.
fn hit_texts(hits: &[SearchHit]) -> Vec<(u32, &str)> {
    hits.iter().map(|hit| (hit.page, hit.text.as_str())).collect()
}

/// Writes documents of two tenants into a data folder: uploads, a component, blobs, passages and rows.
async fn fill_folder(data: &Path, pages: u32) {
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
            let key = format!("{}/{page}/image/150.jpg", document_id(name));
            storage
                .blobs
                .put_blob(&t, &key, &vec![page as u8; 10_000])
                .await
                .unwrap();
            entries.push(page_done_entry(&t, name, page, &revision, 3));
            entries.push(LedgerEntry::Event(t.clone(), make_event(job.id, u64::from(page))));
        }
        job.state = JobState::Done;
        entries.push(LedgerEntry::Job(job));
        storage.ledger.commit_entries(entries).await.unwrap();
    }
    storage.close().await.unwrap();
}

fn open_ledger_file(data: &Path) -> Connection {
    Connection::open(data.join("ledger.db")).unwrap()
}

fn table_names(c: &Connection) -> Vec<String> {
    let sql = "SELECT name FROM sqlite_schema WHERE type = 'table' AND name NOT LIKE 'sqlite%' ORDER BY name";
    let mut statement = c.prepare(sql).unwrap();
    statement
        .query_map([], |row| row.get(0))
        .unwrap()
        .collect::<Result<_, _>>()
        .unwrap()
}

/// Returns all rows of all tables, and the highest position of an event that was ever used.
fn dump_ledger(data: &Path) -> BTreeMap<String, Vec<Vec<Value>>> {
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

/// Returns the relative paths and contents of all uploads, components and blobs.
fn dump_files(data: &Path) -> BTreeMap<String, Vec<u8>> {
    let mut files = BTreeMap::new();
    let mut folders: Vec<_> = ["uploads", "components", "blobs"]
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
fn insert_unusual_rows(data: &Path) {
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

#[tokio::test(flavor = "multi_thread")]
async fn everything_survives_the_way_to_servers_and_back() {
    let (servers, dir) = (Servers::start(), tempfile::tempdir().unwrap());
    // Every listing has several pages.
    servers.s3.set_page_keys(7);
    let (from, to) = (dir.path().join("from"), dir.path().join("to"));
    fill_folder(&from, 20).await;
    insert_unusual_rows(&from);
    let (rows, files) = (dump_ledger(&from), dump_files(&from));
    assert_eq!(files.len(), 2 * (20 + 3));

    let counted = servers
        .addresses()
        .migration(&from, ToServers)
        .await
        .count_source()
        .await
        .unwrap();
    assert_eq!(
        (
            servers.content(),
            counted.iter().map(|part| part.count).sum::<u64>() > 300
        ),
        ((String::new(), Vec::new(), Vec::new()), true)
    );
    let there = servers.addresses().migrate(&from, ToServers).await.unwrap();
    // Nothing of the source has changed.
    assert_eq!(
        (dump_ledger(&from), dump_files(&from)),
        (rows.clone(), files.clone())
    );
    assert!(!from.join("migration.json").exists());
    // Each table of the schema was copied.
    let tables: Vec<String> = there
        .iter()
        .filter(|part| part.store == "ledger")
        .map(|part| part.name.clone())
        .collect();
    let mut schema = table_names(&open_ledger_file(&from));
    schema.retain(|table| !TABLES_OF_RUNNING_NODES.contains(&table.as_str()));
    let mut sorted = tables.clone();
    sorted.sort();
    assert_eq!(sorted, schema);
    let on_postgres = servers.postgres.query(
        "SELECT table_name FROM information_schema.tables WHERE table_schema = 'public' ORDER BY table_name COLLATE \"C\"",
    );
    let mut on_postgres: Vec<&str> = on_postgres.lines().collect();
    on_postgres.retain(|table| *table != "schema_steps" && !TABLES_OF_RUNNING_NODES.contains(table));
    assert_eq!(on_postgres, schema);
    for part in &counted {
        let copied = there
            .iter()
            .find(|copied| (&copied.store, &copied.name) == (&part.store, &part.name))
            .unwrap();
        assert_eq!(
            (copied.count, copied.bytes),
            (part.count, part.bytes),
            "{}",
            part.name
        );
    }

    let back = servers.addresses().migrate(&to, ToFolder).await.unwrap();
    let digests = |parts: &[MigratedContent]| -> BTreeMap<String, (u64, Option<String>)> {
        parts
            .iter()
            // Paths of objects on S3 have other names.
            .filter(|part| part.name != "stored_path_sizes")
            .map(|part| {
                (
                    format!("{} {}", part.store, part.name),
                    (part.count, part.digest.clone()),
                )
            })
            .collect()
    };
    assert_eq!(digests(&there), digests(&back));
    for (table, rows) in rows {
        assert_eq!(dump_ledger(&to)[&table], rows, "{table}");
    }
    assert_eq!(dump_files(&to), files);
}

#[tokio::test(flavor = "multi_thread")]
async fn copy_on_servers_and_copy_in_a_folder_work_like_the_source() {
    let (servers, dir) = (Servers::start(), tempfile::tempdir().unwrap());
    let (from, node, to) = (
        dir.path().join("from"),
        dir.path().join("node"),
        dir.path().join("to"),
    );
    fill_folder(&from, 30).await;
    let (t, query) = (tenant_id("acme"), query_for_page(7));
    let storage = open_storage(&from).await;
    let hits = storage
        .vectors
        .search_by_vector_and_words(&t, &query)
        .await
        .unwrap();
    let (events, bytes) = (
        storage.ledger.list_tenant_events(&t, 0, 100).await.unwrap(),
        storage.ledger.count_stored_bytes(&t).await.unwrap(),
    );
    storage.close().await.unwrap();
    assert_eq!((hits.len(), events.len(), bytes), (10, 30, 300_000 + 14 + 4));

    servers.addresses().migrate(&from, ToServers).await.unwrap();
    for copy in [&node, &to] {
        let storage = match copy == &node {
            true => servers.addresses().open_storage_on_servers(copy).await,
            false => {
                servers.addresses().migrate(copy, ToFolder).await.unwrap();
                open_storage(copy).await
            }
        };
        let found = storage
            .vectors
            .search_by_vector_and_words(&t, &query)
            .await
            .unwrap();
        assert_eq!(hit_texts(&found), hit_texts(&hits));
        let ledger = &storage.ledger;
        assert_eq!(
            ledger.list_tenant_events(&t, 0, 1000).await.unwrap()[..30],
            events
        );
        assert_eq!(ledger.count_stored_bytes(&t).await.unwrap(), bytes);
        // Positions go on after the highest of all tenants.
        let (job, highest) = (JobId::new(), 60);
        let event = LedgerEntry::Event(t.clone(), make_event(job, 1));
        ledger.commit_entries(vec![event]).await.unwrap();
        let last = ledger.last_tenant_event_position(&t).await.unwrap();
        assert!(last > highest, "{last}");
        // The bytes of a removed document are subtracted.
        let prefix = format!("{}/", document_id("acme"));
        storage.blobs.delete_blobs_with_prefix(&t, &prefix).await.unwrap();
        assert_eq!(storage.ledger.count_stored_bytes(&t).await.unwrap(), 14 + 4);
        let key = format!("{prefix}1/image/150.jpg");
        storage.blobs.put_blob(&t, &key, &[1; 300_000]).await.unwrap();
        storage.close().await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn ledger_alone_and_objects_alone_are_copied() {
    let (servers, dir) = (Servers::start(), tempfile::tempdir().unwrap());
    let (data, t) = (dir.path(), tenant_id("acme"));
    fill_folder(data, 3).await;
    let addresses = servers.addresses();
    let bytes = 30_000 + 14 + 4;
    let only_objects = || async {
        let mut migration = addresses.migration(data, ToServers).await;
        (migration.servers.ledger, migration.servers.vectors) = (None, None);
        migration
    };
    only_objects().await.run(&|_| {}).await.unwrap();
    assert_eq!(servers.qdrant.collections(), []);
    // The ledger in the folder counts the objects on the server from now on.
    let external = ExternalStores {
        bucket: Some(addresses.bucket().await),
        ..ExternalStores::default()
    };
    let storage = Storage::open_or_create_with_external_stores(data, DIMENSIONS, MODEL, external)
        .await
        .unwrap();
    assert_eq!(storage.ledger.count_stored_bytes(&t).await.unwrap(), bytes);
    storage.blobs.delete_blobs_with_prefix(&t, "").await.unwrap();
    assert_eq!(storage.ledger.count_stored_bytes(&t).await.unwrap(), 14 + 4);
    storage.close().await.unwrap();

    let mut migration = addresses.migration(data, ToServers).await;
    (migration.servers.bucket, migration.servers.vectors) = (None, None);
    migration.run(&|_| {}).await.unwrap();
    assert_eq!(servers.postgres.query("SELECT count(*) FROM pages"), "6");
}

#[tokio::test(flavor = "multi_thread")]
async fn null_character_of_a_text_is_replaced_as_postgresql_does() {
    let (servers, dir) = (Servers::start(), tempfile::tempdir().unwrap());
    let (from, to) = (dir.path().join("from"), dir.path().join("to"));
    fill_folder(&from, 1).await;
    let c = open_ledger_file(&from);
    for (number, key) in ["a", "a\0b", "a b", "b"].iter().enumerate() {
        c.execute(
            "INSERT INTO component_state VALUES ('acme', 'p', ?1, ?2)",
            (key, vec![number as u8]),
        )
        .unwrap();
    }
    drop(c);
    servers.addresses().migrate(&from, ToServers).await.unwrap();
    servers.addresses().migrate(&to, ToFolder).await.unwrap();
    let c = open_ledger_file(&to);
    let mut statement = c
        .prepare("SELECT key FROM component_state ORDER BY value")
        .unwrap();
    let keys: Vec<String> = statement
        .query_map([], |row| row.get(0))
        .unwrap()
        .collect::<Result<_, _>>()
        .unwrap();
    assert_eq!(keys, ["a", "a\u{fffd}b", "a b", "b"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn target_with_content_is_refused_without_a_change() {
    let dir = tempfile::tempdir().unwrap();
    let (from, to) = (dir.path().join("from"), dir.path().join("to"));
    fill_folder(&from, 2).await;
    let refuse = async |servers: &Servers, data: &Path, direction, part: &str| {
        let before = (servers.content(), dump_ledger(&from), dump_files(&from));
        let refused = servers
            .addresses()
            .migrate(data, direction)
            .await
            .unwrap_err()
            .to_string();
        assert!(
            refused.contains("is not empty") && refused.contains(part),
            "{refused}"
        );
        assert_eq!((servers.content(), dump_ledger(&from), dump_files(&from)), before);
        assert!(!data.join("migration.json").exists());
    };
    let servers = Servers::start();
    let ledger = SqlLedger::connect_postgres(&servers.addresses().postgres_settings())
        .await
        .unwrap();
    ledger
        .create_tenant(&make_tenant(&tenant_id("there")))
        .await
        .unwrap();
    refuse(&servers, &from, ToServers, "table tenants").await;
    ledger.remove_tenant(&tenant_id("there")).await.unwrap();
    ledger.close().await;
    let node = servers
        .addresses()
        .open_storage_on_servers(&dir.path().join("node"))
        .await;
    let (t, points) = (
        tenant_id("there"),
        vec![make_point("x", 1, 1, "x", unit_vector(1.0))],
    );
    node.vectors.upsert_points(&t, "main", points).await.unwrap();
    refuse(&servers, &from, ToServers, "storage.vectors has points").await;
    node.blobs.put_blob(&t, "a/b", b"blob").await.unwrap();
    refuse(&servers, &from, ToServers, "object blobs/there/a/b").await;
    node.close().await.unwrap();

    open_storage(&to).await.close().await.unwrap();
    refuse(&servers, &to, ToFolder, "has a ledger").await;
    std::fs::remove_file(to.join("ledger.db")).unwrap();
    refuse(&servers, &to, ToFolder, "has an index").await;
    std::fs::create_dir(to.join("blobs/acme")).unwrap();
    std::fs::write(to.join("blobs/acme/x"), "x").unwrap();
    refuse(&servers, &to, ToFolder, "file blobs/acme/x").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn side_in_use_is_refused() {
    let (servers, dir) = (Servers::start(), tempfile::tempdir().unwrap());
    let (from, to) = (dir.path().join("from"), dir.path().join("to"));
    fill_folder(&from, 2).await;
    let addresses = servers.addresses();
    let storage = open_storage(&from).await;
    let refused = addresses.migrate(&from, ToServers).await.unwrap_err();
    assert_eq!(refused.kind(), "storage-in-use", "{refused}");
    storage.close().await.unwrap();
    addresses.migrate(&from, ToServers).await.unwrap();

    let ledger = SqlLedger::connect_postgres(&addresses.postgres_settings())
        .await
        .unwrap();
    let (t, node, lease) = (
        tenant_id("acme"),
        NodeId::new_unique("weir-1"),
        Duration::from_secs(60),
    );
    let info = NodeInfo {
        id: node.clone(),
        role: NodeRole::Api,
        version: "1".into(),
    };
    ledger.renew_node(&info, lease).await.unwrap();
    let refused = addresses.migrate(&to, ToFolder).await.unwrap_err().to_string();
    assert!(refused.contains("node weir-1"), "{refused}");
    ledger.remove_node(&node).await.unwrap();
    let job = make_job(&t, JobState::Queued, 1);
    ledger
        .commit_entries(vec![LedgerEntry::Job(job.clone())])
        .await
        .unwrap();
    ledger.claim_job(&t, &job.id, &node, lease, None).await.unwrap();
    let refused = addresses.migrate(&to, ToFolder).await.unwrap_err().to_string();
    assert!(refused.contains("node weir-1"), "{refused}");
    assert!(!to.join("ledger.db").exists());
    // The lease of a killed node ends.
    ledger.renew_claims(&node, Duration::ZERO).await.unwrap();
    ledger.close().await;
    addresses.migrate(&to, ToFolder).await.unwrap();
    let storage = open_storage(&to).await;
    let claimable = storage.ledger.list_claimable_jobs().await.unwrap();
    assert_eq!(claimable.iter().map(|job| job.id).collect::<Vec<_>>(), [job.id]);
    storage.close().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn unfinished_sides_are_used_by_nothing_else_and_changes_of_the_copy_are_found() {
    let (servers, dir) = (Servers::start(), tempfile::tempdir().unwrap());
    let (from, other) = (dir.path().join("from"), dir.path().join("other"));
    fill_folder(&from, 5).await;
    fill_folder(&other, 1).await;
    let addresses = servers.addresses();
    // The comparison reads objects.
    servers
        .s3
        .fail_requests(Fault::InternalError, "GET /documents/weir/blobs", u32::MAX);
    let failed = addresses.migrate(&from, ToServers).await.unwrap_err();
    assert_eq!(failed.kind(), "storage-unavailable", "{failed}");

    let connected = SqlLedger::connect_postgres(&addresses.postgres_settings()).await;
    let opened = Storage::open_or_create(&from, DIMENSIONS, MODEL).await;
    let shared = SqlLedger::open_shared(&from).await;
    let query = make_query("torque", unit_vector(7.0), 10);
    let searched = search_data_folder(&from, MODEL, &tenant_id("acme"), &query).await;
    for error in [connected.err(), opened.err(), shared.err(), searched.err()] {
        let error = error.unwrap().to_string();
        assert!(error.contains("a migration of it is not finished"), "{error}");
    }
    servers.s3.fail_with(None);
    let refused = addresses
        .migrate(&other, ToServers)
        .await
        .unwrap_err()
        .to_string();
    assert!(refused.contains("not empty"), "{refused}");
    let mut elsewhere = addresses.migration(&from, ToServers).await;
    elsewhere.servers.vectors = None;
    let refused = elsewhere.run(&|_| {}).await.unwrap_err().to_string();
    assert!(refused.contains("another migration"), "{refused}");

    let find_difference = async |part: &str| {
        let found = addresses.migrate(&from, ToServers).await.unwrap_err().to_string();
        assert!(found.contains(part), "{found}");
    };
    let sizes = "UPDATE stored_path_sizes SET bytes = bytes";
    servers
        .postgres
        .query(&format!("{sizes} + 1 WHERE tenant = 'acme'"));
    find_difference("table stored_path_sizes").await;
    servers
        .postgres
        .query(&format!("{sizes} - 1 WHERE tenant = 'acme'"));
    servers.postgres.query("DELETE FROM pages WHERE page = 2");
    servers
        .postgres
        .query("INSERT INTO idempotency_keys VALUES ('acme', 'k', '', 'j', 1)");
    find_difference("table idempotency_keys has 0 rows and the copy 1").await;
    servers.postgres.query("DELETE FROM idempotency_keys");
    let key = servers
        .s3
        .keys()
        .into_iter()
        .find(|key| key.contains("/image/"))
        .unwrap();
    servers.s3.replace_object(&key, &[9; 10_000]);
    find_difference("is different in the target").await;
    // An object of another size is copied again, and so are missing rows.
    servers.s3.replace_object(&key, &[9; 9]);
    addresses.migrate(&from, ToServers).await.unwrap();
    assert_eq!(servers.postgres.query("SELECT count(*) FROM pages"), "10");
    open_storage(&from).await.close().await.unwrap();
}

const DATA_VARIABLE: &str = "WEIR_TEST_DATA";
const SERVERS_VARIABLE: &str = "WEIR_TEST_SERVERS";
const DIRECTION_VARIABLE: &str = "WEIR_TEST_DIRECTION";

/// Migrates and prints a line for each progress, and `finished` at the end.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "the test below starts and kills it"]
async fn migration_in_another_process() {
    let variable = |name: &str| std::env::var(name).unwrap_or_else(|_| panic!("set {name}"));
    let servers = variable(SERVERS_VARIABLE);
    let servers: Vec<&str> = servers.split(' ').collect();
    let addresses = Addresses {
        postgres: servers[0].into(),
        s3: servers[1].into(),
        qdrant: servers[2].into(),
    };
    let direction = match variable(DIRECTION_VARIABLE).as_str() {
        "to-servers" => ToServers,
        _ => ToFolder,
    };
    let migration = addresses
        .migration(Path::new(&variable(DATA_VARIABLE)), direction)
        .await;
    println!();
    let migrated = migration.run(&|progress| println!("progress {progress:?}")).await;
    println!(
        "{}",
        migrated.map_or_else(|error| error.to_string(), |_| "finished".into())
    );
}

/// Starts a migration and kills it at a random time after `lines` reports of progress. Returns whether it had finished, and its last
/// line.
fn migrate_and_kill(
    data: &Path,
    addresses: &Addresses,
    direction: MigrationDirection,
    lines: usize,
) -> (bool, String) {
    let mut child = Command::new(std::env::current_exe().unwrap())
        .args([
            "--exact",
            "migration_in_another_process",
            "--ignored",
            "--nocapture",
        ])
        .env(DATA_VARIABLE, data)
        .env(
            SERVERS_VARIABLE,
            format!("{} {} {}", addresses.postgres, addresses.s3, addresses.qdrant),
        )
        .env(DIRECTION_VARIABLE, direction.name())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let mut reports = 0;
    let mut last = String::new();
    for line in BufReader::new(child.stdout.take().unwrap()).lines() {
        let line = line.unwrap();
        if line.starts_with("progress ") {
            reports += 1;
        }
        last = line;
        if last == "finished" || last.contains("failed") {
            break;
        }
        if reports == lines {
            sleep_random_time();
            child.kill().unwrap();
            break;
        }
    }
    child.wait().unwrap();
    let has_finished = last == "finished";
    assert!(
        has_finished || reports == lines,
        "the migration ended without a result after {reports} reports: {last}"
    );
    (has_finished, last)
}

#[tokio::test(flavor = "multi_thread")]
async fn killed_migration_goes_on_where_it_was() {
    let (servers, dir) = (Servers::start(), tempfile::tempdir().unwrap());
    let (from, to) = (dir.path().join("from"), dir.path().join("to"));
    fill_folder(&from, 120).await;
    let (rows, files) = (dump_ledger(&from), dump_files(&from));
    for (data, direction) in [(&from, ToServers), (&to, ToFolder)] {
        let mut kills = Vec::new();
        for lines in 1.. {
            let (finished, last) = migrate_and_kill(data, &servers.addresses(), direction, lines * 37);
            if finished {
                break;
            }
            kills.push(last);
        }
        println!("{}: {} kills", direction.name(), kills.len());
        assert!(kills.len() >= 5, "{kills:#?}");
        assert!(kills.iter().any(|line| line.contains("Copy")), "{kills:#?}");
        assert!(kills.iter().any(|line| line.contains("Verify")), "{kills:#?}");
    }
    for (table, rows) in rows {
        assert_eq!(dump_ledger(&to)[&table], rows, "{table}");
    }
    assert_eq!(dump_files(&to), files);
    let t = tenant_id("acme");
    let (from, to) = (open_storage(&from).await, open_storage(&to).await);
    for page in [1, 60, 120] {
        let query = query_for_page(page);
        let (one, other) = (
            from.vectors.search_by_vector_and_words(&t, &query).await.unwrap(),
            to.vectors.search_by_vector_and_words(&t, &query).await.unwrap(),
        );
        assert_eq!(hit_texts(&one), hit_texts(&other));
    }
    let counted = to
        .vectors
        .count_passages_by_page(&t, &document_id("acme"))
        .await
        .unwrap();
    assert_eq!(
        (counted.len(), counted.iter().all(|(_, count)| *count == 3)),
        (120, true)
    );
    from.close().await.unwrap();
    to.close().await.unwrap();
}
