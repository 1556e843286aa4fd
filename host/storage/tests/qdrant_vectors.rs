//! Passages on a server of Qdrant's protocol: the contract of the port, the same hits as the embedded index, and errors of the server.

#![allow(clippy::unwrap_used, clippy::indexing_slicing)]

mod fixture;

use std::sync::Arc;

use tonic::Code;
use weir_conformance::check_vector_store;
use weir_core::ports::VectorStore;
use weir_core::search::{IndexPoint, SearchQuery};
use weir_core::{StorageError, TenantId};
use weir_qdrant_protocol::QdrantProtocolServer;
use weir_storage::{
    ExternalStores, QdrantConnection, QdrantVectorStore, Storage, remove_tenant_with_all_data,
};

use fixture::{DIMENSIONS, MODEL, document_id, make_point, make_query, tenant_id, unit_vector};

fn connection_to(server: &QdrantProtocolServer) -> QdrantConnection {
    QdrantConnection {
        url: server.url(),
        api_key: None,
        replication_factor: 1,
    }
}

async fn connect(server: &QdrantProtocolServer) -> QdrantVectorStore {
    QdrantVectorStore::connect_and_create_collection(&connection_to(server), DIMENSIONS, MODEL)
        .await
        .unwrap()
}

fn external_vectors(vectors: &Arc<dyn VectorStore>) -> ExternalStores {
    ExternalStores {
        vectors: Some(Arc::clone(vectors)),
        ..ExternalStores::default()
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn store_passes_the_conformance_suite() {
    let server = QdrantProtocolServer::start();
    let store = connect(&server).await;
    check_vector_store(&store, DIMENSIONS).await;
    // A second node finds the collection with its points.
    let points = server.collections()[0].1;
    connect(&server).await;
    assert_eq!(
        server.collections(),
        [(format!("weir-{MODEL}-{DIMENSIONS}"), points, 1)]
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn hits_are_the_same_as_those_of_the_embedded_index() {
    let server = QdrantProtocolServer::start();
    assert_hits_are_those_of_the_embedded_index(&connect(&server).await).await;
}

/// `WEIR_QDRANT_URL` names a server, on which the test creates a collection and leaves it.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs Qdrant's own server: WEIR_QDRANT_URL=http://127.0.0.1:6334"]
async fn store_on_a_qdrant_server_passes_the_suite_and_finds_the_same_hits() {
    let connection = QdrantConnection {
        url: std::env::var("WEIR_QDRANT_URL").unwrap(),
        api_key: None,
        replication_factor: 1,
    };
    let model = format!("test-{}", uuid::Uuid::now_v7());
    let store = QdrantVectorStore::connect_and_create_collection(&connection, DIMENSIONS, &model)
        .await
        .unwrap();
    check_vector_store(&store, DIMENSIONS).await;
    let model = format!("test-{}", uuid::Uuid::now_v7());
    let store = QdrantVectorStore::connect_and_create_collection(&connection, DIMENSIONS, &model)
        .await
        .unwrap();
    assert_hits_are_those_of_the_embedded_index(&store).await;
}

/// The index must be empty.
async fn assert_hits_are_those_of_the_embedded_index(remote: &QdrantVectorStore) {
    let dir = tempfile::tempdir().unwrap();
    let storage = Storage::open_or_create(dir.path(), DIMENSIONS, MODEL)
        .await
        .unwrap();
    let tenant = TenantId::default_tenant();
    let texts = [
        "the roller gate opens first",
        "the sluice is closed at night",
        "a gate keeper lives beside the weir",
        "7.5 MPa at the third valve",
        "the of and",
    ];
    let points: Vec<IndexPoint> = (0_u8..)
        .zip(texts)
        .map(|(number, text)| IndexPoint {
            labels: vec![("language".into(), "en".into())],
            ..make_point(
                "document",
                u32::from(number) + 1,
                0,
                text,
                unit_vector(17.0 * f32::from(number)),
            )
        })
        .collect();
    for store in [remote as &dyn VectorStore, &*storage.vectors] {
        store
            .upsert_points(&tenant, "main", points.clone())
            .await
            .unwrap();
    }
    for (text, degrees, top_k) in [
        ("gates", 6.0, 10),
        ("which valve has 7.5 MPa", 46.0, 3),
        ("", 69.0, 2),
    ] {
        let query = SearchQuery {
            collection: Some("main".into()),
            ..make_query(text, unit_vector(degrees), top_k)
        };
        let hits = remote.search_by_vector_and_words(&tenant, &query).await.unwrap();
        let embedded = storage
            .vectors
            .search_by_vector_and_words(&tenant, &query)
            .await
            .unwrap();
        assert!(!hits.is_empty());
        assert_eq!(hits.len(), embedded.len(), "{text}");
        for (mut hit, embedded) in hits.into_iter().zip(embedded) {
            // The embedded index stores vectors as 16-bit numbers.
            for (value, expected, tolerance) in [
                (hit.score, embedded.score, 1e-5),
                (hit.similarity, embedded.similarity, 5e-4),
            ] {
                assert!(
                    (value - expected).abs() < tolerance,
                    "{text}: {hit:?} {embedded:?}"
                );
            }
            (hit.score, hit.similarity) = (embedded.score, embedded.similarity);
            assert_eq!(hit, embedded, "{text}");
        }
    }
    storage.close().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn errors_name_the_server_and_are_temporary_when_it_is_down() {
    let server = QdrantProtocolServer::start();
    let store = Arc::new(connect(&server).await);
    let tenant = TenantId::default_tenant();
    for code in [Code::Unavailable, Code::DeadlineExceeded, Code::ResourceExhausted] {
        server.fail_with(Some(code));
        let error = store.remove_tenant_points(&tenant).await.unwrap_err();
        assert!(
            matches!(error, StorageError::Unavailable { .. }),
            "{code:?}: {error}"
        );
        assert!(error.to_string().contains("the Qdrant server"), "{error}");
    }
    server.fail_with(Some(Code::Internal));
    let error = store.remove_tenant_points(&tenant).await.unwrap_err();
    assert!(matches!(error, StorageError::Failed { .. }), "{error}");
    server.fail_with(None);
    store.remove_tenant_points(&tenant).await.unwrap();

    let connection = connection_to(&server);
    drop(server);
    for error in [
        store.remove_tenant_points(&tenant).await.unwrap_err(),
        QdrantVectorStore::connect_and_create_collection(&connection, DIMENSIONS, MODEL)
            .await
            .err()
            .unwrap(),
    ] {
        assert!(matches!(error, StorageError::Unavailable { .. }), "{error}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn api_key_and_replication_factor_reach_the_server() {
    let server = QdrantProtocolServer::start();
    server.require_api_key("secret-key");
    let refused =
        QdrantVectorStore::connect_and_create_collection(&connection_to(&server), DIMENSIONS, MODEL)
            .await
            .err()
            .unwrap();
    assert!(
        matches!(refused, StorageError::PermissionDenied { .. }),
        "{refused}"
    );
    let connection = QdrantConnection {
        api_key: Some("secret-key".into()),
        replication_factor: 3,
        ..connection_to(&server)
    };
    assert!(!format!("{connection:?}").contains("secret-key"));
    QdrantVectorStore::connect_and_create_collection(&connection, DIMENSIONS, MODEL)
        .await
        .unwrap();
    assert_eq!(server.collections()[0].2, 3);
}

#[tokio::test(flavor = "multi_thread")]
async fn offline_removal_of_a_tenant_removes_its_points() {
    let (server, dir) = (QdrantProtocolServer::start(), tempfile::tempdir().unwrap());
    let remote: Arc<dyn VectorStore> = Arc::new(connect(&server).await);
    let storage = Storage::open_or_create_with_external_stores(
        dir.path(),
        DIMENSIONS,
        MODEL,
        external_vectors(&remote),
    )
    .await
    .unwrap();
    let (removed, kept) = (tenant_id("removed"), tenant_id("kept"));
    for tenant in [&removed, &kept] {
        let points = vec![make_point("document", 1, 0, "water", unit_vector(0.0))];
        storage
            .vectors
            .upsert_points(tenant, "main", points)
            .await
            .unwrap();
    }
    storage.close().await.unwrap();
    assert_eq!(server.collections()[0].1, 2);
    remove_tenant_with_all_data(dir.path(), &removed, external_vectors(&remote))
        .await
        .unwrap();
    for (tenant, passages) in [(&removed, vec![]), (&kept, vec![(1, 1)])] {
        let found = remote
            .count_passages_by_page(tenant, &document_id("document"))
            .await;
        assert_eq!(found.unwrap(), passages, "{tenant}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn vectors_of_another_length_are_refused_and_not_written() {
    let server = QdrantProtocolServer::start();
    let store = connect(&server).await;
    let query = make_query("water", vec![1.0], 1);
    let error = store
        .search_by_vector_and_words(&TenantId::default_tenant(), &query)
        .await
        .unwrap_err();
    assert!(
        error.to_string().contains("its vector has 1 dimensions"),
        "{error}"
    );
    let points = vec![
        make_point("document", 1, 0, "water", unit_vector(0.0)),
        make_point("document", 1, 1, "water", vec![1.0]),
    ];
    let error = store
        .upsert_points(&TenantId::default_tenant(), "main", points)
        .await
        .unwrap_err();
    assert!(
        error.to_string().contains("its vector has 1 dimensions"),
        "{error}"
    );
    assert_eq!(server.collections()[0].1, 0);
}
