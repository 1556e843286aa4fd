// A grid of page thumbnails that shows the state of each page of a document.

import { getJson } from "./api.js";
import { createElement, formatNumber } from "./dom.js";
import { drawThumbnailWhenVisible, imagePath } from "./images.js";
import { openViewer } from "./viewer.js";

const INITIAL_THUMBNAILS = 96;
const MORE_THUMBNAILS = 480;

const STATE_LABELS = {
  waiting: "waiting",
  retried: "retrying",
  done: "done",
  failed: "failed",
  "not-processed": "not processed",
};

/** Yields all pages of a document that have ended, in order. */
export async function* listEndedPages(document) {
  let after = 0;
  do {
    const part = await getJson(`/v1/documents/${encodeURIComponent(document)}?limit=1000&after=${after}`);
    yield* part.page_states;
    after = part.next;
  } while (after);
}

/** A thumbnail for each page. The number of initial thumbnails is limited, because documents may be long. */
export class PageGrid {
  constructor(document, name, pages) {
    this.document = document;
    this.name = name;
    this.pages = pages;
    this.states = new Map();
    this.thumbnails = new Map();
    this.grid = createElement("ol", { class: "page-grid", "aria-label": `Pages of ${name}` });
    this.moreButton = createElement("button", { type: "button", class: "secondary", onclick: () => this.addThumbnails(MORE_THUMBNAILS) });
    this.node = createElement("div", {}, this.grid, this.moreButton);
    this.addThumbnails(INITIAL_THUMBNAILS);
  }

  addThumbnails(count) {
    const last = Math.min(this.pages, this.thumbnails.size + count);
    for (let page = this.thumbnails.size + 1; page <= last; page += 1) {
      const thumbnail = new PageThumbnail(this, page);
      this.thumbnails.set(page, thumbnail);
      thumbnail.showState(this.states.get(page) || { state: "waiting" });
      this.grid.append(thumbnail.node);
    }
    const remaining = this.pages - last;
    this.moreButton.hidden = remaining === 0;
    this.moreButton.textContent = `Show ${formatNumber(Math.min(remaining, MORE_THUMBNAILS))} more of ${formatNumber(this.pages)} pages`;
  }

  /** Sets the state of a page, `waiting`, `retried`, `done` or `failed`, and the reason. */
  setPageState(page, state, reason = "") {
    this.states.set(page, { state, reason });
    this.thumbnails.get(page)?.showState({ state, reason });
  }

  /** Marks all pages without a state as not processed, when the document has ended. */
  end() {
    for (const [page, thumbnail] of this.thumbnails) {
      if (!this.states.has(page)) thumbnail.showState({ state: "not-processed" });
    }
  }
}

class PageThumbnail {
  constructor(grid, page) {
    this.grid = grid;
    this.page = page;
    this.canvas = createElement("canvas", { width: 10, height: 14 });
    this.button = createElement("button", { type: "button", class: "page-thumbnail", disabled: true, onclick: () => this.open() },
      this.canvas, createElement("span", { class: "page-number", "aria-hidden": "true" }, String(page)));
    this.node = createElement("li", {}, this.button);
  }

  showState({ state, reason }) {
    if (this.button.dataset.state === state) return;
    this.button.dataset.state = state;
    const label = reason ? `${STATE_LABELS[state]}: ${reason}` : STATE_LABELS[state];
    this.button.setAttribute("aria-label", `Page ${this.page}, ${label}`);
    this.button.title = label;
    this.button.disabled = state !== "done";
    if (state === "done") drawThumbnailWhenVisible(this.canvas, imagePath(this.grid.document, this.page));
  }

  open() {
    openViewer({ document: this.grid.document, name: this.grid.name, pages: this.grid.pages, page: this.page });
  }
}
