use std::sync::Arc;

use weir_core::ledger::{Entry, JobState};
use weir_core::ports::{Ledger, PolicyState};
use weir_core::{JobId, TenantId};

use super::*;
use crate::folder::FolderLock;
use crate::ledger::{LedgerReader, SqliteLedger, TenantDesk};

const DOCUMENT: &str = "2cd4850806f322eda26dd408bb5c3dc39ddd86bcec2d3746a8f5026db2b01b21";
const REVISION: &str = "149c9597429f170e7fae80e7b0ed97b08f3f9f444598037c8cd1e6e31ad52a75";
const EARLIER: &str = "01a1fdd5-a0d3-75c6-888e-21a103602757";
const LATER: &str = "01a1fdd6-a0d3-75c6-888e-21a103602757";

/// A file with the first schema and rows as its version wrote them, two jobs' events in the order of no job.
fn of_the_first_schema(data: &Path) {
    let c = Connection::open(data.join("ledger.db")).unwrap();
    c.pragma_update(None, "journal_mode", "wal").unwrap();
    c.execute_batch(include_str!("../schema/1.sql")).unwrap();
    c.pragma_update(None, "user_version", 1).unwrap();
    c.execute_batch(&format!(
        r#"
        INSERT INTO documents VALUES
            ('default', '{DOCUMENT}', 'letter-scan.pdf', 175889, 3, NULL, '[]', 'default', 1795259998449);
        INSERT INTO pages VALUES ('default', '{DOCUMENT}', 3, '{REVISION}', '{EARLIER}',
            '{{"state":"done","source":"ocr","passages":2,"image":"{DOCUMENT}/3/image/150.jpg","text":"{DOCUMENT}/3/ocr.json"}}');
        INSERT INTO policy_state VALUES ('default', 'default', 'k', x'0102');
        "#
    ))
    .unwrap();
    for (job, state, millis) in [(LATER, "running", 2), (EARLIER, "done", 1)] {
        c.execute(
            "INSERT INTO jobs VALUES ('default', ?1, 'default', ?2, ?3, ?4)",
            (job, REVISION, state, millis),
        )
        .unwrap();
        for seq in [2, 1] {
            let event = format!(
                r#"{{"seq":{seq},"job":"{job}","document":"{DOCUMENT}","at_millis":29,"type":"document-started","name":"letter-scan.pdf","pages":3,"already_done":0}}"#
            );
            c.execute(
                "INSERT INTO events VALUES ('default', ?1, ?2, ?3)",
                (job, seq, event),
            )
            .unwrap();
        }
    }
}

fn open(data: &Path) -> SqliteLedger {
    let lock = Arc::new(FolderLock::take(data).unwrap());
    SqliteLedger::open(data, lock).unwrap().0
}

#[tokio::test]
async fn a_file_of_the_first_schema_keeps_everything() {
    let dir = tempfile::tempdir().unwrap();
    of_the_first_schema(dir.path());
    let t = TenantId::single();
    let (document, revision) = (DOCUMENT.parse().unwrap(), REVISION.parse().unwrap());
    let jobs: [JobId; 2] = [EARLIER.parse().unwrap(), LATER.parse().unwrap()];
    // Whoever only reads does not wait for someone to write.
    let reader = LedgerReader::open(dir.path()).unwrap();
    assert_eq!(reader.documents(&t).await.unwrap().len(), 1);

    for _ in 0..2 {
        let ledger = open(dir.path());
        let kept = ledger.document(&t, &document).await.unwrap().unwrap();
        assert_eq!((kept.bytes, kept.created_millis), (175_889, 1_795_259_998_449));
        let pages = ledger.pages(&t, &document, Some(&revision)).await.unwrap();
        assert_eq!(pages.iter().map(|p| p.page).collect::<Vec<_>>(), [3]);
        let unfinished = ledger.unfinished().await.unwrap();
        assert_eq!(unfinished.iter().map(|j| j.id).collect::<Vec<_>>(), [jobs[1]]);
        assert_eq!(
            ledger.job(&t, &jobs[0]).await.unwrap().unwrap().state,
            JobState::Done
        );
        assert_eq!(ledger.get(&t, "default", "k").await.unwrap().unwrap(), [1_u8, 2]);
        for job in &jobs {
            let events = ledger.events(&t, job, 0, 10).await.unwrap();
            assert_eq!(events.iter().map(|e| e.seq).collect::<Vec<_>>(), [1, 2]);
        }
        let all = ledger.tenant_events(&t, 0, 10).await.unwrap();
        let places: Vec<_> = all.iter().map(|(_, e)| (e.job, e.seq)).collect();
        assert_eq!(places, [(jobs[0], 1), (jobs[0], 2), (jobs[1], 1), (jobs[1], 2)]);
        // Written again, as a job does that goes on after a restart.
        let again = all[3].1.clone();
        ledger.commit(vec![Entry::Event(t.clone(), again)]).await.unwrap();
        assert_eq!(ledger.tenant_events(&t, 0, 10).await.unwrap(), all);
        ledger.close().await;
    }
    assert_eq!(reader.documents(&t).await.unwrap().len(), 1);
}

