//! Traces of capabilities: records the responses of a policy call's host calls, and replays them.
//!
//! A decision depends only on the input of the call and on the responses of capabilities. Everything else that a guest can read,
//! such as clocks and random numbers, is deterministic. So a call can be replayed from its input and these responses, later and
//! on another machine, without documents, models or state.
//!
//! A response is found by the hash of its request, not by its position. So a new version of a component gets the recorded
//! responses even if it makes the same host calls in another order, or only some of them.

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

use crate::bindings::rasterizer::{Brightness, Picture};
use crate::bindings::refusals::Refusal;

/// Bytes of responses that are recorded for one call. A call with more cannot be replayed exactly.
const MAX_TRACE_BYTES: usize = 1 << 20;

/// A recorded response of a capability.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RecordedResponse {
    /// First 8 bytes of the SHA-256 of the function and arguments.
    pub request_hash: u64,
    /// The response, encoded by `postcard`.
    pub response: Vec<u8>,
}

/// The capability trace of one policy call: off, recording the responses of its host calls, or replaying them.
#[derive(Debug, Default)]
pub(crate) enum CapabilityTrace {
    /// Responses are neither recorded nor replayed.
    #[default]
    Off,
    /// Responses are recorded.
    Record {
        responses: Vec<RecordedResponse>,
        bytes: usize,
    },
    /// Recorded responses are replayed. The number counts host calls without a recorded response.
    Replay {
        responses: Vec<RecordedResponse>,
        missing_responses: u32,
    },
}

impl CapabilityTrace {
    pub(crate) const fn start_recording() -> Self {
        Self::Record {
            responses: Vec::new(),
            bytes: 0,
        }
    }

    pub(crate) const fn start_replay(responses: Vec<RecordedResponse>) -> Self {
        Self::Replay {
            responses,
            missing_responses: 0,
        }
    }

    /// Returns the recorded response for a request hash; `None` if this is not a replay and the capability must be called.
    /// A replayed request without a recorded response is refused as unavailable.
    pub(crate) fn replay_response<T: RecordableResponse>(
        &mut self,
        request_hash: u64,
    ) -> Option<Result<T, Refusal>> {
        let Self::Replay {
            responses,
            missing_responses,
        } = self
        else {
            return None;
        };
        let index = responses
            .iter()
            .position(|response| response.request_hash == request_hash);
        // Each response is replayed once: the state may have changed between two reads of the same key.
        let recorded = index.and_then(|index| decode_response(&responses.remove(index).response));
        Some(recorded.unwrap_or_else(|| {
            *missing_responses += 1;
            Err(Refusal::Unavailable(
                "the recording has no response for this host call".into(),
            ))
        }))
    }

    /// Records the response of a capability, if responses are recorded.
    pub(crate) fn record_response<T: RecordableResponse>(
        &mut self,
        request_hash: u64,
        response: &Result<T, Refusal>,
    ) {
        if let Self::Record { responses, bytes } = self
            && *bytes < MAX_TRACE_BYTES
            && let Some(encoded) = encode_response(response)
        {
            *bytes += encoded.len();
            responses.push(RecordedResponse {
                request_hash,
                response: encoded,
            });
        }
    }

    /// Turns the trace off. Returns the recorded responses, or the number of replayed host calls that had no recorded response.
    pub(crate) fn take_responses_and_missing_count(&mut self) -> (Vec<RecordedResponse>, u32) {
        match std::mem::take(self) {
            Self::Off => (Vec::new(), 0),
            Self::Record { responses, .. } => (responses, 0),
            Self::Replay {
                missing_responses, ..
            } => (Vec::new(), missing_responses),
        }
    }
}

/// Returns the hash that identifies a host call in a recording.
pub(crate) fn hash_request(function: &str, arguments: &impl Serialize) -> u64 {
    let mut hash = Sha256::new();
    hash.update(function.as_bytes());
    hash.update([0]);
    hash.update(postcard::to_stdvec(arguments).unwrap_or_default());
    let digest: [u8; 32] = hash.finalize().into();
    u64::from_be_bytes(digest.first_chunk().copied().unwrap_or_default())
}

/// A response type of a capability, with the serializable form that is recorded.
pub(crate) trait RecordableResponse: Clone {
    type RecordedForm: Serialize + DeserializeOwned;
    fn to_recorded_form(&self) -> Self::RecordedForm;
    fn from_recorded_form(plain: Self::RecordedForm) -> Self;
}

