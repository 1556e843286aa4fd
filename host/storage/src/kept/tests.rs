use std::sync::Arc;
use std::time::Duration;

use super::*;

fn never() -> AtomicBool {
    AtomicBool::new(false)
}

/// Writes a file of a unit, replacing what is there.
fn write(kept: &Kept, tenant: &TenantId, unit: &Path, name: &str, bytes: usize) {
    let path = unit.join(name);
    kept.change(tenant, unit, || {
        let grown = i64::try_from(bytes).unwrap() - size(&path)?;
        fs::create_dir_all(unit)?;
        fs::write(&path, vec![0; bytes])?;
        Ok(grown)
    })
    .unwrap();
}

fn remove(kept: &Kept, tenant: &TenantId, unit: &Path) {
    kept.change(tenant, unit, || {
        let bytes = size(unit)?;
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
    let t = TenantId::single();
    let kept = Kept::new([(t.clone(), 1_000_000)]);
    kept.doubt(&t);
    write(&kept, &t, &folder.join("d"), "a", 10);
    assert_eq!(kept.bytes(&t), 1_000_010);
    kept.recount(&t, &[folder.clone(), dir.path().join("none")], &never())
        .unwrap();
    assert_eq!(kept.bytes(&t), 10);
    assert_eq!(kept.take_unwritten(), [(t.clone(), 10)]);
    write(&kept, &t, &folder.join("d"), "b", 5);
    assert_eq!(kept.bytes(&t), 15);
    assert_eq!(kept.close(), [(t, 15, true)]);
}

#[test]
fn a_recount_that_was_stopped_stays_in_doubt() {
    let dir = tempfile::tempdir().unwrap();
    let t = TenantId::single();
    let kept = Kept::new([(t.clone(), 7)]);
    fs::write(dir.path().join("d"), "x").unwrap();
    kept.doubt(&t);
    kept.recount(&t, &[dir.path().to_owned()], &AtomicBool::new(true))
        .unwrap();
    assert_eq!(kept.close(), [(t, 7, false)]);
}

/// Units are made, changed and removed while they are counted, at every moment that there is.
#[test]
fn changes_beside_a_recount_are_counted_once() {
    for round in 0..20 {
        let dir = tempfile::tempdir().unwrap();
        let folder = dir.path().join("t");
        let t = TenantId::single();
        let kept = Arc::new(Kept::new([]));
        for unit in 0..60 {
            write(&kept, &t, &folder.join(unit.to_string()), "a", 100);
        }
        kept.doubt(&t);
        std::thread::scope(|scope| {
            for writer in 0..3_usize {
                let (kept, t, folder) = (&kept, &t, &folder);
                scope.spawn(move || {
                    for i in 0..150_usize {
                        let unit = folder.join(((i * 7 + writer * 31 + round) % 90).to_string());
                        match i % 3 {
                            0 => remove(kept, t, &unit),
                            _ => write(kept, t, &unit, &format!("{writer}"), i),
                        }
                    }
                });
            }
            kept.recount(&t, std::slice::from_ref(&folder), &never()).unwrap();
        });
        let there = u64::try_from(size(&folder).unwrap()).unwrap();
        assert_eq!(kept.close(), [(t, there, true)]);
    }
}

/// The removal's files are gone before the recount lists what there is, and it is told after the recount would have ended.
#[test]
fn a_removal_under_way_at_a_recount_is_taken_off_once() {
    let dir = tempfile::tempdir().unwrap();
    let (folder, t) = (dir.path().join("t"), TenantId::single());
    let kept = Kept::new([]);
    write(&kept, &t, &folder.join("stays"), "a", 10);
    let goes = folder.join("goes");
    write(&kept, &t, &goes, "a", 100);
    kept.doubt(&t);
    let (ended, end) = std::sync::mpsc::channel();
    std::thread::scope(|scope| {
        kept.change(&t, &goes, || {
            fs::remove_dir_all(&goes)?;
            scope.spawn(|| {
                kept.recount(&t, std::slice::from_ref(&folder), &never()).unwrap();
                ended.send(()).unwrap();
            });
            // It does not end before this is told; were it to, it would within this time.
            assert!(end.recv_timeout(Duration::from_millis(300)).is_err());
            Ok(-100)
        })
        .unwrap();
    });
    assert_eq!(kept.close(), [(t, 10, true)]);
}

#[test]
fn what_is_closed_is_not_changed() {
    let t = TenantId::single();
    let kept = Kept::new([]);
    kept.close();
    let refused = kept.change(&t, Path::new("u"), || panic!("it was changed"));
    assert_eq!(refused.unwrap_err().to_string(), "is closed");
}

#[test]
fn numbers_are_written_until_they_are() {
    let t = TenantId::single();
    let kept = Kept::new([(t.clone(), 5)]);
    assert!(kept.take_unwritten().is_empty());
    kept.change(&t, Path::new("u"), || Ok(3)).unwrap();
    let taken = kept.take_unwritten();
    assert_eq!(taken, [(t.clone(), 8)]);
    assert!(kept.take_unwritten().is_empty());
    kept.owe(&taken);
    assert_eq!(kept.take_unwritten(), taken);
}
