//! Nothing is asked twice: answers that are kept, and questions that are asked at the same time, are one call.
//!
//! What an answer depends on is hashed: the tenant, the model, what it is to be, the prompt, the text, the image and the longest
//! answer. The tenant is part of it, because how quickly an answer comes would else tell one tenant what another has asked. An answer
//! is kept under the model that gave it, and looked for under every model that may answer. The document it is about is kept with
//! it, and removed with the document.
//!
//! Of equal questions at one time the first is asked and the others wait for its answer. If it is withdrawn or runs out of its
//! own time, the next takes its place: what one caller gives up must not cost another its answer.

use std::collections::HashMap;
use std::sync::{Arc, Weak};

use async_trait::async_trait;
use parking_lot::Mutex;
use sha2::{Digest, Sha256};
use tokio::sync::OnceCell;
use tokio::time::{Duration, Instant, timeout};
use weir_core::language::{
    Answer, AnswerCache, AnswerKey, FailingProvider, LanguageError, LanguageModel, Question,
};
use weir_core::{DocumentId, StorageError, TenantId};

use crate::measures::AnswerMeasures;
use crate::router::Router;
use crate::stats::RouterStats;

/// Changes when what is hashed does.
const VERSION: &[u8] = b"weir answer 1";

/// How much later than the router this gives up.
const MARGIN: Duration = Duration::from_millis(20);

type Outcome = Result<Answer, LanguageError>;
type Flights = Mutex<HashMap<AnswerKey, Weak<OnceCell<Outcome>>>>;

/// One of those who wait for an answer; the last to leave takes the question's name away.
struct Aboard<'a> {
    flights: &'a Flights,
    key: AnswerKey,
    flight: Arc<OnceCell<Outcome>>,
}

impl Drop for Aboard<'_> {
    fn drop(&mut self) {
        // Under the lock, so that nobody comes aboard in between.
        let mut flights = self.flights.lock();
        if Arc::strong_count(&self.flight) == 1 {
            flights.remove(&self.key);
        }
    }
}

/// A router that keeps what it was answered.
pub struct Answers {
    router: Router,
    kept: Option<Arc<dyn AnswerCache>>,
    flights: Flights,
    measures: AnswerMeasures,
}

impl Answers {
    /// Without a place to keep answers, only equal questions at the same time are one call.
    pub fn new(router: Router, kept: Option<Arc<dyn AnswerCache>>) -> Self {
        Self {
            router,
            kept,
            flights: Mutex::default(),
            measures: AnswerMeasures::new(),
        }
    }

    /// How the providers are.
    pub fn stats(&self) -> RouterStats {
        self.router.stats()
    }

    /// The router itself, which keeps nothing.
    pub const fn router(&self) -> &Router {
        &self.router
    }

    /// A kept answer of any model that may answer.
    async fn known(&self, question: &Question) -> Option<Answer> {
        let kept = self.kept.as_ref()?;
        let sees = question.image.is_some();
        let tenant = &question.account.tenant;
        for member in self
            .router
            .members()
            .iter()
            .filter(|m| !sees || m.provider.sees())
        {
            let key = key(question, Some(member.provider.model()));
            match kept.get(tenant, &key).await {
                Ok(Some(answer)) => return Some(answer),
                Ok(None) => {}
                // It is asked again, which costs time and no harm.
                Err(error) => tracing::warn!(%error, "answers that are kept cannot be read"),
            }
        }
        None
    }

    async fn keep(&self, question: &Question, answer: &Answer) {
        let Some(kept) = &self.kept else { return };
        let key = key(question, Some(&answer.model));
        let document = question.document.as_ref();
        let put = kept.put(&question.account.tenant, &key, document, answer);
        if let Err(error) = put.await {
            tracing::warn!(%error, "an answer cannot be kept");
        }
    }

