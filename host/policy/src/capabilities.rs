//! What a component may ask of the host: the host's side of `wit/capabilities.wit`.
//!
//! Arguments are checked here against the ranges written there, so the port behind sees none that it would have to refuse.
//! Time a guest waits here is not held against its deadline but is counted apart.

use std::future::Future;
use std::sync::Arc;

use wasmtime::Result;
use weir_core::event::ErrorNote;
use weir_core::state::{MAX_KEY_BYTES, MAX_VALUE_BYTES, StateChange};
use weir_core::{DocumentId, PageNumber, Rect};

use crate::bindings::inference::Region;
use crate::bindings::rasterizer::{Brightness, Picture};
use crate::bindings::refusals::Refusal;
use crate::bindings::{inference, log, rasterizer, refusals, settings, state, types};
use crate::guest::Guest;
use crate::heard::{self, question};

/// Bytes of a text or prompt for a model, and of a page's text.
const TEXT_BYTES: usize = 64 << 10;
/// Bytes of a text that is compared.
const COMPARED_BYTES: usize = 2 << 10;
/// Texts one can be compared to in a call.
const COMPARED: usize = 16;
/// Longest side of the preview that brightness is measured on.
const MEASURED_SIDE: u32 = 128;

/// What a capability answers: the outer error ends the guest, the inner one is its to handle.
type Answer<T> = Result<std::result::Result<T, Refusal>>;

fn invalid<T>(reason: impl Into<String>) -> Answer<T> {
    Ok(Err(Refusal::Invalid(reason.into())))
}

fn refusal(note: ErrorNote) -> Refusal {
    match note.kind.as_str() {
        "exhausted" => Refusal::Exhausted(note.message),
        "invalid" | "model-input" => Refusal::Invalid(note.message),
        "missing" => Refusal::Unavailable(note.message),
        kind if kind.contains("unavailable") => Refusal::Unavailable(note.message),
        _ => Refusal::Failed(note.message),
    }
}

fn document(id: &str) -> std::result::Result<DocumentId, Refusal> {
    id.parse()
        .map_err(|e: weir_core::id::IdError| Refusal::Invalid(e.to_string()))
}

/// The start of a text, cut between characters.
fn cut(mut text: String, bytes: usize) -> String {
    text.truncate(text.floor_char_boundary(bytes));
    text
}

impl Guest {
    /// Asks, unless the answer is known from when the call was recorded; `shape` makes of it what the guest is told.
    async fn ask<T: Send, R: heard::Answer>(
        &mut self,
        question: u64,
        asked: impl Future<Output = std::result::Result<T, ErrorNote>> + Send,
        shape: impl FnOnce(T) -> std::result::Result<R, Refusal> + Send,
    ) -> Answer<R> {
        self.question()?;
        if let Some(known) = self.ear.again(question) {
            return Ok(known);
        }
        let answer = self.wait(asked).await?.map_err(refusal).and_then(shape);
        self.ear.hear(question, &answer);
        Ok(answer)
    }
}

impl types::Host for Guest {}
impl refusals::Host for Guest {}

impl settings::Host for Guest {
    fn get(&mut self, name: String) -> Option<String> {
        self.job.manifest.setting(&name)
    }
}

impl log::Host for Guest {
    fn write(&mut self, level: log::Level, message: String) {
        self.log(level, &message);
    }
}

impl state::Host for Guest {
    async fn get(&mut self, key: String) -> Answer<Option<Vec<u8>>> {
        if key.len() > MAX_KEY_BYTES {
            return invalid("a key has at most 256 bytes");
        }
        let (job, pending) = (self.job.clone(), Arc::clone(&self.pending_state));
        let question = question("state.get", &key);
        let asked = async { pending.lock().await.get(&job, &key).await };
        self.ask(question, asked, Ok).await
    }

    async fn set(&mut self, key: String, value: Vec<u8>) -> Answer<()> {
        if key.len() > MAX_KEY_BYTES || value.len() > MAX_VALUE_BYTES {
            return invalid("a key has at most 256 bytes, a value 65536");
        }
        let question = question("state.set", &(&key, &value));
        let value = Some(value);
        self.change_state(question, StateChange { key, value }).await
    }

    async fn delete(&mut self, key: String) -> Answer<()> {
        let question = question("state.delete", &key);
        self.change_state(question, StateChange { key, value: None })
            .await
    }
}

impl Guest {
    async fn change_state(&mut self, question: u64, change: StateChange) -> Answer<()> {
        let (job, pending) = (self.job.clone(), Arc::clone(&self.pending_state));
        let asked = async { pending.lock().await.change(&job, change).await };
        self.ask(question, asked, Ok).await
    }
}

impl Guest {
    /// What `shape` makes of a preview whose pixels are as many as its sides say.
    async fn drawn<R: heard::Answer>(
        &mut self,
        question: u64,
        id: &str,
        page: PageNumber,
        longest_side: u32,
        shape: impl FnOnce(Picture) -> R + Send,
    ) -> Answer<R> {
        let document = match document(id) {
            Ok(document) => document,
            Err(refusal) => return Ok(Err(refusal)),
        };
        let job = self.job.clone();
        let asked = job.capabilities.preview(&document, page, longest_side);
        let whole = |(width, height, pixels): (u32, u32, Vec<u8>)| {
            if pixels.len() as u64 != u64::from(width) * u64::from(height) {
                return Err(Refusal::Failed("the preview is incomplete".into()));
            }
            Ok(shape(Picture {
                width,
                height,
                pixels,
            }))
        };
        self.ask(question, asked, whole).await
    }
}

