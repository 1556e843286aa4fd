//! What a component heard from the host while it decided, so that it can hear the same again.
//!
//! A decision is a function of the question and of what capabilities answered; everything else a guest could look at is made
//! of constants and counters. So with the question and these answers a decision can be had again, later and elsewhere, with
//! no document, model or state behind it. An answer is found by what was asked, not by its place: another version of a
//! component that asks the same things in another order, or only some of them, is answered too.

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

use crate::bindings::rasterizer::{Brightness, Picture};
use crate::bindings::refusals::Refusal;

/// Bytes of answers that are kept of one call; what is heard beyond them makes a call that cannot be had again.
const CALL_BYTES: usize = 1 << 20;

/// A capability's answer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Heard {
    /// The beginning of the SHA-256 of what was asked.
    pub question: u64,
    /// The answer, encoded.
    pub answer: Vec<u8>,
}

/// Where the answers of a call come from and go to.
#[derive(Debug, Default)]
pub(crate) enum Ear {
    /// Nobody wants to know.
    #[default]
    Deaf,
    /// What is heard is kept.
    Listening { heard: Vec<Heard>, bytes: usize },
    /// What was kept is heard again; the number counts questions that have no answer here.
    Remembering { heard: Vec<Heard>, missed: u32 },
}

impl Ear {
    /// Keeps what is heard from now on.
    pub(crate) const fn listening() -> Self {
        Self::Listening {
            heard: Vec::new(),
            bytes: 0,
        }
    }

    /// Hears these again.
    pub(crate) const fn remembering(heard: Vec<Heard>) -> Self {
        Self::Remembering { heard, missed: 0 }
    }

    /// The answer to a question from before: `None` if it has to be asked.
    pub(crate) fn again<T: Answer>(&mut self, question: u64) -> Option<Result<T, Refusal>> {
        let Self::Remembering { heard, missed } = self else {
            return None;
        };
        let place = heard.iter().position(|heard| heard.question == question);
        // Each answer is given once: a state that was read twice may have been written in between.
        let known = place.and_then(|place| decode(&heard.remove(place).answer));
        Some(known.unwrap_or_else(|| {
            *missed += 1;
            Err(Refusal::Unavailable(
                "this was not asked when the call was recorded".into(),
            ))
        }))
    }

    /// An answer has come.
    pub(crate) fn hear<T: Answer>(&mut self, question: u64, answer: &Result<T, Refusal>) {
        if let Self::Listening { heard, bytes } = self
            && *bytes < CALL_BYTES
            && let Some(answer) = encode(answer)
        {
            *bytes += answer.len();
            heard.push(Heard { question, answer });
        }
    }

    /// What was heard, and what was missed.
    pub(crate) fn take(&mut self) -> (Vec<Heard>, u32) {
        match std::mem::take(self) {
            Self::Deaf => (Vec::new(), 0),
            Self::Listening { heard, .. } => (heard, 0),
            Self::Remembering { missed, .. } => (Vec::new(), missed),
        }
    }
}

/// Names what is asked.
pub(crate) fn question(function: &str, arguments: &impl Serialize) -> u64 {
    let mut hash = Sha256::new();
    hash.update(function.as_bytes());
    hash.update([0]);
    hash.update(postcard::to_stdvec(arguments).unwrap_or_default());
    let digest: [u8; 32] = hash.finalize().into();
    u64::from_be_bytes(digest.first_chunk().copied().unwrap_or_default())
}

/// What a capability answers with, and the plain form of it that is written down.
pub(crate) trait Answer: Clone {
    type Plain: Serialize + DeserializeOwned;
    fn plain(&self) -> Self::Plain;
    fn of(plain: Self::Plain) -> Self;
}

macro_rules! plain {
    ($($t:ty),*) => { $(impl Answer for $t {
        type Plain = Self;
        fn plain(&self) -> Self {
            self.clone()
        }
        fn of(plain: Self) -> Self {
            plain
        }
    })* };
}

plain!((), u32, String, Option<Vec<u8>>, Vec<f32>);

impl Answer for Picture {
    type Plain = (u32, u32, Vec<u8>);
    fn plain(&self) -> Self::Plain {
        (self.width, self.height, self.pixels.clone())
    }
    fn of((width, height, pixels): Self::Plain) -> Self {
        Self {
            width,
            height,
            pixels,
        }
    }
}

impl Answer for Brightness {
    type Plain = (f32, f32, f32);
    fn plain(&self) -> Self::Plain {
        (self.mean, self.deviation, self.ink)
    }
    fn of((mean, deviation, ink): Self::Plain) -> Self {
        Self { mean, deviation, ink }
    }
}

/// A refusal as it is written down.
#[derive(Serialize, Deserialize)]
enum Refused {
    Invalid(String),
    Exhausted(String),
    Unavailable(String),
    Failed(String),
}

fn encode<T: Answer>(answer: &Result<T, Refusal>) -> Option<Vec<u8>> {
    let plain = answer
        .as_ref()
        .map(T::plain)
        .map_err(|refusal| match refusal.clone() {
            Refusal::Invalid(reason) => Refused::Invalid(reason),
            Refusal::Exhausted(reason) => Refused::Exhausted(reason),
            Refusal::Unavailable(reason) => Refused::Unavailable(reason),
            Refusal::Failed(reason) => Refused::Failed(reason),
        });
    postcard::to_stdvec(&plain).ok()
}

fn decode<T: Answer>(bytes: &[u8]) -> Option<Result<T, Refusal>> {
    let plain: Result<T::Plain, Refused> = postcard::from_bytes(bytes).ok()?;
    Some(plain.map(T::of).map_err(|refused| match refused {
        Refused::Invalid(reason) => Refusal::Invalid(reason),
        Refused::Exhausted(reason) => Refusal::Exhausted(reason),
        Refused::Unavailable(reason) => Refusal::Unavailable(reason),
        Refused::Failed(reason) => Refusal::Failed(reason),
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_heard_is_heard_again_once() {
        let (one, two) = (question("state.get", &"a"), question("state.get", &"b"));
        assert_ne!(one, two);
        assert_ne!(one, question("rasterizer.text", &"a"));
        let mut ear = Ear::listening();
        ear.hear(one, &Ok(Some(vec![1])));
        ear.hear(two, &Ok(None::<Vec<u8>>));
        ear.hear::<Option<Vec<u8>>>(one, &Err(Refusal::Exhausted("full".into())));
        let (heard, _) = ear.take();

        let mut ear = Ear::remembering(heard);
        let mut again = |question| ear.again::<Option<Vec<u8>>>(question).unwrap();
        assert!(matches!(again(two), Ok(None)));
        assert!(matches!(again(one), Ok(Some(value)) if value == [1]));
        assert!(matches!(again(one), Err(Refusal::Exhausted(reason)) if reason == "full"));
        assert!(matches!(again(one), Err(Refusal::Unavailable(_))));
        assert_eq!(ear.take().1, 1);
    }

    #[test]
    fn who_is_deaf_or_listens_asks() {
        assert!(Ear::Deaf.again::<u32>(1).is_none());
        assert!(Ear::listening().again::<u32>(1).is_none());
    }
}
