use std::fs;
use std::path::Path;
use std::thread;

use weir_core::retention::RetentionPeriods;
use weir_core::tenancy::{Quotas, Tenant, TenantState, TenantStore as _};
use weir_core::usage::{Usage, UsageStore as _};

use super::*;
use crate::data_folder::size_on_disk;
use crate::ledger::SqlLedger;

/// Runs `work` on a thread that may block.
async fn run_blocking<R: Send + 'static>(work: impl FnOnce() -> R + Send + 'static) -> R {
    tokio::task::spawn_blocking(work).await.unwrap()
}

/// Writes a file, replacing what is there.
fn write_file(
    usage: &StorageUsageTracker,
    data: &Path,
    tenant: &TenantId,
    path: &str,
    name: &str,
    bytes: usize,
) {
    let (folder, file) = (data.join(path), data.join(path).join(name));
    let changed = usage.change_files_and_count_bytes(tenant, path, || {
        let grown = i64::try_from(bytes).unwrap() - size_on_disk(&file)?;
        fs::create_dir_all(&folder)?;
        fs::write(&file, vec![0; bytes])?;
        Ok(grown)
    });
    changed.unwrap().unwrap();
}

fn remove_folder(usage: &StorageUsageTracker, data: &Path, tenant: &TenantId, path: &str) {
    let changed = usage.change_files_and_count_bytes(tenant, path, || {
        let bytes = size_on_disk(&data.join(path))?;
        if data.join(path).exists() {
            fs::remove_dir_all(data.join(path))?;
        }
        Ok(-bytes)
    });
    changed.unwrap().unwrap();
}

#[tokio::test]
async fn next_start_measures_only_paths_that_were_changing() {
    let dir = tempfile::tempdir().unwrap();
    let (data, t) = (dir.path().to_owned(), TenantId::default_tenant());
    let ledger = SqlLedger::open_for_test(&data);
    let usage = ledger.storage_usage();
    run_blocking({
        let (usage, data, t) = (usage.clone(), data.clone(), t.clone());
        move || write_file(&usage, &data, &t, "blobs/default/closed", "a", 100)
    })
    .await;
    ledger.close().await;
    fs::write(data.join("blobs/default/closed/stray"), "stray").unwrap();

    let ledger = SqlLedger::open_for_test(&data);
    assert_eq!(ledger.count_stored_bytes(&t).await.unwrap(), 100);
    let usage = ledger.storage_usage();
    run_blocking({
        let (data, t) = (data.clone(), t.clone());
        move || {
            write_file(&usage, &data, &t, "blobs/default/changing", "a", 10);
            // Killed before any transaction had the size.
        }
    })
    .await;
    assert_eq!(ledger.count_stored_bytes(&t).await.unwrap(), 110);
    drop(ledger);
    fs::write(data.join("blobs/default/changing/b"), "b").unwrap();

    for _ in 0..2 {
        let ledger = SqlLedger::open_for_test(&data);
        assert_eq!(ledger.count_stored_bytes(&t).await.unwrap(), 111);
        drop(ledger);
    }
}

/// Changes and removes files while transactions run.
#[tokio::test]
async fn changes_during_transactions_are_counted_once() {
    for round in 0..5_usize {
        let dir = tempfile::tempdir().unwrap();
        let (data, t) = (dir.path().to_owned(), TenantId::default_tenant());
        let ledger = SqlLedger::open_for_test(&data);
        let usage = ledger.storage_usage();
        let writing = tokio::task::spawn_blocking({
            let (data, t) = (data.clone(), t.clone());
            move || {
                thread::scope(|scope| {
                    for writer in 0..3_usize {
                        let (usage, data, t) = (&usage, &data, &t);
                        scope.spawn(move || {
                            for i in 0..150_usize {
                                let path = format!("blobs/default/{}", (i * 7 + writer * 31 + round) % 40);
                                match i % 3 {
                                    0 => remove_folder(usage, data, t, &path),
                                    _ => write_file(usage, data, t, &path, &writer.to_string(), i),
                                }
                            }
                        });
                    }
                });
            }
        });
        while !writing.is_finished() {
            ledger
                .add_daily_usage_of_tenants(1, vec![(t.clone(), Usage::default())])
                .await
                .unwrap();
        }
        writing.await.unwrap();
        let stored_bytes = u64::try_from(size_on_disk(&data.join("blobs")).unwrap()).unwrap();
        assert_eq!(ledger.storage_usage().count_stored_bytes(&t).await, stored_bytes);
        ledger.close().await;
        let ledger = SqlLedger::open_for_test(&data);
        assert_eq!(ledger.count_stored_bytes(&t).await.unwrap(), stored_bytes);
    }
}

#[tokio::test]
async fn file_change_after_ledger_close_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let ledger = SqlLedger::open_for_test(dir.path());
    let usage = ledger.storage_usage();
    run_blocking({
        let (usage, data) = (usage.clone(), dir.path().to_owned());
        move || {
            write_file(
                &usage,
                &data,
                &TenantId::default_tenant(),
                "blobs/default/a",
                "a",
                1,
            )
        }
    })
    .await;
    ledger.close().await;
    for path in ["blobs/default/a", "blobs/default/b"] {
        let usage = usage.clone();
        run_blocking(move || {
            let refused = usage.change_files_and_count_bytes(&TenantId::default_tenant(), path, || {
                panic!("changed after close")
            });
            let error = refused.map_or_else(|e| e.to_string(), |changed| changed.unwrap_err().to_string());
            assert!(error.contains("is already closed"), "{error}");
        })
        .await;
    }
}

#[tokio::test]
async fn file_that_arrives_after_its_tenant_was_removed_is_counted() {
    let dir = tempfile::tempdir().unwrap();
    let (data, t) = (dir.path().to_owned(), "a".parse::<TenantId>().unwrap());
    let ledger = SqlLedger::open_for_test(&data);
    let tenant = Tenant {
        id: t.clone(),
        state: TenantState::Active,
        weight: 1.0,
        quotas: Quotas::default(),
        retention: RetentionPeriods::default(),
        created_millis: 1,
    };
    ledger.create_tenant(&tenant).await.unwrap();
    let write = async |bytes| {
        let (usage, data, t) = (ledger.storage_usage(), data.clone(), t.clone());
        run_blocking(move || write_file(&usage, &data, &t, "blobs/a/d", "a", bytes)).await;
    };
    write(10).await;
    fs::remove_dir_all(dir.path().join("blobs")).unwrap();
    assert!(ledger.remove_tenant(&t).await.unwrap());
    assert_eq!(ledger.count_stored_bytes(&t).await.unwrap(), 0);
    write(15).await;
    let used = vec![(t.clone(), Usage::default())];
    ledger.add_daily_usage_of_tenants(1, used).await.unwrap();
    assert_eq!(ledger.count_stored_bytes(&t).await.unwrap(), 15);
    drop(ledger);
    let ledger = SqlLedger::open_for_test(&data);
    assert_eq!(ledger.count_stored_bytes(&t).await.unwrap(), 15);
}
