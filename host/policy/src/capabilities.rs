//! The capabilities: host functions of `wit/capabilities.wit` that a component can call.
//!
//! Arguments are checked here against the ranges of the contract, so the port behind receives only valid ones. The time that
//! a guest waits for a capability does not count against its call timeout; it is counted separately.

use std::future::Future;
use std::sync::Arc;

use wasmtime::Result;
use weir_core::component_state_limits::{MAX_KEY_BYTES, MAX_VALUE_BYTES, StateChange};
use weir_core::event::ErrorInfo;
use weir_core::{DocumentId, PageNumber, Rect};

use crate::bindings::inference::Region;
use crate::bindings::rasterizer::{Brightness, Picture};
use crate::bindings::refusals::Refusal;
use crate::bindings::{inference, log, rasterizer, refusals, settings, state, types};
use crate::capability_trace::{self, hash_request};
use crate::instance::instance_data::InstanceData;

/// Bytes of a text or prompt for a model, and of a page's text.
const MAX_TEXT_BYTES: usize = 64 << 10;
/// Bytes of a text in `similarities`.
const MAX_COMPARED_TEXT_BYTES: usize = 2 << 10;
/// Texts that `similarities` compares a text to.
const MAX_COMPARED_TEXTS: usize = 16;
/// Longest side, in pixels, of the preview that `statistics` measures.
const STATISTICS_PREVIEW_SIDE: u32 = 128;

/// The result of a capability. The outer error traps the guest; the inner one is returned to it.
type CapabilityResult<T> = Result<std::result::Result<T, Refusal>>;

fn reject_argument<T>(reason: impl Into<String>) -> CapabilityResult<T> {
    Ok(Err(Refusal::Invalid(reason.into())))
}

fn to_refusal(error: ErrorInfo) -> Refusal {
    match error.kind.as_str() {
        "exhausted" => Refusal::Exhausted(error.message),
        "invalid" | "model-input" => Refusal::Invalid(error.message),
        "missing" => Refusal::Unavailable(error.message),
        kind if kind.contains("unavailable") => Refusal::Unavailable(error.message),
        _ => Refusal::Failed(error.message),
    }
}

fn parse_document_id(id: &str) -> std::result::Result<DocumentId, Refusal> {
    id.parse()
        .map_err(|e: weir_core::id::IdError| Refusal::Invalid(e.to_string()))
}

/// Cuts a text to at most `bytes` bytes, between characters.
fn truncate_text(mut text: String, bytes: usize) -> String {
    text.truncate(text.floor_char_boundary(bytes));
    text
}

impl InstanceData {
    /// Makes a host call, or returns its recorded response in a replay. `shape` converts the result to the type of the contract.
    async fn call_or_replay_capability<T: Send, R: capability_trace::RecordableResponse>(
        &mut self,
        request_hash: u64,
        call: impl Future<Output = std::result::Result<T, ErrorInfo>> + Send,
        convert: impl FnOnce(T) -> std::result::Result<R, Refusal> + Send,
    ) -> CapabilityResult<R> {
        self.count_host_call()?;
        if let Some(replayed) = self.trace.replay_response(request_hash) {
            return Ok(replayed);
        }
        let response = self
            .await_host_call(call)
            .await?
            .map_err(to_refusal)
            .and_then(convert);
        self.trace.record_response(request_hash, &response);
        Ok(response)
    }
}

impl types::Host for InstanceData {}
impl refusals::Host for InstanceData {}

impl settings::Host for InstanceData {
    fn get(&mut self, name: String) -> Option<String> {
        self.job.manifest.setting_text(&name)
    }
}

impl log::Host for InstanceData {
    fn write(&mut self, level: log::Level, message: String) {
        self.write_log_line_within_limit(level, &message);
    }
}

impl state::Host for InstanceData {
    async fn get(&mut self, key: String) -> CapabilityResult<Option<Vec<u8>>> {
        if key.len() > MAX_KEY_BYTES {
            return reject_argument("a key has at most 256 bytes");
        }
        let (job, pending) = (self.job.clone(), Arc::clone(&self.pending_state));
        let request_hash = hash_request("state.get", &key);
        let call = async { pending.lock().await.get(&job, &key).await };
        self.call_or_replay_capability(request_hash, call, Ok).await
    }

    async fn set(&mut self, key: String, value: Vec<u8>) -> CapabilityResult<()> {
        if key.len() > MAX_KEY_BYTES || value.len() > MAX_VALUE_BYTES {
            return reject_argument("a key has at most 256 bytes, a value 65536");
        }
        let request_hash = hash_request("state.set", &(&key, &value));
        let value = Some(value);
        self.add_pending_state_change(request_hash, StateChange { key, value })
            .await
    }

