//! Passages on a server of Qdrant's protocol: the contract of the port, the same hits as the embedded index, and errors of the server.

#![allow(clippy::unwrap_used, clippy::indexing_slicing)]

mod fixture;

use std::sync::Arc;

use tonic::Code;
use weir_conformance::check_vector_store;
use weir_core::ports::VectorStore;
use weir_core::search::{IndexPoint, SearchQuery};
use weir_core::{DocumentId, Rect, StorageError, TenantId};
use weir_qdrant_protocol::QdrantProtocolServer;
use weir_storage::{QdrantConnection, QdrantVectorStore, Storage};

use fixture::{DIMENSIONS, MODEL};

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
    let (server, dir) = (QdrantProtocolServer::start(), tempfile::tempdir().unwrap());
    let (remote, storage) = (
        connect(&server).await,
        Storage::open_or_create(dir.path(), DIMENSIONS, MODEL)
            .await
            .unwrap(),
    );
    let tenant = TenantId::default_tenant();
    let texts = [
        "the roller gate opens first",
        "the sluice is closed at night",
        "a gate keeper lives beside the weir",
        "7.5 MPa at the third valve",
        "the of and",
    ];
    let unit_vector = |angle: f32| {
        let mut vector = vec![0.0; DIMENSIONS];
        (vector[0], vector[1]) = (angle.cos(), angle.sin());
        vector
    };
    let points: Vec<IndexPoint> = (0_u32..)
        .zip(texts)
        .map(|(number, text)| IndexPoint {
            id: uuid::Uuid::from_u128(number.into()),
            document: DocumentId::from_content(b"document"),
            document_name: "document.pdf".into(),
            page: number + 1,
            passage: 0,
            text: text.into(),
            rect: Rect::WHOLE_PAGE,
            dense_vector: unit_vector(0.3 * number as f32),
            labels: vec![("language".into(), "en".into())],
            image: Some(format!("image/{number}")),
            lines: None,
        })
        .collect();
    for store in [&remote as &dyn VectorStore, &*storage.vectors] {
        store
            .upsert_points(&tenant, "main", points.clone())
            .await
            .unwrap();
    }
    for (text, angle, top_k) in [
        ("gates", 0.1, 10),
        ("which valve has 7.5 MPa", 0.8, 3),
        ("", 1.2, 2),
    ] {
        let query = SearchQuery {
            query_text: text.into(),
            dense_vector: unit_vector(angle),
            top_k,
            documents: Vec::new(),
            collection: Some("main".into()),
            labels: Vec::new(),
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
            for (value, expected) in [(hit.score, embedded.score), (hit.similarity, embedded.similarity)] {
                assert!((value - expected).abs() < 1e-5, "{text}: {hit:?} {embedded:?}");
            }
            (hit.score, hit.similarity) = (embedded.score, embedded.similarity);
            assert_eq!(hit, embedded, "{text}");
        }
    }
    storage.close().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn errors_of_the_server_name_it_and_are_temporary_when_it_is_down() {
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
async fn vectors_of_another_length_are_refused_before_anything_is_written() {
    let server = QdrantProtocolServer::start();
    let store = connect(&server).await;
    let query = SearchQuery {
        query_text: "water".into(),
        dense_vector: vec![1.0],
        top_k: 1,
        documents: Vec::new(),
        collection: None,
        labels: Vec::new(),
    };
    let error = store
        .search_by_vector_and_words(&TenantId::default_tenant(), &query)
        .await
        .unwrap_err();
    assert!(
        error.to_string().contains("its vector has 1 dimensions"),
        "{error}"
    );
}
