/** Models. Granted as `inference`; time spent counts as the tenant's. Each function throws a {@link Refusal} if it is refused. */
import type { DocumentId, PageNumber } from "./index.js";
export { Refusal } from "./refusal.js";

/** A part of a page: shares of its width and height from its upper left corner, each from 0 to 1. */
export interface Region {
  x: number;
  y: number;
  width: number;
  height: number;
}

/** Tokens the embedding model sees in a text of at most 64 KiB. */
export function countTokens(text: string): number;
/** Cosine similarity, from -1 to 1, of a text to each of up to 16 others, each at most 2 KiB. Vectors stay with the host. */
export function similarities(text: string, others: string[]): number[];
/** Recognizes the text in a part of a page. */
export function recognize(document: DocumentId, page: PageNumber, region: Region): string;
/** Asks the language model; a prompt of at most 64 KiB, an answer of at most `maxTokens` (1 to 4096) tokens. */
export function generate(prompt: string, maxTokens: number): string;
