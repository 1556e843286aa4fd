// Finding passages, and the place where each stands.

import { get, post } from "./api.js";
import { by, describe, el, labelList, many, say, show } from "./dom.js";
import { imagePath, thumbnail } from "./images.js";
import { view } from "./viewer.js";

const HITS = 10;

let within = null;
let under = null;

async function ask(event) {
  event.preventDefault();
  const query = by("query").value.trim();
  if (!query) return;
  under?.abort();
  under = new AbortController();
  const { signal } = under;
  say(by("found"), "Searching…");
  try {
    const filter = within ? { documents: [within] } : {};
    const { hits } = await post("/v1/search", { query, top_k: HITS, filter }, { signal });
    say(by("found"), hits.length === 0 ? "Nothing was found." : many(hits.length, "passage"));
    by("hits").replaceChildren(...hits.map((hit) => row(hit, words(query))));
  } catch (error) {
    if (!signal.aborted) {
      by("hits").replaceChildren();
      say(by("found"), describe(error));
    }
  }
}

/** The words of a query worth marking in a passage. */
const words = (query) => query.toLowerCase().match(/[\p{L}\p{N}]{3,}/gu) || [];

/** A text with the words marked: pieces of text and elements, never markup made of it. */
function marked(text, wanted) {
  if (wanted.length === 0) return [text];
  const escaped = wanted.map((word) => word.replace(/[^\p{L}\p{N}]/gu, ""));
  const any = new RegExp(`(${escaped.join("|")})`, "giu");
  return text.split(any).map((piece, at) => (at % 2 === 1 ? el("mark", {}, piece) : piece));
}

function row(hit, wanted) {
  const canvas = el("canvas", { width: 10, height: 14, "aria-hidden": "true" });
  const box = el("span", { class: "box" });
  const share = (value) => `${(value * 100).toFixed(3)}%`;
  const { x, y, width, height } = hit.box;
  Object.assign(box.style, { left: share(x), top: share(y), width: share(width), height: share(height) });
  const path = hit.image_url || imagePath(hit.document, hit.page);
  thumbnail(canvas, path);
  const open = () => view({ document: hit.document, name: hit.name, page: hit.page, box: hit.box, image: path });
  return el("li", {},
    el("button", { type: "button", class: "hit", onclick: open },
      el("span", { class: "small" }, canvas, box),
      el("span", { class: "passage" },
        el("span", { class: "name" }, `${hit.name}, page ${hit.page}`),
        labelList(hit.labels),
        el("span", { class: "text" }, ...marked(hit.text, wanted)))));
}

export function startSearch() {
  by("search").addEventListener("submit", ask);
}

/** Shows the view; in one document only if its id is given. */
export async function showSearch(document) {
  if (document !== within) {
    within = document;
    by("hits").replaceChildren();
    say(by("found"), "");
  }
  const note = by("within");
  show(note, document !== null);
  if (document !== null) {
    let name = document.slice(0, 12);
    try {
      ({ name } = await get(`/v1/documents/${document}`));
    } catch {
      // The search itself will say what is wrong.
    }
    if (within === document) note.replaceChildren(`Only in ${name}. `, el("a", { href: "#/search" }, "Search everywhere"));
  }
  by("query").focus();
}

export function clearSearch() {
  within = null;
  by("hits").replaceChildren();
  by("query").value = "";
  say(by("found"), "");
}