    async fn delete(&mut self, key: String) -> CapabilityResult<()> {
        let request_hash = hash_request("state.delete", &key);
        self.add_pending_state_change(request_hash, StateChange { key, value: None })
            .await
    }
}

impl InstanceData {
    async fn add_pending_state_change(
        &mut self,
        request_hash: u64,
        change: StateChange,
    ) -> CapabilityResult<()> {
        let (job, pending) = (self.job.clone(), Arc::clone(&self.pending_state));
        let call = async { pending.lock().await.add_change(&job, change).await };
        self.call_or_replay_capability(request_hash, call, Ok).await
    }
}

impl InstanceData {
    /// Requests a preview of a page and converts it with `shape`. Fails if the number of pixels does not match the sides.
    async fn render_page_preview<R: capability_trace::RecordableResponse>(
        &mut self,
        request_hash: u64,
        id: &str,
        page: PageNumber,
        longest_side: u32,
        convert: impl FnOnce(Picture) -> R + Send,
    ) -> CapabilityResult<R> {
        let document = match parse_document_id(id) {
            Ok(document) => document,
            Err(refusal) => return Ok(Err(refusal)),
        };
        let job = self.job.clone();
        let call = job.capabilities.render_preview(&document, page, longest_side);
        let check_and_convert = |(width, height, pixels): (u32, u32, Vec<u8>)| {
            if pixels.len() as u64 != u64::from(width) * u64::from(height) {
                return Err(Refusal::Failed("the preview is incomplete".into()));
            }
            Ok(convert(Picture {
                width,
                height,
                pixels,
            }))
        };
        self.call_or_replay_capability(request_hash, call, check_and_convert)
            .await
    }
}

impl rasterizer::Host for InstanceData {
    async fn statistics(&mut self, id: String, page: PageNumber) -> CapabilityResult<Brightness> {
        let request_hash = hash_request("rasterizer.statistics", &(&id, page));
        let measured = |picture: Picture| compute_brightness_statistics(&picture.pixels);
        self.render_page_preview(request_hash, &id, page, STATISTICS_PREVIEW_SIDE, measured)
            .await
    }

    async fn preview(
        &mut self,
        id: String,
        page: PageNumber,
        longest_side: u32,
    ) -> CapabilityResult<Picture> {
        if !(8..=128).contains(&longest_side) {
            return reject_argument("longest-side is from 8 to 128 pixels");
        }
        let request_hash = hash_request("rasterizer.preview", &(&id, page, longest_side));
        self.render_page_preview(request_hash, &id, page, longest_side, |picture| picture)
            .await
    }

    async fn text(&mut self, id: String, page: PageNumber) -> CapabilityResult<String> {
        let document = match parse_document_id(&id) {
            Ok(document) => document,
            Err(refusal) => return Ok(Err(refusal)),
        };
        let (job, request_hash) = (self.job.clone(), hash_request("rasterizer.text", &(&id, page)));
        let call = job.capabilities.read_page_text_layer(&document, page);
        self.call_or_replay_capability(request_hash, call, |text| Ok(truncate_text(text, MAX_TEXT_BYTES)))
            .await
    }
}

fn compute_brightness_statistics(pixels: &[u8]) -> Brightness {
    let count = pixels.len().max(1) as f64;
    let mean = pixels.iter().map(|&p| f64::from(p)).sum::<f64>() / count;
    let variance = pixels.iter().map(|&p| (f64::from(p) - mean).powi(2)).sum::<f64>() / count;
    let dark = pixels.iter().filter(|&&p| p < 128).count() as f64;
    Brightness {
        mean: mean as f32,
        deviation: variance.sqrt() as f32,
        ink: (dark / count) as f32,
    }
}

impl inference::Host for InstanceData {
    async fn count_tokens(&mut self, text: String) -> CapabilityResult<u32> {
        if text.len() > MAX_TEXT_BYTES {
            return reject_argument("a text has at most 65536 bytes");
        }
        let (job, request_hash) = (self.job.clone(), hash_request("inference.count-tokens", &text));
        let call = job.capabilities.count_embedding_tokens(&text);
        self.call_or_replay_capability(request_hash, call, Ok).await
    }

