//! Conformance checks of vectors: replacement, filters, removal of pages, summaries and documents, and isolation of tenants.

use uuid::Uuid;
use weir_core::ports::VectorStore;
use weir_core::search::{FIRST_SUMMARY_NUMBER, IndexPoint, SearchHit, SearchQuery};
use weir_core::{DocumentId, PageNumber, Rect, TenantId};

struct Suite<'a> {
    store: &'a dyn VectorStore,
    dimensions: usize,
}

fn make_tenant(name: &str) -> TenantId {
    name.parse().unwrap()
}

fn make_document_id(name: &str) -> DocumentId {
    DocumentId::from_content(name.as_bytes())
}

impl Suite<'_> {
    fn unit_vector(&self) -> Vec<f32> {
        let mut dense = vec![0.0; self.dimensions];
        *dense.first_mut().unwrap() = 1.0;
        dense
    }

    fn make_point(&self, name: &str, page: PageNumber, passage: u32) -> IndexPoint {
        IndexPoint {
            id: Uuid::new_v5(
                &Uuid::NAMESPACE_OID,
                format!("{name}/{page}/{passage}").as_bytes(),
            ),
            document: make_document_id(name),
            document_name: format!("{name}.pdf"),
            page,
            passage,
            text: "water".into(),
            rect: Rect::WHOLE_PAGE,
            dense_vector: self.unit_vector(),
            labels: vec![("of".into(), name.into())],
            image: None,
            lines: None,
        }
    }

    fn make_summary(&self, name: &str, page: PageNumber) -> IndexPoint {
        self.make_point(name, page, FIRST_SUMMARY_NUMBER + page)
    }

    async fn upsert_points(&self, tenant: &TenantId, collection: &str, points: Vec<IndexPoint>) {
        self.store
            .upsert_points(tenant, collection, points)
            .await
            .unwrap();
    }

    /// Returns the document name, the page and whether it is a summary, for each hit.
    async fn search_summary_flags(
        &self,
        tenant: &TenantId,
        change: impl FnOnce(&mut SearchQuery),
    ) -> Vec<(String, u32, bool)> {
        let mut query = SearchQuery {
            query_text: "water".into(),
            dense_vector: self.unit_vector(),
            top_k: 100,
            documents: Vec::new(),
            collection: None,
            labels: Vec::new(),
        };
        change(&mut query);
        let hits = self
            .store
            .search_by_vector_and_words(tenant, &query)
            .await
            .unwrap();
        let mut found: Vec<_> = hits
            .into_iter()
            .map(
                |SearchHit {
                     name, page, summary, ..
                 }| (name, page, summary),
            )
            .collect();
        found.sort();
        found
    }

    async fn search_document(&self, tenant: &TenantId, name: &str) -> Vec<(u32, bool)> {
        let hits = self
            .search_summary_flags(tenant, |query| query.documents = vec![make_document_id(name)])
            .await;
        hits.into_iter()
            .map(|(_, page, summary)| (page, summary))
            .collect()
    }
}

/// Checks a store for vectors with this number of dimensions. Panics if the store breaks the contract of its port. Neither
/// the order of hits nor durability is checked.
pub async fn check_vector_store(store: &dyn VectorStore, dimensions: usize) {
    let suite = Suite { store, dimensions };
    let (a, b) = (make_tenant("suite-a"), make_tenant("suite-b"));
    for owner in [&a, &b] {
        let points = vec![
            suite.make_point("one", 1, 0),
            suite.make_point("one", 1, 1),
            suite.make_point("one", 2, 0),
            suite.make_summary("one", 1),
            suite.make_summary("one", 2),
        ];
        suite.upsert_points(owner, "main", points).await;
        let other = vec![suite.make_point("two", 1, 0), suite.make_summary("two", 1)];
        suite.upsert_points(owner, "other", other).await;
    }
    const ONE: [(u32, bool); 5] = [(1, false), (1, false), (1, true), (2, false), (2, true)];
    const TWO: [(u32, bool); 2] = [(1, false), (1, true)];

    // A point replaces another point with its id, and a summary is not a passage of its page.
    suite
        .upsert_points(&a, "main", vec![suite.make_point("one", 1, 0)])
        .await;
    assert_eq!(suite.search_document(&a, "one").await, ONE);
    let pages = store
        .count_passages_by_page(&a, &make_document_id("one"))
        .await
        .unwrap();
    assert_eq!(pages, [(1, 2), (2, 1)]);

    // Filters apply to summaries as to passages.
    let in_other = suite
        .search_summary_flags(&a, |query| query.collection = Some("other".into()))
        .await;
    let labeled = suite
        .search_summary_flags(&a, |query| query.labels = vec![("of".into(), "two".into())])
        .await;
    let two = [("two.pdf".to_owned(), 1, false), ("two.pdf".to_owned(), 1, true)];
    assert_eq!((in_other.as_slice(), labeled.as_slice()), (&two[..], &two[..]));
    assert_eq!(
        suite
            .search_summary_flags(&a, |query| query.top_k = 3)
            .await
            .len(),
        3
    );

    assert_eq!(
        store
            .count_passages_by_page(&a, &make_document_id("absent"))
            .await
            .unwrap(),
        []
    );

    // Removing pages keeps the summaries of sections that start on them, and removing summaries keeps the pages.
    let no_pages: &[PageNumber] = &[];
    for pages in [no_pages, &[9]] {
        store
            .remove_document_or_page_points(&a, &make_document_id("one"), Some(pages))
            .await
            .unwrap();
        assert_eq!(
            suite.search_document(&a, "one").await,
            ONE,
            "after the removal of pages {pages:?}"
        );
    }
    store
        .remove_document_or_page_points(&a, &make_document_id("one"), Some(&[1, 9]))
        .await
        .unwrap();
    assert_eq!(
        suite.search_document(&a, "one").await,
        [(1, true), (2, false), (2, true)]
    );
    store
        .remove_document_summaries(&a, &make_document_id("one"))
        .await
        .unwrap();
    assert_eq!(suite.search_document(&a, "one").await, [(2, false)]);
    assert_eq!(suite.search_document(&a, "two").await, TWO);

    // Removing a document removes its passages and summaries.
    store
        .remove_document_or_page_points(&a, &make_document_id("two"), None)
        .await
        .unwrap();
    assert!(suite.search_document(&a, "two").await.is_empty());
    let pages = store
        .count_passages_by_page(&a, &make_document_id("two"))
        .await
        .unwrap();
    assert_eq!(pages, [], "the document is removed");

    // Points of another tenant are not removed, whatever their ids.
    store.remove_tenant_points(&a).await.unwrap();
    assert!(suite.search_summary_flags(&a, |_| ()).await.is_empty());
    assert_eq!(
        (
            suite.search_document(&b, "one").await,
            suite.search_document(&b, "two").await
        ),
        (ONE.to_vec(), TWO.to_vec())
    );
    store.flush_points().await.unwrap();
}
