// Routing for an office that files contracts.
//
// A contract names its type at the beginning. So a document is classified by its title and by the start of its first page: the text
// layer if there is one, else OCR of the upper part of the page. The pages of a contract are checked for two columns. A scanner that
// writes a text layer mixes the lines of both columns, so OCR is used on scanned pages with two columns.
import { log, policy, settings } from "weir-sdk";
import { recognize } from "weir-sdk/inference.js";
import * as rasterizer from "weir-sdk/rasterizer.js";

/** Number of characters from which a text layer is used. */
const MIN_TEXT_CHARS = 50;
/** The part of the first page that contains the title: its upper third. */
const TITLE_REGION = { x: 0, y: 0, width: 1, height: 0.33 };
/** Number of characters of a text layer that are searched for the words. */
const OPENING_CHARS = 400;

class Contracts {
  words = settings
    .getOr("words", "contract, agreement, lease")
    .split(",")
    .map((word) => word.trim().toLowerCase())
    .filter((word) => word !== "");
  /** The documents of this job that are contracts. */
  contracts = new Set();

  document(facts) {
    const begins = `${facts.title ?? ""}\n${readOpening(facts)}`.toLowerCase();
    const isContract = this.words.some((word) => begins.includes(word));
    if (isContract) this.contracts.add(facts.document);
    return {
      collection: isContract ? "contracts" : "default",
      lane: isContract ? "interactive" : "bulk",
      models: { ocr: null, textEmbedding: null },
      labels: isContract ? [{ name: "kind", value: "contract" }] : [],
    };
  }

  page(document, page) {
    const isContract = this.contracts.has(document);
    const twoColumns = isContract && page.readable && hasTwoColumns(document, page.number);
    const reading = this.chooseReading(page, twoColumns);
    return {
      reading,
      embed: reading !== "nothing",
      store: true,
      labels: isContract ? [{ name: "columns", value: twoColumns ? "2" : "1" }] : [],
    };
  }

  chooseReading(page, twoColumns) {
    if (!page.readable) return "nothing";
    if (twoColumns && page.imageCoverage >= 0.5) return "ocr";
    if (page.textChars >= MIN_TEXT_CHARS) return "text-layer";
    return page.imageCoverage >= 0.1 ? "ocr" : "nothing";
  }

  failed({ kind, attempt }) {
    switch (kind) {
      case "page-unreadable":
      case "page-too-large":
      case "page-timeout":
      case "worker-died":
      case "model-input":
        return { tag: "skip-page" };
      case "model-queue-full":
        if (attempt < 5) return { tag: "retry-after", val: 250 << (attempt - 1) };
    }
    return { tag: "fail-document" };
  }
}

/** Reads the start of the first page. Returns an empty text if that fails. */
function readOpening({ document, firstPages, name }) {
  try {
    return firstPages[0]?.textChars >= MIN_TEXT_CHARS
      ? [...rasterizer.text(document, 1)].slice(0, OPENING_CHARS).join("")
      : recognize(document, 1, TITLE_REGION);
  } catch (refusal) {
    log.warn(`${name}: cannot read the start of the first page: ${refusal}`);
    return "";
  }
}

function hasTwoColumns(document, page) {
  try {
    return hasGutter(rasterizer.preview(document, page, 128));
  } catch (refusal) {
    log.warn(`page ${page}: cannot get a preview: ${refusal}`);
    return false;
  }
}

/**
 * Returns whether there is a blank strip in the middle of a page between two printed halves. The top and bottom margins, with titles and
 * page numbers, are ignored.
 */
function hasGutter({ width, height, pixels }) {
  const margin = Math.floor((height * 3) / 20);
  const blank = (x) => {
    for (let y = margin; y < height - margin; y++) if (pixels[y * width + x] < 250) return false;
    return true;
  };
  const some = (from, to, is) => {
    for (let x = from; x < to; x++) if (is(x)) return true;
    return false;
  };
  const [left, right] = [Math.floor((width * 2) / 5), Math.floor((width * 3) / 5)];
  const printed = (x) => !blank(x);
  return some(left, right, blank) && some(0, left, printed) && some(right, width, printed);
}

export const { routing } = policy(Contracts);
