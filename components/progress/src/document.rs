//! Counts the pages of one document and decides when to send an update.

use weir_sdk::progress::{DocumentStarted, PageFailed, Update};
use weir_sdk::{DocumentId, QueueState, StageTime};

use crate::bottleneck::{BottleneckDetector, stage_activity};
use crate::page_rate::PageRate;

/// Increase in percent that triggers an update.
const MIN_PERCENT_STEP: f32 = 1.0;
/// Milliseconds after which any change triggers an update.
const MAX_UPDATE_INTERVAL_MILLIS: u64 = 1000;

/// The progress of an active document.
#[derive(Debug)]
pub(crate) struct DocumentProgress {
    id: DocumentId,
    pages: u32,
    started_millis: u64,
    searchable: u32,
    /// Pages that are done and have no searchable text.
    textless: u32,
    failed: u32,
    /// Pages that are not rasterized yet.
    not_rasterized: u32,
    rate: PageRate,
    bottleneck: BottleneckDetector,
    last_update: Option<(u64, Update)>,
}

impl DocumentProgress {
    pub(crate) fn new(at_millis: u64, started: &DocumentStarted) -> Self {
        Self {
            id: started.document.clone(),
            pages: started.pages,
            started_millis: at_millis,
            searchable: started.already_done.min(started.pages),
            textless: 0,
            failed: 0,
            not_rasterized: started.pages.saturating_sub(started.already_done),
            rate: PageRate::new(at_millis),
            bottleneck: BottleneckDetector::default(),
            last_update: None,
        }
    }

    pub(crate) fn record_rasterized(
        &mut self,
        at_millis: u64,
        pages: u32,
        queues: &[QueueState],
        times: &[StageTime],
    ) -> Option<Update> {
        self.not_rasterized = self.not_rasterized.saturating_sub(pages);
        self.bottleneck.add_sample(queues, times);
        self.next_update(at_millis)
    }

    pub(crate) fn record_page_done(&mut self, at_millis: u64, searchable: bool) -> Option<Update> {
        *(if searchable {
            &mut self.searchable
        } else {
            &mut self.textless
        }) += 1;
        self.rate.record_page(at_millis);
        self.next_update(at_millis)
    }

    /// Records a failure, which is always reported with its reason.
    pub(crate) fn record_page_failed(&mut self, at_millis: u64, page: &PageFailed) -> Option<Update> {
        self.failed += 1;
        self.rate.record_page(at_millis);
        let message = format!(
            "page {} failed while {}: {}",
            page.page,
            stage_activity(page.stage),
            page.message
        );
        let update = self.build_update(at_millis, message);
        self.last_update = Some((at_millis, update.clone()));
        Some(update)
    }

    pub(crate) fn into_done_update(self, at_millis: u64) -> Update {
        let seconds = at_millis.saturating_sub(self.started_millis) as f64 / 1000.0;
        let message = format!("{} in {seconds:.1} s", self.count_message());
        Update {
            percent: 100.0,
            seconds_left: Some(0),
            ..self.build_update(at_millis, message)
        }
    }

    pub(crate) fn into_stopped_update(self) -> Update {
        let message = format!("stopped with {}", self.count_message());
        Update {
            seconds_left: None,
            ..self.build_update(self.started_millis, message)
        }
    }

    /// Returns an update if the progress has changed enough since the last one.
    pub(crate) fn next_update(&mut self, at_millis: u64) -> Option<Update> {
        let update = self.build_update(at_millis, self.status_message(at_millis));
        if let Some((told_millis, told)) = &self.last_update {
            let late =
                at_millis.saturating_sub(*told_millis) >= MAX_UPDATE_INTERVAL_MILLIS && *told != update;
            if !late && update.percent < told.percent + MIN_PERCENT_STEP {
                return None;
            }
        }
        self.last_update = Some((at_millis, update.clone()));
        Some(update)
    }

    fn build_update(&self, at_millis: u64, message: String) -> Update {
        let ended = self.ended_pages();
        Update {
            document: self.id.clone(),
            percent: 100.0 * ended as f32 / self.pages.max(1) as f32,
            // The limit of the contract. Only the error of a page can be that long.
            message: message.chars().take(500).collect(),
            seconds_left: self.rate.seconds_for(self.pages - ended, at_millis),
        }
    }

    fn ended_pages(&self) -> u32 {
        self.searchable
            .saturating_add(self.textless)
            .saturating_add(self.failed)
            .min(self.pages)
    }

    fn status_message(&self, at_millis: u64) -> String {
        let mut message = self.count_message();
        if let Some(rate) = self.rate.pages_per_second(at_millis) {
            message += &if rate < 10.0 {
                format!(", {rate:.1} pages/s")
            } else {
                format!(", {rate:.0} pages/s")
            };
        }
        if let Some(stage) = self.bottleneck.slowest_stage(self.not_rasterized == 0) {
            message += &format!(", {} is the bottleneck", stage_activity(stage));
        }
        message
    }

