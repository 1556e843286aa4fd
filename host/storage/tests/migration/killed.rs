//! Migrations that are killed.

use std::io::{BufRead as _, BufReader};
use std::path::Path;
use std::process::{Command, Stdio};

use crate::fixture::{document_id, open_storage, sleep_random_time, tenant_id};
use weir_storage::MigrationDirection;

use crate::setup::{Addresses, Servers, dump_files, dump_ledger, fill_folder, hit_texts, query_for_page};
use MigrationDirection::{ToFolder, ToServers};

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
            "killed::migration_in_another_process",
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
