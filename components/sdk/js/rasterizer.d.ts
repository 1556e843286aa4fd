/** A closer look at a page. Granted as `rasterizer`. Each function throws a {@link Refusal} if it is refused. */
import type { DocumentId, PageNumber } from "./index.js";
export { Refusal } from "./refusal.js";

/** Brightness of a page drawn small, each value from 0 (black) to 255 (white). */
export interface Brightness {
  mean: number;
  deviation: number;
  /** Share of pixels darker than 128, from 0 to 1. */
  ink: number;
}

/** A gray picture of a page, row by row, one byte a pixel. */
export interface Picture {
  width: number;
  height: number;
  pixels: Uint8Array;
}

export function statistics(document: DocumentId, page: PageNumber): Brightness;
/** The page drawn small; `longestSide` from 8 to 128 pixels. */
export function preview(document: DocumentId, page: PageNumber, longestSide: number): Picture;
/** The page's text layer, cut at 64 KiB. */
export function text(document: DocumentId, page: PageNumber): string;
