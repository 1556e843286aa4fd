//! The makespan is within 5 % of the minimum for any stage costs and workers.

use std::time::Duration;

use crate::chapters::{self, BookSetup, LONG_CHAPTER_PARTS, LONG_CHAPTERS, SHORT_CHAPTERS};
use crate::floor::{minimum_makespan, run_document};

#[test]
fn minimum_makespan_is_set_by_the_slowest_stage() {
    let hundred = minimum_makespan(100, [1, 1, 1, 1, 1]);
    assert_eq!(hundred, Duration::from_millis(600 + 170_000 + 1050 + 225));
    assert_eq!(
        minimum_makespan(100, [1, 1, 3, 2, 1]),
        Duration::from_millis(60_000 + 1700 + 1050 + 225)
    );
}

#[tokio::test(start_paused = true)]
async fn makespan_is_within_five_percent_of_the_minimum() {
    for pages in [100, 1000] {
        for rasterize in [1, 2] {
            for store in [1, 8] {
                for read in [1, 2, 3, 5] {
                    for embed in [1, 2, 4] {
                        let workers = [rasterize, store, read, embed, 1];
                        let run = run_document(pages, workers).await;
                        assert!(
                            (0.999..=1.05).contains(&run.ratio_to_floor()),
                            "{pages} pages, {workers:?}: {:.3}, floor {:?}, makespan {:?}",
                            run.ratio_to_floor(),
                            run.minimum,
                            run.makespan
                        );
                        // The first page is searchable after its own stage costs. Pages that were embedded at the same time are
                        // upserted with it.
                        let least = 600 + 1700 + 1050 + 225 * u64::from(embed);
                        assert!(
                            run.first_page_searchable <= Duration::from_millis(least),
                            "{:?}",
                            run.first_page_searchable
                        );
                    }
                }
            }
        }
    }
}

#[tokio::test(start_paused = true)]
async fn book_summary_takes_hardly_longer_than_its_model_calls() {
    for providers in [1, 2] {
        let run = chapters::summarize_book(&BookSetup {
            providers,
            ..BookSetup::default()
        })
        .await;
        assert!(
            (0.999..=1.05).contains(&run.ratio_to_floor()),
            "{providers}: {run:?}"
        );
        assert_eq!(
            run.calls,
            u64::from(SHORT_CHAPTERS + LONG_CHAPTER_PARTS + LONG_CHAPTERS + 1)
        );
        assert_eq!(run.summarized as u32, SHORT_CHAPTERS + LONG_CHAPTERS);
        assert_eq!((run.timeouts, run.breaker_openings), (0, 0));
        assert!(run.longest_admission_wait < Duration::from_secs(60), "{run:?}");
    }
}

/// Each optimization matters when providers fail or the host restarts.
#[tokio::test(start_paused = true)]
async fn each_router_optimization_improves_the_makespan() {
    let all = BookSetup::default();
    let optimist = BookSetup {
        stated_concurrency: 6,
        ..all.clone()
    };
    let down = BookSetup {
        providers: 2,
        outage_seconds: Some(300..900),
        ..all.clone()
    };
    let stopped = BookSetup {
        stop_after_responses: Some(400),
        ..all
    };
    let on = chapters::summarize_book(&optimist).await;
    let off = chapters::summarize_book(&BookSetup {
        adaptive: false,
        ..optimist
    })
    .await;
    assert_eq!(on.summarized as u32, SHORT_CHAPTERS + LONG_CHAPTERS, "{on:?}");
    assert_eq!(on.failure_message, None);
    assert!(on.timeouts * 10 < off.timeouts, "{on:?} {off:?}");
    assert!(
        on.ratio_to_floor() < 1.1 && off.ratio_to_floor() > 2.0,
        "{on:?} {off:?}"
    );

    let on = chapters::summarize_book(&down).await;
    let off = chapters::summarize_book(&BookSetup {
        breaker: false,
        ..down
    })
    .await;
    assert!(on.timeouts < off.timeouts, "{on:?} {off:?}");
    assert!(on.took.mul_f64(1.1) < off.took, "{on:?} {off:?}");
    // The breaker stays open for at least two minutes, and longer each time.
    assert!(on.ratio_to_floor() < 1.2, "{on:?}");

    let on = chapters::summarize_book(&stopped).await;
    let off = chapters::summarize_book(&BookSetup {
        cache: false,
        ..stopped
    })
    .await;
    // Requests in flight at the stop are sent again. Finished ones are sent again only without the response cache.
    let once = u64::from(SHORT_CHAPTERS + LONG_CHAPTER_PARTS + LONG_CHAPTERS + 1);
    assert!(on.calls <= once + 4, "{on:?}");
    assert!(off.calls >= once + 400, "{off:?}");
}
