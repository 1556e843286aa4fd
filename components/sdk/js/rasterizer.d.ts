/** Image statistics, a preview and the text of a page. Granted as `rasterizer`. Each function throws a {@link Refusal} if the host refuses. */
import type { DocumentId, PageNumber } from "./index.js";
export { Refusal } from "./refusal.js";

/** Brightness of a small image of the page, each value from 0 (black) to 255 (white). */
export interface Brightness {
  mean: number;
  deviation: number;
  /** Fraction of pixels darker than 128, from 0 to 1. */
  ink: number;
}

/** A grayscale image of a page, row by row, with one byte for each pixel. */
export interface Picture {
  width: number;
  height: number;
  pixels: Uint8Array;
}

export function statistics(document: DocumentId, page: PageNumber): Brightness;
/** Returns a small image of the page. `longestSide` is from 8 to 128 pixels. */
export function preview(document: DocumentId, page: PageNumber, longestSide: number): Picture;
/** Returns the page's text layer, truncated to 64 KiB. */
export function text(document: DocumentId, page: PageNumber): string;
