//! How many tokens of questions one step reads.
//!
//! A step cannot be interrupted, and while it reads one question no other's answer grows. A whole batch of 512 takes a small model
//! two seconds and a large one half a minute; so a step reads what takes a second, as far as the last ones tell. Fewer tokens in a
//! step cost speed: of what 512 reach, 256 reach 96 %, 128 reach 94 %, 64 reach 91 % and 32 reach 73 % (SmolLM2-135M, two threads).

use std::time::Duration;

/// Tokens a step decodes at most.
pub(super) const MOST: usize = 512;
/// Below this a step costs nearly the same however few it reads.
const LEAST: usize = 64;
/// How long a step may take.
const STEP: Duration = Duration::from_secs(1);

/// The size of a step.
#[derive(Debug)]
pub(super) struct Chunk(usize);

impl Chunk {
    /// Before anything is known.
    pub(super) const fn new() -> Self {
        Self(MOST / 4)
    }

    /// Tokens to read in the next step.
    pub(super) const fn size(&self) -> usize {
        self.0
    }

    /// A step of so many tokens took so long. Small ones say little: they wait for the weights, not for the tokens.
    pub(super) fn took(&mut self, tokens: usize, time: Duration) {
        if tokens < LEAST || tokens < self.0 / 2 {
            return;
        }
        let fitting = tokens as f64 * STEP.as_secs_f64() / time.as_secs_f64().max(1e-6);
        // One step that was held up must not make the next ones crawl.
        let fitting = (fitting as usize).clamp(self.0 / 2, self.0 * 2);
        self.0 = fitting.clamp(LEAST, MOST);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_step_comes_to_take_a_second() {
        let mut chunk = Chunk::new();
        for _ in 0..10 {
            // 200 tokens a second
            let tokens = chunk.size();
            chunk.took(tokens, Duration::from_secs_f64(tokens as f64 / 200.0));
        }
        assert_eq!(chunk.size(), 200);
    }

    #[test]
    fn it_stays_within_a_batch_and_above_what_is_worth_a_step() {
        let mut chunk = Chunk::new();
        for _ in 0..10 {
            chunk.took(chunk.size(), Duration::from_millis(1));
        }
        assert_eq!(chunk.size(), MOST);
        for _ in 0..10 {
            chunk.took(chunk.size(), Duration::from_secs(100));
        }
        assert_eq!(chunk.size(), LEAST);
        chunk.took(1, Duration::from_millis(1));
        assert_eq!(chunk.size(), LEAST);
    }
}
