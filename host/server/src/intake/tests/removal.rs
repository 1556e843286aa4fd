//! Tests of submissions of documents that are being deleted.

use std::sync::Arc;

use serde_json::json;
use weir_core::DocumentId;
use weir_core::document_removal::{BeginRemovalOutcome, DocumentRemovalStore as _};
use weir_core::ledger::JobState;
use weir_core::tenancy::KeyScope;
use weir_core::uploads::UploadStore as _;

use super::count_jobs;
use crate::fakes::{TestHost, accepted_job_id, parse_problem};

#[tokio::test(start_paused = true)]
async fn submission_waits_for_the_end_of_the_removal() {
    let host = Arc::new(TestHost::new());
    let (a, key) = host.create_tenant("a", &[KeyScope::Ingest]).await;
    let document = host.store_upload(&a, "1 pages");
    let named = json!({ "documents": [{ "document": document.to_string() }] });
    for named in [None, Some(named)] {
        assert_eq!(
            host.store.begin_document_removal(&a, &document).await.unwrap(),
            BeginRemovalOutcome::Started
        );
        let submitting = {
            let (host, key) = (Arc::clone(&host), key.clone());
            tokio::spawn(async move {
                match named {
                    None => host.submit_file(&key, "1 pages").await,
                    Some(named) => host.send_post("/v1/jobs", &key, &named).await,
                }
            })
        };
        // The file is staged by now, and the submission polls for the end of the removal.
        tokio::time::sleep(std::time::Duration::from_secs(1)).await;
        assert!(!submitting.is_finished());
        let before = count_jobs(&host, &a).await;
        host.uploads.remove_upload(&a, &document).await.unwrap();
        host.store.end_document_removal(&a, &document).await.unwrap();
        let job = accepted_job_id(submitting.await.unwrap()).await;
        assert_eq!(count_jobs(&host, &a).await, before + 1);
        let dispatching = host.spawn_dispatcher();
        host.wait_for_job_state(&a, job, JobState::Done).await;
        drop(dispatching);
        assert_eq!(host.uploads.file_names(), [format!("a-{document}")]);
    }
}

#[tokio::test(start_paused = true)]
async fn submission_is_refused_if_the_removal_does_not_end() {
    let host = TestHost::new();
    let (a, key) = host.create_tenant("a", &[KeyScope::Ingest]).await;
    let document = DocumentId::from_content(b"1 pages");
    host.store.begin_document_removal(&a, &document).await.unwrap();
    let refused = parse_problem(host.submit_file(&key, "1 pages").await).await;
    assert_eq!((refused.status, refused.kind.as_str()), (503, "overloaded"));
    assert!(refused.detail.contains("is being deleted"), "{refused:?}");
    super::assert_no_traces_left(&host, &a, "a submission during a deletion").await;
    // Other documents are not affected.
    assert_eq!(host.submit_file(&key, "2 pages").await.status(), 202);
}
