//! Searches of several tenants in one call.

use std::sync::Arc;

use async_trait::async_trait;
use parking_lot::Mutex;
use weir_core::decision::ComputeDevice;
use weir_core::ports::{Embedder, SchedulingContext, VectorStore as _};
use weir_core::search::IndexPoint;
use weir_core::{DocumentId, InferenceError, Rect, TenantId};
use weir_engine::{Engine, EngineConfig, PortImplementations, SearchError, SearchRequest};

use crate::fakes::FakeHost;

/// Records its calls, and fails for one tenant.
#[derive(Default)]
struct RecordingEmbedder(Mutex<Vec<(TenantId, Vec<String>)>>);

#[async_trait]
impl Embedder for RecordingEmbedder {
    async fn embed_texts(
        &self,
        account: &SchedulingContext,
        texts: Vec<String>,
    ) -> Result<Vec<Vec<f32>>, InferenceError> {
        self.0.lock().push((account.tenant.clone(), texts.clone()));
        if account.tenant.as_str() == "unlucky" {
            return Err(InferenceError::QueueFull {
                model: "text embedding".into(),
                waiting: 9,
            });
        }
        Ok(texts.iter().map(|_| vec![1.0, 0.0]).collect())
    }

    fn count_tokens(&self, _: &str) -> Result<u32, InferenceError> {
        Ok(1)
    }

    fn vector_dimensions(&self) -> usize {
        2
    }

    fn max_input_tokens(&self) -> u32 {
        256
    }

    fn worker_count(&self) -> u32 {
        1
    }

    fn compute_device(&self) -> ComputeDevice {
        ComputeDevice::default()
    }
}

#[tokio::test(start_paused = true)]
async fn fake_vector_store_passes_the_conformance_suite() {
    let fakes = FakeHost::new();
    weir_conformance::check_vector_store(&*fakes.vectors, 4).await;
}

#[tokio::test(start_paused = true)]
async fn fake_blob_store_passes_the_conformance_suite() {
    let fakes = FakeHost::new();
    weir_conformance::check_blob_store(&*fakes.blobs).await;
}

#[tokio::test]
async fn queries_of_a_tenant_are_embedded_in_one_call() {
    let fakes = FakeHost::new();
    let tenants: [TenantId; 3] = ["a", "b", "unlucky"].map(|name| name.parse().unwrap());
    for n in 0..4_u32 {
        let point = IndexPoint {
            id: uuid::Uuid::from_u128(n.into()),
            document: DocumentId::from_content(b"d"),
            document_name: "d.pdf".into(),
            page: n + 1,
            passage: 0,
            text: format!("word{n}"),
            rect: Rect::WHOLE_PAGE,
            dense_vector: vec![1.0, 0.0],
            labels: Vec::new(),
            image: None,
            lines: None,
        };
        for tenant in &tenants[..2] {
            fakes
                .vectors
                .upsert_points(tenant, "c", vec![point.clone()])
                .await
                .unwrap();
        }
    }
    let embedder = Arc::new(RecordingEmbedder::default());
    let ports = PortImplementations {
        embedder: embedder.clone(),
        ..fakes.fake_ports()
    };
    let engine = Engine::new(ports, EngineConfig::default());
    let request = |tenant: usize, text: &str| SearchRequest::new(tenants[tenant].clone(), text);
    let requests = vec![
        request(0, "word3"),
        request(1, "word0"),
        request(2, "word1"),
        request(0, "word1"),
        request(0, "none"),
        request(1, "word2"),
    ];
    let results = engine.search_many(requests).await;
    let pages: Vec<_> = results
        .iter()
        .map(|result| match result {
            Ok(hits) => Ok(hits.iter().map(|hit| hit.page).collect::<Vec<_>>()),
            Err(error) => Err(error.kind()),
        })
        .collect();
    let full = Err("model-queue-full");
    assert_eq!(
        pages,
        [
            Ok(vec![4]),
            Ok(vec![1]),
            full,
            Ok(vec![2]),
            Ok(vec![]),
            Ok(vec![3])
        ]
    );
    assert!(matches!(results[2], Err(SearchError::Inference(_))));
    let mut embed_calls = embedder.0.lock().clone();
    embed_calls.sort();
    let words = |words: &[&str]| words.iter().map(|w| (*w).to_owned()).collect::<Vec<_>>();
    let [a, b, unlucky] = tenants.clone();
    assert_eq!(
        embed_calls,
        [
            (a, words(&["word3", "word1", "none"])),
            (b, words(&["word0", "word2"])),
            (unlucky, words(&["word1"])),
        ]
    );
    assert!(engine.search_many(Vec::new()).await.is_empty());
}