    fn board(&self, key: AnswerKey) -> Aboard<'_> {
        let mut flights = self.flights.lock();
        let under_way = flights.get(&key).and_then(Weak::upgrade);
        let flight = under_way.unwrap_or_else(|| {
            let flight = Arc::new(OnceCell::new());
            flights.insert(key, Arc::downgrade(&flight));
            flight
        });
        Aboard {
            flights: &self.flights,
            key,
            flight,
        }
    }

    /// Asks, or waits for who is just asking the same. Whether it was the latter.
    async fn join(&self, question: &Question, began: Instant) -> (Outcome, bool) {
        let aboard = self.board(key(question, None));
        let mut asked = false;
        let lead = async {
            asked = true;
            let patience = question.patience.saturating_sub(began.elapsed());
            let ask = Question {
                patience,
                ..question.clone()
            };
            match self.router.ask(ask).await {
                // Its own time, or its tenant's room or quota at that moment: for others it may be otherwise.
                Err(
                    error @ (LanguageError::Deadline { .. }
                    | LanguageError::Full { .. }
                    | LanguageError::Quota(_)),
                ) => Err(error),
                outcome => {
                    if let Ok(answer) = &outcome {
                        self.keep(question, answer).await;
                    }
                    Ok(outcome)
                }
            }
        };
        let outcome = match aboard.flight.get_or_try_init(|| lead).await {
            Ok(outcome) => outcome.clone(),
            Err(error) => Err(error),
        };
        (outcome, !asked)
    }
}

#[async_trait]
impl LanguageModel for Answers {
    async fn ask(&self, question: Question) -> Result<Answer, LanguageError> {
        let began = Instant::now();
        let given = |answer| Answer {
            cached: true,
            waited: began.elapsed(),
            spent: Duration::ZERO,
            ..answer
        };
        if let Some(answer) = self.known(&question).await {
            self.measures.hits.increment(1);
            return Ok(given(answer));
        }
        let patience = question.patience;
        // The router's own deadline comes first: it knows who failed.
        let joined = timeout(patience.saturating_add(MARGIN), self.join(&question, began)).await;
        match joined {
            Ok((outcome, true)) => {
                self.measures.shared.increment(1);
                outcome.map(given)
            }
            Ok((outcome, false)) => {
                self.measures.misses.increment(1);
                outcome
            }
            Err(_elapsed) => Err(LanguageError::Deadline {
                seconds: patience.as_secs(),
                faults: Vec::new(),
            }),
        }
    }

    fn sees(&self) -> bool {
        self.router.sees()
    }

    fn failing(&self, image: bool) -> Vec<FailingProvider> {
        self.router.failing(image)
    }

    fn workers(&self) -> u32 {
        self.router.workers()
    }

    async fn forget(&self, tenant: &TenantId) -> Result<(), StorageError> {
        match &self.kept {
            Some(kept) => kept.clear(tenant).await,
            None => Ok(()),
        }
    }

    async fn forget_document(&self, tenant: &TenantId, document: &DocumentId) -> Result<(), StorageError> {
        match &self.kept {
            Some(kept) => kept.remove(tenant, document).await,
            None => Ok(()),
        }
    }

    async fn room(&self, tenant: &TenantId) {
        self.router.room(tenant).await;
    }
}

/// The hash of a question, to one model or to whichever.
fn key(question: &Question, model: Option<&str>) -> AnswerKey {
    let mut hash = Sha256::new();
    // With its length before each part, no two questions are the same bytes.
    let mut part = |part: Option<&[u8]>| match part {
        None => hash.update([0]),
        Some(bytes) => {
            hash.update([1]);
            hash.update((bytes.len() as u64).to_be_bytes());
            hash.update(bytes);
        }
    };
    part(Some(VERSION));
    part(Some(question.account.tenant.as_str().as_bytes()));
    part(model.map(str::as_bytes));
    part(Some(question.kind.name().as_bytes()));
    part(question.system.as_deref().map(str::as_bytes));
    part(Some(question.prompt.as_bytes()));
    part(Some(question.text.as_bytes()));
    part(question.image.as_ref().map(|image| image.media_type.as_bytes()));
    let image = question.image.as_ref().map(|image| Sha256::digest(&image.bytes));
    part(image.as_ref().map(AsRef::as_ref));
    part(Some(&question.max_tokens.to_be_bytes()));
    hash.finalize().into()
}
