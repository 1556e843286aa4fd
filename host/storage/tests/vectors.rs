//! Passages are found by embedding and by words, by their tenant only, until they are removed.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::print_stdout,
    missing_docs
)]

mod fixture;

use fixture::{DIMENSIONS, MODEL, document_id, make_point, make_query, open_storage, unit_vector};
use weir_core::search::SearchHit;
use weir_core::{StorageError, TenantId};
use weir_storage::Storage;

fn hit_texts(hits: &[SearchHit]) -> Vec<&str> {
    hits.iter().map(|hit| hit.text.as_str()).collect()
}

#[tokio::test]
async fn nearest_hits_come_first_with_all_their_fields() {
    let dir = tempfile::tempdir().unwrap();
    let storage = open_storage(dir.path()).await;
    let t = TenantId::default_tenant();
    let points = (0..9_u16)
        .map(|i| {
            make_point(
                "a",
                u32::from(i) + 1,
                0,
                &format!("text{i}"),
                unit_vector(f32::from(i) * 10.0),
            )
        })
        .collect();
    storage.vectors.upsert_points(&t, "main", points).await.unwrap();
    let hits = storage
        .vectors
        .search_by_vector_and_words(&t, &make_query("", unit_vector(31.0), 3))
        .await
        .unwrap();
    assert_eq!(hit_texts(&hits), ["text3", "text4", "text2"]);
    assert!(hits.is_sorted_by(|a, b| a.score > b.score));
    let expected = make_point("a", 4, 0, "text3", unit_vector(0.0));
    let first = &hits[0];
    assert_eq!(
        (first.document, &first.name, first.page, first.rect, &first.image),
        (
            expected.document,
            &expected.document_name,
            expected.page,
            expected.rect,
            &expected.image
        )
    );
    storage.close().await.unwrap();
}

#[tokio::test]
async fn hit_without_words_and_similarity_is_weak() {
    let dir = tempfile::tempdir().unwrap();
    let storage = open_storage(dir.path()).await;
    let t = TenantId::default_tenant();
    // At 80 degrees the cosine is 0.17, at 60 degrees 0.5.
    let points = vec![
        make_point("a", 1, 0, "Torque of the flange bolts", unit_vector(80.0)),
        make_point("a", 2, 0, "Storage in winter", unit_vector(80.0)),
        make_point("a", 3, 0, "The oil pump", unit_vector(60.0)),
    ];
    storage.vectors.upsert_points(&t, "main", points).await.unwrap();
    let query = make_query("the bolt of it", unit_vector(0.0), 3);
    let mut hits = storage
        .vectors
        .search_by_vector_and_words(&t, &query)
        .await
        .unwrap();
    hits.sort_by_key(|hit| hit.page);
    let weak: Vec<_> = hits.iter().map(|hit| hit.weak).collect();
    assert_eq!(weak, [false, true, false], "{hits:?}");
    for (hit, cosine) in hits.iter().zip([0.17, 0.17, 0.5]) {
        assert!((hit.similarity - cosine).abs() < 0.01, "{hit:?}");
    }
    let range = hits[0].matches[0].start as usize..hits[0].matches[0].end as usize;
    assert_eq!((&hits[0].text[range], hits[0].matches.len()), ("bolts", 1));
    assert!(hits[1].matches.is_empty() && hits[2].matches.is_empty());
    storage.close().await.unwrap();
}

#[tokio::test]
async fn matching_word_raises_the_rank_of_a_passage() {
    let dir = tempfile::tempdir().unwrap();
    let storage = open_storage(dir.path()).await;
    let t = TenantId::default_tenant();
    let points = vec![
        make_point(
            "a",
            1,
            0,
            "The engine is lubricated by the oil pump",
            unit_vector(0.0),
        ),
        make_point("a", 2, 0, "Torque of the flange bolts: 42 Nm", unit_vector(20.0)),
        make_point("a", 3, 0, "Storage in winter", unit_vector(10.0)),
    ];
    storage.vectors.upsert_points(&t, "main", points).await.unwrap();
    let search = async |text| {
        storage
            .vectors
            .search_by_vector_and_words(&t, &make_query(text, unit_vector(0.0), 3))
            .await
            .unwrap()
    };
    assert_eq!(search("").await[2].page, 2);
    // A passage that is first by words and last by embedding beats one that is first by embedding only. Stems and accents do not matter.
    let hits = search("flängé BOLT torques").await;
    assert_eq!(hits[0].page, 2, "{hits:?}");
    // A query of stop words only has no words.
    assert_eq!(hit_texts(&search("the of").await), hit_texts(&search("").await));
    storage.close().await.unwrap();
}

