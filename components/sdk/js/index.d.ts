/**
 * The SDK for Weir components in JavaScript: pass a class with the methods of a role to {@link policy} and export the result.
 *
 * ```js
 * import { policy, settings } from "weir-sdk";
 *
 * class FixedBatch {
 *   dpi = settings.within("dpi", 150, 36, 600);
 *   plan(situation) {
 *     return { pages: 12, dpi: this.dpi, lingerMillis: 500, queueCapacity: 8 };
 *   }
 * }
 *
 * export const { batching } = policy(FixedBatch);
 * ```
 *
 * The names are those of the contract (`wit/`), with `kebab-case` written in camelCase; names of enum and variant cases
 * (`"text-layer"`) stay in kebab-case. A variant is `{ tag, val }`, an option is its value or `null`.
 */

/** A document's id: the SHA-256 of its bytes, as 64 hexadecimal digits. */
export type DocumentId = string;
/** A page's number in its document; the first page is 1. */
export type PageNumber = number;
/** The stages of a page. `store` runs at the same time as `read` and the stages after it. */
export type Stage = "rasterize" | "store" | "read" | "embed" | "upsert";

/** Facts about a page that are known before it is rasterized. */
export interface PageFacts {
  number: PageNumber;
  /** Width and height in points (1/72 inch), after rotation. */
  width: number;
  height: number;
  /** Characters in the page's text layer. */
  textChars: number;
  /** Fraction of the page's area that images cover, from 0 to 1. */
  imageCoverage: number;
  /** False if the page could not be opened; the other facts are then zero. */
  readable: boolean;
}

/** The queue in front of a stage, in pages. */
export interface QueueState {
  stage: Stage;
  depth: number;
  capacity: number;
  workers: number;
}

/** The time for which a page occupies a worker of a stage: mean of the last 16 pages, 0 before the first. */
export interface StageTime {
  stage: Stage;
  millisPerPage: number;
  pages: number;
}

/** A label of a document or page. */
export interface Label {
  name: string;
  value: string;
}

/** A half-open range of bytes in a UTF-8 text. Both ends must lie on character boundaries; see {@link offsets}. */
export interface Range {
  start: number;
  end: number;
}

/** The host's state before the next batch of a document. */
export interface Situation {
  document: DocumentId;
  totalPages: number;
  remainingPages: number;
  /** The next pages in order; at most 64. */
  next: PageFacts[];
  queues: QueueState[];
  times: StageTime[];
  device: { kind: "cpu" | "gpu"; memoryBytes: number; cores: number };
  /** Bytes that are free for page images in the budget of the whole host. */
  freeImageBytes: number;
}

export interface Batch {
  /** From 1 to 64. */
  pages: number;
  /** Resolution of the page images, from 36 to 600. */
  dpi: number;
  /** Longest wait of a passage for others in its embedding batch, in milliseconds; at most 10,000. */
  lingerMillis: number;
  /** Batches that may wait in front of each stage, from 1 to 64. */
  queueCapacity: number;
}

/** The role `batching`. */
export interface Batching {
  /** Plans the next batch of a document. Called before each batch, while at least one page is left. */
  plan(situation: Situation): Batch;
}

export interface DocumentFacts {
  document: DocumentId;
  /** The file's name as the user gave it. */
  name: string;
  bytes: number;
  pages: number;
  /** Title in the document's metadata, or `null`. */
  title: string | null;
  outlineEntries: number;
  /** Facts of the first pages; at most 8. */
  firstPages: PageFacts[];
}

export interface DocumentRoute {
  /** 1 to 64 characters of `a-z`, `0-9`, `-` and `_`. */
  collection: string;
  lane: "interactive" | "bulk";
  /** Models by name; `null` leaves the choice to the host. */
  models: { ocr: string | null; textEmbedding: string | null };
  /** Stored with every passage of the document; at most 16. */
  labels: Label[];
}

export interface PageRoute {
  reading: "text-layer" | "ocr" | "vision-model" | "nothing";
  /** Whether the page's passages become searchable. Requires a reading other than `nothing`. */
  embed: boolean;
  /** Whether the page image is stored. */
  store: boolean;
  /** Stored with every passage of the page, in addition to the document's labels; at most 16. */
  labels: Label[];
}

export interface Failure {
  document: DocumentId;
  page: PageNumber;
  stage: Stage;
  /** 1 for the first failure of this page in this stage. */
  attempt: number;
  /** A stable error kind, such as `page-unreadable` or `model-queue-full`. */
  kind: string;
  message: string;
}

