// Routing for an office that files contracts.
//
// A contract says what it is where it begins. So a document is told by its title and by how its first page opens: the text layer
// if there is one, else the upper part of the page, recognized. The pages of a contract are looked at for columns. A scanner that
// writes a text layer writes each line across both of them, so a scanned page in two columns is recognized anew.
import { log, policy, settings } from "weir-sdk";
import { recognize } from "weir-sdk/inference.js";
import * as rasterizer from "weir-sdk/rasterizer.js";

/** Characters from which a text layer is taken for one. */
const TEXT = 50;
/** Where a title stands: the upper third of the first page. */
const OPENING = { x: 0, y: 0, width: 1, height: 0.33 };
/** Characters of a text layer that count as its opening. */
const OPENING_CHARS = 400;

class Contracts {
  words = settings
    .getOr("words", "contract, agreement, lease")
    .split(",")
    .map((word) => word.trim().toLowerCase())
    .filter((word) => word !== "");
  /** Documents of this job that are contracts. */
  contracts = new Set();

  document(facts) {
    const begins = `${facts.title ?? ""}\n${opening(facts)}`.toLowerCase();
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
    const twoColumns = isContract && page.readable && inTwoColumns(document, page.number);
    const reading = this.reading(page, twoColumns);
    return {
      reading,
      embed: reading !== "nothing",
      store: true,
      labels: isContract ? [{ name: "columns", value: twoColumns ? "2" : "1" }] : [],
    };
  }

  reading(page, twoColumns) {
    if (!page.readable) return "nothing";
    if (twoColumns && page.imageCoverage >= 0.5) return "ocr";
    if (page.textChars >= TEXT) return "text-layer";
    return page.imageCoverage >= 0.1 ? "ocr" : "nothing";
  }

  failed({ kind, attempt }) {
    switch (kind) {
      case "page-unreadable":
      case "page-too-large":
      case "page-deadline":
      case "worker-died":
      case "model-input":
        return { tag: "skip-page" };
      case "model-queue-full":
        if (attempt < 5) return { tag: "retry-after", val: 250 << (attempt - 1) };
    }
    return { tag: "fail-document" };
  }
}

/** How the first page begins; nothing, if that cannot be seen. */
function opening({ document, firstPages, name }) {
  try {
    return firstPages[0]?.textChars >= TEXT
      ? [...rasterizer.text(document, 1)].slice(0, OPENING_CHARS).join("")
      : recognize(document, 1, OPENING);
  } catch (refusal) {
    log.warn(`${name}: its opening cannot be seen: ${refusal}`);
    return "";
  }
}

function inTwoColumns(document, page) {
  try {
    return hasGutter(rasterizer.preview(document, page, 128));
  } catch (refusal) {
    log.warn(`page ${page} cannot be looked at: ${refusal}`);
    return false;
  }
}

/**
 * Whether a blank strip runs down the middle of a page between two printed halves. The margins above and below do not count:
 * titles and page numbers stand there.
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
