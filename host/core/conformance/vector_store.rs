//! What every implementation of [`VectorStore`] does, fakes included.
//!
//! Each crate with an implementation includes this file in its tests, with an empty store and the dimensions of its vectors.

use uuid::Uuid;
use weir_core::ports::VectorStore;
use weir_core::search::{Hit, Point, Query, SUMMARY};
use weir_core::{DocumentId, PageNumber, Rect, TenantId};

struct Suite<'a> {
    store: &'a dyn VectorStore,
    dimensions: usize,
}

fn tenant(name: &str) -> TenantId {
    name.parse().unwrap()
}

fn document(name: &str) -> DocumentId {
    DocumentId::of(name.as_bytes())
}

impl Suite<'_> {
    fn dense(&self) -> Vec<f32> {
        let mut dense = vec![0.0; self.dimensions];
        dense[0] = 1.0;
        dense
    }

    fn point(&self, name: &str, page: PageNumber, passage: u32) -> Point {
        Point {
            id: Uuid::new_v5(
                &Uuid::NAMESPACE_OID,
                format!("{name}/{page}/{passage}").as_bytes(),
            ),
            document: document(name),
            name: format!("{name}.pdf"),
            page,
            passage,
            text: "water".into(),
            rect: Rect::PAGE,
            dense: self.dense(),
            labels: vec![("of".into(), name.into())],
            image: None,
            lines: None,
        }
    }

    fn summary(&self, name: &str, page: PageNumber) -> Point {
        self.point(name, page, SUMMARY + page)
    }

    async fn upsert(&self, tenant: &TenantId, collection: &str, points: Vec<Point>) {
        self.store.upsert(tenant, collection, points).await.unwrap();
    }

    /// Document, page and kind of each hit.
    async fn search(&self, tenant: &TenantId, change: impl FnOnce(&mut Query)) -> Vec<(String, u32, bool)> {
        let mut query = Query {
            text: "water".into(),
            dense: self.dense(),
            top_k: 100,
            documents: Vec::new(),
            collection: None,
            labels: Vec::new(),
        };
        change(&mut query);
        let hits = self.store.search(tenant, &query).await.unwrap();
        let mut found: Vec<_> = hits
            .into_iter()
            .map(
                |Hit {
                     name, page, summary, ..
                 }| (name, page, summary),
            )
            .collect();
        found.sort();
        found
    }

    async fn found(&self, tenant: &TenantId, name: &str) -> Vec<(u32, bool)> {
        let hits = self
            .search(tenant, |query| query.documents = vec![document(name)])
            .await;
        hits.into_iter()
            .map(|(_, page, summary)| (page, summary))
            .collect()
    }
}

/// Checks an empty store for vectors of so many dimensions.
pub(crate) async fn check_vector_store(store: &dyn VectorStore, dimensions: usize) {
    let suite = Suite { store, dimensions };
    let (a, b) = (tenant("suite-a"), tenant("suite-b"));
    for owner in [&a, &b] {
        let points = vec![
            suite.point("one", 1, 0),
            suite.point("one", 1, 1),
            suite.point("one", 2, 0),
            suite.summary("one", 1),
            suite.summary("one", 2),
        ];
        suite.upsert(owner, "main", points).await;
        let other = vec![suite.point("two", 1, 0), suite.summary("two", 1)];
        suite.upsert(owner, "other", other).await;
    }
    const ONE: [(u32, bool); 5] = [(1, false), (1, false), (1, true), (2, false), (2, true)];
    const TWO: [(u32, bool); 2] = [(1, false), (1, true)];

    // A point is replaced by another of its id, and a summary is no passage of its page.
    suite.upsert(&a, "main", vec![suite.point("one", 1, 0)]).await;
    assert_eq!(suite.found(&a, "one").await, ONE);
    let pages = store.pages(&a, &document("one")).await.unwrap();
    assert_eq!(pages, [(1, 2), (2, 1)]);

    // Summaries are filtered as passages are.
    let in_other = suite
        .search(&a, |query| query.collection = Some("other".into()))
        .await;
    let labeled = suite
        .search(&a, |query| query.labels = vec![("of".into(), "two".into())])
        .await;
    let two = [("two.pdf".to_owned(), 1, false), ("two.pdf".to_owned(), 1, true)];
    assert_eq!((in_other.as_slice(), labeled.as_slice()), (&two[..], &two[..]));
    assert_eq!(suite.search(&a, |query| query.top_k = 3).await.len(), 3);

    // Pages are removed without the summaries of what begins on them, and the other way round.
    store.remove(&a, &document("one"), Some(&[1])).await.unwrap();
    assert_eq!(suite.found(&a, "one").await, [(1, true), (2, false), (2, true)]);
    store.remove_summaries(&a, &document("one")).await.unwrap();
    assert_eq!(suite.found(&a, "one").await, [(2, false)]);
    assert_eq!(suite.found(&a, "two").await, TWO);

    // A document is removed with both.
    store.remove(&a, &document("two"), None).await.unwrap();
    assert!(suite.found(&a, "two").await.is_empty());

    // Another tenant's points stay, whatever their ids.
    store.clear(&a).await.unwrap();
    assert!(suite.search(&a, |_| ()).await.is_empty());
    assert_eq!(
        (suite.found(&b, "one").await, suite.found(&b, "two").await),
        (ONE.to_vec(), TWO.to_vec())
    );
    store.flush().await.unwrap();
}
