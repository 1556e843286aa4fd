//! The progress role: turns events of a job into updates for the user.

use weir_core::decision::PolicyFunctionInput as _;
use weir_core::decision::{ObservedEvent, ProgressUpdate, TimedEvent};

use super::{GuestFunction, missing_export_error, wit_conversions};
use crate::bindings::progress;
use crate::instance::instance_data::{LiveInstance, truncate_to_single_line};
use crate::recording::{PolicyFunctionCall, RecordedDecision};

/// Updates of one decision; further ones are dropped.
const MAX_UPDATES: usize = 16;
/// Characters of an update's message; longer messages are cut.
const MAX_MESSAGE_CHARS: usize = 500;

impl GuestFunction for TimedEvent {
    const RECORD: fn(PolicyFunctionCall<Self>) -> RecordedDecision = RecordedDecision::Observe;
    type RawDecision = Vec<progress::Update>;

    async fn call_guest_function(&self, live: &mut LiveInstance) -> wasmtime::Result<Vec<progress::Update>> {
        let guest = live
            .exports
            .progress
            .as_ref()
            .ok_or_else(|| missing_export_error(Self::ROLE))?;
        guest
            .call_observe(&mut live.store, self.at_millis, &to_wit_event(&self.event))
            .await
    }

    fn validate_decision(&self, raw_decision: Vec<progress::Update>) -> Result<Vec<ProgressUpdate>, String> {
        raw_decision
            .into_iter()
            .take(MAX_UPDATES)
            .map(|update| {
                if !(0.0..=100.0).contains(&update.percent) {
                    return Err(format!("percent is {}, not within 0 to 100", update.percent));
                }
                Ok(ProgressUpdate {
                    document: update
                        .document
                        .parse()
                        .map_err(|_| "an update has an invalid document id".to_owned())?,
                    percent: update.percent,
                    message: truncate_to_single_line(&update.message, MAX_MESSAGE_CHARS),
                    seconds_left: update.seconds_left,
                })
            })
            .collect()
    }
}

fn to_wit_event(event: &ObservedEvent) -> progress::Event {
    match event {
        ObservedEvent::DocumentStarted {
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
        ObservedEvent::BatchRasterized {
            document,
            pages,
            queues,
            stage_timings: times,
        } => progress::Event::BatchRasterized(progress::BatchRasterized {
            document: document.to_string(),
            pages: *pages,
            queues: wit_conversions::to_wit_queues(queues),
            times: wit_conversions::to_wit_stage_times(times),
        }),
        ObservedEvent::PageDone {
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
        ObservedEvent::PageFailed {
            document,
            page,
            stage,
            message,
        } => progress::Event::PageFailed(progress::PageFailed {
            document: document.to_string(),
            page: *page,
            stage: wit_conversions::to_wit_stage(*stage),
            message: message.clone(),
        }),
        ObservedEvent::DocumentDone {
            document,
            done,
            failed,
        } => progress::Event::DocumentDone(progress::DocumentEnded {
            document: document.to_string(),
            done: *done,
            failed: *failed,
        }),
        ObservedEvent::DocumentFailed {
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
    fn updates_are_cut_and_checked() {
        let document = DocumentId::from_content(b"d");
        let observed = TimedEvent {
            at_millis: 0,
            event: ObservedEvent::DocumentDone {
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
        let updates = observed
            .validate_decision(vec![update(100.0, "a\u{1b}]0;x\u{7}b"); 20])
            .unwrap();
        assert_eq!(updates.len(), 16);
        assert_eq!(updates[0].message, "a ]0;x b");
        let long = observed
            .validate_decision(vec![update(0.0, &"ä".repeat(501))])
            .unwrap();
        assert_eq!(long[0].message.chars().count(), 500);
        for wrong in [f32::NAN, -0.1, 100.1, f32::INFINITY] {
            assert!(
                observed.validate_decision(vec![update(wrong, "")]).is_err(),
                "{wrong}"
            );
        }
        let mut invalid_update = update(1.0, "");
        invalid_update.document = "x".into();
        assert!(
            observed
                .validate_decision(vec![invalid_update])
                .unwrap_err()
                .contains("document")
        );
    }
}
