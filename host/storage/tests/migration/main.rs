//! Copies of a data folder on servers, and of servers in a data folder: nothing is lost or changed on the way, an interrupted copy goes on, and
//! no side is used meanwhile.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::print_stdout,
    missing_docs
)]

#[path = "../fixture/mod.rs"]
mod fixture;
mod killed;
mod setup;

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

use fixture::{
    DIMENSIONS, MODEL, document_id, make_event, make_point, make_query, open_storage, tenant_id, unit_vector,
};
use weir_conformance::records::{make_job, make_tenant};
use weir_core::job_claim::NodeId;
use weir_core::job_claim_store::JobClaimStore as _;
use weir_core::ledger::{JobState, LedgerEntry};
use weir_core::node::{NodeInfo, NodeRegistry as _, NodeRole};
use weir_core::ports::Ledger as _;
use weir_core::recording::list_recordings;
use weir_core::tenancy::TenantStore as _;
use weir_core::usage::UsageStore as _;
use weir_core::{JobId, TenantId};
use weir_s3_server::Fault;
use weir_storage::{
    ExternalStores, MigratedContent, MigrationDirection, SqlLedger, Storage, search_data_folder,
};

use MigrationDirection::{ToFolder, ToServers};
use setup::{
    Servers, TABLES_OF_RUNNING_NODES, dump_files, dump_ledger, fill_folder, hit_texts, insert_unusual_rows,
    open_ledger_file, query_for_page, table_names,
};

#[tokio::test(flavor = "multi_thread")]
async fn everything_survives_the_way_to_servers_and_back() {
    let (servers, dir) = (Servers::start(), tempfile::tempdir().unwrap());
    // Every listing has several pages.
    servers.s3.set_page_keys(7);
    let (from, to) = (dir.path().join("from"), dir.path().join("to"));
    fill_folder(&from, 20).await;
    insert_unusual_rows(&from);
    let (rows, files) = (dump_ledger(&from), dump_files(&from));
    assert_eq!(files.len(), 2 * (2 * 20 + 4));

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

async fn read_recordings(storage: &Storage, tenant: &TenantId) -> Vec<Vec<u8>> {
    let mut read = Vec::new();
    for recording in list_recordings(&*storage.recordings).await.unwrap() {
        let list = storage.recordings.list_sessions(tenant, &recording.job);
        for session in list.await.unwrap() {
            let bytes = storage
                .recordings
                .read_session(tenant, &recording.job, &session.name);
            read.push(bytes.await.unwrap().unwrap());
        }
    }
    read
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
    assert_eq!((hits.len(), events.len(), bytes), (10, 30, 30 * 41_000 + 14 + 4));

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
        assert_eq!(read_recordings(&storage, &t).await, [b"calls of acme"]);
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
        storage
            .blobs
            .put_blob(&t, &key, &vec![1; 30 * 41_000])
            .await
            .unwrap();
        storage.close().await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn ledger_alone_and_objects_alone_are_copied() {
    let (servers, dir) = (Servers::start(), tempfile::tempdir().unwrap());
    let (data, t) = (dir.path(), tenant_id("acme"));
    fill_folder(data, 3).await;
    let addresses = servers.addresses();
    let bytes = 3 * 41_000 + 14 + 4;
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
async fn unfinished_sides_are_refused_and_changed_copies_are_found() {
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
    servers.s3.replace_object(&key, &[9; 40_000]);
    find_difference("is different in the target").await;
    // An object of another size is copied again, and so are missing rows.
    servers.s3.replace_object(&key, &[9; 9]);
    addresses.migrate(&from, ToServers).await.unwrap();
    assert_eq!(servers.postgres.query("SELECT count(*) FROM pages"), "10");
    open_storage(&from).await.close().await.unwrap();
}
