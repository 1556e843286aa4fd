//! Chunking for contracts: passages of whole clauses.
//!
//! A question about a contract is answered by a clause, so a passage begins and ends with a clause. Clauses on the same topic share a
//! passage as long as they fit. The embedding model compares the next clauses with the first one, once for each passage; where the
//! similarity is low, the topic changes and a new passage begins. Without the model, only the length decides.

use std::ops::Range as Span;

use weir_sdk::chunking::{Chunking, MapReduce, PassageSource, Question, Section, SummaryPlan};
use weir_sdk::inference::similarities;
use weir_sdk::{Range, log, settings};

/// Number of clauses to compare at once, the limit of the host.
const MAX_COMPARED: usize = 16;
/// Sections shorter than this, in bytes, get no summary.
const MIN_SUMMARY_BYTES: usize = 400;
/// Sections longer than this, in bytes, are summarized in parts.
const MAX_SINGLE_BYTES: usize = 6000;

struct Clauses {
    /// Longest passage, in bytes. Texts to compare may have at most 2 KiB.
    passage_bytes: usize,
    /// Similarity below which the topic changes.
    min_similarity: f64,
}

impl Default for Clauses {
    fn default() -> Self {
        Self {
            passage_bytes: settings::within("passage-bytes", 900, 100..=2000),
            min_similarity: settings::within("min-similarity", 0.35, -1.0..=1.0),
        }
    }
}

impl Chunking for Clauses {
    fn passages(&mut self, source: PassageSource) -> Vec<Range> {
        let headings: Vec<usize> = source
            .headings
            .iter()
            .map(|heading| heading.at.start as usize)
            .collect();
        let text = source.text.as_str();
        let mut rest = find_clauses(text, &headings, self.passage_bytes)
            .into_iter()
            .peekable();
        let mut passages = Vec::new();
        while let Some(first) = rest.next() {
            let mut end = first.end;
            let near = self.count_same_topic(text, &first, &rest.clone().collect::<Vec<_>>());
            for _ in 0..near {
                end = rest.next().map_or(end, |clause| clause.end);
            }
            passages.push(to_range(first.start..end));
        }
        passages
    }

    fn summarize(&mut self, section: Section) -> SummaryPlan {
        let question = |prompt: &str, max_tokens| Question {
            prompt: format!("{prompt}\n\n{{text}}"),
            max_tokens,
        };
        let clause = "Say in two sentences what these clauses oblige each party to.";
        match section.text.len() {
            0..MIN_SUMMARY_BYTES => SummaryPlan::None,
            MIN_SUMMARY_BYTES..=MAX_SINGLE_BYTES => SummaryPlan::Single(question(clause, 120)),
            _ => SummaryPlan::MapReduce(MapReduce {
                ranges: pack_clauses(&find_clauses(&section.text, &[], MAX_SINGLE_BYTES)),
                map: question(clause, 120),
                reduce: question(
                    "Put these summaries together in five sentences, the duties first.",
                    250,
                ),
            }),
        }
    }
}

impl Clauses {
    /// Counts the next clauses that have the topic of the first one.
    fn count_same_topic(&self, text: &str, first: &Span<usize>, next: &[Span<usize>]) -> usize {
        let fits = |clause: &&Span<usize>| clause.end - first.start <= self.passage_bytes;
        let others: Vec<String> = next
            .iter()
            .take(MAX_COMPARED)
            .take_while(fits)
            .map(|clause| span_text(text, clause))
            .collect();
        if others.is_empty() {
            return 0;
        }
        match similarities(&span_text(text, first), &others) {
            Ok(near) => near
                .iter()
                .take_while(|similarity| f64::from(**similarity) >= self.min_similarity)
                .count(),
            Err(refusal) => {
                log::warn(&format!("passages are cut by length only: {refusal:?}"));
                others.len()
            }
        }
    }
}

