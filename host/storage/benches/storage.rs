//! Measures writes and searches: `cargo bench -p weir-storage`. Each line has the median and the worst time of its runs.
#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::print_stdout,
    missing_docs
)]

use std::future::Future;
use std::time::{Duration, Instant};

use uuid::Uuid;
use weir_core::ledger::{FinalPageState, LedgerEntry, PageRecord};
use weir_core::page_text::TextSource;
use weir_core::ports::Ledger;
use weir_core::search::{IndexPoint, SearchQuery};
use weir_core::{DocumentId, JobId, Rect, RevisionId, TenantId};
use weir_storage::Storage;

const DIMENSIONS: usize = 384;
const PASSAGES_PER_PAGE: u32 = 10;
const WORDS: [&str; 12] = [
    "valve", "pressure", "bolt", "torque", "engine", "filter", "coolant", "gasket", "shaft", "bearing",
    "sensor", "relay",
];

/// A pseudorandom sequence with a fixed seed (SplitMix64).
struct PseudoRandomNumbers(u64);

impl PseudoRandomNumbers {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    #[expect(
        clippy::cast_precision_loss,
        reason = "any number between -1 and 1 is suitable"
    )]
    fn random_unit_vector(&mut self) -> Vec<f32> {
        let vector: Vec<f32> = (0..DIMENSIONS)
            .map(|_| (self.next() % 2001) as f32 / 1000.0 - 1.0)
            .collect();
        let length = vector.iter().map(|x| x * x).sum::<f32>().sqrt();
        vector.into_iter().map(|x| x / length).collect()
    }

    fn random_text(&mut self, words: usize) -> String {
        let word = |_| {
            let n = self.next();
            format!("{}{}", WORDS[(n % 12) as usize], n / 12 % 500)
        };
        (0..words).map(word).collect::<Vec<_>>().join(" ")
    }
}

fn random_page(numbers: &mut PseudoRandomNumbers, page: u32) -> Vec<IndexPoint> {
    (0..PASSAGES_PER_PAGE)
        .map(|passage| IndexPoint {
            id: Uuid::from_u64_pair(u64::from(page), u64::from(passage)),
            document: DocumentId::from_content(&(page / 100).to_le_bytes()),
            document_name: "manual.pdf".into(),
            page,
            passage,
            text: numbers.random_text(150),
            rect: Rect::WHOLE_PAGE,
            dense_vector: numbers.random_unit_vector(),
            labels: Vec::new(),
            image: None,
            lines: None,
        })
        .collect()
}

async fn measure_and_print<F: Future<Output = ()>>(what: &str, runs: u32, mut run: impl FnMut(u32) -> F) {
    let mut times = Vec::new();
    for i in 0..runs {
        let begin = Instant::now();
        run(i).await;
        times.push(begin.elapsed());
    }
    times.sort_unstable();
    let millis = |time: Duration| time.as_secs_f64() * 1000.0;
    println!(
        "{what:<64} {:>9.2} ms   worst {:>9.2} ms",
        millis(times[times.len() / 2]),
        millis(times[times.len() - 1])
    );
}

