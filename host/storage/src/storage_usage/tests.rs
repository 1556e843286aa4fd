use std::sync::Arc;
use std::time::Duration;

use super::*;

fn unset_stop_flag() -> AtomicBool {
    AtomicBool::new(false)
}

/// Writes a file of a unit, replacing what is there.
fn write_unit_file(kept: &StorageUsage, tenant: &TenantId, unit: &Path, name: &str, bytes: usize) {
    let path = unit.join(name);
    kept.change_files(tenant, unit, || {
        let grown = i64::try_from(bytes).unwrap() - size_on_disk(&path)?;
        fs::create_dir_all(unit)?;
        fs::write(&path, vec![0; bytes])?;
        Ok(grown)
    })
    .unwrap();
}

fn remove_unit(kept: &StorageUsage, tenant: &TenantId, unit: &Path) {
    kept.change_files(tenant, unit, || {
        let bytes = size_on_disk(unit)?;
        if unit.exists() {
            fs::remove_dir_all(unit)?;
        }
        Ok(-bytes)
    })
    .unwrap();
}

#[test]
fn a_recount_replaces_a_wrong_number() {
    let dir = tempfile::tempdir().unwrap();
    let folder = dir.path().join("t");
    let t = TenantId::default_tenant();
    let kept = StorageUsage::from_saved([(t.clone(), 1_000_000)]);
    kept.begin_recount(&t);
    write_unit_file(&kept, &t, &folder.join("d"), "a", 10);
    assert_eq!(kept.stored_bytes(&t), 1_000_010);
    kept.run_recount(&t, &[folder.clone(), dir.path().join("none")], &unset_stop_flag())
        .unwrap();
    assert_eq!(kept.stored_bytes(&t), 10);
    assert_eq!(kept.take_unsaved(), [(t.clone(), 10)]);
    write_unit_file(&kept, &t, &folder.join("d"), "b", 5);
    assert_eq!(kept.stored_bytes(&t), 15);
    assert_eq!(kept.close(), [(t, 15, true)]);
}

#[test]
fn a_stopped_recount_is_not_exact() {
    let dir = tempfile::tempdir().unwrap();
    let t = TenantId::default_tenant();
    let kept = StorageUsage::from_saved([(t.clone(), 7)]);
    fs::write(dir.path().join("d"), "x").unwrap();
    kept.begin_recount(&t);
    kept.run_recount(&t, &[dir.path().to_owned()], &AtomicBool::new(true))
        .unwrap();
    assert_eq!(kept.close(), [(t, 7, false)]);
}

/// Creates, changes and removes units while they are counted.
#[test]
fn changes_beside_a_recount_are_counted_once() {
    for round in 0..20 {
        let dir = tempfile::tempdir().unwrap();
        let folder = dir.path().join("t");
        let t = TenantId::default_tenant();
        let kept = Arc::new(StorageUsage::from_saved([]));
        for unit in 0..60 {
            write_unit_file(&kept, &t, &folder.join(unit.to_string()), "a", 100);
        }
        kept.begin_recount(&t);
        std::thread::scope(|scope| {
            for writer in 0..3_usize {
                let (kept, t, folder) = (&kept, &t, &folder);
                scope.spawn(move || {
                    for i in 0..150_usize {
                        let unit = folder.join(((i * 7 + writer * 31 + round) % 90).to_string());
                        match i % 3 {
                            0 => remove_unit(kept, t, &unit),
                            _ => write_unit_file(kept, t, &unit, &format!("{writer}"), i),
                        }
                    }
                });
            }
            kept.run_recount(&t, std::slice::from_ref(&folder), &unset_stop_flag())
                .unwrap();
        });
        let there = u64::try_from(size_on_disk(&folder).unwrap()).unwrap();
        assert_eq!(kept.close(), [(t, there, true)]);
    }
}

/// Removes files before the recount lists them, and reports the removal after the recount would have finished.
#[test]
fn removal_during_recount_is_subtracted_once() {
    let dir = tempfile::tempdir().unwrap();
    let (folder, t) = (dir.path().join("t"), TenantId::default_tenant());
    let kept = StorageUsage::from_saved([]);
    write_unit_file(&kept, &t, &folder.join("stays"), "a", 10);
    let goes = folder.join("goes");
    write_unit_file(&kept, &t, &goes, "a", 100);
    kept.begin_recount(&t);
    let (ended, end) = std::sync::mpsc::channel();
    std::thread::scope(|scope| {
        kept.change_files(&t, &goes, || {
            fs::remove_dir_all(&goes)?;
            scope.spawn(|| {
                kept.run_recount(&t, std::slice::from_ref(&folder), &unset_stop_flag())
                    .unwrap();
                ended.send(()).unwrap();
            });
            // The recount must wait for this change. Without the wait it would finish within this time.
            assert!(end.recv_timeout(Duration::from_millis(300)).is_err());
            Ok(-100)
        })
        .unwrap();
    });
    assert_eq!(kept.close(), [(t, 10, true)]);
}

#[test]
fn change_after_close_fails() {
    let t = TenantId::default_tenant();
    let kept = StorageUsage::from_saved([]);
    kept.close();
    let refused = kept.change_files(&t, Path::new("u"), || panic!("the change ran after close"));
    assert_eq!(refused.unwrap_err().to_string(), "is closed");
}

#[test]
fn usage_stays_unsaved_until_it_is_saved() {
    let t = TenantId::default_tenant();
    let kept = StorageUsage::from_saved([(t.clone(), 5)]);
    assert!(kept.take_unsaved().is_empty());
    kept.change_files(&t, Path::new("u"), || Ok(3)).unwrap();
    let taken = kept.take_unsaved();
    assert_eq!(taken, [(t.clone(), 8)]);
    assert!(kept.take_unsaved().is_empty());
    kept.mark_unsaved(&taken);
    assert_eq!(kept.take_unsaved(), taken);
}
