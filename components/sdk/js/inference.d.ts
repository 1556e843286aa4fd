/** Calls models. Granted as `inference`; the time is charged to the tenant. Each function throws a {@link Refusal} if the host refuses. */
import type { DocumentId, PageNumber } from "./index.js";
export { Refusal } from "./refusal.js";

/** A part of a page: fractions of its width and height from the upper left corner, each from 0 to 1. */
export interface Region {
  x: number;
  y: number;
  width: number;
  height: number;
}

/** Counts the tokens of the embedding model in a text of at most 64 KiB. */
export function countTokens(text: string): number;
/** Returns the cosine similarities, from -1 to 1, of a text to up to 16 others. Each text has at most 2 KiB. */
export function similarities(text: string, others: string[]): number[];
/** Runs OCR on a part of a page. */
export function recognize(document: DocumentId, page: PageNumber, region: Region): string;
/** Sends a prompt of at most 64 KiB to the language model. The response has at most `maxTokens` (1 to 4096) tokens. */
export function generate(prompt: string, maxTokens: number): string;
