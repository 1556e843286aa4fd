//! Decides what follows the failure of a page.
//!
//! The tenant's component decides, with two exceptions. If every page would fail for the same reason (a full disk, a model that
//! is not installed), the document fails at once without a policy call. And a page gets at most five attempts in a stage, or
//! only one if the error is permanent (a language model that denies every request, a quota).

use std::time::Duration;

use weir_core::decision::{FailureAction, PageStageFailure};
use weir_core::event::EventKind;
use weir_core::{PageNumber, Stage};

use crate::error::{PageStopReason, StageError};
use crate::job_and_document_context::DocumentContext;

/// The most attempts of a page in one stage.
const MAX_ATTEMPTS: u32 = 5;

/// Decides what follows the failure of a page in its attempt number `attempt`. `Ok` is the backoff before the next attempt.
pub(crate) async fn decide_failure_action(
    document: &DocumentContext,
    page: PageNumber,
    stage: Stage,
    attempt: u32,
    error: StageError,
) -> Result<Duration, PageStopReason> {
    let note = error.to_error_info();
    if error.affects_every_page() {
        return Err(PageStopReason::DocumentFailed(note));
    }
    let failure = PageStageFailure {
        document: document.id,
        page,
        stage,
        attempt,
        kind: note.kind.clone(),
        message: note.message.clone(),
    };
    match document.job.policy.choose_failure_action(failure).await? {
        FailureAction::RetryAfter(millis) if attempt < MAX_ATTEMPTS && !error.is_permanent() => {
            tracing::info!(document = %document.id, page, %stage, attempt, error = note.message, "the page is retried");
            let retried = EventKind::PageRetried {
                page,
                stage,
                attempt,
                error: note,
            };
            document.write_document_event(retried).await;
            Ok(Duration::from_millis(millis.into()))
        }
        FailureAction::RetryAfter(_) | FailureAction::SkipPage => {
            Err(PageStopReason::PageFailed(stage, note))
        }
        FailureAction::FailDocument => Err(PageStopReason::DocumentFailed(note)),
    }
}
