//! Which stage holds a job up, in a sentence, with what speaks for it.
//!
//! Whenever a batch of pages has been drawn, the event tells how full the queue before each stage was. If what the
//! rasterizer fills is always empty, drawing is too slow for the rest; if it is always full, the rest is too slow for it. If
//! what is embedded waits before the index, writing to the index is. Between these there is no one bottleneck, and the stage
//! that takes longest for a page is where more workers would do most.

use serde::Serialize;
use utoipa::ToSchema;
use weir_core::Stage;

use super::progress::{Looks, Progress};

/// Share of the looks that counts as always.
const ALWAYS: f32 = 0.8;

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
}

/// What was seen of a stage.
#[derive(Debug, PartialEq, Serialize, ToSchema)]
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
    /// Pages it works on at once.
    workers: u32,
    /// Milliseconds it takes for a page.
    millis_per_page: f32,
}

/// What holds a job up that has come so far.
pub(crate) fn diagnose(progress: &Progress) -> Diagnosis {
    let (bottleneck, sentence) = judge(&progress.looks);
    let stages = Stage::ALL
        .into_iter()
        .zip(progress.looks)
        .filter(|(_, looks)| looks.count > 0);
    Diagnosis {
        bottleneck,
        sentence,
        stages: stages
            .map(|(stage, looks)| StageEvidence {
                stage,
                looks: looks.count,
                empty: looks.empty,
                full: looks.full,
                workers: looks.workers,
                millis_per_page: looks.millis_per_page,
            })
            .collect(),
    }
}

fn judge(all: &[Looks; Stage::ALL.len()]) -> (Option<Stage>, String) {
    let of = |stage: Stage| all.get(stage as usize).copied().unwrap_or_default();
    let share = |part: u32, looks: &Looks| part as f32 / looks.count.max(1) as f32;
    let always_full = |stage: &Stage| share(of(*stage).full, &of(*stage)) >= ALWAYS;
    let always_empty = |stage: &Stage| of(*stage).count > 0 && share(of(*stage).empty, &of(*stage)) >= ALWAYS;
    let evidence = |stage: Stage, what: &str, times: u32| {
        format!(
            "the queue before {stage} was {what} in {times} of {} looks",
            of(stage).count
        )
    };
    if all.iter().all(|looks| looks.count == 0) {
        return (
            None,
            "no batch of pages has been drawn yet, so nothing can be said".into(),
        );
    }
    // A full queue before a stage fills those before it in turn, so the last one counts.
    let downstream = [Stage::Upsert, Stage::Embed, Stage::Read, Stage::Store];
    if let Some(stage) = downstream.into_iter().find(always_full) {
        let why = evidence(stage, "full", of(stage).full);
        let behind = if stage == Stage::Upsert {
            "embedding waits for it"
        } else {
            "drawing waits for it"
        };
        return (
            Some(stage),
            format!("{stage} is the bottleneck: {why}, so {behind}"),
        );
    }
    let filled_by_drawing = [Stage::Read, Stage::Store];
    let seen = filled_by_drawing.into_iter().filter(|stage| of(*stage).count > 0);
    if seen.clone().count() > 0 && seen.clone().all(|stage| always_empty(&stage)) {
        let why: Vec<_> = seen
            .map(|stage| evidence(stage, "empty", of(stage).empty))
            .collect();
        let sentence = format!(
            "{} is the bottleneck: {}, so the rest waits for pages",
            Stage::Rasterize,
            why.join(" and ")
        );
        return (Some(Stage::Rasterize), sentence);
    }
    let cost = |stage: &Stage| of(*stage).millis_per_page / of(*stage).workers.max(1) as f32;
    let costliest = Stage::ALL.into_iter().max_by(|a, b| cost(a).total_cmp(&cost(b)));
    match costliest.filter(|stage| cost(stage) > 0.0) {
        Some(stage) => {
            let looks = of(stage);
            let sentence = format!(
                "no stage holds the others up all the time: no queue was always full or always empty; {stage} takes longest, {:.0} ms a page with {} worker{}",
                looks.millis_per_page,
                looks.workers,
                if looks.workers == 1 { "" } else { "s" },
            );
            (None, sentence)
        }
        None => (
            None,
            "no stage has finished a page yet, so nothing can be said".into(),
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn looks(seen: &[(Stage, u32, u32, f32)]) -> Progress {
        let mut progress = Progress::default();
        for (stage, empty, full, millis_per_page) in seen {
            progress.looks[*stage as usize] = Looks {
                count: 10,
                empty: *empty,
                full: *full,
                workers: 2,
                millis_per_page: *millis_per_page,
            };
        }
        progress
    }

    #[test]
    fn the_rules_of_the_queues() {
        let busy = [(Stage::Rasterize, 0, 9, 5.0), (Stage::Embed, 3, 2, 30.0)];
        let with = |more: &[(Stage, u32, u32, f32)]| diagnose(&looks(&[&busy[..], more].concat()));

        let drawing = with(&[(Stage::Read, 9, 0, 1.0), (Stage::Store, 10, 0, 1.0)]);
        assert_eq!(drawing.bottleneck, Some(Stage::Rasterize));
        assert_eq!(
            drawing.sentence,
            "rasterize is the bottleneck: the queue before read was empty in 9 of 10 looks and the queue before store was \
             empty in 10 of 10 looks, so the rest waits for pages"
        );

        let reading = with(&[(Stage::Read, 0, 8, 90.0), (Stage::Store, 10, 0, 1.0)]);
        assert_eq!(reading.bottleneck, Some(Stage::Read));
        assert_eq!(
            reading.sentence,
            "read is the bottleneck: the queue before read was full in 8 of 10 looks, so drawing waits for it"
        );

        let writing = with(&[(Stage::Read, 0, 10, 9.0), (Stage::Upsert, 0, 10, 1.0)]);
        assert_eq!(writing.bottleneck, Some(Stage::Upsert));

        let balanced = with(&[(Stage::Read, 5, 5, 10.0)]);
        assert_eq!(balanced.bottleneck, None);
        assert!(
            balanced
                .sentence
                .contains("embed takes longest, 30 ms a page with 2 workers"),
            "{}",
            balanced.sentence
        );
        assert_eq!(balanced.stages.len(), 3);
    }

    #[test]
    fn nothing_seen_nothing_said() {
        assert!(
            diagnose(&Progress::default())
                .sentence
                .contains("nothing can be said")
        );
    }
}
