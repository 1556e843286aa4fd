//! Which stage holds a job up, in a sentence, with what speaks for it.
//!
//! Two things speak for it. Whenever a batch of pages has been drawn, the event tells how full the queue before each stage
//! was: if it is always full, that stage is too slow for those before it, which wait. And each stage sums up how long its
//! workers had pages in hand. Where no queue was always full (a short document never fills one, and after the last page has
//! been drawn nobody looks any more, though most of the work may be to come), a stage whose workers were busy nearly all the
//! time is the bottleneck, and so is one that was busy half of it while no other had half as much to do. Rasterizing is, if what it fills is always empty, unless the sums say that another stage had
//! more to do: pages whose text is read in a millisecond leave no trace in a queue, and the next scan keeps a worker for
//! seconds.

use serde::Serialize;
use utoipa::ToSchema;
use weir_core::Stage;
use weir_core::decision::StageWork;
use weir_core::language::FailingProvider;

use super::progress::{Looks, Progress};
use super::view::ProviderView;

/// Share of the looks that counts as always, and of the time.
const ALWAYS: f64 = 0.8;
/// Share of the time from which on a stage counts that has far more to do than the others.
const MOSTLY: f64 = 0.5;

/// What holds a job up.
#[derive(Debug, PartialEq, Serialize, ToSchema)]
pub(crate) struct Diagnosis {
    /// The stage that does, if there is one.
    #[schema(value_type = Option<String>, example = "read")]
    bottleneck: Option<Stage>,
    /// The same for people.
    sentence: String,
    /// What speaks for it.
    stages: Vec<StageEvidence>,
    /// The failing language models that the job waits for; while there are any, no stage holds it up.
    waits_for: Vec<ProviderView>,
}

/// What was seen of a stage.
#[derive(Debug, Clone, PartialEq, Serialize, ToSchema)]
pub(crate) struct StageEvidence {
    /// The stage.
    #[schema(value_type = String, example = "read")]
    stage: Stage,
    /// How often its queue was looked at.
    looks: u32,
    /// How often it was empty.
    empty: u32,
    /// How often it was full.
    full: u32,
    /// Pages it works on at once; 0 if it has done nothing yet.
    workers: u32,
    /// Pages it is done with, since the host last began with the job.
    pages: u32,
    /// Milliseconds that its workers had pages in hand, summed over workers.
    busy_millis: u64,
}

impl StageEvidence {
    fn of(stage: Stage, looks: Looks, work: &[StageWork]) -> Self {
        let work = work.iter().find(|work| work.stage == stage);
        Self {
            stage,
            looks: looks.count,
            empty: looks.empty,
            full: looks.full,
            workers: work.map_or(0, |work| work.workers),
            pages: work.map_or(0, |work| work.pages),
            busy_millis: work.map_or(0, |work| work.busy_millis),
        }
    }

    fn always_full(&self) -> bool {
        self.looks > 0 && f64::from(self.full) / f64::from(self.looks) >= ALWAYS
    }

    fn always_empty(&self) -> bool {
        self.looks > 0 && f64::from(self.empty) / f64::from(self.looks) >= ALWAYS
    }

    /// Milliseconds that each worker was busy, on average.
    fn busy_each(&self) -> f64 {
        self.busy_millis as f64 / f64::from(self.workers.max(1))
    }

    fn queue(&self, what: &str, times: u32) -> String {
        format!(
            "the queue before {} was {what} in {times} of {} looks",
            self.stage, self.looks
        )
    }

    fn its_workers(&self) -> String {
        match self.workers {
            1 => "its worker was".into(),
            workers => format!("its {workers} workers were"),
        }
    }
}

