//! How fast a data folder is copied to servers and back, and compared.
//!
//! The servers run on this machine and share its cores with the migration: PostgreSQL, which does not sync its files, and the servers of S3's
//! and Qdrant's protocol that keep everything in memory. `cargo bench --profile dev -p weir-storage --bench migration` prints a table.
#![allow(
    clippy::unwrap_used,
    clippy::print_stdout,
    clippy::cast_precision_loss,
    missing_docs
)]

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use rusqlite::Connection;
use uuid::Uuid;
use weir_core::search::IndexPoint;
use weir_core::tenancy::TenantStore as _;
use weir_core::{DocumentId, Rect, TenantId};
use weir_qdrant_protocol::QdrantProtocolServer;
use weir_s3_server::{ACCESS_KEY, BUCKET, S3TestServer, SECRET_KEY};
use weir_storage::{
    MigratedContent, Migration, MigrationDirection, MigrationServers, MigrationStep,
    PostgresConnectionSettings, QdrantConnection, S3Bucket, S3Connection, S3Credentials,
    ServerSideEncryption, Storage,
};
use weir_test_services::PostgresServer;

const DIMENSIONS: usize = 384;
const MODEL: &str = "bench-model";
const EVENTS: u32 = 200_000;
const PAGES: u32 = 20_000;
const BLOBS: u32 = 2_000;
const BLOB_BYTES: usize = 40_000;
const POINTS: u32 = 10_000;

fn main() {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .unwrap();
    runtime.block_on(measure());
}

async fn measure() {
    let (postgres, s3, qdrant) = (
        PostgresServer::start(),
        S3TestServer::start(),
        QdrantProtocolServer::start(),
    );
    let folder = tempfile::tempdir().unwrap();
    let (from, to) = (folder.path().join("from"), folder.path().join("to"));
    let began = Instant::now();
    fill_folder(&from).await;
    println!("filled in {:.0} s", began.elapsed().as_secs_f64());
    for (data, direction) in [
        (&from, MigrationDirection::ToServers),
        (&to, MigrationDirection::ToFolder),
    ] {
        let migration = Migration {
            data: data.clone(),
            direction,
            servers: MigrationServers {
                ledger: Some(PostgresConnectionSettings {
                    url: postgres.url(),
                    password: None,
                    max_connections: 4,
                }),
                bucket: Some(connect_bucket(&s3).await),
                vectors: Some(QdrantConnection {
                    url: qdrant.url(),
                    api_key: None,
                    replication_factor: 1,
                }),
            },
            model: MODEL.into(),
            dimensions: DIMENSIONS,
        };
        let times = Arc::<Mutex<Times>>::default();
        let recorded = Arc::clone(&times);
        let began = Instant::now();
        let report = move |progress: &weir_storage::MigrationProgress| {
            recorded.lock().add(progress.step, store_of(&progress.subject));
        };
        let copied = migration.run(&report).await.unwrap();
        let total = began.elapsed();
        println!("{}: {:.1} s", direction.name(), total.as_secs_f64());
        times.lock().print(&copied);
    }
}

fn store_of(subject: &str) -> &'static str {
    match subject {
        "points" => "vectors",
        table if table.starts_with("table ") => "ledger",
        _ => "blobs",
    }
}

