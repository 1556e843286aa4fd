//! Submissions of documents that are being deleted.

use std::sync::Arc;

use serde_json::json;
use weir_core::DocumentId;
use weir_core::ledger::JobState;
use weir_core::original::Originals as _;
use weir_core::removal::{Begin, Removals as _};
use weir_core::tenancy::Scope;

use super::jobs;
use crate::fakes::{Host, job_of, refusal};

#[tokio::test(start_paused = true)]
async fn submission_waits_until_the_deletion_has_ended() {
    let host = Arc::new(Host::new());
    let (a, key) = host.tenant("a", &[Scope::Ingest]).await;
    let document = host.original(&a, "1 pages");
    let named = json!({ "documents": [{ "document": document.to_string() }] });
    for named in [None, Some(named)] {
        assert_eq!(host.memory.begin(&a, &document).await.unwrap(), Begin::Begun);
        let submitting = {
            let (host, key) = (Arc::clone(&host), key.clone());
            tokio::spawn(async move {
                match named {
                    None => host.submit(&key, "1 pages").await,
                    Some(named) => host.post("/v1/jobs", &key, &named).await,
                }
            })
        };
        // The file is staged by now, and the submission looks every few milliseconds.
        tokio::time::sleep(std::time::Duration::from_secs(1)).await;
        assert!(!submitting.is_finished());
        let before = jobs(&host, &a).await;
        host.files.remove(&a, &document).await.unwrap();
        host.memory.end(&a, &document).await.unwrap();
        let job = job_of(submitting.await.unwrap()).await;
        assert_eq!(jobs(&host, &a).await, before + 1);
        let dispatching = host.dispatching();
        host.until(&a, job, JobState::Done).await;
        drop(dispatching);
        assert_eq!(host.files.names(), [format!("a-{document}")]);
    }
}

#[tokio::test(start_paused = true)]
async fn submission_is_refused_if_the_deletion_does_not_end() {
    let host = Host::new();
    let (a, key) = host.tenant("a", &[Scope::Ingest]).await;
    let document = DocumentId::of(b"1 pages");
    host.memory.begin(&a, &document).await.unwrap();
    let refused = refusal(host.submit(&key, "1 pages").await).await;
    assert_eq!((refused.status, refused.kind.as_str()), (503, "overloaded"));
    assert!(refused.detail.contains("is being deleted"), "{refused:?}");
    super::assert_nothing_of(&host, &a, "a submission during a deletion").await;
    // Another document is none of it.
    assert_eq!(host.submit(&key, "2 pages").await.status(), 202);
}