#[tokio::test]
async fn embedded_index_passes_the_conformance_suite() {
    let dir = tempfile::tempdir().unwrap();
    let storage = open_storage(dir.path()).await;
    weir_conformance::check_vector_store(&*storage.vectors, DIMENSIONS).await;
    storage.close().await.unwrap();
}

#[tokio::test]
async fn filters_select_documents_collections_and_labels() {
    let dir = tempfile::tempdir().unwrap();
    let storage = open_storage(dir.path()).await;
    let t = TenantId::default_tenant();
    let label = |name: &str, value: &str| (name.to_owned(), value.to_owned());
    let mut marked = make_point("b", 1, 0, "beta", unit_vector(10.0));
    marked.labels = vec![label("lang", "de"), label("a=b", "c")];
    storage
        .vectors
        .upsert_points(
            &t,
            "main",
            vec![make_point("a", 1, 0, "alpha", unit_vector(0.0)), marked],
        )
        .await
        .unwrap();
    storage
        .vectors
        .upsert_points(
            &t,
            "other",
            vec![make_point("c", 1, 0, "gamma", unit_vector(20.0))],
        )
        .await
        .unwrap();
    let all = make_query("alpha beta gamma", unit_vector(0.0), 10);
    let search = async |change: &dyn Fn(&mut weir_core::search::SearchQuery)| {
        let mut query = all.clone();
        change(&mut query);
        let mut found: Vec<_> = storage
            .vectors
            .search_by_vector_and_words(&t, &query)
            .await
            .unwrap();
        found.sort_by(|a, b| a.text.cmp(&b.text));
        found.into_iter().map(|hit| hit.text).collect::<Vec<_>>()
    };
    assert_eq!(search(&|_| ()).await, ["alpha", "beta", "gamma"]);
    assert_eq!(
        search(&|q| q.documents = vec![document_id("b"), document_id("c")]).await,
        ["beta", "gamma"]
    );
    assert_eq!(search(&|q| q.collection = Some("other".into())).await, ["gamma"]);
    assert_eq!(
        search(&|q| q.labels = vec![label("lang", "de"), label("a=b", "c")]).await,
        ["beta"]
    );
    assert!(search(&|q| q.labels = vec![label("a", "b=c")]).await.is_empty());
    assert_eq!(search(&|q| q.top_k = 0).await.len(), 1);
    assert_eq!(search(&|q| q.top_k = usize::MAX).await.len(), 3);
    storage.close().await.unwrap();
}

#[tokio::test]
async fn passages_are_counted_replaced_and_removed_by_page() {
    let dir = tempfile::tempdir().unwrap();
    let storage = open_storage(dir.path()).await;
    let t = TenantId::default_tenant();
    let points = |text: &str| {
        (0..300_u16)
            .map(|i| {
                make_point(
                    "d",
                    1 + u32::from(i) / 100,
                    u32::from(i) % 100,
                    text,
                    unit_vector(f32::from(i)),
                )
            })
            .collect::<Vec<_>>()
    };
    let pages = async || {
        storage
            .vectors
            .count_passages_by_page(&t, &document_id("d"))
            .await
            .unwrap()
    };
    storage
        .vectors
        .upsert_points(&t, "main", points("before"))
        .await
        .unwrap();
    storage
        .vectors
        .upsert_points(&t, "main", points("after"))
        .await
        .unwrap();
    assert_eq!(pages().await, [(1, 100), (2, 100), (3, 100)]);
    let hits = storage
        .vectors
        .search_by_vector_and_words(&t, &make_query("", unit_vector(0.0), 1000))
        .await
        .unwrap();
    assert_eq!(hits.len(), 300);
    assert!(hits.iter().all(|hit| hit.text == "after"));
    storage
        .vectors
        .remove_document_or_page_points(&t, &document_id("d"), Some(&[1, 3, 9]))
        .await
        .unwrap();
    assert_eq!(pages().await, [(2, 100)]);
    storage
        .vectors
        .remove_document_or_page_points(&t, &document_id("d"), Some(&[]))
        .await
        .unwrap();
    assert_eq!(pages().await, [(2, 100)]);
    storage.close().await.unwrap();

    let storage = open_storage(dir.path()).await;
    assert_eq!(
        storage
            .vectors
            .count_passages_by_page(&t, &document_id("d"))
            .await
            .unwrap(),
        [(2, 100)]
    );
    storage
        .vectors
        .remove_document_or_page_points(&t, &document_id("d"), None)
        .await
        .unwrap();
    assert!(
        storage
            .vectors
            .count_passages_by_page(&t, &document_id("d"))
            .await
            .unwrap()
            .is_empty()
    );
    storage.close().await.unwrap();
}

