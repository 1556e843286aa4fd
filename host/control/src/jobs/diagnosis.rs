//! Diagnoses which stage is the bottleneck of a job, in a sentence with its evidence.
//!
//! There are two kinds of evidence. After each batch of pages is rasterized, an event reports how full the queue in front of each
//! stage was (a queue sample). And each stage reports its busy time, which is how long its workers were processing pages.
//!
//! The rules, in this order:
//!
//! - A stage whose queue was always full is the bottleneck: the stages in front of it wait for it.
//! - Rasterizing is the bottleneck if the queues that it fills were always empty, unless another stage has a longer busy time. Pages
//!   whose text is read in a millisecond leave no trace in a queue, while the next scan keeps a worker busy for seconds.
//! - A stage whose workers were busy nearly all the time is the bottleneck. So is a stage whose workers were busy half of the time,
//!   if no other stage was busy half as long.
//!
//! Busy time matters because queue samples can be misleading. A short document never fills a queue. And there are no samples after
//! the last page is rasterized, although most of the work may still be ahead.

use weir_core::Stage;
use weir_core::decision::StageTotals;
use weir_core::llm::ProviderFailureInfo;

use super::progress::{JobProgress, QueueSampleCounts};

/// The minimum share that counts as nearly always: of queue samples in which a queue is full or empty, or of the time in which
/// workers are busy.
const ALWAYS_SHARE: f64 = 0.8;
/// The share of busy time from which on a stage can be the bottleneck, if it has far more to do than the others.
const MOSTLY_BUSY_SHARE: f64 = 0.5;

/// What limits the speed of a job.
#[derive(Debug, PartialEq)]
pub struct BottleneckDiagnosis {
    /// The stage that limits the job; `None` if there is none.
    pub bottleneck: Option<Stage>,
    /// The diagnosis as a sentence.
    pub sentence: String,
    /// The evidence for each stage.
    pub stages: Vec<StageEvidence>,
    /// The failing providers of language models that the job waits for. While there are any, no stage is the bottleneck.
    pub failing_providers: Vec<ProviderFailureInfo>,
}

/// The measurements of a stage.
#[derive(Debug, Clone, PartialEq)]
pub struct StageEvidence {
    /// The stage.
    pub stage: Stage,
    /// The number of samples of the length of its queue.
    pub queue_samples: u32,
    /// The number of samples in which the queue was empty.
    pub empty: u32,
    /// The number of samples in which the queue was full.
    pub full: u32,
    /// The number of pages that it can process at the same time; 0 before its first page.
    pub workers: u32,
    /// The number of pages that it has finished since the job was last started or resumed.
    pub pages: u32,
    /// The busy time of its workers in milliseconds, summed over all workers.
    pub busy_millis: u64,
}

impl StageEvidence {
    fn from_samples_and_work(stage: Stage, samples: QueueSampleCounts, work: &[StageTotals]) -> Self {
        let work = work.iter().find(|work| work.stage == stage);
        Self {
            stage,
            queue_samples: samples.count,
            empty: samples.empty,
            full: samples.full,
            workers: work.map_or(0, |work| work.workers),
            pages: work.map_or(0, |work| work.pages),
            busy_millis: work.map_or(0, |work| work.busy_millis),
        }
    }

    fn is_queue_nearly_always_full(&self) -> bool {
        self.queue_samples > 0 && f64::from(self.full) / f64::from(self.queue_samples) >= ALWAYS_SHARE
    }

    fn is_queue_nearly_always_empty(&self) -> bool {
        self.queue_samples > 0 && f64::from(self.empty) / f64::from(self.queue_samples) >= ALWAYS_SHARE
    }

    /// Returns the mean busy time of a worker in milliseconds.
    fn busy_millis_per_worker(&self) -> f64 {
        self.busy_millis as f64 / f64::from(self.workers.max(1))
    }

    fn describe_queue(&self, what: &str, times: u32) -> String {
        format!(
            "the queue before {} was {what} in {times} of {} samples",
            self.stage, self.queue_samples
        )
    }

    fn workers_as_sentence_subject(&self) -> String {
        match self.workers {
            1 => "its worker was".into(),
            workers => format!("its {workers} workers were"),
        }
    }
}