impl rasterizer::Host for Guest {
    async fn statistics(&mut self, id: String, page: PageNumber) -> Answer<Brightness> {
        let question = question("rasterizer.statistics", &(&id, page));
        let measured = |picture: Picture| brightness(&picture.pixels);
        self.drawn(question, &id, page, MEASURED_SIDE, measured).await
    }

    async fn preview(&mut self, id: String, page: PageNumber, longest_side: u32) -> Answer<Picture> {
        if !(8..=128).contains(&longest_side) {
            return invalid("longest-side is from 8 to 128 pixels");
        }
        let question = question("rasterizer.preview", &(&id, page, longest_side));
        self.drawn(question, &id, page, longest_side, |picture| picture)
            .await
    }

    async fn text(&mut self, id: String, page: PageNumber) -> Answer<String> {
        let document = match document(&id) {
            Ok(document) => document,
            Err(refusal) => return Ok(Err(refusal)),
        };
        let (job, question) = (self.job.clone(), question("rasterizer.text", &(&id, page)));
        let asked = job.capabilities.page_text(&document, page);
        self.ask(question, asked, |text| Ok(cut(text, TEXT_BYTES))).await
    }
}

fn brightness(pixels: &[u8]) -> Brightness {
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

impl inference::Host for Guest {
    async fn count_tokens(&mut self, text: String) -> Answer<u32> {
        if text.len() > TEXT_BYTES {
            return invalid("a text has at most 65536 bytes");
        }
        let (job, question) = (self.job.clone(), question("inference.count-tokens", &text));
        let asked = job.capabilities.count_tokens(&text);
        self.ask(question, asked, Ok).await
    }

    async fn similarities(&mut self, text: String, others: Vec<String>) -> Answer<Vec<f32>> {
        if others.len() > COMPARED {
            return invalid("a text is compared to at most 16 others");
        }
        if text.len() > COMPARED_BYTES || others.iter().any(|o| o.len() > COMPARED_BYTES) {
            return invalid("a text that is compared has at most 2048 bytes");
        }
        if others.is_empty() {
            return Ok(Ok(Vec::new()));
        }
        let question = question("inference.similarities", &(&text, &others));
        let mut texts = others;
        texts.insert(0, text);
        let count = texts.len();
        let job = self.job.clone();
        let compared = |vectors: Vec<Vec<f32>>| match vectors.split_first() {
            Some((first, rest)) if vectors.len() == count => {
                Ok(rest.iter().map(|other| cosine(first, other)).collect())
            }
            _ => Err(Refusal::Failed("the model did not answer for each text".into())),
        };
        self.ask::<_, Vec<f32>>(question, job.capabilities.embed(texts), compared)
            .await
    }

    async fn recognize(&mut self, id: String, page: PageNumber, region: Region) -> Answer<String> {
        let document = match document(&id) {
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
            return invalid("a region is a part of the page, in shares from 0 to 1");
        }
        let region = Rect {
            x: region.x,
            y: region.y,
            width: region.width,
            height: region.height,
        };
        let sides = (region.x, region.y, region.width, region.height);
        let (job, question) = (
            self.job.clone(),
            question("inference.recognize", &(&id, page, sides)),
        );
        let asked = job.capabilities.recognize(&document, page, region);
        self.ask(question, asked, |text| Ok(cut(text, TEXT_BYTES))).await
    }

    async fn generate(&mut self, prompt: String, max_tokens: u32) -> Answer<String> {
        if prompt.len() > TEXT_BYTES {
            return invalid("a prompt has at most 65536 bytes");
        }
        if !(1..=4096).contains(&max_tokens) {
            return invalid("max-tokens is from 1 to 4096");
        }
        let (job, question) = (
            self.job.clone(),
            question("inference.generate", &(&prompt, max_tokens)),
        );
        let asked = job.capabilities.generate(&prompt, max_tokens);
        self.ask(question, asked, Ok).await
    }
}

/// Cosine of the angle between two vectors, within -1 and 1; 0 if one has no length.
fn cosine(a: &[f32], b: &[f32]) -> f32 {
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
        let b = brightness(&[0, 255, 0, 255]);
        assert_eq!((b.mean, b.deviation, b.ink), (127.5, 127.5, 0.5));
        assert_eq!(brightness(&[]).ink, 0.0);
    }

    #[test]
    fn cosines() {
        assert_eq!(cosine(&[1.0, 0.0], &[2.0, 0.0]), 1.0);
        assert_eq!(cosine(&[1.0, 0.0], &[0.0, 3.0]), 0.0);
        assert_eq!(cosine(&[1.0, 0.0], &[-1.0, 0.0]), -1.0);
        assert_eq!(cosine(&[0.0, 0.0], &[1.0, 0.0]), 0.0);
    }

    #[test]
    fn text_is_cut_between_characters() {
        assert_eq!(cut("aä".into(), 2), "a");
        assert_eq!(cut("aä".into(), 3), "aä");
    }

    #[test]
    fn notes_become_refusals_of_their_kind() {
        let of = |kind: &str| {
            refusal(ErrorNote {
                kind: kind.into(),
                message: "m".into(),
            })
        };
        assert!(matches!(of("exhausted"), Refusal::Exhausted(_)));
        assert!(matches!(of("model-unavailable"), Refusal::Unavailable(_)));
        assert!(matches!(of("storage-failed"), Refusal::Failed(_)));
    }
}
