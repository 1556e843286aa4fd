//! What storing and finding cost: `cargo bench -p weir-storage`. One figure a line, the median and the worst of its runs.
#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::print_stdout,
    missing_docs
)]

use std::future::Future;
use std::time::{Duration, Instant};

use uuid::Uuid;
use weir_core::ledger::{Entry, PageRecord, PageState};
use weir_core::ports::{BlobStore, Ledger, VectorStore};
use weir_core::search::{Point, Query};
use weir_core::text::TextSource;
use weir_core::{DocumentId, JobId, Rect, RevisionId, TenantId};
use weir_storage::Storage;

const DIMENSIONS: usize = 384;
const PER_PAGE: u32 = 10;
const WORDS: [&str; 12] = [
    "valve", "pressure", "bolt", "torque", "engine", "filter", "coolant", "gasket", "shaft", "bearing",
    "sensor", "relay",
];

/// A sequence that looks random and is the same each time (SplitMix64).
struct Numbers(u64);

impl Numbers {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    #[expect(clippy::cast_precision_loss, reason = "any number between -1 and 1 will do")]
    fn vector(&mut self) -> Vec<f32> {
        let vector: Vec<f32> = (0..DIMENSIONS)
            .map(|_| (self.next() % 2001) as f32 / 1000.0 - 1.0)
            .collect();
        let length = vector.iter().map(|x| x * x).sum::<f32>().sqrt();
        vector.into_iter().map(|x| x / length).collect()
    }

    fn text(&mut self, words: usize) -> String {
        let word = |_| {
            let n = self.next();
            format!("{}{}", WORDS[(n % 12) as usize], n / 12 % 500)
        };
        (0..words).map(word).collect::<Vec<_>>().join(" ")
    }
}

fn page(numbers: &mut Numbers, page: u32) -> Vec<Point> {
    (0..PER_PAGE)
        .map(|passage| Point {
            id: Uuid::from_u64_pair(u64::from(page), u64::from(passage)),
            document: DocumentId::of(&(page / 100).to_le_bytes()),
            name: "manual.pdf".into(),
            page,
            passage,
            text: numbers.text(150),
            rect: Rect::PAGE,
            dense: numbers.vector(),
            labels: Vec::new(),
            image: None,
            lines: None,
        })
        .collect()
}

async fn report<F: Future<Output = ()>>(what: &str, runs: u32, mut run: impl FnMut(u32) -> F) {
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
    let storage = Storage::open(dir.path(), DIMENSIONS, "bench").await.unwrap();
    let (big, small) = (TenantId::single(), "small".parse::<TenantId>().unwrap());
    let mut numbers = Numbers(1);
    let vectors = &storage.vectors;
    for number in 0..100 {
        vectors
            .upsert(&small, "main", page(&mut numbers, number))
            .await
            .unwrap();
    }
    let mut pages = 0;
    for size in [10_000, 50_000] {
        let (mut spent, mut points) = (Duration::ZERO, 0_u32);
        while pages * PER_PAGE < size {
            let batch: Vec<_> = (0..4).flat_map(|i| page(&mut numbers, pages + i)).collect();
            let begin = Instant::now();
            vectors.upsert(&big, "main", batch).await.unwrap();
            spent += begin.elapsed();
            points += 4 * PER_PAGE;
            pages += 4;
        }
        let begin = Instant::now();
        vectors.flush().await.unwrap();
        let flush = begin.elapsed();
        println!(
            "{size} passages of {DIMENSIONS}: {:.0} upserts/s in batches of {}, one flush after all {:.0} ms",
            f64::from(points) / spent.as_secs_f64(),
            4 * PER_PAGE,
            flush.as_secs_f64() * 1000.0
        );
        let queries: Vec<_> = (0..50)
            .map(|_| Query {
                text: numbers.text(4),
                dense: numbers.vector(),
                top_k: 5,
                documents: Vec::new(),
                collection: None,
                labels: Vec::new(),
            })
            .collect();
        for (name, tenant) in [("all of them", &big), ("a tenant with 1000", &small)] {
            report(&format!("{size}: hybrid search in {name}"), 50, async |i| {
                vectors.search(tenant, &queries[i as usize]).await.unwrap();
            })
            .await;
            report(&format!("{size}: by embedding alone in {name}"), 50, async |i| {
                let query = Query {
                    text: String::new(),
                    ..queries[i as usize].clone()
                };
                vectors.search(tenant, &query).await.unwrap();
            })
            .await;
        }
        let document = DocumentId::of(&1_u32.to_le_bytes());
        report(
            &format!("{size}: count a document of 100 pages"),
            20,
            async |_| {
                vectors.pages(&big, &document).await.unwrap();
            },
        )
        .await;
    }
    let removed = DocumentId::of(&2_u32.to_le_bytes());
    vectors.remove(&big, &removed, None).await.unwrap();
    report(
        "index written anew without a removed document of 1000",
        1,
        async |_| vectors.compact().await.unwrap(),
    )
    .await;
    let batches: Vec<_> = (0..40).map(|i| page(&mut numbers, pages + i)).collect();
    report("upsert of a page (10 passages) and its flush", 40, async |i| {
        vectors
            .upsert(&big, "main", batches[i as usize].clone())
            .await
            .unwrap();
        vectors.flush().await.unwrap();
    })
    .await;

    let revision = RevisionId::of(b"r");
    report("ledger: commit of 100 pages", 50, async |i| {
        let entries = (0..100)
            .map(|page| {
                Entry::Page(PageRecord {
                    tenant: big.clone(),
                    document: DocumentId::of(&i.to_le_bytes()),
                    page,
                    revision,
                    job: JobId::new(),
                    state: PageState::Done {
                        source: TextSource::Ocr,
                        passages: 10,
                        image: None,
                        text: None,
                    },
                })
            })
            .collect();
        storage.ledger.commit(entries).await.unwrap();
    })
    .await;

    let image = vec![7; 90_000];
    report("blobs: put of 90 kB", 200, async |i| {
        storage
            .blobs
            .put(&big, &format!("d/{i}/image/150.jpg"), &image)
            .await
            .unwrap();
    })
    .await;
    report("blobs: flush of those 200", 1, async |_| {
        storage.blobs.flush().await.unwrap()
    })
    .await;

    let begin = Instant::now();
    storage.close().await.unwrap();
    println!("close: {:.0} ms", begin.elapsed().as_secs_f64() * 1000.0);
    let begin = Instant::now();
    let storage = Storage::open(dir.path(), DIMENSIONS, "bench").await.unwrap();
    println!(
        "open with {} passages: {:.0} ms",
        pages * PER_PAGE,
        begin.elapsed().as_secs_f64() * 1000.0
    );
    storage.close().await.unwrap();
}