/// Diagnoses what limits a job. `work` is the work of its stages within the last `millis`; `now_millis` is the current time in
/// milliseconds since 1970.
pub(crate) fn diagnose_bottleneck_from_progress(
    progress: &JobProgress,
    work: &[StageTotals],
    millis: u64,
    now_millis: u64,
) -> BottleneckDiagnosis {
    let samples_by_stage = Stage::ALL.into_iter().zip(progress.queue_samples);
    let stages: Vec<_> = samples_by_stage
        .map(|(stage, samples)| StageEvidence::from_samples_and_work(stage, samples, work))
        .filter(|evidence| evidence.queue_samples > 0 || evidence.pages > 0)
        .collect();
    let (bottleneck, sentence) = match progress.failing_providers.as_slice() {
        [] => find_and_describe_bottleneck(&stages, millis),
        waits_for => (None, describe_failing_providers(waits_for, now_millis)),
    };
    BottleneckDiagnosis {
        bottleneck,
        sentence,
        stages,
        failing_providers: progress.failing_providers.clone(),
    }
}

fn describe_failing_providers(providers: &[ProviderFailureInfo], now_millis: u64) -> String {
    let each: Vec<_> = providers
        .iter()
        .map(|provider| provider.describe_failure(now_millis))
        .collect();
    format!("the job waits for language models: {}", each.join("; "))
}

fn find_and_describe_bottleneck(stages: &[StageEvidence], millis: u64) -> (Option<Stage>, String) {
    let evidence_of = |stage: Stage| stages.iter().find(|evidence| evidence.stage == stage);
    if stages.is_empty() {
        let nothing = "no batch of pages has been rasterized yet, so nothing can be said";
        return (None, nothing.into());
    }
    // A slow stage fills its queue and then the queues in front of it, so the last full queue counts.
    let downstream = [Stage::Upsert, Stage::Embed, Stage::Read, Stage::Store];
    let full = downstream
        .into_iter()
        .filter_map(evidence_of)
        .find(|evidence| evidence.is_queue_nearly_always_full());
    if let Some(evidence) = full {
        let (stage, why) = (evidence.stage, evidence.describe_queue("full", evidence.full));
        let behind = if stage == Stage::Upsert {
            "embedding waits for it"
        } else {
            "rasterizing waits for it"
        };
        let sentence = format!("{stage} is the bottleneck: {why}, so {behind}");
        return (Some(stage), sentence);
    }
    let mut by_work: Vec<_> = stages
        .iter()
        .filter(|evidence| evidence.busy_millis > 0)
        .collect();
    by_work.sort_by(|a, b| b.busy_millis_per_worker().total_cmp(&a.busy_millis_per_worker()));
    let (busiest, next) = (by_work.first(), by_work.get(1));
    let queues_after_rasterize: Vec<_> = [Stage::Read, Stage::Store]
        .into_iter()
        .filter_map(evidence_of)
        .filter(|evidence| evidence.queue_samples > 0)
        .collect();
    if !queues_after_rasterize.is_empty()
        && queues_after_rasterize
            .iter()
            .all(|evidence| evidence.is_queue_nearly_always_empty())
        && busiest.is_none_or(|evidence| evidence.stage == Stage::Rasterize)
    {
        let why: Vec<_> = queues_after_rasterize
            .iter()
            .map(|evidence| evidence.describe_queue("empty", evidence.empty))
            .collect();
        let sentence = format!(
            "{} is the bottleneck: {}, so the rest waits for pages",
            Stage::Rasterize,
            why.join(" and ")
        );
        return (Some(Stage::Rasterize), sentence);
    }
    let Some(evidence) = busiest else {
        let nothing = "no stage has finished a page yet, so nothing can be said";
        return (None, nothing.into());
    };
    let share =
        |evidence: &StageEvidence| (evidence.busy_millis_per_worker() / millis.max(1) as f64).min(1.0);
    let most = share(evidence);
    let others = next.map_or(0.0, |next| share(next));
    let stage = evidence.stage;
    let why = format!(
        "{} busy {:.0} % of the time",
        evidence.workers_as_sentence_subject(),
        most * 100.0
    );
    if most >= ALWAYS_SHARE || (most >= MOSTLY_BUSY_SHARE && others * 2.0 <= most) {
        let others = next.map_or_else(String::new, |next| {
            format!(
                "; the workers of {}, the next busiest stage, were busy {:.0} %",
                next.stage,
                others * 100.0
            )
        });
        let sentence = format!("{stage} is the bottleneck: {why}{others}");
        return (Some(stage), sentence);
    }
    let sentence = format!("no stage always holds back the others; {stage} has most to do: {why}");
    (None, sentence)
}

#[cfg(test)]
mod tests {
    use super::*;
    use weir_core::event::ErrorInfo;

