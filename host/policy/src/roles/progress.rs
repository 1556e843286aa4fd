//! What the user is told.

use weir_core::decision::{Observation, ProgressUpdate};
use weir_core::event::ErrorNote;
use weir_core::manifest::Role;

use super::{Decision, missing, words};
use crate::bindings::progress;
use crate::guest::one_line;
use crate::live::Live;
use crate::recording::Exchange;

/// Updates taken of one answer.
const UPDATES: usize = 16;
/// Characters of a message.
const MESSAGE: usize = 500;

/// Something that happened, to be told.
#[derive(Clone)]
pub(crate) struct Observed {
    pub(crate) at_millis: u64,
    pub(crate) what: Observation,
}

impl Decision for Observed {
    const ROLE: Role = Role::Progress;
    const FUNCTION: &'static str = "progress.observe";
    type Said = Vec<progress::Update>;
    type Answer = Vec<ProgressUpdate>;

    async fn ask(&self, live: &mut Live) -> wasmtime::Result<Vec<progress::Update>> {
        let guest = live.roles.progress.as_ref().ok_or_else(|| missing(Self::ROLE))?;
        guest
            .call_observe(&mut live.store, self.at_millis, &event(&self.what))
            .await
    }

    fn check(&self, said: Vec<progress::Update>) -> Result<Vec<ProgressUpdate>, String> {
        said.into_iter()
            .take(UPDATES)
            .map(|update| {
                if !(0.0..=100.0).contains(&update.percent) {
                    return Err(format!("percent is {}, not within 0 to 100", update.percent));
                }
                Ok(ProgressUpdate {
                    document: update
                        .document
                        .parse()
                        .map_err(|_| "an update names no document".to_owned())?,
                    percent: update.percent,
                    message: one_line(&update.message, MESSAGE),
                    seconds_left: update.seconds_left,
                })
            })
            .collect()
    }

    fn exchange(self, answer: Result<Vec<ProgressUpdate>, ErrorNote>) -> Exchange {
        Exchange::Observe(self.at_millis, self.what, answer)
    }
}

fn event(what: &Observation) -> progress::Event {
    match what {
        Observation::DocumentStarted {
            document,
            name,
            pages,
            already_done,
        } => progress::Event::DocumentStarted(progress::DocumentStarted {
            document: document.to_string(),
            name: name.clone(),
            pages: *pages,
            already_done: *already_done,
        }),
        Observation::BatchRasterized {
            document,
            pages,
            queues,
            times,
        } => progress::Event::BatchRasterized(progress::BatchRasterized {
            document: document.to_string(),
            pages: *pages,
            queues: words::queues(queues),
            times: words::times(times),
        }),
        Observation::PageDone {
            document,
            page,
            searchable,
            passages,
        } => progress::Event::PageDone(progress::PageDone {
            document: document.to_string(),
            page: *page,
            searchable: *searchable,
            passages: *passages,
        }),
        Observation::PageFailed {
            document,
            page,
            stage,
            message,
        } => progress::Event::PageFailed(progress::PageFailed {
            document: document.to_string(),
            page: *page,
            stage: words::stage(*stage),
            message: message.clone(),
        }),
        Observation::DocumentDone {
            document,
            done,
            failed,
        } => progress::Event::DocumentDone(progress::DocumentEnded {
            document: document.to_string(),
            done: *done,
            failed: *failed,
        }),
        Observation::DocumentFailed {
            document,
            done,
            failed,
        } => progress::Event::DocumentFailed(progress::DocumentEnded {
            document: document.to_string(),
            done: *done,
            failed: *failed,
        }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use weir_core::DocumentId;

    #[test]
    fn updates_are_plain_and_finite() {
        let document = DocumentId::of(b"d");
        let observed = Observed {
            at_millis: 0,
            what: Observation::DocumentDone {
                document,
                done: 1,
                failed: 0,
            },
        };
        let update = |percent: f32, message: &str| progress::Update {
            document: document.to_string(),
            percent,
            message: message.into(),
            seconds_left: None,
        };
        let taken = observed
            .check(vec![update(100.0, "a\u{1b}]0;x\u{7}b"); 20])
            .unwrap();
        assert_eq!(taken.len(), 16);
        assert_eq!(taken[0].message, "a ]0;x b");
        let long = observed.check(vec![update(0.0, &"ä".repeat(501))]).unwrap();
        assert_eq!(long[0].message.chars().count(), 500);
        for wrong in [f32::NAN, -0.1, 100.1, f32::INFINITY] {
            assert!(observed.check(vec![update(wrong, "")]).is_err(), "{wrong}");
        }
        let mut stranger = update(1.0, "");
        stranger.document = "x".into();
        assert!(observed.check(vec![stranger]).unwrap_err().contains("document"));
    }
}
