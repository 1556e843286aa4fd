//! What follows the failure of a page.
//!
//! That is the tenant's decision, with exceptions that no rule could improve on. Where the next page would fail for the same
//! reason (a full disk, a model that is not installed), the document stops at once instead of asking page after page. And nothing
//! is tried more than five times, or at all if the error lasts (a language model that denies every request, a quota).

use std::time::Duration;

use weir_core::decision::{Failure, Verdict};
use weir_core::event::EventKind;
use weir_core::{PageNumber, Stage};

use crate::failure::{StageError, Stop};
use crate::work::Work;

/// Attempts a page has in a stage.
const ATTEMPTS: u32 = 5;

/// Asks what follows the failure of a page in its `attempt`th attempt. `Ok` is the time to wait before the next.
pub(crate) async fn judge(
    work: &Work,
    page: PageNumber,
    stage: Stage,
    attempt: u32,
    error: StageError,
) -> Result<Duration, Stop> {
    let note = error.note();
    if error.is_everyones() {
        return Err(Stop::Document(note));
    }
    let failure = Failure {
        document: work.id,
        page,
        stage,
        attempt,
        kind: note.kind.clone(),
        message: note.message.clone(),
    };
    match work.job.policy.judge(failure).await? {
        Verdict::RetryAfter(millis) if attempt < ATTEMPTS && !error.is_final() => {
            tracing::info!(document = %work.id, page, %stage, attempt, error = note.message, "trying again");
            let retried = EventKind::PageRetried {
                page,
                stage,
                attempt,
                error: note,
            };
            work.say(retried).await;
            Ok(Duration::from_millis(millis.into()))
        }
        Verdict::RetryAfter(_) | Verdict::SkipPage => Err(Stop::Page(stage, note)),
        Verdict::FailDocument => Err(Stop::Document(note)),
    }
}
