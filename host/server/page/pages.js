// A document's pages as a sheet of small leaves that fill as pages complete.

import { get } from "./api.js";
import { count, el } from "./dom.js";
import { imagePath, thumbnail } from "./images.js";
import { view } from "./viewer.js";

const FIRST = 96;
const STEP = 480;

const WORDS = {
  waiting: "waiting",
  retried: "being tried again",
  done: "done",
  failed: "failed",
  gone: "left out",
};

/** The pages of a document that have ended, in order, however many they are. */
export async function* pageStates(document) {
  let after = 0;
  do {
    const part = await get(`/v1/documents/${encodeURIComponent(document)}?limit=1000&after=${after}`);
    yield* part.page_states;
    after = part.next;
  } while (after);
}

/** A leaf for each page; `set` says how a page stands. Only so many are made at first, however long the document is. */
export class Sheet {
  constructor(document, name, pages) {
    this.document = document;
    this.name = name;
    this.pages = pages;
    this.states = new Map();
    this.leaves = new Map();
    this.grid = el("ol", { class: "sheet", "aria-label": `Pages of ${name}` });
    this.more = el("button", { type: "button", class: "quiet", onclick: () => this.grow(STEP) });
    this.node = el("div", {}, this.grid, this.more);
    this.grow(FIRST);
  }

  grow(by) {
    const until = Math.min(this.pages, this.leaves.size + by);
    for (let page = this.leaves.size + 1; page <= until; page += 1) {
      const leaf = new Leaf(this, page);
      this.leaves.set(page, leaf);
      leaf.show(this.states.get(page) || { state: "waiting" });
      this.grid.append(leaf.node);
    }
    const left = this.pages - until;
    this.more.hidden = left === 0;
    this.more.textContent = `Show ${count(Math.min(left, STEP))} more of ${count(this.pages)} pages`;
  }

  /** Sets how a page stands: `waiting`, `retried`, `done` or `failed`, with why. */
  set(page, state, why = "") {
    this.states.set(page, { state, why });
    this.leaves.get(page)?.show({ state, why });
  }

  /** What is still waiting will not come any more. */
  end() {
    for (const [page, leaf] of this.leaves) {
      if (!this.states.has(page)) leaf.show({ state: "gone" });
    }
  }
}

class Leaf {
  constructor(sheet, page) {
    this.sheet = sheet;
    this.page = page;
    this.canvas = el("canvas", { width: 10, height: 14 });
    this.button = el("button", { type: "button", class: "leaf", disabled: true, onclick: () => this.open() },
      this.canvas, el("span", { class: "number", "aria-hidden": "true" }, String(page)));
    this.node = el("li", {}, this.button);
  }

  show({ state, why }) {
    if (this.button.dataset.state === state) return;
    this.button.dataset.state = state;
    const word = why ? `${WORDS[state]}: ${why}` : WORDS[state];
    this.button.setAttribute("aria-label", `Page ${this.page}, ${word}`);
    this.button.title = word;
    this.button.disabled = state !== "done";
    if (state === "done") thumbnail(this.canvas, imagePath(this.sheet.document, this.page));
  }

  open() {
    view({ document: this.sheet.document, name: this.sheet.name, pages: this.sheet.pages, page: this.page });
  }
}
