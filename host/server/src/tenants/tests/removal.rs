//! A tenant removed with everything it has.

use serde_json::json;
use weir_core::ledger::JobState;
use weir_core::ports::{BlobStore as _, Ledger as _, VectorStore as _};
use weir_core::revision::PipelineBook as _;
use weir_core::search::Point;
use weir_core::settings::Settings;
use weir_core::tenancy::{Registry as _, Scope, TenantState};
use weir_core::{DocumentId, Rect, TenantId};

use super::{admin, expect};
use crate::fakes::{Host, eventually, refusal};

async fn passage(host: &Host, tenant: &TenantId) {
    let point = Point {
        id: uuid::Uuid::now_v7(),
        document: DocumentId::of(b"d"),
        name: "d.pdf".into(),
        page: 1,
        passage: 0,
        text: "words".into(),
        rect: Rect::PAGE,
        dense: vec![1.0],
        labels: Vec::new(),
        image: None,
        lines: None,
    };
    host.vectors.upsert(tenant, "c", vec![point]).await.unwrap();
    host.blobs.put(tenant, "d/1.jpg", b"image").await.unwrap();
}

#[tokio::test]
async fn nothing_of_it_is_left_and_all_of_the_others() {
    let host = Host::with(Settings {
        engine_cancel_millis: 0,
        ..Settings::default()
    });
    let (_, key) = host.tenant("admin", &[Scope::Admin]).await;
    let scopes = [Scope::Ingest, Scope::Read];
    let (a, own) = host.tenant("a", &scopes).await;
    let (b, other) = host.tenant("b", &scopes).await;
    host.quota(&a, "concurrent_jobs", 1).await;
    host.works.hold();
    for tenant in [&a, &b] {
        passage(&host, tenant).await;
    }
    let running = host.submitted(&own, "1 pages").await;
    host.submitted(&own, "2 pages").await;
    let theirs = host.submitted(&other, "1 pages").await;
    let _dispatching = host.dispatching();
    host.until(&a, running, JobState::Running).await;
    host.until(&b, theirs, JobState::Running).await;
    assert_eq!(host.app.admission.counts(&a), (1, 1));

    let answer = host.delete("/v1/tenants/a", &key).await;
    assert_eq!(answer.status(), 204);
    assert_eq!(host.app.admission.counts(&a), (0, 0));
    assert_eq!(host.memory.tenant(&a).await.unwrap(), None);
    assert!(host.memory.keys(&a).await.unwrap().is_empty());
    assert_eq!(host.memory.job(&a, &running).await.unwrap(), None);
    assert!(host.memory.documents(&a).await.unwrap().is_empty());
    assert!(host.memory.events(&a, &running, 0, 10).await.unwrap().is_empty());
    assert!(host.blobs.list(&a, "").await.unwrap().is_empty());
    assert!(
        host.vectors
            .pages(&a, &DocumentId::of(b"d"))
            .await
            .unwrap()
            .is_empty()
    );
    assert_eq!(refusal(host.get("/v1/jobs", &own).await).await.status, 401);
    assert_eq!(
        refusal(host.delete("/v1/tenants/a", &key).await).await.status,
        404
    );

    assert_eq!(host.files.names(), [format!("b-{}", DocumentId::of(b"1 pages"))]);
    assert_eq!(host.blobs.list(&b, "").await.unwrap().len(), 1);
    assert_eq!(
        host.vectors.pages(&b, &DocumentId::of(b"d")).await.unwrap().len(),
        1
    );
    host.works.let_pages(1);
    host.until(&b, theirs, JobState::Done).await;

    // One of the same name is another one.
    expect(201, host.post("/v1/tenants", &key, &json!({"id": "a"})).await).await;
    assert_eq!(refusal(host.get("/v1/jobs", &own).await).await.status, 401);
    assert!(host.app.admission.reserve(&a, None).is_ok());
}

#[tokio::test(start_paused = true)]
async fn a_tenant_whose_file_is_still_coming_in_is_suspended_and_can_be_removed_later() {
    let (host, key) = admin().await;
    let (a, own) = host.tenant("a", &[Scope::Read]).await;
    let coming = host.app.admission.reserve(&a, None).unwrap();
    let refused = refusal(host.delete("/v1/tenants/a", &key).await).await;
    assert_eq!(
        (refused.status, refused.retry_after),
        (503, Some(20)),
        "{refused:?}"
    );
    let record = host.memory.tenant(&a).await.unwrap().unwrap();
    assert_eq!(record.state, TenantState::Suspended);
    assert_eq!(
        refusal(host.get("/v1/jobs", &own).await).await.kind,
        "tenant-suspended"
    );
    drop(coming);
    assert_eq!(host.delete("/v1/tenants/a", &key).await.status(), 204);
    assert_eq!(host.memory.tenant(&a).await.unwrap(), None);
}

#[tokio::test]
async fn component_pushed_during_a_removal_does_not_survive() {
    let (host, key) = admin().await;
    let (a, own) = host.tenant("a", &[Scope::Components]).await;
    let (send, receive) = futures::channel::mpsc::unbounded::<Result<&str, std::io::Error>>();
    let body = axum::body::Body::from_stream(receive);
    let request = Host::request("POST", "/v1/components?name=ours", &own, body);
    send.unbounded_send(Ok("routing ")).unwrap();
    let removing = async {
        // Until its key has been found good.
        while host.components.names().is_empty() {
            tokio::task::yield_now().await;
        }
        assert_eq!(host.delete("/v1/tenants/a", &key).await.status(), 204);
        expect(201, host.post("/v1/tenants", &key, &json!({"id": "a"})).await).await;
        send.unbounded_send(Ok("chunking")).unwrap();
        send.close_channel();
    };
    let (pushed, ()) = tokio::join!(host.send(request), removing);
    let refused = refusal(pushed).await;
    assert_eq!((refused.status, refused.kind.as_str()), (403, "tenant-suspended"));
    assert!(host.memory.components(&a).await.unwrap().is_empty());
    assert_eq!(host.components.names(), Vec::<String>::new());
}

#[tokio::test]
async fn whoever_asked_may_go_away_meanwhile() {
    let (host, key) = admin().await;
    let (a, _) = host.tenant("a", &[]).await;
    let coming = host.app.admission.reserve(&a, None).unwrap();
    let (router, request) = (
        host.router(),
        Host::request("DELETE", "/v1/tenants/a", &key, axum::body::Body::empty()),
    );
    let asking = tokio::spawn(tower::ServiceExt::oneshot(router, request));
    let begun = async || host.app.admission.reserve(&a, None).is_err();
    eventually(host.app.admission.moves(), begun).await;
    asking.abort();
    assert!(asking.await.unwrap_err().is_cancelled());
    let mut moved = host.app.admission.moves();
    drop(coming);
    // It is let in again when all of it is removed.
    let over = async || {
        let gone = host.memory.tenant(&a).await.unwrap().is_none();
        gone && host.app.admission.reserve(&a, None).is_ok()
    };
    moved.mark_changed();
    eventually(moved, over).await;
}

#[tokio::test]
async fn nobody_removes_itself_or_who_is_not_there() {
    let (host, key) = admin().await;
    assert_eq!(
        refusal(host.delete("/v1/tenants/admin", &key).await).await.status,
        409
    );
    assert_eq!(
        refusal(host.delete("/v1/tenants/nobody", &key).await)
            .await
            .status,
        404
    );
    assert_eq!(host.get("/v1/tenants", &key).await.status(), 200);
}
