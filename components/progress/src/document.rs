//! One document: what is counted, and when it is worth telling.

use weir_sdk::progress::{DocumentStarted, PageFailed, Update};
use weir_sdk::{DocumentId, QueueState, StageTime};

use crate::bottleneck::{Bottleneck, activity};
use crate::pace::Pace;

/// A rise in percent that is worth telling.
const PERCENT: f32 = 1.0;
/// The time after which any change is worth telling.
const MILLIS: u64 = 1000;

/// A document in work.
#[derive(Debug)]
pub(crate) struct Document {
    id: DocumentId,
    pages: u32,
    started_millis: u64,
    searchable: u32,
    /// Done, with nothing on them that a search could find.
    silent: u32,
    failed: u32,
    /// Pages still to be drawn.
    undrawn: u32,
    pace: Pace,
    bottleneck: Bottleneck,
    told: Option<(u64, Update)>,
}

impl Document {
    pub(crate) fn new(at_millis: u64, started: &DocumentStarted) -> Self {
        Self {
            id: started.document.clone(),
            pages: started.pages,
            started_millis: at_millis,
            searchable: started.already_done.min(started.pages),
            silent: 0,
            failed: 0,
            undrawn: started.pages.saturating_sub(started.already_done),
            pace: Pace::new(at_millis),
            bottleneck: Bottleneck::default(),
            told: None,
        }
    }

    pub(crate) fn rasterized(
        &mut self,
        at_millis: u64,
        pages: u32,
        queues: &[QueueState],
        times: &[StageTime],
    ) -> Option<Update> {
        self.undrawn = self.undrawn.saturating_sub(pages);
        self.bottleneck.look(queues, times);
        self.update(at_millis)
    }

    pub(crate) fn page_done(&mut self, at_millis: u64, searchable: bool) -> Option<Update> {
        *(if searchable {
            &mut self.searchable
        } else {
            &mut self.silent
        }) += 1;
        self.pace.page(at_millis);
        self.update(at_millis)
    }

    /// A failure is always told, with its reason.
    pub(crate) fn page_failed(&mut self, at_millis: u64, page: &PageFailed) -> Option<Update> {
        self.failed += 1;
        self.pace.page(at_millis);
        let message = format!(
            "page {} failed while {}: {}",
            page.page,
            activity(page.stage),
            page.message
        );
        let update = self.state(at_millis, message);
        self.told = Some((at_millis, update.clone()));
        Some(update)
    }

    pub(crate) fn done(self, at_millis: u64) -> Update {
        let seconds = at_millis.saturating_sub(self.started_millis) as f64 / 1000.0;
        let message = format!("{} in {seconds:.1} s", self.counts());
        Update {
            percent: 100.0,
            seconds_left: Some(0),
            ..self.state(at_millis, message)
        }
    }

    pub(crate) fn stopped(self) -> Update {
        let message = format!("stopped with {}", self.counts());
        Update {
            seconds_left: None,
            ..self.state(self.started_millis, message)
        }
    }

    /// What is to be told now, if that is worth it.
    pub(crate) fn update(&mut self, at_millis: u64) -> Option<Update> {
        let update = self.state(at_millis, self.message(at_millis));
        if let Some((told_millis, told)) = &self.told {
            let late = at_millis.saturating_sub(*told_millis) >= MILLIS && *told != update;
            if !late && update.percent < told.percent + PERCENT {
                return None;
            }
        }
        self.told = Some((at_millis, update.clone()));
        Some(update)
    }

    fn state(&self, at_millis: u64, message: String) -> Update {
        let ended = self.ended();
        Update {
            document: self.id.clone(),
            percent: 100.0 * ended as f32 / self.pages.max(1) as f32,
            // The contract's limit; only a page's error can come near it.
            message: message.chars().take(500).collect(),
            seconds_left: self.pace.seconds_for(self.pages - ended, at_millis),
        }
    }

    fn ended(&self) -> u32 {
        self.searchable
            .saturating_add(self.silent)
            .saturating_add(self.failed)
            .min(self.pages)
    }

    fn message(&self, at_millis: u64) -> String {
        let mut message = self.counts();
        if let Some(rate) = self.pace.pages_per_second(at_millis) {
            message += &if rate < 10.0 {
                format!(", {rate:.1} pages/s")
            } else {
                format!(", {rate:.0} pages/s")
            };
        }
        if let Some(stage) = self.bottleneck.stage(self.undrawn == 0) {
            message += &format!(", {} is the bottleneck", activity(stage));
        }
        message
    }

    fn counts(&self) -> String {
        let mut counts = format!("{} of {} pages searchable", self.searchable, self.pages);
        if self.silent > 0 {
            counts += &format!(", {} without text", self.silent);
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
    fn what_is_told_names_pages_pace_and_bottleneck() {
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
    fn pages_of_an_earlier_job_count_as_done_but_not_as_pace() {
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
    fn a_thousand_quick_pages_are_about_a_hundred_updates_of_rising_percent() {
        let (mut progress, _) = start(1000, 0);
        let updates: Vec<_> = (1..=1000)
            .flat_map(|n| progress.observe(u64::from(n), page(n, true)))
            .collect();
        assert!((90..=101).contains(&updates.len()), "{}", updates.len());
        assert!(updates.windows(2).all(|w| w[0].percent < w[1].percent));
        assert_eq!(updates.last().map(|u| u.percent), Some(100.0));
    }

    #[test]
    fn slow_work_is_told_every_second_and_nothing_twice() {
        let (mut progress, _) = start(1000, 0);
        assert!(progress.observe(500, batch()).is_empty());
        assert_eq!(progress.observe(1200, batch()).len(), 1);
        assert!(progress.observe(2500, batch()).is_empty()); // the same again
        assert_eq!(progress.observe(2600, page(1, true)).len(), 1);
    }

    #[test]
    fn failures_are_told_with_their_reason_and_counted() {
        let (mut progress, _) = start(10, 0);
        let event = Event::PageFailed(PageFailed {
            document: "d".into(),
            page: 3,
            stage: Stage::Rasterize,
            message: "x".repeat(600),
        });
        let update = progress.observe(10, event).remove(0);
        assert!(update.message.starts_with("page 3 failed while drawing: xxx"));
        assert_eq!((update.message.chars().count(), update.percent), (500, 10.0));
        progress.observe(20, page(1, false));
        let end = progress.observe(2000, Event::DocumentDone(ended(9, 1))).remove(0);
        assert_eq!(
            end.message,
            "0 of 10 pages searchable, 1 without text, 1 failed in 2.0 s"
        );
    }

    #[test]
    fn the_end_is_told_and_forgotten() {
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
    fn odd_events_do_no_harm() {
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
