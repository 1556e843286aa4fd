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
    const weak = hits.filter((hit) => hit.weak);
    const fitting = hits.filter((hit) => !hit.weak);
    by("hits").replaceChildren(...fitting.map(row));
    tell(fitting.length, weak);
  } catch (error) {
    if (!signal.aborted) {
      empty();
      say(by("found"), describe(error));
    }
  }
}

/** Says how much was found. Weak hits, which the host would only guess at, are shown when they are asked for. */
function tell(fitting, weak) {
  const none = weak.length === 0 ? "Nothing was found." : "No passage matches this.";
  say(by("found"), fitting === 0 ? none : many(fitting, "passage"));
  const button = by("weak");
  show(button, weak.length > 0);
  button.textContent = `Show ${many(weak.length, "weak match", "weak matches")}`;
  button.onclick = () => {
    by("hits").append(...weak.map(row));
    show(button, false);
    by("hits").querySelector(".weak")?.focus();
  };
}

const bytes = new TextEncoder();
const text = new TextDecoder();

/** A hit's text with the words of the query marked: pieces of text and elements, never markup made of it. */
function marked(hit) {
  const all = bytes.encode(hit.text);
  const piece = (from, to) => text.decode(all.subarray(from, to));
  const pieces = [];
  let from = 0;
  for (const { start, end } of hit.matches) {
    pieces.push(piece(from, start), el("mark", {}, piece(start, end)));
    from = end;
  }
  return [...pieces, piece(from)];
}

function row(hit) {
  const canvas = el("canvas", { width: 10, height: 14, "aria-hidden": "true" });
  const box = el("span", { class: "box" });
  const share = (value) => `${(value * 100).toFixed(3)}%`;
  const { x, y, width, height } = hit.box;
  Object.assign(box.style, { left: share(x), top: share(y), width: share(width), height: share(height) });
  const path = hit.image_url || imagePath(hit.document, hit.page);
  thumbnail(canvas, path);
  const open = () => view({ document: hit.document, name: hit.name, page: hit.page, box: hit.box, image: path });
  return el("li", {},
    el("button", { type: "button", class: hit.weak ? "hit weak" : "hit", onclick: open },
      el("span", { class: "small" }, canvas, box),
      el("span", { class: "passage" },
        el("span", { class: "name" }, `${hit.name}, page ${hit.page}`, hit.weak ? el("span", { class: "chip" }, "weak match") : null),
        labelList(hit.labels),
        el("span", { class: "text" }, ...marked(hit)))));
}

function empty() {
  by("hits").replaceChildren();
  show(by("weak"), false);
  say(by("found"), "");
}

export function startSearch() {
  by("search").addEventListener("submit", ask);
}

/** Shows the view; in one document only if its id is given. */
export async function showSearch(document) {
  if (document !== within) {
    within = document;
    empty();
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
  by("query").value = "";
  empty();
}