#[tokio::main]
async fn main() {
    let dir = tempfile::tempdir_in(std::env::var("WEIR_BENCH_DIR").unwrap_or_else(|_| ".".into())).unwrap();
    let storage = Storage::open_or_create(dir.path(), DIMENSIONS, "bench")
        .await
        .unwrap();
    let (big, small) = (TenantId::default_tenant(), "small".parse::<TenantId>().unwrap());
    let mut numbers = PseudoRandomNumbers(1);
    let vectors = &storage.vectors;
    for number in 0..100 {
        vectors
            .upsert_points(&small, "main", random_page(&mut numbers, number))
            .await
            .unwrap();
    }
    let mut pages = 0;
    for size in [10_000, 50_000] {
        let (mut spent, mut points) = (Duration::ZERO, 0_u32);
        while pages * PASSAGES_PER_PAGE < size {
            let batch: Vec<_> = (0..4)
                .flat_map(|i| random_page(&mut numbers, pages + i))
                .collect();
            let begin = Instant::now();
            vectors.upsert_points(&big, "main", batch).await.unwrap();
            spent += begin.elapsed();
            points += 4 * PASSAGES_PER_PAGE;
            pages += 4;
        }
        let begin = Instant::now();
        vectors.flush_points().await.unwrap();
        let flush = begin.elapsed();
        println!(
            "{size} passages with {DIMENSIONS} dimensions: {:.0} upserts/s in batches of {}, final flush {:.0} ms",
            f64::from(points) / spent.as_secs_f64(),
            4 * PASSAGES_PER_PAGE,
            flush.as_secs_f64() * 1000.0
        );
        let queries: Vec<_> = (0..50)
            .map(|_| SearchQuery {
                query_text: numbers.random_text(4),
                dense_vector: numbers.random_unit_vector(),
                top_k: 5,
                documents: Vec::new(),
                collection: None,
                labels: Vec::new(),
            })
            .collect();
        for (name, tenant) in [
            ("a tenant with all of them", &big),
            ("a tenant with 1000", &small),
        ] {
            measure_and_print(&format!("{size}: hybrid search in {name}"), 50, async |i| {
                vectors
                    .search_by_vector_and_words(tenant, &queries[i as usize])
                    .await
                    .unwrap();
            })
            .await;
            measure_and_print(
                &format!("{size}: search by embedding only in {name}"),
                50,
                async |i| {
                    let query = SearchQuery {
                        query_text: String::new(),
                        ..queries[i as usize].clone()
                    };
                    vectors.search_by_vector_and_words(tenant, &query).await.unwrap();
                },
            )
            .await;
        }
        let document = DocumentId::from_content(&1_u32.to_le_bytes());
        measure_and_print(
            &format!("{size}: count a document of 100 pages"),
            20,
            async |_| {
                vectors.count_passages_by_page(&big, &document).await.unwrap();
            },
        )
        .await;
    }
    let removed = DocumentId::from_content(&2_u32.to_le_bytes());
    vectors
        .remove_document_or_page_points(&big, &removed, None)
        .await
        .unwrap();
    measure_and_print(
        "compaction after the removal of a document with 1000 passages",
        1,
        async |_| storage.compact_index().await.unwrap(),
    )
    .await;
    let batches: Vec<_> = (0..40).map(|i| random_page(&mut numbers, pages + i)).collect();
    measure_and_print("upsert of a page (10 passages) and its flush", 40, async |i| {
        vectors
            .upsert_points(&big, "main", batches[i as usize].clone())
            .await
            .unwrap();
        vectors.flush_points().await.unwrap();
    })
    .await;

    let revision = RevisionId::from_content(b"r");
    measure_and_print("ledger: commit of 100 pages", 50, async |i| {
        let entries = (0..100)
            .map(|page| {
                LedgerEntry::Page(PageRecord {
                    tenant: big.clone(),
                    document: DocumentId::from_content(&i.to_le_bytes()),
                    page,
                    revision,
                    job: JobId::new(),
                    state: FinalPageState::Done {
                        source: TextSource::Ocr,
                        passages: 10,
                        image: None,
                        text: None,
                    },
                })
            })
            .collect();
        storage.ledger.commit_entries(entries).await.unwrap();
    })
    .await;

    let image = vec![7; 90_000];
    measure_and_print("blobs: put of 90 kB", 200, async |i| {
        storage
            .blobs
            .put_blob(&big, &format!("d/{i}/image/150.jpg"), &image)
            .await
            .unwrap();
    })
    .await;
    measure_and_print("blobs: flush of those 200", 1, async |_| {
        storage.blobs.flush_blobs().await.unwrap()
    })
    .await;

    let begin = Instant::now();
    storage.close().await.unwrap();
    println!("close: {:.0} ms", begin.elapsed().as_secs_f64() * 1000.0);
    let begin = Instant::now();
    let storage = Storage::open_or_create(dir.path(), DIMENSIONS, "bench")
        .await
        .unwrap();
    println!(
        "open with {} passages: {:.0} ms",
        pages * PASSAGES_PER_PAGE,
        begin.elapsed().as_secs_f64() * 1000.0
    );
    storage.close().await.unwrap();
}
