use futures::FutureExt as _;
use weir_core::{Lane, TenantId};

use super::*;
use crate::ocr_images::OcrImages;
use crate::rooms::HostSeats;

fn account() -> Account {
    Account {
        tenant: TenantId::single(),
        lane: Lane::Bulk,
        linger: Duration::ZERO,
        weight: 1.0,
    }
}

fn room(stage: Stage) -> Room {
    let head_starts = Arc::new(HeadStarts::new(Duration::ZERO));
    let one = |stage| Seats::new(stage, 1, &head_starts);
    let seats = HostSeats {
        rasterize: one(Stage::Rasterize),
        ocr_images: OcrImages::new(1, 1),
        store: one(Stage::Store),
        ocr: one(Stage::Read),
        text_layer: one(Stage::Read),
        vision: one(Stage::Read),
        embed: one(Stage::Embed),
        upsert: one(Stage::Upsert),
    };
    Room::new(stage, seats.of(stage), &account(), [&Spent::new(), &Spent::new()])
}

#[tokio::test(start_paused = true)]
async fn depth_counts_those_who_came_and_capacity_those_who_booked_too() {
    let room = room(Stage::Read);
    room.set_capacity(2);
    let booked = room.book().await;
    assert_eq!((room.queue().depth, room.queue().capacity), (0, 2));
    let waiting = booked.arrive();
    let _other = room.book().await;
    assert_eq!(room.queue().depth, 1);
    assert!(room.book().now_or_never().is_none());
    let seated = waiting.seat().await;
    assert_eq!(room.queue().depth, 0);
    assert!(room.book().now_or_never().is_some());
    tokio::time::advance(Duration::from_millis(40)).await;
    assert_eq!(seated.finished(1), Duration::from_millis(40));
    assert_eq!(
        room.time(),
        StageTime {
            stage: Stage::Read,
            millis_per_page: 40.0,
            pages: 1
        }
    );
}

#[tokio::test(start_paused = true)]
async fn the_time_is_the_mean_of_the_last_sixteen() {
    let room = room(Stage::Embed);
    for millis in [1000, 10] {
        for _ in 0..16 {
            let seated = room.book().await.arrive().seat().await;
            tokio::time::advance(Duration::from_millis(millis)).await;
            seated.finished(1);
        }
    }
    assert_eq!((room.time().millis_per_page, room.time().pages), (10.0, 32));
    let [_, document] = &room.0.spent;
    assert_eq!(document.work()[0].busy_millis, 16_160);
}

#[tokio::test(start_paused = true)]
async fn a_jobs_sums_have_whoever_sits_now() {
    let room = room(Stage::Read);
    let work = || {
        let [job, document] = &room.0.spent;
        assert_eq!(job.work(), document.work());
        let work = job.work();
        work.iter()
            .map(|work| (work.stage, work.pages, work.busy_millis))
            .collect::<Vec<_>>()
    };
    assert_eq!(work(), []);
    tokio::time::advance(Duration::from_millis(500)).await;
    let seated = room.book().await.arrive().seat().await;
    tokio::time::advance(Duration::from_millis(40)).await;
    assert_eq!(work(), [(Stage::Read, 0, 40)]);
    seated.finished(1);
    drop(seated);
    let failed = room.book().await.arrive().seat().await;
    tokio::time::advance(Duration::from_millis(2)).await;
    drop(failed);
    tokio::time::advance(Duration::from_millis(500)).await;
    assert_eq!(work(), [(Stage::Read, 1, 42)]);
}

#[tokio::test(start_paused = true)]
async fn a_page_sent_back_never_waits_for_a_place() {
    let room = room(Stage::Read);
    let seated = room.book().await.arrive().seat().await;
    let next = room.book().await.arrive();
    let again = seated.back();
    assert_eq!(room.queue().depth, 2);
    let seated = next.seat().await;
    drop(seated);
    again.seat().now_or_never().unwrap();
    assert!(room.book().now_or_never().is_some());
}