macro_rules! impl_response_recorded_as_is {
    ($($t:ty),*) => { $(impl RecordableResponse for $t {
        type RecordedForm = Self;
        fn to_recorded_form(&self) -> Self {
            self.clone()
        }
        fn from_recorded_form(plain: Self) -> Self {
            plain
        }
    })* };
}

impl_response_recorded_as_is!((), u32, String, Option<Vec<u8>>, Vec<f32>);

impl RecordableResponse for Picture {
    type RecordedForm = (u32, u32, Vec<u8>);
    fn to_recorded_form(&self) -> Self::RecordedForm {
        (self.width, self.height, self.pixels.clone())
    }
    fn from_recorded_form((width, height, pixels): Self::RecordedForm) -> Self {
        Self {
            width,
            height,
            pixels,
        }
    }
}

impl RecordableResponse for Brightness {
    type RecordedForm = (f32, f32, f32);
    fn to_recorded_form(&self) -> Self::RecordedForm {
        (self.mean, self.deviation, self.ink)
    }
    fn from_recorded_form((mean, deviation, ink): Self::RecordedForm) -> Self {
        Self { mean, deviation, ink }
    }
}

/// The recorded form of a refusal.
#[derive(Serialize, Deserialize)]
enum RecordedRefusal {
    Invalid(String),
    Exhausted(String),
    Unavailable(String),
    Failed(String),
}

fn encode_response<T: RecordableResponse>(response: &Result<T, Refusal>) -> Option<Vec<u8>> {
    let plain = response
        .as_ref()
        .map(T::to_recorded_form)
        .map_err(|refusal| match refusal.clone() {
            Refusal::Invalid(reason) => RecordedRefusal::Invalid(reason),
            Refusal::Exhausted(reason) => RecordedRefusal::Exhausted(reason),
            Refusal::Unavailable(reason) => RecordedRefusal::Unavailable(reason),
            Refusal::Failed(reason) => RecordedRefusal::Failed(reason),
        });
    postcard::to_stdvec(&plain).ok()
}

fn decode_response<T: RecordableResponse>(bytes: &[u8]) -> Option<Result<T, Refusal>> {
    let plain: Result<T::RecordedForm, RecordedRefusal> = postcard::from_bytes(bytes).ok()?;
    Some(plain.map(T::from_recorded_form).map_err(|refusal| match refusal {
        RecordedRefusal::Invalid(reason) => Refusal::Invalid(reason),
        RecordedRefusal::Exhausted(reason) => Refusal::Exhausted(reason),
        RecordedRefusal::Unavailable(reason) => Refusal::Unavailable(reason),
        RecordedRefusal::Failed(reason) => Refusal::Failed(reason),
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_recorded_response_is_replayed_once() {
        let (one, two) = (hash_request("state.get", &"a"), hash_request("state.get", &"b"));
        assert_ne!(one, two);
        assert_ne!(one, hash_request("rasterizer.text", &"a"));
        let mut trace = CapabilityTrace::start_recording();
        trace.record_response(one, &Ok(Some(vec![1])));
        trace.record_response(two, &Ok(None::<Vec<u8>>));
        trace.record_response::<Option<Vec<u8>>>(one, &Err(Refusal::Exhausted("full".into())));
        let (responses, _) = trace.take_responses_and_missing_count();

        let mut trace = CapabilityTrace::start_replay(responses);
        let mut replay = |request_hash| trace.replay_response::<Option<Vec<u8>>>(request_hash).unwrap();
        assert!(matches!(replay(two), Ok(None)));
        assert!(matches!(replay(one), Ok(Some(value)) if value == [1]));
        assert!(matches!(replay(one), Err(Refusal::Exhausted(reason)) if reason == "full"));
        assert!(matches!(replay(one), Err(Refusal::Unavailable(_))));
        assert_eq!(trace.take_responses_and_missing_count().1, 1);
    }

    #[test]
    fn only_a_replay_trace_returns_responses() {
        assert!(CapabilityTrace::Off.replay_response::<u32>(1).is_none());
        assert!(
            CapabilityTrace::start_recording()
                .replay_response::<u32>(1)
                .is_none()
        );
    }
}
