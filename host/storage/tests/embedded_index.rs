//! The indexes of words and codes follow the passages: for tenants of any size, after removals, and after their files are lost.
#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing, missing_docs)]

mod fixture;

use std::fs;
use std::ops::Range;
use std::path::Path;

use fastrand::Rng;
use fixture::{DIMENSIONS, document_id, make_point, make_query, open_storage, tenant_id};
use weir_core::TenantId;
use weir_core::search::{IndexPoint, SearchHit, SearchQuery};
use weir_storage::Storage;

/// More passages than are compared one by one for each search (2,000).
const LARGE: u32 = 3000;
const PASSAGES_PER_DOCUMENT: u32 = 2500;

fn random_vector(seed: u64) -> Vec<f32> {
    let mut rng = Rng::with_seed(seed);
    let vector: Vec<f32> = (0..DIMENSIONS).map(|_| rng.f32() - 0.5).collect();
    let length = vector.iter().map(|x| x * x).sum::<f32>().sqrt();
    vector.into_iter().map(|x| x / length).collect()
}

fn make_passage(number: u32) -> IndexPoint {
    let document = format!("document{}", number / PASSAGES_PER_DOCUMENT);
    let page = number % PASSAGES_PER_DOCUMENT / 10 + 1;
    let text = format!("the valve number{number} of row{}", number % 7);
    let mut point = make_point(&document, page, number % 10, &text, random_vector(number.into()));
    point.labels = vec![("row".into(), (number % 7).to_string())];
    point
}

async fn write_passages(storage: &Storage, tenant: &TenantId, numbers: Range<u32>) {
    let points = numbers.map(make_passage).collect();
    storage
        .vectors
        .upsert_points(tenant, "main", points)
        .await
        .unwrap();
}

async fn search(storage: &Storage, tenant: &TenantId, query: &SearchQuery) -> Vec<SearchHit> {
    storage
        .vectors
        .search_by_vector_and_words(tenant, query)
        .await
        .unwrap()
}

/// Returns the texts of the ten passages that are nearest to a query, by comparison with all.
fn nearest_texts(query: &[f32], mut passages: Vec<IndexPoint>) -> Vec<String> {
    let similarity =
        |point: &IndexPoint| -> f32 { point.dense_vector.iter().zip(query).map(|(a, b)| a * b).sum() };
    passages.sort_by(|a, b| similarity(b).total_cmp(&similarity(a)));
    passages.into_iter().take(10).map(|point| point.text).collect()
}

/// Asserts that nearly all of the ten nearest passages are found by vector, and the right one by words.
async fn assert_finds(storage: &Storage, tenant: &TenantId, numbers: Range<u32>) {
    let mut found = 0;
    for seed in 0..20 {
        let query = make_query("", random_vector(1_000_000 + seed), 10);
        let nearest = nearest_texts(&query.dense_vector, numbers.clone().map(make_passage).collect());
        let hits = search(storage, tenant, &query).await;
        assert_eq!(hits.len(), 10);
        found += hits.iter().filter(|hit| nearest.contains(&hit.text)).count();
    }
    assert!(found >= 198, "{found} of 200");
    for number in [numbers.start, numbers.end - 1] {
        let hits = search(
            storage,
            tenant,
            &make_query(&format!("number{number}"), random_vector(7), 3),
        )
        .await;
        assert!(
            hits.iter().any(|hit| hit.text == make_passage(number).text),
            "{number}: {hits:?}"
        );
    }
}

#[tokio::test]
async fn large_tenant_finds_what_a_comparison_with_all_passages_finds() {
    let dir = tempfile::tempdir().unwrap();
    let t = TenantId::default_tenant();
    let storage = open_storage(dir.path()).await;
    write_passages(&storage, &t, 0..LARGE).await;
    assert_finds(&storage, &t, 0..LARGE).await;
    // The codes follow additions, and a passage that is written again has its new vector only.
    write_passages(&storage, &t, LARGE..LARGE + 200).await;
    let mut moved = make_passage(5);
    moved.dense_vector = random_vector(1_000_000);
    storage
        .vectors
        .upsert_points(&t, "main", vec![moved])
        .await
        .unwrap();
    let hits = search(&storage, &t, &make_query("", random_vector(1_000_000), 1)).await;
    assert_eq!(hits[0].text, make_passage(5).text);
    write_passages(&storage, &t, 5..6).await;
    assert_finds(&storage, &t, 0..LARGE + 200).await;
    storage.close().await.unwrap();
    let storage = open_storage(dir.path()).await;
    assert_finds(&storage, &t, 0..LARGE + 200).await;
    storage.close().await.unwrap();
}

