//! Collection and labels that a job gives its documents.

use std::time::Duration;

use tokio::time::sleep;
use weir_core::Stage;
use weir_core::decision::Label;
use weir_core::filing::Filing;
use weir_core::id::TenantId;
use weir_core::ledger::{DocumentRecord, JobState};
use weir_core::ports::{Ledger as _, VectorStore as _};
use weir_core::search::Query;
use weir_engine::{DocumentEnd, JobSpec};

use crate::fakes::{Fakes, job};

const PAGES: u32 = 6;

fn label(name: &str, value: &str) -> Label {
    (name.into(), value.into())
}

fn filed(fakes: &Fakes, collection: Option<&str>, labels: &[Label]) -> JobSpec {
    JobSpec {
        filing: Filing {
            collection: collection.map(str::to_owned),
            labels: (!labels.is_empty()).then(|| labels.to_vec()),
        },
        ..job([fakes.document("a.pdf", PAGES)])
    }
}

async fn record(fakes: &Fakes) -> DocumentRecord {
    let found = fakes
        .ledger
        .document(&TenantId::single(), &fakes.id("a.pdf"))
        .await;
    found.unwrap().unwrap()
}

/// Pages with passages in a collection under labels.
async fn found(fakes: &Fakes, collection: Option<&str>, labels: &[Label]) -> usize {
    let query = Query {
        text: String::new(),
        dense: Vec::new(),
        top_k: 1000,
        documents: Vec::new(),
        collection: collection.map(str::to_owned),
        labels: labels.to_vec(),
    };
    let hits = fakes.vectors.search(&TenantId::single(), &query).await.unwrap();
    let mut pages: Vec<_> = hits.into_iter().map(|hit| hit.page).collect();
    pages.dedup();
    pages.len()
}

/// Pages done by the job and by earlier ones.
async fn run(fakes: &Fakes, spec: JobSpec) -> (u32, u32) {
    let outcome = fakes.engine().start(spec).wait().await;
    assert_eq!(outcome.state, JobState::Done, "{outcome:?}");
    let DocumentEnd::Done { pages, skipped, .. } = outcome.documents[0].end else {
        panic!("{outcome:?}");
    };
    (pages - skipped, skipped)
}

#[tokio::test(start_paused = true)]
async fn documents_are_filed_as_the_job_asks() {
    let mut fakes = Fakes::new();
    fakes.script.labels = vec![label("class", "secret")];
    let asked = [label("class", "public"), label("team", "north")];
    run(&fakes, filed(&fakes, Some("reports"), &asked)).await;
    let all = PAGES as usize;
    assert_eq!(
        found(&fakes, Some("reports"), &[label("team", "north")]).await,
        all
    );
    // The pipeline's label stands, and its collection does not.
    assert_eq!(found(&fakes, None, &[label("class", "secret")]).await, all);
    assert_eq!(found(&fakes, None, &[label("class", "public")]).await, 0);
    assert_eq!(found(&fakes, Some("default"), &[]).await, 0);
    let record = record(&fakes).await;
    assert_eq!(record.collection, "reports");
    assert_eq!(record.labels, [label("class", "secret"), label("team", "north")]);
}

#[tokio::test(start_paused = true)]
async fn other_labels_do_the_pages_again_and_none_keep_them() {
    let fakes = Fakes::new();
    let (north, south) = ([label("team", "north")], [label("team", "south")]);
    assert_eq!(run(&fakes, filed(&fakes, None, &north)).await, (PAGES, 0));
    assert_eq!(run(&fakes, filed(&fakes, None, &north)).await, (0, PAGES));
    assert_eq!(run(&fakes, filed(&fakes, None, &[])).await, (0, PAGES));
    let forced = JobSpec {
        force: true,
        ..filed(&fakes, None, &[])
    };
    assert_eq!(run(&fakes, forced).await, (PAGES, 0));
    assert_eq!(record(&fakes).await.labels, north);

    let mut part = filed(&fakes, Some("reports"), &south);
    part.documents[0].pages = Some(1..=2);
    assert_eq!(run(&fakes, part).await, (PAGES, 0));
    assert_eq!(found(&fakes, Some("reports"), &south).await, PAGES as usize);
    assert_eq!(found(&fakes, None, &north).await, 0);
    assert_eq!(record(&fakes).await.collection, "reports");
}

#[tokio::test(start_paused = true)]
async fn labels_of_a_job_that_stopped_are_completed() {
    let fakes = Fakes::new().cost(Stage::Read, 1000);
    let (north, south) = ([label("team", "north")], [label("team", "south")]);
    run(&fakes, filed(&fakes, None, &north)).await;
    let engine = fakes.engine();
    let handle = engine.start(filed(&fakes, None, &south));
    while found(&fakes, None, &south).await < 2 {
        sleep(Duration::from_millis(50)).await;
    }
    handle.cancel();
    handle.wait().await;
    let (done, skipped) = run(&fakes, filed(&fakes, None, &[])).await;
    assert!(
        done > 0 && done + skipped == PAGES,
        "{done} done, {skipped} skipped"
    );
    assert_eq!(found(&fakes, None, &south).await, PAGES as usize);
    assert_eq!(found(&fakes, None, &north).await, 0);
}
