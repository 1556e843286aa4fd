//! What follows a failure.
//!
//! A failure is of one of three kinds. What has to do with the page itself (it cannot be opened, it takes too long, it
//! kills its worker, the reader cannot take it) says nothing of the other pages, so the tenant may have them go on. That a vision
//! model was not to be had for a page is of this kind, too: the next page may not need one, and the host has tried for as long as it may. What is
//! merely busy is tried again, each time after twice as long. Everything else is the machine's fault and would meet the
//! next page too: the document stops, explicitly, rather than end with holes that nobody asked for.

use weir_sdk::Stage;
use weir_sdk::routing::{Failure, Verdict};

use crate::rules::OnPageFailure;

/// The wait before the second attempt.
const FIRST_WAIT_MILLIS: u32 = 250;
/// Attempts at something busy; the host stops after as many.
const BUSY_ATTEMPTS: u32 = 5;
/// Attempts at something that failed without saying why, such as a store across a network.
const FAILED_ATTEMPTS: u32 = 3;

pub(crate) fn verdict(on_page_failure: OnPageFailure, failure: &Failure) -> Verdict {
    let attempts = match (failure.kind.as_str(), failure.stage) {
        (
            "page-unreadable" | "page-too-large" | "page-deadline" | "page-too-long" | "page-declined"
            | "worker-died" | "model-input",
            _,
        )
        | (
            "model-failed"
            | "model-unavailable"
            | "language-failed"
            | "language-down"
            | "language-deadline"
            | "language-unavailable",
            Stage::Read,
        ) => {
            return match on_page_failure {
                OnPageFailure::Skip => Verdict::SkipPage,
                OnPageFailure::Fail => Verdict::FailDocument,
            };
        }
        ("model-queue-full" | "language-queue-full", _) => BUSY_ATTEMPTS,
        ("storage-failed", _) => FAILED_ATTEMPTS,
        _ => 1,
    };
    if failure.attempt < attempts {
        Verdict::RetryAfter(FIRST_WAIT_MILLIS << failure.attempt.saturating_sub(1).min(7))
    } else {
        Verdict::FailDocument
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use OnPageFailure::{Fail, Skip};

    fn failed(rule: OnPageFailure, stage: Stage, kind: &str, attempt: u32) -> Verdict {
        let failure = Failure {
            document: "d".into(),
            page: 7,
            stage,
            attempt,
            kind: kind.into(),
            message: "it did not work".into(),
        };
        verdict(rule, &failure)
    }

    #[test]
    fn a_bad_page_is_skipped_or_stops_the_document_as_the_tenant_says() {
        for kind in [
            "page-unreadable",
            "page-too-large",
            "page-deadline",
            "worker-died",
        ] {
            assert_eq!(
                failed(Skip, Stage::Rasterize, kind, 1),
                Verdict::SkipPage,
                "{kind}"
            );
            assert_eq!(
                failed(Fail, Stage::Rasterize, kind, 1),
                Verdict::FailDocument,
                "{kind}"
            );
        }
        for kind in [
            "model-failed",
            "model-unavailable",
            "language-down",
            "page-declined",
        ] {
            assert_eq!(failed(Skip, Stage::Read, kind, 1), Verdict::SkipPage, "{kind}");
            assert_eq!(
                failed(Fail, Stage::Read, kind, 1),
                Verdict::FailDocument,
                "{kind}"
            );
        }
    }

    #[test]
    fn what_would_meet_every_page_stops_the_document() {
        for (stage, kind) in [
            (Stage::Embed, "model-failed"),
            (Stage::Embed, "model-unavailable"),
            (Stage::Store, "storage-full"),
            (Stage::Upsert, "storage-denied"),
            (Stage::Embed, "component-trap"),
            (Stage::Rasterize, "something new"),
        ] {
            assert_eq!(
                failed(Skip, stage, kind, 1),
                Verdict::FailDocument,
                "{stage:?} {kind}"
            );
        }
    }

    #[test]
    fn what_is_busy_is_tried_again_after_twice_as_long() {
        let waits: Vec<_> = (1..=5)
            .map(|n| failed(Skip, Stage::Embed, "model-queue-full", n))
            .collect();
        let after = Verdict::RetryAfter;
        assert_eq!(
            waits,
            [
                after(250),
                after(500),
                after(1000),
                after(2000),
                Verdict::FailDocument
            ]
        );
        assert_eq!(failed(Skip, Stage::Upsert, "storage-failed", 2), after(500));
        assert_eq!(
            failed(Skip, Stage::Upsert, "storage-failed", 3),
            Verdict::FailDocument
        );
    }
}
