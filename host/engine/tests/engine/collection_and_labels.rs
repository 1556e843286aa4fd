//! The collection and labels that a job gives its documents.

use std::time::Duration;

use tokio::time::sleep;
use weir_core::Stage;
use weir_core::collection_and_labels::CollectionAndLabelsRequest;
use weir_core::decision::Label;
use weir_core::id::TenantId;
use weir_core::ledger::{DocumentRecord, JobState};
use weir_core::ports::{Ledger as _, VectorStore as _};
use weir_core::search::SearchQuery;
use weir_engine::{DocumentEndState, JobSpec};

use crate::fakes::{FakeHost, single_tenant_job};

const DOCUMENT_PAGES: u32 = 6;

fn label_pair(name: &str, value: &str) -> Label {
    (name.into(), value.into())
}

fn filed_job(fakes: &FakeHost, collection: Option<&str>, labels: &[Label]) -> JobSpec {
    JobSpec {
        requested_placement: CollectionAndLabelsRequest {
            collection: collection.map(str::to_owned),
            labels: (!labels.is_empty()).then(|| labels.to_vec()),
        },
        ..single_tenant_job([fakes.document_spec("a.pdf", DOCUMENT_PAGES)])
    }
}

async fn document_record(fakes: &FakeHost) -> DocumentRecord {
    let found = fakes
        .ledger
        .find_document(&TenantId::default_tenant(), &fakes.document_id("a.pdf"))
        .await;
    found.unwrap().unwrap()
}

/// Counts the pages that have passages in a collection with labels.
async fn count_pages_found(fakes: &FakeHost, collection: Option<&str>, labels: &[Label]) -> usize {
    let query = SearchQuery {
        query_text: String::new(),
        dense_vector: Vec::new(),
        top_k: 1000,
        documents: Vec::new(),
        collection: collection.map(str::to_owned),
        labels: labels.to_vec(),
    };
    let hits = fakes
        .vectors
        .search_by_vector_and_words(&TenantId::default_tenant(), &query)
        .await
        .unwrap();
    let mut pages: Vec<_> = hits.into_iter().map(|hit| hit.page).collect();
    pages.dedup();
    pages.len()
}

/// Runs a job. Returns the number of pages that it has done, and of those that earlier jobs have done.
async fn run_job(fakes: &FakeHost, spec: JobSpec) -> (u32, u32) {
    let outcome = fakes
        .build_engine()
        .start_or_resume_job(spec)
        .await_outcome()
        .await;
    assert_eq!(outcome.state, JobState::Done, "{outcome:?}");
    let DocumentEndState::Done { pages, skipped, .. } = outcome.documents[0].end else {
        panic!("{outcome:?}");
    };
    (pages - skipped, skipped)
}

#[tokio::test(start_paused = true)]
async fn documents_get_collection_and_labels_of_the_job() {
    let mut fakes = FakeHost::new();
    fakes.script.labels = vec![label_pair("class", "secret")];
    let job_labels = [label_pair("class", "public"), label_pair("team", "north")];
    run_job(&fakes, filed_job(&fakes, Some("reports"), &job_labels)).await;
    let all = DOCUMENT_PAGES as usize;
    assert_eq!(
        count_pages_found(&fakes, Some("reports"), &[label_pair("team", "north")]).await,
        all
    );
    // The pipeline's label overrides that of the job, and the job's collection overrides that of the pipeline.
    assert_eq!(
        count_pages_found(&fakes, None, &[label_pair("class", "secret")]).await,
        all
    );
    assert_eq!(
        count_pages_found(&fakes, None, &[label_pair("class", "public")]).await,
        0
    );
    assert_eq!(count_pages_found(&fakes, Some("default"), &[]).await, 0);
    let record = document_record(&fakes).await;
    assert_eq!(record.collection, "reports");
    assert_eq!(
        record.labels,
        [label_pair("class", "secret"), label_pair("team", "north")]
    );
}

#[tokio::test(start_paused = true)]
async fn changed_labels_reprocess_pages_and_omitted_labels_do_not() {
    let fakes = FakeHost::new();
    let (north, south) = ([label_pair("team", "north")], [label_pair("team", "south")]);
    assert_eq!(
        run_job(&fakes, filed_job(&fakes, None, &north)).await,
        (DOCUMENT_PAGES, 0)
    );
    assert_eq!(
        run_job(&fakes, filed_job(&fakes, None, &north)).await,
        (0, DOCUMENT_PAGES)
    );
    assert_eq!(
        run_job(&fakes, filed_job(&fakes, None, &[])).await,
        (0, DOCUMENT_PAGES)
    );
    let forced = JobSpec {
        force: true,
        ..filed_job(&fakes, None, &[])
    };
    assert_eq!(run_job(&fakes, forced).await, (DOCUMENT_PAGES, 0));
    assert_eq!(document_record(&fakes).await.labels, north);

    let mut part = filed_job(&fakes, Some("reports"), &south);
    part.documents[0].pages = Some(1..=2);
    assert_eq!(run_job(&fakes, part).await, (DOCUMENT_PAGES, 0));
    assert_eq!(
        count_pages_found(&fakes, Some("reports"), &south).await,
        DOCUMENT_PAGES as usize
    );
    assert_eq!(count_pages_found(&fakes, None, &north).await, 0);
    assert_eq!(document_record(&fakes).await.collection, "reports");
}

#[tokio::test(start_paused = true)]
async fn next_job_completes_labels_of_a_stopped_job() {
    let fakes = FakeHost::new().with_cost(Stage::Read, 1000);
    let (north, south) = ([label_pair("team", "north")], [label_pair("team", "south")]);
    run_job(&fakes, filed_job(&fakes, None, &north)).await;
    let engine = fakes.build_engine();
    let handle = engine.start_or_resume_job(filed_job(&fakes, None, &south));
    while count_pages_found(&fakes, None, &south).await < 2 {
        sleep(Duration::from_millis(50)).await;
    }
    handle.cancel_job();
    handle.await_outcome().await;
    let (done, skipped) = run_job(&fakes, filed_job(&fakes, None, &[])).await;
    assert!(
        done > 0 && done + skipped == DOCUMENT_PAGES,
        "{done} done, {skipped} skipped"
    );
    assert_eq!(
        count_pages_found(&fakes, None, &south).await,
        DOCUMENT_PAGES as usize
    );
    assert_eq!(count_pages_found(&fakes, None, &north).await, 0);
}