#[tokio::test]
async fn a_command_brings_a_file_up_to_date_that_nobody_holds() {
    let dir = tempfile::tempdir().unwrap();
    of_the_first_schema(dir.path());
    let held = FolderLock::take(dir.path()).unwrap();
    let refused = TenantDesk::open(dir.path()).await.err().unwrap();
    assert!(matches!(refused, StorageError::InUse { .. }), "{refused}");
    drop(held);
    TenantDesk::open(dir.path()).await.unwrap();
    let file = dir.path().join("ledger.db");
    assert_eq!(
        Database::beside(&file).unwrap().unwrap().steps().unwrap(),
        STEPS.len()
    );
}

#[tokio::test]
async fn a_file_of_a_later_schema_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    open(dir.path()).close().await;
    let file = dir.path().join("ledger.db");
    let c = Connection::open(&file).unwrap();
    c.pragma_update(None, "user_version", 99).unwrap();
    for refused in [
        Database::create(&file).err(),
        Database::beside(&file).err(),
        Database::read_only(&file).err(),
    ] {
        let refused = refused.unwrap().to_string();
        assert!(refused.contains("version 99"), "{refused}");
    }
}

#[test]
fn what_others_could_read_is_closed_to_them() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("ledger.db");
    fs::write(&file, "").unwrap();
    fs::set_permissions(&file, PermissionsExt::from_mode(0o644)).unwrap();
    let database = Database::create(&file).unwrap();
    database
        .change(|t| t.execute_batch("CREATE TABLE x (y)"))
        .unwrap();
    for name in ["ledger.db", "ledger.db-wal", "ledger.db-shm"] {
        let mode = fs::metadata(dir.path().join(name)).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600, "{name}");
    }
}

/// The statements that come with every request or page, and how SQLite finds their rows.
#[test]
fn nothing_is_found_by_looking_through_a_table() {
    let dir = tempfile::tempdir().unwrap();
    let database = Database::create(&dir.path().join("ledger.db")).unwrap();
    for statement in [
        "SELECT place, event FROM events WHERE tenant = 'a' AND place > 7 ORDER BY place LIMIT 9",
        "SELECT event FROM events WHERE tenant = 'a' AND job = 'b' AND seq > 7 ORDER BY seq LIMIT 9",
        "SELECT id FROM keys WHERE id = 'k'",
        "SELECT id FROM jobs WHERE tenant = 'a' AND id < 'b' ORDER BY id DESC LIMIT 9",
        "SELECT id FROM jobs WHERE tenant = 'a' AND state = 'done' AND id < 'b' ORDER BY id DESC LIMIT 9",
        "SELECT digest FROM words WHERE tenant = 'a' AND word = 'w'",
        "SELECT tenant, word FROM words WHERE created_millis < 9 ORDER BY created_millis LIMIT 8",
    ] {
        let plan: Vec<String> = database
            .with(|c| {
                c.prepare(&format!("EXPLAIN QUERY PLAN {statement}"))?
                    .query_map([], |row| row.get(3))?
                    .collect()
            })
            .unwrap();
        assert_eq!(plan.len(), 1, "{statement}: {plan:?}");
        assert!(plan[0].starts_with("SEARCH"), "{statement}: {plan:?}");
        assert!(
            !statement.contains("place >") || plan[0].contains("rowid>?"),
            "{plan:?}"
        );
    }
}
