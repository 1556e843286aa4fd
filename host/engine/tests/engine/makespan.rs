//! The makespan is within 5 % of what stage costs and workers allow, whatever they are.

use std::time::Duration;

use crate::floor::{floor, run};

#[test]
fn the_floor_of_one_worker_a_stage_is_that_of_ocr() {
    let hundred = floor(100, [1, 1, 1, 1, 1]);
    assert_eq!(hundred, Duration::from_millis(600 + 170_000 + 1050 + 225));
    assert_eq!(
        floor(100, [1, 1, 3, 2, 1]),
        Duration::from_millis(60_000 + 1700 + 1050 + 225)
    );
}

#[tokio::test(start_paused = true)]
async fn within_five_percent_of_the_floor() {
    for pages in [100, 1000] {
        for rasterize in [1, 2] {
            for store in [1, 8] {
                for read in [1, 2, 3, 5] {
                    for embed in [1, 2, 4] {
                        let workers = [rasterize, store, read, embed, 1];
                        let run = run(pages, workers).await;
                        assert!(
                            (0.999..=1.05).contains(&run.ratio()),
                            "{pages} pages, {workers:?}: {:.3}, floor {:?}, makespan {:?}",
                            run.ratio(),
                            run.floor,
                            run.makespan
                        );
                        // The first page is searchable as soon as its own stages allow, but for those that were embedded at
                        // the same moment and are written together with it.
                        let least = 600 + 1700 + 1050 + 225 * u64::from(embed);
                        assert!(run.first <= Duration::from_millis(least), "{:?}", run.first);
                    }
                }
            }
        }
    }
}
