//! Tests of removing a tenant with all its data.

use serde_json::json;
use weir_core::ledger::JobState;
use weir_core::ports::{BlobStore as _, Ledger as _, VectorStore as _};
use weir_core::revision::PipelineStore as _;
use weir_core::search::IndexPoint;
use weir_core::settings::Settings;
use weir_core::tenancy::{KeyScope, TenantState, TenantStore as _};
use weir_core::{DocumentId, Rect, TenantId};

use super::{expect_status, host_with_admin_key};
use crate::fakes::{TestHost, parse_problem, wait_until};

async fn store_passage(host: &TestHost, tenant: &TenantId) {
    let point = IndexPoint {
        id: uuid::Uuid::now_v7(),
        document: DocumentId::from_content(b"d"),
        document_name: "d.pdf".into(),
        page: 1,
        passage: 0,
        text: "words".into(),
        rect: Rect::WHOLE_PAGE,
        dense_vector: vec![1.0],
        labels: Vec::new(),
        image: None,
        lines: None,
    };
    host.vectors
        .upsert_points(tenant, "c", vec![point])
        .await
        .unwrap();
    host.blobs.put_blob(tenant, "d/1.jpg", b"image").await.unwrap();
}

#[tokio::test]
async fn removal_deletes_all_data_of_the_tenant_only() {
    let host = TestHost::with_settings(Settings {
        engine_cancel_timeout_millis: 0,
        ..Settings::default()
    });
    let (_, key) = host.create_tenant("admin", &[KeyScope::Admin]).await;
    let scopes = [KeyScope::Ingest, KeyScope::Read];
    let (a, own) = host.create_tenant("a", &scopes).await;
    let (b, other) = host.create_tenant("b", &scopes).await;
    host.set_quota(&a, "concurrent_jobs", 1).await;
    host.processing.hold_pages();
    for tenant in [&a, &b] {
        store_passage(&host, tenant).await;
    }
    let running = host.submit_accepted_file(&own, "1 pages").await;
    host.submit_accepted_file(&own, "2 pages").await;
    let other_job = host.submit_accepted_file(&other, "1 pages").await;
    let _dispatching = host.spawn_dispatcher();
    host.wait_for_job_state(&a, running, JobState::Running).await;
    host.wait_for_job_state(&b, other_job, JobState::Running).await;
    assert_eq!(host.control.admission.count_queued_and_running_jobs(&a), (1, 1));

    let response = host.send_delete("/v1/tenants/a", &key).await;
    assert_eq!(response.status(), 204);
    assert_eq!(host.control.admission.count_queued_and_running_jobs(&a), (0, 0));
    assert_eq!(host.store.find_tenant(&a).await.unwrap(), None);
    assert!(host.store.list_api_keys(&a).await.unwrap().is_empty());
    assert_eq!(host.store.find_job(&a, &running).await.unwrap(), None);
    assert!(host.store.list_tenant_documents(&a).await.unwrap().is_empty());
    assert!(
        host.store
            .list_job_events(&a, &running, 0, 10)
            .await
            .unwrap()
            .is_empty()
    );
    assert!(host.blobs.list_blob_keys(&a, "").await.unwrap().is_empty());
    assert!(
        host.vectors
            .count_passages_by_page(&a, &DocumentId::from_content(b"d"))
            .await
            .unwrap()
            .is_empty()
    );
    assert_eq!(
        parse_problem(host.send_get("/v1/jobs", &own).await).await.status,
        401
    );
    assert_eq!(
        parse_problem(host.send_delete("/v1/tenants/a", &key).await)
            .await
            .status,
        404
    );

    assert_eq!(
        host.uploads.file_names(),
        [format!("b-{}", DocumentId::from_content(b"1 pages"))]
    );
    assert_eq!(host.blobs.list_blob_keys(&b, "").await.unwrap().len(), 1);
    assert_eq!(
        host.vectors
            .count_passages_by_page(&b, &DocumentId::from_content(b"d"))
            .await
            .unwrap()
            .len(),
        1
    );
    host.processing.release_pages(1);
    host.wait_for_job_state(&b, other_job, JobState::Done).await;

    // A new tenant with the same name has nothing of the removed one.
    expect_status(
        201,
        host.send_post("/v1/tenants", &key, &json!({"id": "a"})).await,
    )
    .await;
    assert_eq!(
        parse_problem(host.send_get("/v1/jobs", &own).await).await.status,
        401
    );
    assert!(host.control.admission.reserve_queue_place(&a, None).is_ok());
}