/// What holds a job up that has come so far. `work` is what its stages have done within `millis`; `now_millis` is the time in
/// milliseconds since 1970.
pub(crate) fn diagnose(progress: &Progress, work: &[StageWork], millis: u64, now_millis: u64) -> Diagnosis {
    let looks = Stage::ALL.into_iter().zip(progress.looks);
    let stages: Vec<_> = looks
        .map(|(stage, looks)| StageEvidence::of(stage, looks, work))
        .filter(|seen| seen.looks > 0 || seen.pages > 0)
        .collect();
    let (bottleneck, sentence) = match progress.waits_for.as_slice() {
        [] => judge(&stages, millis),
        waits_for => (None, waiting(waits_for, now_millis)),
    };
    let waits_for = progress.waits_for.iter().cloned().map(ProviderView::from);
    Diagnosis {
        bottleneck,
        sentence,
        stages,
        waits_for: waits_for.collect(),
    }
}

fn waiting(providers: &[FailingProvider], now_millis: u64) -> String {
    let each: Vec<_> = providers
        .iter()
        .map(|provider| provider.describe(now_millis))
        .collect();
    format!("the job waits for language models: {}", each.join("; "))
}

fn judge(stages: &[StageEvidence], millis: u64) -> (Option<Stage>, String) {
    let of = |stage: Stage| stages.iter().find(|seen| seen.stage == stage);
    if stages.is_empty() {
        let nothing = "no batch of pages has been drawn yet, so nothing can be said";
        return (None, nothing.into());
    }
    // A full queue before a stage fills those before it in turn, so the last one counts.
    let downstream = [Stage::Upsert, Stage::Embed, Stage::Read, Stage::Store];
    let full = downstream
        .into_iter()
        .filter_map(of)
        .find(|seen| seen.always_full());
    if let Some(seen) = full {
        let (stage, why) = (seen.stage, seen.queue("full", seen.full));
        let behind = if stage == Stage::Upsert {
            "embedding waits for it"
        } else {
            "drawing waits for it"
        };
        let sentence = format!("{stage} is the bottleneck: {why}, so {behind}");
        return (Some(stage), sentence);
    }
    let mut by_work: Vec<_> = stages.iter().filter(|seen| seen.busy_millis > 0).collect();
    by_work.sort_by(|a, b| b.busy_each().total_cmp(&a.busy_each()));
    let (busiest, next) = (by_work.first(), by_work.get(1));
    let filled_by_drawing: Vec<_> = [Stage::Read, Stage::Store]
        .into_iter()
        .filter_map(of)
        .filter(|seen| seen.looks > 0)
        .collect();
    if !filled_by_drawing.is_empty()
        && filled_by_drawing.iter().all(|seen| seen.always_empty())
        && busiest.is_none_or(|seen| seen.stage == Stage::Rasterize)
    {
        let why: Vec<_> = filled_by_drawing
            .iter()
            .map(|seen| seen.queue("empty", seen.empty))
            .collect();
        let sentence = format!(
            "{} is the bottleneck: {}, so the rest waits for pages",
            Stage::Rasterize,
            why.join(" and ")
        );
        return (Some(Stage::Rasterize), sentence);
    }
    let Some(seen) = busiest else {
        let nothing = "no stage has finished a page yet, so nothing can be said";
        return (None, nothing.into());
    };
    let share = |seen: &StageEvidence| (seen.busy_each() / millis.max(1) as f64).min(1.0);
    let most = share(seen);
    let others = next.map_or(0.0, |next| share(next));
    let stage = seen.stage;
    let why = format!("{} busy {:.0} % of the time", seen.its_workers(), most * 100.0);
    if most >= ALWAYS || (most >= MOSTLY && others * 2.0 <= most) {
        let others = next.map_or_else(String::new, |next| {
            format!(", those of {} {:.0} %", next.stage, others * 100.0)
        });
        let sentence = format!("{stage} is the bottleneck: {why}{others}");
        return (Some(stage), sentence);
    }
    let sentence = format!("no stage holds the others up all the time; {stage} has most to do: {why}");
    (None, sentence)
}

#[cfg(test)]
mod tests {
    use super::*;
    use weir_core::event::ErrorNote;

