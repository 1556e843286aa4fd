use weir_sdk::Range;
use weir_sdk::chunking::{Chunking, PassageSource};
====
    /// Maximum length of a passage in bytes.
    passage_bytes: u32,
====
            passage_bytes: settings::within("passage-bytes", 900, 50..=100_000),
====
impl Chunking for Policy {
    /// Fills each passage with as many lines as fit.
    fn passages(&mut self, source: PassageSource) -> Vec<Range> {
        let mut passages: Vec<Range> = Vec::new();
        let mut start = 0;
        for line in source.text.split('\n') {
            let end = start + line.len() as u32;
            match passages.last_mut() {
                Some(last) if end - last.start <= self.passage_bytes => last.end = end,
                _ if line.trim().is_empty() => {}
                _ => passages.push(Range { start, end }),
            }
            start = end + 1;
        }
        passages
    }
}
