//! The requests of a job that are at language models, and what they wait for.
//!
//! A request may wait for hours while a provider fails. The job says so in its events: which providers it waits for, since when,
//! and what their last error was; and when the wait is over.

use std::convert::Infallible;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::sleep;
use weir_core::event::EventKind;
use weir_core::language::{Answer, FailingProvider, LanguageError, LanguageModel, Question};

use crate::document::now_millis;
use crate::events::EventLog;

/// Time between two looks at the providers while requests are under way.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// The requests of one job.
#[derive(Default)]
pub(crate) struct ModelRequests {
    texts: AtomicU32,
    images: AtomicU32,
    begun: Notify,
}

/// A request under way.
struct UnderWay<'a>(&'a AtomicU32);

impl Drop for UnderWay<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

impl ModelRequests {
    /// Sends a request, which counts as under way until it is answered or dropped.
    pub(crate) async fn ask(
        &self,
        model: &dyn LanguageModel,
        question: Question,
    ) -> Result<Answer, LanguageError> {
        let count = match question.image {
            Some(_) => &self.images,
            None => &self.texts,
        };
        count.fetch_add(1, Ordering::Relaxed);
        let _under_way = UnderWay(count);
        self.begun.notify_one();
        model.ask(question).await
    }

    /// Writes an event when the requests begin to wait for failing providers, and another when they do not any more.
    pub(crate) async fn report_waits(&self, model: &dyn LanguageModel, log: &EventLog) -> Infallible {
        let mut reported: Vec<FailingProvider> = Vec::new();
        loop {
            if reported.is_empty() && !self.any() {
                self.begun.notified().await;
            }
            sleep(LOOK_EVERY).await;
            let failing = self.failing(model);
            if same(&reported, &failing) {
                continue;
            }
            let what = if failing.is_empty() {
                tracing::info!("the job does not wait for language models any more");
                EventKind::ModelWaitEnded {}
            } else {
                let now = now_millis();
                let each: Vec<_> = failing.iter().map(|provider| provider.describe(now)).collect();
                tracing::warn!(providers = each.join("; "), "the job waits for language models");
                EventKind::ModelWaitStarted {
                    providers: failing.clone(),
                }
            };
            log.say(None, what).await;
            reported = failing;
        }
    }

    fn any(&self) -> bool {
        [&self.texts, &self.images]
            .iter()
            .any(|count| count.load(Ordering::Relaxed) > 0)
    }

    /// The providers that requests under way wait for.
    fn failing(&self, model: &dyn LanguageModel) -> Vec<FailingProvider> {
        let of = |count: &AtomicU32, image| match count.load(Ordering::Relaxed) {
            0 => Vec::new(),
            _ => model.failing(image),
        };
        let images = of(&self.images, true);
        if images.is_empty() {
            of(&self.texts, false)
        } else {
            images
        }
    }
}

/// Whether the same providers fail in the same way. Their messages may differ with each try.
fn same(one: &[FailingProvider], other: &[FailingProvider]) -> bool {
    let outline = |provider: &FailingProvider| (provider.provider.clone(), provider.error.kind.clone());
    one.iter().map(outline).eq(other.iter().map(outline))
}