#[tokio::test(start_paused = true)]
async fn tenant_with_an_upload_in_progress_is_suspended_first() {
    let (host, key) = host_with_admin_key().await;
    let (a, own) = host.create_tenant("a", &[KeyScope::Read]).await;
    let coming = host.control.admission.reserve_queue_place(&a, None).unwrap();
    let refused = parse_problem(host.send_delete("/v1/tenants/a", &key).await).await;
    assert_eq!(
        (refused.status, refused.retry_after),
        (503, Some(20)),
        "{refused:?}"
    );
    let record = host.store.find_tenant(&a).await.unwrap().unwrap();
    assert_eq!(record.state, TenantState::Suspended);
    assert_eq!(
        parse_problem(host.send_get("/v1/jobs", &own).await).await.kind,
        "tenant-suspended"
    );
    drop(coming);
    assert_eq!(host.send_delete("/v1/tenants/a", &key).await.status(), 204);
    assert_eq!(host.store.find_tenant(&a).await.unwrap(), None);
}

#[tokio::test]
async fn component_pushed_during_a_removal_is_deleted() {
    let (host, key) = host_with_admin_key().await;
    let (a, own) = host.create_tenant("a", &[KeyScope::Components]).await;
    let (send, receive) = futures::channel::mpsc::unbounded::<Result<&str, std::io::Error>>();
    let body = axum::body::Body::from_stream(receive);
    let request = TestHost::build_request("POST", "/v1/components?name=ours", &own, body);
    send.unbounded_send(Ok("routing ")).unwrap();
    let removing = async {
        // Wait until the push has been authenticated.
        while host.components.file_names().is_empty() {
            tokio::task::yield_now().await;
        }
        assert_eq!(host.send_delete("/v1/tenants/a", &key).await.status(), 204);
        expect_status(
            201,
            host.send_post("/v1/tenants", &key, &json!({"id": "a"})).await,
        )
        .await;
        send.unbounded_send(Ok("chunking")).unwrap();
        send.close_channel();
    };
    let (pushed, ()) = tokio::join!(host.send(request), removing);
    let refused = parse_problem(pushed).await;
    assert_eq!((refused.status, refused.kind.as_str()), (403, "tenant-suspended"));
    assert!(host.store.list_components(&a).await.unwrap().is_empty());
    assert_eq!(host.components.file_names(), Vec::<String>::new());
}

#[tokio::test]
async fn removal_continues_after_the_client_disconnects() {
    let (host, key) = host_with_admin_key().await;
    let (a, _) = host.create_tenant("a", &[]).await;
    let coming = host.control.admission.reserve_queue_place(&a, None).unwrap();
    let (router, request) = (
        host.router(),
        TestHost::build_request("DELETE", "/v1/tenants/a", &key, axum::body::Body::empty()),
    );
    let asking = tokio::spawn(tower::ServiceExt::oneshot(router, request));
    let begun = async || host.control.admission.reserve_queue_place(&a, None).is_err();
    wait_until(host.control.admission.subscribe_to_changes(), begun).await;
    asking.abort();
    assert!(asking.await.unwrap_err().is_cancelled());
    let mut changes = host.control.admission.subscribe_to_changes();
    drop(coming);
    // Reservations succeed again once the removal has ended.
    let over = async || {
        let gone = host.store.find_tenant(&a).await.unwrap().is_none();
        gone && host.control.admission.reserve_queue_place(&a, None).is_ok()
    };
    changes.mark_changed();
    wait_until(changes, over).await;
}

#[tokio::test]
async fn own_and_unknown_tenants_cannot_be_removed() {
    let (host, key) = host_with_admin_key().await;
    assert_eq!(
        parse_problem(host.send_delete("/v1/tenants/admin", &key).await)
            .await
            .status,
        409
    );
    assert_eq!(
        parse_problem(host.send_delete("/v1/tenants/nobody", &key).await)
            .await
            .status,
        404
    );
    assert_eq!(host.send_get("/v1/tenants", &key).await.status(), 200);
}