/** The action after a failure. `retry-after`: delay in milliseconds, at most 60,000. `skip-page`: continue with the other pages. */
export type Verdict = { tag: "retry-after"; val: number } | { tag: "skip-page" } | { tag: "fail-document" };

/** The role `routing`. */
export interface Routing {
  /** Chooses the route of a document. Default: collection `default`, lane `bulk`, no labels, the host's models. */
  document?(facts: DocumentFacts): DocumentRoute;
  /** Chooses the route of a page. Called once for each page, after its batch has been planned. */
  page(document: DocumentId, facts: PageFacts): PageRoute;
  /** Decides the action after a failure of a page. Default: the document fails. */
  failed?(failure: Failure): Verdict;
}

export interface PassageSource {
  document: DocumentId;
  page: PageNumber;
  /** The page's text in reading order, with lines separated by `\n`. */
  text: string;
  /** Headings in order; level 1 is the highest. */
  headings: { at: Range; level: number }[];
  /** Token limit of the embedding model; it ignores the rest of a longer passage. */
  maxTokens: number;
}

/** A section of a document: a heading and the text under it. */
export interface Section {
  document: DocumentId;
  title: string;
  level: number;
  firstPage: PageNumber;
  lastPage: PageNumber;
  text: string;
}

/** A request to a language model. `{text}` in the prompt is replaced by the text to summarize. */
export interface Question {
  prompt: string;
  /** Token limit of the response, from 1 to 4096. */
  maxTokens: number;
}

export type SummaryPlan =
  | { tag: "none" }
  | { tag: "single"; val: Question }
  | { tag: "map-reduce"; val: { ranges: Range[]; map: Question; reduce: Question } };

/** The role `chunking`. */
export interface Chunking {
  /** Returns the passages of a page to index: not empty, inside the text, ordered by their starts. They may overlap. At most 4096. */
  passages(source: PassageSource): Range[];
  /** Plans the summary of a section. Default: no summary. */
  summarize?(section: Section): SummaryPlan;
}

export type Event =
  | { tag: "document-started"; val: { document: DocumentId; name: string; pages: number; alreadyDone: number } }
  | { tag: "batch-rasterized"; val: { document: DocumentId; pages: number; queues: QueueState[]; times: StageTime[] } }
  | { tag: "page-done"; val: { document: DocumentId; page: PageNumber; searchable: boolean; passages: number } }
  | { tag: "page-failed"; val: { document: DocumentId; page: PageNumber; stage: Stage; message: string } }
  | { tag: "document-done" | "document-failed"; val: { document: DocumentId; done: number; failed: number } };

/** A progress update for users. */
export interface Update {
  document: DocumentId;
  /** From 0 to 100. */
  percent: number;
  /** At most 500 characters. */
  message: string;
  /** Estimated seconds left, or `null`. */
  secondsLeft: number | null;
}

/** The role `progress`. */
export interface Progress {
  /** Returns at most 16 updates for users after an event; it may be none. `atMillis` counts from the job's start. */
  observe(atMillis: number, event: Event): Update[];
}

/**
 * Turns a class into the component's policy. Export its roles by name: `export const { batching, routing } = policy(Policy)`. The class
 * is instantiated at a job's first call, and the instance lives until the job ends. So its fields are the job's memory, and its
 * constructor may read settings.
 */
export function policy(Policy: new () => Partial<Batching & Routing & Chunking & Progress>): {
  batching: object;
  routing: object;
  chunking: object;
  progress: object;
};

/**
 * Returns the UTF-8 byte offsets of a text, as used in the contract: `offsets(text)[i]` is the offset of position `i` of the JavaScript
 * string. The last entry is the length in bytes.
 */
export function offsets(text: string): Uint32Array;

/** Writes lines to the job's component log. A job may write 1,000 lines of 1,000 characters. */
export const log: Record<"debug" | "info" | "warn" | "error", (message: string) => void>;

/** The settings of the manifest; options of the job override them. An invalid value throws. */
export const settings: {
  /** Returns a setting as text, or `undefined` if it is not set. */
  get(name: string): string | undefined;
  /** Returns a setting, converted to the type of the default `value`. */
  getOr<T extends string | number | boolean>(name: string, value: T): T;
  /** Returns a number within a range, including both ends. */
  within(name: string, value: number, least: number, most: number): number;
  /** Returns one of the `words`. */
  choice<T extends string>(name: string, value: T, words: readonly T[]): T;
};