#[tokio::test]
async fn filters_of_a_large_tenant_select_few_and_many_passages() {
    let dir = tempfile::tempdir().unwrap();
    let t = TenantId::default_tenant();
    let storage = open_storage(dir.path()).await;
    write_passages(&storage, &t, 0..LARGE).await;
    for (document, count) in [
        ("document0", PASSAGES_PER_DOCUMENT),
        ("document1", LARGE - PASSAGES_PER_DOCUMENT),
    ] {
        let mut query = make_query("valve", random_vector(3), 1000);
        query.documents = vec![document_id(document)];
        let hits = search(&storage, &t, &query).await;
        assert_eq!(
            hits.len(),
            usize::try_from(count).unwrap().min(1000),
            "{document}"
        );
        assert!(hits.iter().all(|hit| hit.name == format!("{document}.pdf")));
    }
    let mut query = make_query("", random_vector(3), 1000);
    query.labels = vec![("row".into(), "4".into())];
    query.collection = Some("main".into());
    let hits = search(&storage, &t, &query).await;
    assert_eq!(hits.len(), (0..LARGE).filter(|number| number % 7 == 4).count());
    assert!(hits.iter().all(|hit| hit.text.ends_with("row4")));
    storage.close().await.unwrap();
}

#[tokio::test]
async fn removed_passages_of_a_large_tenant_are_not_found_again() {
    let dir = tempfile::tempdir().unwrap();
    let t = TenantId::default_tenant();
    let mut storage = open_storage(dir.path()).await;
    write_passages(&storage, &t, 0..LARGE + PASSAGES_PER_DOCUMENT).await;
    assert_finds(&storage, &t, 0..LARGE + PASSAGES_PER_DOCUMENT).await;
    let remove = async |storage: &Storage, document: &str| {
        storage
            .vectors
            .remove_document_or_page_points(&t, &document_id(document), None)
            .await
            .unwrap();
    };
    remove(&storage, "document0").await;
    for _ in 0..2 {
        assert_finds(&storage, &t, PASSAGES_PER_DOCUMENT..LARGE + PASSAGES_PER_DOCUMENT).await;
        storage.close().await.unwrap();
        storage = open_storage(dir.path()).await;
    }
    // So few are left that they have no codes any more.
    remove(&storage, "document1").await;
    assert_finds(
        &storage,
        &t,
        2 * PASSAGES_PER_DOCUMENT..LARGE + PASSAGES_PER_DOCUMENT,
    )
    .await;
    assert_eq!(fs::read_dir(dir.path().join("vectors/codes")).unwrap().count(), 0);
    storage.vectors.remove_tenant_points(&t).await.unwrap();
    assert!(
        search(&storage, &t, &make_query("valve", random_vector(1), 10))
            .await
            .is_empty()
    );
    write_passages(&storage, &t, 0..20).await;
    assert_finds(&storage, &t, 0..20).await;
    storage.close().await.unwrap();
}

#[tokio::test]
async fn passages_of_other_tenants_change_no_hit_and_no_score() {
    let dir = tempfile::tempdir().unwrap();
    let (a, b) = (tenant_id("a"), tenant_id("b"));
    let storage = open_storage(dir.path()).await;
    write_passages(&storage, &a, 0..100).await;
    let query = make_query("valve number7 row3", random_vector(3), 50);
    let before = search(&storage, &a, &query).await;
    assert_eq!(before.len(), 50);
    write_passages(&storage, &b, 0..LARGE).await;
    assert_finds(&storage, &b, 0..LARGE).await;
    assert_eq!(search(&storage, &a, &query).await, before);
    storage.vectors.remove_tenant_points(&b).await.unwrap();
    storage.compact_index().await.unwrap();
    assert_eq!(search(&storage, &a, &query).await, before);
    storage.close().await.unwrap();
}