/// The time of each step, from one report to the next.
#[derive(Default)]
struct Times {
    last: Option<(Instant, bool, &'static str)>,
    spent: BTreeMap<(&'static str, bool), Duration>,
}

impl Times {
    fn add(&mut self, step: MigrationStep, store: &'static str) {
        let now = Instant::now();
        let is_copy = step == MigrationStep::Copy;
        if let Some((at, was_copy, before)) = self.last {
            *self.spent.entry((before, was_copy)).or_default() += now - at;
        }
        self.last = Some((now, is_copy, store));
    }

    fn print(&self, copied: &[MigratedContent]) {
        for ((store, is_copy), spent) in &self.spent {
            let parts = || copied.iter().filter(|part| part.store == *store);
            let count: u64 = parts().map(|part| part.count).sum();
            let bytes: u64 = parts().filter_map(|part| part.bytes).sum();
            let seconds = spent.as_secs_f64();
            println!(
                "  {:<8} {:<8} {count:>8} in {seconds:>6.1} s: {:>8.0}/s {:>6.1} MB/s",
                if *is_copy { "copy" } else { "compare" },
                store,
                count as f64 / seconds,
                bytes as f64 / 1e6 / seconds
            );
        }
    }
}

async fn connect_bucket(s3: &S3TestServer) -> Arc<S3Bucket> {
    let connection = S3Connection {
        location: format!("s3://{BUCKET}/weir").parse().unwrap(),
        endpoint: Some(s3.url()),
        region: Some("eu-central-1".into()),
        path_style: true,
        credentials: Some(S3Credentials {
            access_key: ACCESS_KEY.into(),
            secret_key: SECRET_KEY.into(),
        }),
        server_side_encryption: ServerSideEncryption::BucketDefault,
        max_cache_bytes: 0,
        max_copy_bytes: S3Connection::MAX_COPY_BYTES,
        attempt_timeout: S3Connection::ATTEMPT_TIMEOUT,
    };
    Arc::new(S3Bucket::connect(&connection).await.unwrap())
}

async fn fill_folder(data: &Path) {
    let storage = Storage::open_or_create(data, DIMENSIONS, MODEL).await.unwrap();
    let tenant = TenantId::default_tenant();
    let record = weir_conformance::records::make_tenant(&tenant);
    storage.ledger.create_tenant(&record).await.unwrap();
    for number in 0..BLOBS {
        let document = DocumentId::from_content(&(number / 100).to_le_bytes());
        let key = format!("{document}/{number}/image/150.jpg");
        let bytes = vec![number as u8; BLOB_BYTES];
        storage.blobs.put_blob(&tenant, &key, &bytes).await.unwrap();
    }
    for first in (0..POINTS).step_by(1000) {
        let points = (first..first + 1000).map(make_point).collect();
        storage
            .vectors
            .upsert_points(&tenant, "main", points)
            .await
            .unwrap();
    }
    storage.close().await.unwrap();
    let c = Connection::open(data.join("ledger.db")).unwrap();
    c.execute_batch(&format!(
        "BEGIN;
         WITH RECURSIVE n (i) AS (SELECT 0 UNION ALL SELECT i + 1 FROM n WHERE i + 1 < {EVENTS})
         INSERT INTO events (tenant, job, seq, event) SELECT 'default', printf('job-%06d', i / 100), i % 100,
             printf('{{\"seq\":%d,\"job\":\"%d\",\"document\":null,\"since_job_created_millis\":%d,\"type\":\"page-done\",\"page\":%d,\"searchable\":true,\"passages\":3}}', i, i, i, i) FROM n;
         WITH RECURSIVE n (i) AS (SELECT 0 UNION ALL SELECT i + 1 FROM n WHERE i + 1 < {PAGES})
         INSERT INTO pages (tenant, document, page, revision, job, state) SELECT 'default', printf('%064d', i / 100), i % 100,
             printf('%064d', 7), 'job', '{{\"state\":\"done\",\"source\":\"text-layer\",\"passages\":2,\"image\":null,\"text\":null}}' FROM n;
         COMMIT"
    ))
    .unwrap();
}

fn make_point(number: u32) -> IndexPoint {
    let mut dense_vector: Vec<f32> = (0..DIMENSIONS as u32)
        .map(|axis| ((number.wrapping_mul(31).wrapping_add(axis * 17)) % 101) as f32 - 50.0)
        .collect();
    let length = dense_vector.iter().map(|x| x * x).sum::<f32>().sqrt();
    dense_vector.iter_mut().for_each(|x| *x /= length);
    let words: Vec<String> = (0..40)
        .map(|word| format!("word{}", number.wrapping_mul(7 + word) % 5000))
        .collect();
    IndexPoint {
        id: Uuid::from_u128(u128::from(number)),
        document: DocumentId::from_content(&(number / 100).to_le_bytes()),
        document_name: "a.pdf".into(),
        page: number % 100 + 1,
        passage: number % 3,
        text: words.join(" "),
        rect: Rect {
            x: 0.1,
            y: 0.2,
            width: 0.7,
            height: 0.05,
        },
        dense_vector,
        labels: Vec::new(),
        image: Some("1.jpg".into()),
        lines: None,
    }
}
