//! The makespan is within 5 % of what stage costs and workers allow, whatever they are.

use std::time::Duration;

use crate::chapters::{self, LONG, PARTS, SHORT, Setup};
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

#[tokio::test(start_paused = true)]
async fn a_book_of_385_chapters_takes_hardly_longer_than_its_answers() {
    for providers in [1, 2] {
        let run = chapters::run(&Setup {
            providers,
            ..Setup::default()
        })
        .await;
        assert!((0.999..=1.05).contains(&run.ratio()), "{providers}: {run:?}");
        assert_eq!(run.calls, u64::from(SHORT + PARTS + LONG + 1));
        assert_eq!(run.summarized as u32, SHORT + LONG);
        assert_eq!((run.timeouts, run.opened), (0, 0));
        assert!(run.blocked < Duration::from_secs(60), "{run:?}");
    }
}

/// What each is there for: that it makes the difference where things go wrong.
#[tokio::test(start_paused = true)]
async fn what_is_switched_off_is_missed() {
    let all = Setup::default();
    let optimist = Setup {
        stated: 6,
        ..all.clone()
    };
    let down = Setup {
        providers: 2,
        down: Some(300..900),
        ..all.clone()
    };
    let stopped = Setup {
        stopped_after: Some(400),
        ..all
    };
    let on = chapters::run(&optimist).await;
    let off = chapters::run(&Setup {
        adaptive: false,
        ..optimist
    })
    .await;
    assert_eq!(on.summarized as u32, SHORT + LONG, "{on:?}");
    assert_eq!(on.why, None);
    assert!(on.timeouts * 10 < off.timeouts, "{on:?} {off:?}");
    assert!(on.ratio() < 1.1 && off.ratio() > 2.0, "{on:?} {off:?}");

    let on = chapters::run(&down).await;
    let off = chapters::run(&Setup {
        breaker: false,
        ..down
    })
    .await;
    assert!(on.timeouts < off.timeouts, "{on:?} {off:?}");
    assert!(on.took.mul_f64(1.1) < off.took, "{on:?} {off:?}");
    // It is left alone for at least two minutes at a time, and each time for longer.
    assert!(on.ratio() < 1.2, "{on:?}");

    let on = chapters::run(&stopped).await;
    let off = chapters::run(&Setup {
        cache: false,
        ..stopped
    })
    .await;
    // What was under way when it stopped is asked again, and all of the rest that was answered only without the kept answers.
    let once = u64::from(SHORT + PARTS + LONG + 1);
    assert!(on.calls <= once + 4, "{on:?}");
    assert!(off.calls >= once + 400, "{off:?}");
}
