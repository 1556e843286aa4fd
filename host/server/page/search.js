// The view of the search: the query form and the hits with their position on the page.

import { getJson, postJson } from "./api.js";
import { byId, createElement, createLabelList, errorMessage, pluralize, setText, setVisible } from "./dom.js";
import { drawThumbnailWhenVisible, imagePath } from "./images.js";
import { openViewer } from "./viewer.js";

const MAX_HITS = 10;

/** Id of the document to which the search is restricted, or null. */
let searchedDocument = null;
let controller = null;

async function search(event) {
  event.preventDefault();
  const query = byId("query").value.trim();
  if (!query) return;
  controller?.abort();
  controller = new AbortController();
  const { signal } = controller;
  setText(byId("search-status"), "Searching…");
  try {
    const filter = searchedDocument ? { documents: [searchedDocument] } : {};
    const { hits } = await postJson("/v1/search", { query, top_k: MAX_HITS, filter }, { signal });
    const weakHits = hits.filter((hit) => hit.weak);
    const strongHits = hits.filter((hit) => !hit.weak);
    byId("hits").replaceChildren(...strongHits.map(createHit));
    showHitCount(strongHits.length, weakHits);
  } catch (error) {
    if (!signal.aborted) {
      clearResults();
      setText(byId("search-status"), errorMessage(error));
    }
  }
}

/** Shows the number of hits. Weak hits are only shown on request. */
function showHitCount(strongCount, weakHits) {
  const emptyMessage = weakHits.length === 0 ? "Nothing was found." : "No passage matches this.";
  setText(byId("search-status"), strongCount === 0 ? emptyMessage : pluralize(strongCount, "passage"));
  const button = byId("show-weak-hits");
  setVisible(button, weakHits.length > 0);
  button.textContent = `Show ${pluralize(weakHits.length, "weak match", "weak matches")}`;
  button.onclick = () => {
    byId("hits").append(...weakHits.map(createHit));
    setVisible(button, false);
    byId("hits").querySelector(".weak")?.focus();
  };
}

const encoder = new TextEncoder();
const decoder = new TextDecoder();

/** Returns the text of a hit as strings and `mark` elements for words of the query. Never parses the text as markup. */
function highlightMatches(hit) {
  const bytes = encoder.encode(hit.text);
  const decode = (from, to) => decoder.decode(bytes.subarray(from, to));
  const parts = [];
  let from = 0;
  for (const { start, end } of hit.matches) {
    parts.push(decode(from, start), createElement("mark", {}, decode(start, end)));
    from = end;
  }
  return [...parts, decode(from)];
}

function createHit(hit) {
  const canvas = createElement("canvas", { width: 10, height: 14, "aria-hidden": "true" });
  const highlightBox = createElement("span", { class: "highlight-box" });
  const percent = (fraction) => `${(fraction * 100).toFixed(3)}%`;
  const { x, y, width, height } = hit.box;
  Object.assign(highlightBox.style, { left: percent(x), top: percent(y), width: percent(width), height: percent(height) });
  const path = hit.image_url || imagePath(hit.document, hit.page);
  drawThumbnailWhenVisible(canvas, path);
  const open = () => openViewer({ document: hit.document, name: hit.name, page: hit.page, box: hit.box, image: path });
  const weakBadge = hit.weak ? createElement("span", { class: "badge" }, "weak match") : null;
  return createElement("li", {},
    createElement("button", { type: "button", class: hit.weak ? "hit weak" : "hit", onclick: open },
      createElement("span", { class: "hit-thumbnail" }, canvas, highlightBox),
      createElement("span", { class: "passage" },
        createElement("span", { class: "name" }, `${hit.name}, page ${hit.page}`, weakBadge),
        createLabelList(hit.labels),
        createElement("span", { class: "passage-text" }, ...highlightMatches(hit)))));
}

function clearResults() {
  byId("hits").replaceChildren();
  setVisible(byId("show-weak-hits"), false);
  setText(byId("search-status"), "");
}

export function initSearch() {
  byId("search-form").addEventListener("submit", search);
}

/** Shows the view. If `document` is an id, the search is restricted to that document. */
export async function showSearch(document) {
  if (document !== searchedDocument) {
    searchedDocument = document;
    clearResults();
  }
  const scopeNote = byId("search-scope");
  setVisible(scopeNote, document !== null);
  if (document !== null) {
    let name = document.slice(0, 12);
    try {
      ({ name } = await getJson(`/v1/documents/${document}`));
    } catch {
      // The search itself will report the error.
    }
    if (searchedDocument === document) {
      scopeNote.replaceChildren(`Only in ${name}. `, createElement("a", { href: "#/search" }, "Search all documents"));
    }
  }
  byId("query").focus();
}

export function clearSearch() {
  searchedDocument = null;
  byId("query").value = "";
  clearResults();
}
