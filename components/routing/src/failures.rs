//! Decides the action after a failure.
//!
//! There are three kinds of failures. First, a failure of the page itself: it cannot be opened, takes too long, kills its worker or
//! does not fit the model. Other pages are not affected, so the tenant can choose to skip the page. A vision model that is not available
//! belongs to this kind too: the next page may not need one, and the host has retried for as long as configured. Second, busy
//! resources: these are retried with doubled delays. Third, all other failures come from the machine and would affect the next page
//! too, so the document stops with an error instead of ending with unexpected gaps.

use weir_sdk::Stage;
use weir_sdk::routing::{Failure, Verdict};

use crate::routing_settings::OnPageFailure;

/// Delay before the second attempt, in milliseconds.
const FIRST_RETRY_DELAY_MILLIS: u32 = 250;
/// Number of attempts if a resource is busy; the host allows no more.
const MAX_BUSY_ATTEMPTS: u32 = 5;
/// Number of attempts after a failure without a specific reason, for example of a store on the network.
const MAX_FAILED_ATTEMPTS: u32 = 3;

pub(crate) fn decide_failure_action(on_page_failure: OnPageFailure, failure: &Failure) -> Verdict {
    let attempts = match (failure.kind.as_str(), failure.stage) {
        (
            "page-unreadable" | "page-too-large" | "page-timeout" | "page-too-long" | "page-declined"
            | "worker-died" | "model-input",
            _,
        )
        | (
            "model-failed" | "model-unavailable" | "llm-failed" | "llm-down" | "llm-timeout"
            | "llm-unavailable",
            Stage::Read,
        ) => {
            return match on_page_failure {
                OnPageFailure::Skip => Verdict::SkipPage,
                OnPageFailure::Fail => Verdict::FailDocument,
            };
        }
        ("model-queue-full" | "llm-queue-full", _) => MAX_BUSY_ATTEMPTS,
        ("storage-failed", _) => MAX_FAILED_ATTEMPTS,
        _ => 1,
    };
    if failure.attempt < attempts {
        Verdict::RetryAfter(FIRST_RETRY_DELAY_MILLIS << failure.attempt.saturating_sub(1).min(7))
    } else {
        Verdict::FailDocument
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use OnPageFailure::{Fail, Skip};

    fn action_after(rule: OnPageFailure, stage: Stage, kind: &str, attempt: u32) -> Verdict {
        let failure = Failure {
            document: "d".into(),
            page: 7,
            stage,
            attempt,
            kind: kind.into(),
            message: "it did not work".into(),
        };
        decide_failure_action(rule, &failure)
    }

    #[test]
    fn bad_page_is_skipped_or_fails_the_document_as_set() {
        for kind in ["page-unreadable", "page-too-large", "page-timeout", "worker-died"] {
            assert_eq!(
                action_after(Skip, Stage::Rasterize, kind, 1),
                Verdict::SkipPage,
                "{kind}"
            );
            assert_eq!(
                action_after(Fail, Stage::Rasterize, kind, 1),
                Verdict::FailDocument,
                "{kind}"
            );
        }
        for kind in ["model-failed", "model-unavailable", "llm-down", "page-declined"] {
            assert_eq!(
                action_after(Skip, Stage::Read, kind, 1),
                Verdict::SkipPage,
                "{kind}"
            );
            assert_eq!(
                action_after(Fail, Stage::Read, kind, 1),
                Verdict::FailDocument,
                "{kind}"
            );
        }
    }

    #[test]
    fn failure_that_affects_every_page_fails_the_document() {
        for (stage, kind) in [
            (Stage::Embed, "model-failed"),
            (Stage::Embed, "model-unavailable"),
            (Stage::Store, "storage-full"),
            (Stage::Upsert, "storage-denied"),
            (Stage::Embed, "component-trap"),
            (Stage::Rasterize, "something new"),
        ] {
            assert_eq!(
                action_after(Skip, stage, kind, 1),
                Verdict::FailDocument,
                "{stage:?} {kind}"
            );
        }
    }

    #[test]
    fn busy_resource_is_retried_with_doubled_delays() {
        let waits: Vec<_> = (1..=5)
            .map(|n| action_after(Skip, Stage::Embed, "model-queue-full", n))
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
        assert_eq!(action_after(Skip, Stage::Upsert, "storage-failed", 2), after(500));
        assert_eq!(
            action_after(Skip, Stage::Upsert, "storage-failed", 3),
            Verdict::FailDocument
        );
    }
}