/// Splits a text into clauses of at most `most` bytes without the white space around them. A clause begins at its number, at a heading
/// and after a blank line.
fn find_clauses(text: &str, headings: &[usize], most: usize) -> Vec<Span<usize>> {
    let mut starts = vec![0];
    let mut at = 0;
    let mut blank = false;
    for line in text.split('\n') {
        if blank || begins_clause(line) || headings.contains(&at) {
            starts.push(at);
        }
        blank = line.trim_matches(is_space).is_empty();
        at += line.len() + 1;
    }
    let ends = starts.iter().skip(1).copied().chain([text.len()]);
    let whole = starts.iter().zip(ends).map(|(start, end)| *start..end);
    whole
        .flat_map(|clause| split_clause(text, clause, most))
        .collect()
}

/// Returns whether a line begins with the number of a clause: `2.`, `2.1 `, `(a) `, `§ 5`, `Article 5`.
fn begins_clause(line: &str) -> bool {
    let line = line.trim_start_matches(is_space);
    if line.starts_with('§') {
        return true;
    }
    for word in ["Article ", "Section ", "Clause "] {
        if let Some(number) = line.strip_prefix(word) {
            return number.starts_with(|c: char| c.is_ascii_digit());
        }
    }
    if let Some(item) = line.strip_prefix('(') {
        let letters = item.bytes().take_while(u8::is_ascii_alphanumeric).count();
        return (1..=3).contains(&letters) && item.get(letters..).is_some_and(|rest| rest.starts_with(") "));
    }
    let number = line
        .bytes()
        .take_while(|b| b.is_ascii_digit() || *b == b'.')
        .count();
    let (number, rest) = line.split_at(number);
    number.len() <= 12
        && number.starts_with(|c: char| c.is_ascii_digit())
        && number.contains('.')
        && rest.starts_with(' ')
}

/// Splits a clause into parts of at most `most` bytes, after a sentence if possible, else after a word.
fn split_clause(text: &str, clause: Span<usize>, most: usize) -> Vec<Span<usize>> {
    let mut parts = Vec::new();
    let mut rest = trim_span(text, clause);
    while rest.end - rest.start > most {
        let limit = text.floor_char_boundary(rest.start + most);
        let window = text.get(rest.start..limit).unwrap_or_default();
        let sentence = window.rfind(". ").max(window.rfind(".\n")).map(|stop| stop + 2);
        let word = || window.rfind([' ', '\n']).map(|space| space + 1);
        let cut = rest.start + sentence.or_else(word).unwrap_or(window.len());
        parts.push(trim_span(text, rest.start..cut));
        rest = trim_span(text, cut..rest.end);
    }
    parts.push(rest);
    parts.retain(|part| !part.is_empty());
    parts
}

/// Packs as many clauses as fit into each part of a summary.
fn pack_clauses(clauses: &[Span<usize>]) -> Vec<Range> {
    let mut parts: Vec<Span<usize>> = Vec::new();
    for clause in clauses {
        match parts.last_mut() {
            Some(last) if clause.end - last.start <= MAX_SINGLE_BYTES => last.end = clause.end,
            _ => parts.push(clause.clone()),
        }
    }
    parts.into_iter().map(to_range).collect()
}

fn is_space(c: char) -> bool {
    matches!(c, ' ' | '\t' | '\n' | '\r')
}

/// Removes the white space at the ends of a span.
fn trim_span(text: &str, span: Span<usize>) -> Span<usize> {
    let part = text.get(span.clone()).unwrap_or_default();
    let start = span.start + part.len() - part.trim_start_matches(is_space).len();
    start..start + part.trim_matches(is_space).len()
}

fn span_text(text: &str, span: &Span<usize>) -> String {
    text.get(span.clone()).unwrap_or_default().to_owned()
}

fn to_range(span: Span<usize>) -> Range {
    Range {
        start: span.start as u32,
        end: span.end as u32,
    }
}

weir_sdk::export!(Clauses: Chunking);