    /// Diagnoses stages with two workers and ten queue samples each. A stage is given as its name, the number of samples in which its
    /// queue was empty, the number in which it was full, and the busy milliseconds.
    fn diagnose_stages(seen: &[(Stage, u32, u32, u64)], millis: u64) -> BottleneckDiagnosis {
        let mut progress = JobProgress::default();
        let mut work = Vec::new();
        for (stage, empty, full, busy_millis) in seen {
            progress.queue_samples[*stage as usize] = QueueSampleCounts {
                count: 10,
                empty: *empty,
                full: *full,
            };
            work.push(StageTotals {
                stage: *stage,
                pages: 10,
                busy_millis: *busy_millis,
                workers: 2,
            });
        }
        diagnose_bottleneck_from_progress(&progress, &work, millis, 0)
    }

    #[test]
    fn bottleneck_follows_from_full_and_empty_queues() {
        let drawing = [
            (Stage::Rasterize, 0, 9, 900),
            (Stage::Embed, 3, 2, 300),
            (Stage::Read, 9, 0, 10),
            (Stage::Store, 10, 0, 10),
        ];
        let drawing = diagnose_stages(&drawing, 1000);
        assert_eq!(drawing.bottleneck, Some(Stage::Rasterize));
        assert_eq!(
            drawing.sentence,
            "rasterize is the bottleneck: the queue before read was empty in 9 of 10 samples and the queue before store was \
             empty in 10 of 10 samples, so the rest waits for pages"
        );
        assert_eq!(drawing.stages.len(), 4);

        let reading = [(Stage::Read, 0, 8, 90), (Stage::Store, 10, 0, 10)];
        let reading = diagnose_stages(&reading, 1000);
        assert_eq!(reading.bottleneck, Some(Stage::Read));
        assert_eq!(
            reading.sentence,
            "read is the bottleneck: the queue before read was full in 8 of 10 samples, so rasterizing waits for it"
        );

        let writing = [(Stage::Read, 0, 10, 90), (Stage::Upsert, 0, 10, 10)];
        assert_eq!(diagnose_stages(&writing, 1000).bottleneck, Some(Stage::Upsert));
    }

    #[test]
    fn busy_time_finds_the_bottleneck_when_queues_do_not() {
        // The queue before reading was always empty when a batch was rasterized: the first pages had a text layer.
        let seen = [
            (Stage::Rasterize, 0, 0, 100),
            (Stage::Read, 10, 0, 7600),
            (Stage::Store, 10, 0, 20),
            (Stage::Embed, 5, 0, 400),
        ];
        let always = diagnose_stages(&seen, 4000);
        assert_eq!(always.bottleneck, Some(Stage::Read));
        assert_eq!(
            always.sentence,
            "read is the bottleneck: its 2 workers were busy 95 % of the time; the workers of embed, the next busiest stage, \
             were busy 5 %"
        );
        let mostly = diagnose_stages(&seen, 6000);
        assert_eq!(mostly.bottleneck, Some(Stage::Read));
        assert_eq!(
            mostly.sentence,
            "read is the bottleneck: its 2 workers were busy 63 % of the time; the workers of embed, the next busiest stage, \
             were busy 3 %"
        );
        let partly = diagnose_stages(&seen, 10_000);
        assert_eq!(partly.bottleneck, None);
        assert_eq!(
            partly.sentence,
            "no stage always holds back the others; read has most to do: its 2 workers were busy 38 % of the time"
        );
    }

    #[test]
    fn failing_language_models_are_named_before_any_stage() {
        let progress = JobProgress {
            failing_providers: vec![ProviderFailureInfo {
                provider: "far".into(),
                since_millis: 5000,
                error: ErrorInfo {
                    kind: "unreachable".into(),
                    message: "cannot be reached: connection refused".into(),
                },
            }],
            ..JobProgress::default()
        };
        let work = [StageTotals {
            stage: Stage::Read,
            pages: 10,
            busy_millis: 900,
            workers: 1,
        }];
        let diagnosis = diagnose_bottleneck_from_progress(&progress, &work, 1000, 98_000);
        assert_eq!(
            (diagnosis.bottleneck, diagnosis.failing_providers.len()),
            (None, 1)
        );
        assert_eq!(
            diagnosis.sentence,
            "the job waits for language models: far has failed for 93 s: cannot be reached: connection refused"
        );
    }

    #[test]
    fn no_samples_give_no_diagnosis() {
        let nothing = diagnose_bottleneck_from_progress(&JobProgress::default(), &[], 1000, 0);
        assert!(nothing.sentence.contains("nothing can be said"));
        let nothing = diagnose_stages(&[(Stage::Read, 5, 0, 0)], 1000);
        assert!(nothing.sentence.contains("nothing can be said"));
    }
}
