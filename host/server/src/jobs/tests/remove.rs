//! Removal of ended jobs.

use weir_control::testing::job_record;
use weir_core::document_removal::DocumentRemovalStore as _;
use weir_core::job_request::JobRequestStore as _;
use weir_core::ledger::{JobState, LedgerEntry};
use weir_core::ports::Ledger as _;
use weir_core::tenancy::KeyScope;

use crate::fakes::TestHost;

#[tokio::test]
async fn only_an_ended_job_is_removed_with_its_history() {
    let host = TestHost::new();
    let (a, key) = host.create_tenant("a", &[KeyScope::Ingest, KeyScope::Read]).await;
    let (_, reader) = host.create_tenant("b", &[KeyScope::Read]).await;
    let (_, other) = host.create_tenant("c", &[KeyScope::Ingest]).await;
    let job = host.submit_accepted_file(&key, "1 pages").await;
    let path = format!("/v1/jobs/{job}/history");
    for (state, status) in [
        (JobState::Queued, 409),
        (JobState::Running, 409),
        (JobState::Failed, 204),
    ] {
        host.store
            .commit_entries(vec![LedgerEntry::Job(job_record(&a, job, state))])
            .await
            .unwrap();
        assert_eq!(host.send_delete(&path, &reader).await.status(), 403);
        assert_eq!(host.send_delete(&path, &other).await.status(), 404);
        assert_eq!(host.uploads.file_names().len(), 1, "the upload stays");
        assert_eq!(host.send_delete(&path, &key).await.status(), status, "{state:?}");
    }
    assert_eq!(
        host.store.list_job_events(&a, &job, 0, 9).await.unwrap(),
        [],
        "its events are removed"
    );
    assert_eq!(
        host.send_get(&format!("/v1/jobs/{job}"), &key).await.status(),
        404
    );
    assert_eq!(host.send_delete(&path, &key).await.status(), 404);
    assert_eq!(host.uploads.file_names(), Vec::<String>::new());
}

#[tokio::test]
async fn job_whose_upload_is_being_removed_stays() {
    let host = TestHost::new();
    let (a, key) = host.create_tenant("a", &[KeyScope::Ingest]).await;
    let job = host.submit_accepted_file(&key, "1 pages").await;
    host.store
        .commit_entries(vec![LedgerEntry::Job(job_record(&a, job, JobState::Failed))])
        .await
        .unwrap();
    let request = host.store.find_job_request(&a, &job).await.unwrap().unwrap();
    let document = request.files[0].document;
    host.store.begin_document_removal(&a, &document).await.unwrap();
    let path = format!("/v1/jobs/{job}/history");
    assert_eq!(host.send_delete(&path, &key).await.status(), 409);
    host.store.end_document_removal(&a, &document).await.unwrap();
    assert_eq!(host.send_delete(&path, &key).await.status(), 204);
}