#[tokio::test]
async fn one_invalid_passage_rejects_the_whole_upsert() {
    let dir = tempfile::tempdir().unwrap();
    let storage = open_storage(dir.path()).await;
    let t = TenantId::default_tenant();
    let good = || make_point("d", 1, 0, "good", unit_vector(0.0));
    let mut nan = make_point("d", 1, 1, "nan", unit_vector(0.0));
    nan.dense_vector[3] = f32::NAN;
    for bad in [make_point("d", 1, 1, "short", vec![1.0]), nan] {
        let refused = storage.vectors.upsert_points(&t, "main", vec![good(), bad]).await;
        assert_eq!(refused.unwrap_err().kind(), "storage-failed");
    }
    let refused = storage.vectors.upsert_points(&t, "../x", vec![good()]).await;
    assert!(refused.unwrap_err().to_string().contains("collection"));
    assert!(
        storage
            .vectors
            .search_by_vector_and_words(&t, &make_query("x", vec![1.0], 1))
            .await
            .is_err()
    );
    assert!(
        storage
            .vectors
            .count_passages_by_page(&t, &document_id("d"))
            .await
            .unwrap()
            .is_empty()
    );
    storage
        .vectors
        .upsert_points(&t, "main", Vec::new())
        .await
        .unwrap();
    // A zero vector and an empty text are valid.
    let odd = vec![make_point("d", 2, 0, "", vec![0.0; DIMENSIONS])];
    storage.vectors.upsert_points(&t, "main", odd).await.unwrap();
    assert_eq!(
        storage
            .vectors
            .count_passages_by_page(&t, &document_id("d"))
            .await
            .unwrap(),
        [(2, 1)]
    );
    storage.close().await.unwrap();
}

#[tokio::test]
async fn an_index_of_another_model_is_refused_with_advice() {
    let dir = tempfile::tempdir().unwrap();
    open_storage(dir.path()).await.close().await.unwrap();
    for (dimensions, model) in [(DIMENSIONS + 1, MODEL), (DIMENSIONS, "another")] {
        let refused = Storage::open_or_create(dir.path(), dimensions, model)
            .await
            .err()
            .unwrap();
        let text = refused.to_string();
        assert!(text.contains(MODEL) && text.contains("--data"), "{text}");
    }
    open_storage(dir.path()).await.close().await.unwrap();
}

#[tokio::test]
async fn second_open_of_a_folder_fails_as_in_use() {
    let dir = tempfile::tempdir().unwrap();
    let storage = open_storage(dir.path()).await;
    let second = Storage::open_or_create(dir.path(), DIMENSIONS, MODEL)
        .await
        .err()
        .unwrap();
    assert!(matches!(second, StorageError::InUse { .. }), "{second}");
    storage.close().await.unwrap();
    open_storage(dir.path()).await.close().await.unwrap();
}

#[tokio::test]
async fn an_index_without_its_passages_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    // A process that was killed before it has created a file leaves an empty folder.
    std::fs::create_dir(dir.path().join("vectors")).unwrap();
    open_storage(dir.path()).await.close().await.unwrap();
    std::fs::remove_file(dir.path().join("vectors/passages.db")).unwrap();
    let refused = Storage::open_or_create(dir.path(), DIMENSIONS, MODEL)
        .await
        .err()
        .unwrap();
    assert!(matches!(refused, StorageError::Damaged { .. }), "{refused}");
    assert!(refused.to_string().contains("--force"), "{refused}");
}

#[tokio::test]
async fn an_index_of_an_earlier_version_is_refused_with_advice() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::create_dir(dir.path().join("vectors")).unwrap();
    std::fs::write(dir.path().join("vectors/weir.json"), "{}").unwrap();
    let refused = Storage::open_or_create(dir.path(), DIMENSIONS, MODEL)
        .await
        .err()
        .unwrap();
    assert!(refused.to_string().contains("docs/operations.md"), "{refused}");
    assert!(!dir.path().join("vectors/passages.db").exists());
}

#[tokio::test]
async fn searches_run_during_changes_and_flushes() {
    let dir = tempfile::tempdir().unwrap();
    let storage = open_storage(dir.path()).await;
    let t = TenantId::default_tenant();
    let changes = async {
        for page in 1..=100 {
            let points = vec![make_point("d", page, 0, "text", unit_vector(0.0))];
            storage.vectors.upsert_points(&t, "main", points).await.unwrap();
            let found = storage
                .vectors
                .search_by_vector_and_words(&t, &make_query("text", unit_vector(0.0), 1000))
                .await
                .unwrap();
            assert_eq!(found.len(), usize::try_from(page).unwrap());
        }
    };
    let flushes = async {
        for _ in 0..50 {
            storage.vectors.flush_points().await.unwrap();
        }
    };
    tokio::join!(changes, flushes);
    storage.close().await.unwrap();
}
