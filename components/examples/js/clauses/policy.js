// Chunking for contracts: passages of whole clauses.
//
// A question about a contract is answered by a clause, so a passage begins and ends with a clause. Clauses on the same topic share a
// passage as long as they fit. The embedding model compares the next clauses with the first one, once for each passage; where the
// similarity is low, the topic changes and a new passage begins. Without the model, only the length decides.
import { log, offsets, policy, settings } from "weir-sdk";
import { similarities } from "weir-sdk/inference.js";

/** Number of clauses to compare at once, the limit of the host. */
const MAX_COMPARED = 16;
/** Sections shorter than this, in bytes, get no summary. */
const MIN_SUMMARY_BYTES = 400;
/** Sections longer than this, in bytes, are summarized in parts. */
const MAX_SINGLE_BYTES = 6000;

class Clauses {
  /** Longest passage, in bytes. Texts to compare may have at most 2 KiB. */
  passageBytes = settings.within("passage-bytes", 900, 100, 2000);
  /** Similarity below which the topic changes. */
  minSimilarity = settings.within("min-similarity", 0.35, -1, 1);

  passages({ text, headings }) {
    const at = offsets(text);
    const starts = new Set(headings.map((heading) => heading.at.start));
    const all = findClauses(text, at, starts, this.passageBytes);
    const passages = [];
    for (let i = 0; i < all.length; ) {
      const last = i + this.countSameTopic(text, at, all, i);
      passages.push({ start: at[all[i].start], end: at[all[last].end] });
      i = last + 1;
    }
    return passages;
  }

  summarize({ text }) {
    const question = (prompt, maxTokens) => ({ prompt: `${prompt}\n\n{text}`, maxTokens });
    const clause = question("Say in two sentences what these clauses oblige each party to.", 120);
    const at = offsets(text);
    const bytes = at[text.length];
    if (bytes < MIN_SUMMARY_BYTES) return { tag: "none" };
    if (bytes <= MAX_SINGLE_BYTES) return { tag: "single", val: clause };
    const reduce = question("Put these summaries together in five sentences, the duties first.", 250);
    const ranges = packClauses(findClauses(text, at, new Set(), MAX_SINGLE_BYTES), at);
    return { tag: "map-reduce", val: { ranges, map: clause, reduce } };
  }

  /** Counts the next clauses that have the topic of the one at `i`. */
  countSameTopic(text, at, all, i) {
    const first = all[i];
    const others = [];
    for (const clause of all.slice(i + 1, i + 1 + MAX_COMPARED)) {
      if (at[clause.end] - at[first.start] > this.passageBytes) break;
      others.push(text.slice(clause.start, clause.end));
    }
    if (others.length === 0) return 0;
    try {
      const near = similarities(text.slice(first.start, first.end), others);
      const topicChange = near.findIndex((similarity) => similarity < this.minSimilarity);
      return topicChange < 0 ? others.length : topicChange;
    } catch (refusal) {
      log.warn(`passages are cut by length only: ${refusal}`);
      return others.length;
    }
  }
}

/**
 * Splits a text into clauses of at most `most` bytes without the white space around them, as positions in the text. A clause begins at
 * its number, at a heading and after a blank line.
 */
function findClauses(text, at, headings, most) {
  const starts = [0];
  let start = 0;
  let blank = false;
  for (const line of text.split("\n")) {
    if (blank || beginsClause(line) || headings.has(at[start])) starts.push(start);
    blank = /^[ \t\r]*$/.test(line);
    start += line.length + 1;
  }
  starts.push(text.length);
  return starts.slice(1).flatMap((end, i) => splitClause(text, at, starts[i], end, most));
}

/** Returns whether a line begins with the number of a clause: `2.`, `2.1 `, `(a) `, `§ 5`, `Article 5`. */
function beginsClause(line) {
  const number = /^[ \t\r]*(§|(Article|Section|Clause) [0-9]|\([0-9A-Za-z]{1,3}\) |([0-9][0-9.]*) )/.exec(line);
  return number !== null && (number[3] === undefined || (number[3].includes(".") && number[3].length <= 12));
}

/** Splits a clause into parts of at most `most` bytes, after a sentence if possible, else after a word. */
function splitClause(text, at, from, to, most) {
  const parts = [];
  let [start, end] = trimSpan(text, from, to);
  while (at[end] - at[start] > most) {
    let limit = end;
    while (at[limit] - at[start] > most) limit--;
    if (at[limit] === at[limit - 1]) limit--; // not inside a surrogate pair
    const window = text.slice(start, limit);
    const sentence = Math.max(window.lastIndexOf(". "), window.lastIndexOf(".\n"));
    const word = Math.max(window.lastIndexOf(" "), window.lastIndexOf("\n"));
    const cut = sentence >= 0 ? start + sentence + 2 : word >= 0 ? start + word + 1 : limit;
    parts.push(trimSpan(text, start, cut));
    [start, end] = trimSpan(text, cut, end);
  }
  parts.push([start, end]);
  return parts.filter(([start, end]) => start < end).map(([start, end]) => ({ start, end }));
}

/** Packs as many clauses as fit into each part of a summary. */
function packClauses(all, at) {
  const parts = [];
  for (const { start, end } of all) {
    const last = parts.at(-1);
    if (last && at[end] - last.start <= MAX_SINGLE_BYTES) last.end = at[end];
    else parts.push({ start: at[start], end: at[end] });
  }
  return parts;
}

/** Removes the white space at the ends of a span. */
function trimSpan(text, start, end) {
  const isSpace = (i) => " \t\n\r".includes(text[i]);
  while (start < end && isSpace(start)) start++;
  while (end > start && isSpace(end - 1)) end--;
  return [start, end];
}

export const { chunking } = policy(Clauses);
