/**
 * Write a Weir component in JavaScript: a class with the methods of a role, handed to {@link policy}, and the rest is here.
 *
 * ```js
 * import { policy, settings } from "weir-sdk";
 *
 * class ByTheDozen {
 *   dpi = settings.within("dpi", 150, 36, 600);
 *   plan(situation) {
 *     return { pages: 12, dpi: this.dpi, lingerMillis: 500, queueCapacity: 8 };
 *   }
 * }
 *
 * export const { batching } = policy(ByTheDozen);
 * ```
 *
 * The words are those of the contract (`wit/`), its `kebab-case` written in camelCase; names of cases (`"text-layer"`) stay as
 * they are. A variant is `{ tag, val }`, an option its value or `null`.
 */

/** A document's id: the SHA-256 of its bytes, as 64 hexadecimal digits. */
export type DocumentId = string;
/** A page's number in its document; the first page is 1. */
export type PageNumber = number;
/** The stages a page passes. `store`, `read` and what follows `read` run at the same time. */
export type Stage = "rasterize" | "store" | "read" | "embed" | "upsert";

/** What is known of a page before it is rasterized. All of it is cheap to know. */
export interface PageFacts {
  number: PageNumber;
  /** Width and height in points (1/72 inch), after rotation. */
  width: number;
  height: number;
  /** Characters in the page's text layer. */
  textChars: number;
  /** Share of the page's area under images, from 0 to 1. */
  imageCoverage: number;
  /** False if the page could not be opened; the other facts are then zero. */
  readable: boolean;
}

/** A queue in front of a stage, in pages. */
export interface QueueState {
  stage: Stage;
  depth: number;
  capacity: number;
  workers: number;
}

/** How long a page occupies a worker of a stage: mean of the last 16 pages, 0 before the first. */
export interface StageTime {
  stage: Stage;
  millisPerPage: number;
  pages: number;
}

/** A name and its value. */
export interface Label {
  name: string;
  value: string;
}

/** A half-open range of bytes in a UTF-8 text. Both ends must lie on character boundaries; see {@link offsets}. */
export interface Range {
  start: number;
  end: number;
}

/** What the host knows when it is about to take the next batch of a document. */
export interface Situation {
  document: DocumentId;
  totalPages: number;
  remainingPages: number;
  /** The next pages in order; at most 64. */
  next: PageFacts[];
  queues: QueueState[];
  times: StageTime[];
  device: { kind: "cpu" | "gpu"; memoryBytes: number; cores: number };
  /** Bytes still free for page images, of the budget shared by the whole host. */
  freeImageBytes: number;
}

export interface Batch {
  /** From 1 to 64. */
  pages: number;
  /** Resolution of the page images, from 36 to 600. */
  dpi: number;
  /** How long a passage may wait for others before its embedding batch leaves, in milliseconds; at most 10,000. */
  lingerMillis: number;
  /** Batches that may wait in front of each stage, from 1 to 64. */
  queueCapacity: number;
}

/** The role `batching`. */
export interface Batching {
  /** The next batch of a document. Asked before each; there is always at least one page left. */
  plan(situation: Situation): Batch;
}

export interface DocumentFacts {
  document: DocumentId;
  /** The file's name as the user gave it. */
  name: string;
  bytes: number;
  pages: number;
  /** Title in the document's metadata, if it has one. */
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
  /** Kept with every passage of the document; at most 16. */
  labels: Label[];
}

export interface PageRoute {
  reading: "text-layer" | "ocr" | "vision-model" | "nothing";
  /** Whether its passages become searchable. Needs a reading other than `nothing`. */
  embed: boolean;
  /** Whether its image is kept. */
  store: boolean;
  /** Kept with every passage of the page, beside the document's; at most 16. */
  labels: Label[];
}

export interface Failure {
  document: DocumentId;
  page: PageNumber;
  stage: Stage;
  /** 1 for the first failure of this page in this stage. */
  attempt: number;
  /** A stable word for programs, such as `page-unreadable` or `model-queue-full`. */
  kind: string;
  message: string;
}

/** `retry-after`: milliseconds, at most 60,000. `skip-page`: the others go on. `fail-document`: it stops. */
export type Verdict = { tag: "retry-after"; val: number } | { tag: "skip-page" } | { tag: "fail-document" };

