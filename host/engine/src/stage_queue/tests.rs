use futures::FutureExt as _;
use weir_core::{PriorityLane, TenantId};

use super::*;
use crate::latency_boost::LatencyBoosts;
use crate::ocr_image_limiter::PerTenantOcrImageLimiter;
use crate::stage_workers::HostWorkers;

fn bulk_account() -> SchedulingContext {
    SchedulingContext {
        tenant: TenantId::default_tenant(),
        lane: PriorityLane::Bulk,
        group: 0,
        batch_linger: Duration::ZERO,
        tenant_weight: 1.0,
    }
}

fn test_queue(stage: Stage) -> DocumentStageQueue {
    let boosts = Arc::new(LatencyBoosts::new(Duration::ZERO));
    let one = |stage| StageWorkers::new(stage, 1, &boosts);
    let workers = HostWorkers {
        rasterize: one(Stage::Rasterize),
        ocr_image_limiter: PerTenantOcrImageLimiter::new(1, 1),
        store: one(Stage::Store),
        ocr: one(Stage::Read),
        text_layer: one(Stage::Read),
        vision: one(Stage::Read),
        embed: one(Stage::Embed),
        upsert: one(Stage::Upsert),
    };
    DocumentStageQueue::new(
        stage,
        workers.workers_of_stage(stage),
        &bulk_account(),
        [&StageBusyTimes::new(), &StageBusyTimes::new()],
    )
}

#[tokio::test(start_paused = true)]
async fn depth_counts_queued_pages_and_capacity_counts_reservations() {
    let queue = test_queue(Stage::Read);
    queue.set_capacity(2);
    let reservation = queue.reserve().await;
    assert_eq!((queue.queue_state().depth, queue.queue_state().capacity), (0, 2));
    let queued_page = reservation.enqueue();
    let _other = queue.reserve().await;
    assert_eq!(queue.queue_state().depth, 1);
    assert!(queue.reserve().now_or_never().is_none());
    let slot = queued_page.leave_queue_for_worker_slot().await;
    assert_eq!(queue.queue_state().depth, 0);
    assert!(queue.reserve().now_or_never().is_some());
    tokio::time::advance(Duration::from_millis(40)).await;
    assert_eq!(slot.record_finished_pages(1), Duration::from_millis(40));
    assert_eq!(
        queue.mean_stage_time(),
        StageTiming {
            stage: Stage::Read,
            millis_per_page: 40.0,
            pages: 1
        }
    );
}

#[tokio::test(start_paused = true)]
async fn stage_time_is_the_mean_of_the_last_sixteen_pages() {
    let queue = test_queue(Stage::Embed);
    for millis in [1000, 10] {
        for _ in 0..16 {
            let slot = queue
                .reserve()
                .await
                .enqueue()
                .leave_queue_for_worker_slot()
                .await;
            tokio::time::advance(Duration::from_millis(millis)).await;
            slot.record_finished_pages(1);
        }
    }
    assert_eq!(
        (
            queue.mean_stage_time().millis_per_page,
            queue.mean_stage_time().pages
        ),
        (10.0, 32)
    );
    let [_, document] = &queue.0.busy_times;
    assert_eq!(document.stage_totals()[0].busy_millis, 16_160);
}

#[tokio::test(start_paused = true)]
async fn busy_time_includes_slots_in_use() {
    let queue = test_queue(Stage::Read);
    let work = || {
        let [job, document] = &queue.0.busy_times;
        assert_eq!(job.stage_totals(), document.stage_totals());
        let work = job.stage_totals();
        work.iter()
            .map(|work| (work.stage, work.pages, work.busy_millis))
            .collect::<Vec<_>>()
    };
    assert_eq!(work(), []);
    tokio::time::advance(Duration::from_millis(500)).await;
    let slot = queue
        .reserve()
        .await
        .enqueue()
        .leave_queue_for_worker_slot()
        .await;
    tokio::time::advance(Duration::from_millis(40)).await;
    assert_eq!(work(), [(Stage::Read, 0, 40)]);
    slot.record_finished_pages(1);
    drop(slot);
    let failed = queue
        .reserve()
        .await
        .enqueue()
        .leave_queue_for_worker_slot()
        .await;
    tokio::time::advance(Duration::from_millis(2)).await;
    drop(failed);
    tokio::time::advance(Duration::from_millis(500)).await;
    assert_eq!(work(), [(Stage::Read, 1, 42)]);
}

#[tokio::test(start_paused = true)]
async fn requeue_never_waits_for_capacity() {
    let queue = test_queue(Stage::Read);
    let slot = queue
        .reserve()
        .await
        .enqueue()
        .leave_queue_for_worker_slot()
        .await;
    let next = queue.reserve().await.enqueue();
    let again = slot.release_and_requeue();
    assert_eq!(queue.queue_state().depth, 2);
    let slot = next.leave_queue_for_worker_slot().await;
    drop(slot);
    again.leave_queue_for_worker_slot().now_or_never().unwrap();
    assert!(queue.reserve().now_or_never().is_some());
}
