// Chunking for contracts: passages of whole clauses.
//
// A question about a contract is answered by a clause, so a passage begins with one and ends with one. Clauses that belong together
// share a passage as long as they fit: the embedding model is asked how near each of the next ones is to the first, once for a
// passage, and where the topic turns a new passage begins. Without the model the length alone decides.
import { log, offsets, policy, settings } from "weir-sdk";
import { similarities } from "weir-sdk/inference.js";

/** Clauses that one is compared to at once, the most the host takes. */
const COMPARED = 16;
/** Sections shorter than this are their own summary; longer than the other, they are summarized in parts. In bytes. */
const SHORT = 400;
const LONG = 6000;

class Clauses {
  /** Longest passage, in bytes; texts that are compared may have 2 KiB. */
  passageBytes = settings.within("passage-bytes", 900, 100, 2000);
  /** Similarity below which the topic has turned. */
  turn = settings.within("turn", 0.35, -1, 1);

  passages({ text, headings }) {
    const at = offsets(text);
    const starts = new Set(headings.map((heading) => heading.at.start));
    const all = clauses(text, at, starts, this.passageBytes);
    const passages = [];
    for (let i = 0; i < all.length; ) {
      const last = i + this.near(text, at, all, i);
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
    if (bytes < SHORT) return { tag: "none" };
    if (bytes <= LONG) return { tag: "single", val: clause };
    const reduce = question("Put these summaries together in five sentences, the duties first.", 250);
    const ranges = packed(clauses(text, at, new Set(), LONG), at);
    return { tag: "map-reduce", val: { ranges, map: clause, reduce } };
  }

  /** How many of the next clauses belong to the one at `i`. */
  near(text, at, all, i) {
    const first = all[i];
    const others = [];
    for (const clause of all.slice(i + 1, i + 1 + COMPARED)) {
      if (at[clause.end] - at[first.start] > this.passageBytes) break;
      others.push(text.slice(clause.start, clause.end));
    }
    if (others.length === 0) return 0;
    try {
      const near = similarities(text.slice(first.start, first.end), others);
      const turn = near.findIndex((similarity) => similarity < this.turn);
      return turn < 0 ? others.length : turn;
    } catch (refusal) {
      log.warn(`cut by length alone: ${refusal}`);
      return others.length;
    }
  }
}

/**
 * The clauses of a text as positions in it, none longer than `most` bytes and without the space around them. A clause begins at
 * its number, at a heading and behind a blank line.
 */
function clauses(text, at, headings, most) {
  const starts = [0];
  let start = 0;
  let blank = false;
  for (const line of text.split("\n")) {
    if (blank || beginsClause(line) || headings.has(at[start])) starts.push(start);
    blank = /^[ \t\r]*$/.test(line);
    start += line.length + 1;
  }
  starts.push(text.length);
  return starts.slice(1).flatMap((end, i) => split(text, at, starts[i], end, most));
}

/** Whether a line begins with a clause's number: `2.`, `2.1 `, `(a) `, `§ 5`, `Article 5`. */
function beginsClause(line) {
  const number = /^[ \t\r]*(§|(Article|Section|Clause) [0-9]|\([0-9A-Za-z]{1,3}\) |([0-9][0-9.]*) )/.exec(line);
  return number !== null && (number[3] === undefined || (number[3].includes(".") && number[3].length <= 12));
}

/** A clause in parts of at most `most` bytes, cut behind a sentence, else behind a word. */
function split(text, at, from, to, most) {
  const parts = [];
  let [start, end] = trimmed(text, from, to);
  while (at[end] - at[start] > most) {
    let limit = end;
    while (at[limit] - at[start] > most) limit--;
    if (at[limit] === at[limit - 1]) limit--; // not between the halves of a character
    const window = text.slice(start, limit);
    const sentence = Math.max(window.lastIndexOf(". "), window.lastIndexOf(".\n"));
    const word = Math.max(window.lastIndexOf(" "), window.lastIndexOf("\n"));
    const cut = sentence >= 0 ? start + sentence + 2 : word >= 0 ? start + word + 1 : limit;
    parts.push(trimmed(text, start, cut));
    [start, end] = trimmed(text, cut, end);
  }
  parts.push([start, end]);
  return parts.filter(([start, end]) => start < end).map(([start, end]) => ({ start, end }));
}

/** As many clauses to a part as fit it. */
function packed(all, at) {
  const parts = [];
  for (const { start, end } of all) {
    const last = parts.at(-1);
    if (last && at[end] - last.start <= LONG) last.end = at[end];
    else parts.push({ start: at[start], end: at[end] });
  }
  return parts;
}

/** A span without the space at its ends. */
function trimmed(text, start, end) {
  const isSpace = (i) => " \t\n\r".includes(text[i]);
  while (start < end && isSpace(start)) start++;
  while (end > start && isSpace(end - 1)) end--;
  return [start, end];
}

export const { chunking } = policy(Clauses);