fn copy_folder(from: &Path, to: &Path) {
    let copied = std::process::Command::new("cp")
        .arg("-r")
        .args([from, to])
        .status();
    assert!(copied.unwrap().success());
}

#[tokio::test]
async fn lost_or_damaged_indexes_are_computed_again() {
    let dir = tempfile::tempdir().unwrap();
    let t = TenantId::default_tenant();
    let storage = open_storage(dir.path()).await;
    write_passages(&storage, &t, 0..LARGE).await;
    storage.close().await.unwrap();
    let vectors = dir.path().join("vectors");
    let codes = fs::read_dir(vectors.join("codes"))
        .unwrap()
        .next()
        .unwrap()
        .unwrap()
        .path();
    let other = tempfile::tempdir().unwrap();
    let storage = open_storage(other.path()).await;
    write_passages(&storage, &t, 0..10).await;
    storage.close().await.unwrap();
    let damages: [(&str, &dyn Fn()); 5] = [
        ("no codes", &|| fs::remove_file(&codes).unwrap()),
        ("damaged codes", &|| fs::write(&codes, "damaged").unwrap()),
        ("no words", &|| fs::remove_dir_all(vectors.join("words")).unwrap()),
        ("damaged words", &|| {
            fs::write(vectors.join("words/meta.json"), "{").unwrap()
        }),
        ("words of another index", &|| {
            fs::remove_dir_all(vectors.join("words")).unwrap();
            copy_folder(&other.path().join("vectors/words"), &vectors);
        }),
    ];
    for (what, damage) in damages {
        damage();
        let storage = open_storage(dir.path()).await;
        println!("{what}");
        assert_finds(&storage, &t, 0..LARGE).await;
        storage.close().await.unwrap();
    }
}

#[tokio::test]
async fn earlier_copy_of_the_passages_does_not_bring_back_later_ones() {
    let dir = tempfile::tempdir().unwrap();
    let t = TenantId::default_tenant();
    let storage = open_storage(dir.path()).await;
    write_passages(&storage, &t, 0..LARGE).await;
    storage.close().await.unwrap();
    let (file, copy) = (dir.path().join("vectors/passages.db"), dir.path().join("copy"));
    fs::copy(&file, &copy).unwrap();
    let storage = open_storage(dir.path()).await;
    write_passages(&storage, &t, LARGE..LARGE + 50).await;
    assert_finds(&storage, &t, 0..LARGE + 50).await;
    storage.close().await.unwrap();
    fs::rename(&copy, &file).unwrap();
    let storage = open_storage(dir.path()).await;
    // These passages get the numbers of those that the copy does not have.
    write_passages(&storage, &t, LARGE + 50..LARGE + 100).await;
    let numbers = (0..LARGE).chain(LARGE + 50..LARGE + 100);
    let passages: Vec<_> = numbers.map(make_passage).collect();
    for number in LARGE..LARGE + 100 {
        let query = make_query(&format!("number{number}"), random_vector(number.into()), 1);
        let hits = search(&storage, &t, &query).await;
        let is_stored = passages
            .iter()
            .any(|passage| passage.text == make_passage(number).text);
        assert_eq!(hits[0].text == make_passage(number).text, is_stored, "{number}");
    }
    storage.close().await.unwrap();
}

#[tokio::test]
async fn vectors_of_zeros_and_of_unusual_length_are_stored() {
    let dir = tempfile::tempdir().unwrap();
    let t = TenantId::default_tenant();
    // Codes need a multiple of eight dimensions.
    let storage = Storage::open_or_create(dir.path(), 5, "short").await.unwrap();
    let points = (0..LARGE).map(|number| {
        let mut point = make_passage(number);
        point.dense_vector.truncate(5);
        if number % 100 == 0 {
            point.dense_vector.fill(0.0);
        }
        point
    });
    let points: Vec<_> = points.collect();
    storage
        .vectors
        .upsert_points(&t, "main", points.clone())
        .await
        .unwrap();
    let query = make_query("", points[2].dense_vector.clone(), 1);
    assert_eq!(search(&storage, &t, &query).await[0].text, points[2].text);
    let query = make_query("number3", vec![0.0; 5], 1);
    assert_eq!(search(&storage, &t, &query).await[0].text, points[3].text);
    storage.close().await.unwrap();
}