    /// Ten looks: how often each queue was empty and full, and how long the stage's two workers were busy.
    fn diagnosed(seen: &[(Stage, u32, u32, u64)], millis: u64) -> Diagnosis {
        let mut progress = Progress::default();
        let mut work = Vec::new();
        for (stage, empty, full, busy_millis) in seen {
            progress.looks[*stage as usize] = Looks {
                count: 10,
                empty: *empty,
                full: *full,
            };
            work.push(StageWork {
                stage: *stage,
                pages: 10,
                busy_millis: *busy_millis,
                workers: 2,
            });
        }
        diagnose(&progress, &work, millis, 0)
    }

    #[test]
    fn the_rules_of_the_queues() {
        let drawing = [
            (Stage::Rasterize, 0, 9, 900),
            (Stage::Embed, 3, 2, 300),
            (Stage::Read, 9, 0, 10),
            (Stage::Store, 10, 0, 10),
        ];
        let drawing = diagnosed(&drawing, 1000);
        assert_eq!(drawing.bottleneck, Some(Stage::Rasterize));
        assert_eq!(
            drawing.sentence,
            "rasterize is the bottleneck: the queue before read was empty in 9 of 10 looks and the queue before store was \
             empty in 10 of 10 looks, so the rest waits for pages"
        );
        assert_eq!(drawing.stages.len(), 4);

        let reading = [(Stage::Read, 0, 8, 90), (Stage::Store, 10, 0, 10)];
        let reading = diagnosed(&reading, 1000);
        assert_eq!(reading.bottleneck, Some(Stage::Read));
        assert_eq!(
            reading.sentence,
            "read is the bottleneck: the queue before read was full in 8 of 10 looks, so drawing waits for it"
        );

        let writing = [(Stage::Read, 0, 10, 90), (Stage::Upsert, 0, 10, 10)];
        assert_eq!(diagnosed(&writing, 1000).bottleneck, Some(Stage::Upsert));
    }

    #[test]
    fn a_few_scans_behind_many_pages_with_text() {
        // Whenever a batch was drawn, nothing waited to be read: the pages until then had their text with them.
        let seen = [
            (Stage::Rasterize, 0, 0, 100),
            (Stage::Read, 10, 0, 7600),
            (Stage::Store, 10, 0, 20),
            (Stage::Embed, 5, 0, 400),
        ];
        let always = diagnosed(&seen, 4000);
        assert_eq!(always.bottleneck, Some(Stage::Read));
        assert_eq!(
            always.sentence,
            "read is the bottleneck: its 2 workers were busy 95 % of the time, those of embed 5 %"
        );
        let mostly = diagnosed(&seen, 6000);
        assert_eq!(mostly.bottleneck, Some(Stage::Read));
        assert_eq!(
            mostly.sentence,
            "read is the bottleneck: its 2 workers were busy 63 % of the time, those of embed 3 %"
        );
        let partly = diagnosed(&seen, 10_000);
        assert_eq!(partly.bottleneck, None);
        assert_eq!(
            partly.sentence,
            "no stage holds the others up all the time; read has most to do: its 2 workers were busy 38 % of the time"
        );
    }

    #[test]
    fn failing_language_models_are_named_before_any_stage() {
        let progress = Progress {
            waits_for: vec![FailingProvider {
                provider: "far".into(),
                since_millis: 5000,
                error: ErrorNote {
                    kind: "unreachable".into(),
                    message: "cannot be reached: connection refused".into(),
                },
            }],
            ..Progress::default()
        };
        let work = [StageWork {
            stage: Stage::Read,
            pages: 10,
            busy_millis: 900,
            workers: 1,
        }];
        let diagnosis = diagnose(&progress, &work, 1000, 98_000);
        assert_eq!((diagnosis.bottleneck, diagnosis.waits_for.len()), (None, 1));
        assert_eq!(
            diagnosis.sentence,
            "the job waits for language models: far has failed for 93 s: cannot be reached: connection refused"
        );
    }

    #[test]
    fn nothing_seen_nothing_said() {
        let nothing = diagnose(&Progress::default(), &[], 1000, 0);
        assert!(nothing.sentence.contains("nothing can be said"));
        let nothing = diagnosed(&[(Stage::Read, 5, 0, 0)], 1000);
        assert!(nothing.sentence.contains("nothing can be said"));
    }
}