/** The role `routing`. */
export interface Routing {
  /** Where a document goes. If not given: collection `default`, lane `bulk`, no labels, the host's models. */
  document?(facts: DocumentFacts): DocumentRoute;
  /** What is done with a page. Asked once for each page, when its batch has been planned. */
  page(document: DocumentId, facts: PageFacts): PageRoute;
  /** What follows a failure of a page. If not given: the document stops. */
  failed?(failure: Failure): Verdict;
}

export interface PassageSource {
  document: DocumentId;
  page: PageNumber;
  /** In reading order, its lines separated by `\n`. */
  text: string;
  /** Headings in order; level 1 is the highest. */
  headings: { at: Range; level: number }[];
  /** Tokens the embedding model takes; what is beyond them in a passage is not seen by it. */
  maxTokens: number;
}

/** A section of a document: a heading and what stands under it. */
export interface Section {
  document: DocumentId;
  title: string;
  level: number;
  firstPage: PageNumber;
  lastPage: PageNumber;
  text: string;
}

/** A question to a language model. `{text}` in the prompt stands for the text it is asked about. */
export interface Question {
  prompt: string;
  /** From 1 to 4096. */
  maxTokens: number;
}

export type SummaryPlan =
  | { tag: "none" }
  | { tag: "single"; val: Question }
  | { tag: "map-reduce"; val: { ranges: Range[]; map: Question; reduce: Question } };

/** The role `chunking`. */
export interface Chunking {
  /** The passages of a page to index: not empty, inside the text, in order of their starts; they may overlap. At most 4096. */
  passages(source: PassageSource): Range[];
  /** How to summarize a section. If not given: not at all. */
  summarize?(section: Section): SummaryPlan;
}

export type Event =
  | { tag: "document-started"; val: { document: DocumentId; name: string; pages: number; alreadyDone: number } }
  | { tag: "batch-rasterized"; val: { document: DocumentId; pages: number; queues: QueueState[]; times: StageTime[] } }
  | { tag: "page-done"; val: { document: DocumentId; page: PageNumber; searchable: boolean; passages: number } }
  | { tag: "page-failed"; val: { document: DocumentId; page: PageNumber; stage: Stage; message: string } }
  | { tag: "document-done" | "document-failed"; val: { document: DocumentId; done: number; failed: number } };

/** What the user should see now. */
export interface Update {
  document: DocumentId;
  /** From 0 to 100. */
  percent: number;
  /** At most 500 characters. */
  message: string;
  /** Seconds left, if that can be told. */
  secondsLeft: number | null;
}

/** The role `progress`. */
export interface Progress {
  /** What the user should see after an event; nothing is a fine answer, at most 16 are taken. `atMillis` counts from the job's start. */
  observe(atMillis: number, event: Event): Update[];
}

/**
 * Makes a class the component's policy. Export the roles it has by their names: `export const { batching, routing } =
 * policy(Policy)`. The class is instantiated at a job's first call and lives until the job ends, so its fields are that job's
 * memory, and its constructor may read settings.
 */
export function policy(Policy: new () => Partial<Batching & Routing & Chunking & Progress>): {
  batching: object;
  routing: object;
  chunking: object;
  progress: object;
};

/**
 * Where each character of a text begins in bytes of UTF-8, as the contract counts: `offsets(text)[i]` for position `i` of the
 * JavaScript string, its length included.
 */
export function offsets(text: string): Uint32Array;

/** Lines for the tenant's log. A job may write 1,000 lines of 1,000 characters. */
export const log: Record<"debug" | "info" | "warn" | "error", (message: string) => void>;

/** The values of the manifest, under those the job was started with. A value that is not what it should be throws. */
export const settings: {
  /** A setting as text, if it is set. */
  get(name: string): string | undefined;
  /** A setting of the type of its default. */
  getOr<T extends string | number | boolean>(name: string, value: T): T;
  /** A number within a range, both ends included. */
  within(name: string, value: number, least: number, most: number): number;
  /** One of a few words. */
  choice<T extends string>(name: string, value: T, words: readonly T[]): T;
};