    async fn similarities(&mut self, text: String, others: Vec<String>) -> CapabilityResult<Vec<f32>> {
        if others.len() > MAX_COMPARED_TEXTS {
            return reject_argument("a text is compared to at most 16 others");
        }
        if text.len() > MAX_COMPARED_TEXT_BYTES || others.iter().any(|o| o.len() > MAX_COMPARED_TEXT_BYTES) {
            return reject_argument("a text that is compared has at most 2048 bytes");
        }
        if others.is_empty() {
            return Ok(Ok(Vec::new()));
        }
        let request_hash = hash_request("inference.similarities", &(&text, &others));
        let mut texts = others;
        texts.insert(0, text);
        let count = texts.len();
        let job = self.job.clone();
        let compared = |vectors: Vec<Vec<f32>>| match vectors.split_first() {
            Some((first, rest)) if vectors.len() == count => {
                Ok(rest.iter().map(|other| cosine_similarity(first, other)).collect())
            }
            _ => Err(Refusal::Failed(
                "the model did not return a vector for each text".into(),
            )),
        };
        self.call_or_replay_capability::<_, Vec<f32>>(
            request_hash,
            job.capabilities.embed_texts(texts),
            compared,
        )
        .await
    }

    async fn recognize(&mut self, id: String, page: PageNumber, region: Region) -> CapabilityResult<String> {
        let document = match parse_document_id(&id) {
            Ok(document) => document,
            Err(refusal) => return Ok(Err(refusal)),
        };
        let share = |v: f32| (0.0..=1.0).contains(&v);
        let inside = share(region.x)
            && share(region.y)
            && region.width > 0.0
            && region.height > 0.0
            && share(region.x + region.width)
            && share(region.y + region.height);
        if !inside {
            return reject_argument("a region must lie inside the page, in shares from 0 to 1");
        }
        let region = Rect {
            x: region.x,
            y: region.y,
            width: region.width,
            height: region.height,
        };
        let sides = (region.x, region.y, region.width, region.height);
        let (job, request_hash) = (
            self.job.clone(),
            hash_request("inference.recognize", &(&id, page, sides)),
        );
        let call = job.capabilities.recognize_region(&document, page, region);
        self.call_or_replay_capability(request_hash, call, |text| Ok(truncate_text(text, MAX_TEXT_BYTES)))
            .await
    }

    async fn generate(&mut self, prompt: String, max_tokens: u32) -> CapabilityResult<String> {
        if prompt.len() > MAX_TEXT_BYTES {
            return reject_argument("a prompt has at most 65536 bytes");
        }
        if !(1..=4096).contains(&max_tokens) {
            return reject_argument("max-tokens is from 1 to 4096");
        }
        let (job, request_hash) = (
            self.job.clone(),
            hash_request("inference.generate", &(&prompt, max_tokens)),
        );
        let call = job.capabilities.generate_text(&prompt, max_tokens);
        self.call_or_replay_capability(request_hash, call, Ok).await
    }
}

/// Returns the cosine of the angle between two vectors, from -1 to 1; 0 if one of them has length 0.
fn cosine_similarity(a: &[f32], b: &[f32]) -> f32 {
    let dot = |a: &[f32], b: &[f32]| {
        a.iter()
            .zip(b)
            .map(|(x, y)| f64::from(*x) * f64::from(*y))
            .sum::<f64>()
    };
    let length = (dot(a, a) * dot(b, b)).sqrt();
    if length > 0.0 {
        (dot(a, b) / length).clamp(-1.0, 1.0) as f32
    } else {
        0.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn brightness_of_a_half_black_page() {
        let b = compute_brightness_statistics(&[0, 255, 0, 255]);
        assert_eq!((b.mean, b.deviation, b.ink), (127.5, 127.5, 0.5));
        assert_eq!(compute_brightness_statistics(&[]).ink, 0.0);
    }

    #[test]
    fn cosine_similarity_of_simple_vectors() {
        assert_eq!(cosine_similarity(&[1.0, 0.0], &[2.0, 0.0]), 1.0);
        assert_eq!(cosine_similarity(&[1.0, 0.0], &[0.0, 3.0]), 0.0);
        assert_eq!(cosine_similarity(&[1.0, 0.0], &[-1.0, 0.0]), -1.0);
        assert_eq!(cosine_similarity(&[0.0, 0.0], &[1.0, 0.0]), 0.0);
    }

    #[test]
    fn text_is_cut_between_characters() {
        assert_eq!(truncate_text("aä".into(), 2), "a");
        assert_eq!(truncate_text("aä".into(), 3), "aä");
    }

    #[test]
    fn error_notes_map_to_refusals_by_kind() {
        let of = |kind: &str| {
            to_refusal(ErrorInfo {
                kind: kind.into(),
                message: "m".into(),
            })
        };
        assert!(matches!(of("exhausted"), Refusal::Exhausted(_)));
        assert!(matches!(of("model-unavailable"), Refusal::Unavailable(_)));
        assert!(matches!(of("storage-failed"), Refusal::Failed(_)));
    }
}