    fn count_message(&self) -> String {
        let mut counts = format!("{} of {} pages searchable", self.searchable, self.pages);
        if self.textless > 0 {
            counts += &format!(", {} without text", self.textless);
        }
        if self.failed > 0 {
            counts += &format!(", {} failed", self.failed);
        }
        counts
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use weir_sdk::Stage;
    use weir_sdk::progress::{BatchRasterized, DocumentEnded, Event, PageDone, Progress};

    use crate::DefaultProgress;

    fn start(pages: u32, already_done: u32) -> (DefaultProgress, Vec<Update>) {
        let mut progress = DefaultProgress::default();
        let event = Event::DocumentStarted(DocumentStarted {
            document: "d".into(),
            name: "a.pdf".into(),
            pages,
            already_done,
        });
        let updates = progress.observe(0, event);
        (progress, updates)
    }

    fn page(page: u32, searchable: bool) -> Event {
        Event::PageDone(PageDone {
            document: "d".into(),
            page,
            searchable,
            passages: 1,
        })
    }

    fn batch() -> Event {
        let queues = Stage::ALL.map(|stage| QueueState {
            stage,
            depth: if stage == Stage::Read { 8 } else { 0 },
            capacity: 8,
            workers: 1,
        });
        let times = Stage::ALL.map(|stage| StageTime {
            stage,
            millis_per_page: 300.0,
            pages: 8,
        });
        Event::BatchRasterized(BatchRasterized {
            document: "d".into(),
            pages: 4,
            queues: queues.into(),
            times: times.into(),
        })
    }

    fn ended(done: u32, failed: u32) -> DocumentEnded {
        DocumentEnded {
            document: "d".into(),
            done,
            failed,
        }
    }

    #[test]
    fn update_names_pages_rate_and_bottleneck() {
        let (mut progress, _) = start(40, 0);
        progress.observe(0, batch());
        let mut last = vec![];
        for n in 1..=12 {
            last = progress.observe(u64::from(n) * 1000, page(n, true));
        }
        assert_eq!(
            last[0].message,
            "12 of 40 pages searchable, 1.0 pages/s, reading is the bottleneck"
        );
        assert_eq!((last[0].percent, last[0].seconds_left), (30.0, Some(28)));
    }

    #[test]
    fn pages_of_an_earlier_job_count_as_done_but_not_in_the_rate() {
        let (mut progress, first) = start(100, 60);
        assert_eq!(
            (first[0].percent, first[0].message.as_str()),
            (60.0, "60 of 100 pages searchable")
        );
        for n in 1..=9 {
            progress.observe(u64::from(n) * 100, page(60 + n, true));
        }
        let update = &progress.observe(1000, page(70, true))[0];
        assert_eq!((update.percent, update.seconds_left), (70.0, Some(3)));
    }

    #[test]
    fn thousand_fast_pages_give_about_a_hundred_updates() {
        let (mut progress, _) = start(1000, 0);
        let updates: Vec<_> = (1..=1000)
            .flat_map(|n| progress.observe(u64::from(n), page(n, true)))
            .collect();
        assert!((90..=101).contains(&updates.len()), "{}", updates.len());
        assert!(updates.windows(2).all(|w| w[0].percent < w[1].percent));
        assert_eq!(updates.last().map(|u| u.percent), Some(100.0));
    }

    #[test]
    fn slow_progress_is_reported_every_second_without_repetition() {
        let (mut progress, _) = start(1000, 0);
        assert!(progress.observe(500, batch()).is_empty());
        assert_eq!(progress.observe(1200, batch()).len(), 1);
        assert!(progress.observe(2500, batch()).is_empty()); // the same again
        assert_eq!(progress.observe(2600, page(1, true)).len(), 1);
    }

    #[test]
    fn failures_are_reported_with_their_reason_and_counted() {
        let (mut progress, _) = start(10, 0);
        let event = Event::PageFailed(PageFailed {
            document: "d".into(),
            page: 3,
            stage: Stage::Rasterize,
            message: "x".repeat(600),
        });
        let update = progress.observe(10, event).remove(0);
        assert!(update.message.starts_with("page 3 failed while rasterizing: xxx"));
        assert_eq!((update.message.chars().count(), update.percent), (500, 10.0));
        progress.observe(20, page(1, false));
        let end = progress.observe(2000, Event::DocumentDone(ended(9, 1))).remove(0);
        assert_eq!(
            end.message,
            "0 of 10 pages searchable, 1 without text, 1 failed in 2.0 s"
        );
    }

    #[test]
    fn document_end_is_reported_and_its_state_removed() {
        let (mut progress, _) = start(2, 0);
        progress.observe(10, page(1, true));
        let end = progress.observe(20, Event::DocumentFailed(ended(1, 1))).remove(0);
        assert_eq!(
            (end.percent, end.message.as_str()),
            (50.0, "stopped with 1 of 2 pages searchable")
        );
        assert!(progress.documents.is_empty());
        let (mut progress, _) = start(2, 2);
        let end = progress.observe(20, Event::DocumentDone(ended(2, 0))).remove(0);
        assert_eq!((end.percent, end.seconds_left), (100.0, Some(0)));
    }

    #[test]
    fn invalid_events_give_valid_updates() {
        let (mut progress, first) = start(0, 5);
        assert!(first[0].percent.is_finite());
        for n in 0..5 {
            let updates = progress.observe(0, page(n, true));
            assert!(updates.iter().all(|u| (0.0..=100.0).contains(&u.percent)));
        }
        let other = Event::DocumentDone(DocumentEnded {
            document: "unknown".into(),
            done: 1,
            failed: 0,
        });
        assert!(progress.observe(1, other).is_empty());
    }
}
