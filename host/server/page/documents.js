// What has been taken in.

import { get, remove } from "./api.js";
import { bytes, by, complain, confirmed, describe, el, labelList, many, show, when } from "./dom.js";
import { Sheet, pageStates } from "./pages.js";
import { Summaries } from "./summary.js";

let older = null;

async function load(after) {
  try {
    const where = after ? `&cursor=${encodeURIComponent(after)}` : "";
    const list = await get(`/v1/documents?limit=50${where}`);
    const nodes = list.documents.map(card);
    if (after) by("documents").append(...nodes);
    else by("documents").replaceChildren(...nodes);
    older = list.next || null;
    show(by("documents-more"), older !== null);
    show(by("documents-none"), by("documents").childElementCount === 0);
  } catch (error) {
    complain(error);
  }
}

function card(document) {
  const pages = el("div", {});
  const node = el("article", { class: "panel card" });
  const details = el("details", { class: "job" },
    el("summary", {},
      el("span", { class: "name" }, document.name),
      el("span", { class: "hint" }, `${many(document.pages, "page")} · ${bytes(document.bytes)} · `, when(document.created_millis)),
      labelList(document.labels)),
    pages);
  details.addEventListener("toggle", () => {
    if (details.open && pages.childElementCount === 0) open(document, pages);
  });
  const away = async () => {
    if (!await confirmed(`Delete ${document.name} with its pages, images and passages?`, "Delete")) return;
    try {
      await remove(`/v1/documents/${document.document}`);
      node.remove();
      show(by("documents-none"), by("documents").childElementCount === 0);
    } catch (error) {
      complain(error);
    }
  };
  node.append(details, el("div", { class: "actions" },
    el("a", { class: "button quiet", href: `#/search/${document.document}` }, "Search in it"),
    el("button", { type: "button", class: "quiet", onclick: away, "aria-label": `Delete ${document.name}` }, "Delete")));
  return node;
}

async function open(document, into) {
  const sheet = new Sheet(document.document, document.name, document.pages);
  const summaries = new Summaries(document.document, document.pages);
  into.append(summaries.node, sheet.node);
  summaries.look();
  try {
    for await (const { page, state, error } of pageStates(document.document)) sheet.set(page, state, error?.message);
    sheet.end();
  } catch (error) {
    into.replaceChildren(el("p", { class: "notice bad" }, describe(error)));
  }
}

export function startDocuments() {
  by("documents-more").addEventListener("click", () => load(older));
}

export const showDocuments = () => load(null);

export function clearDocuments() {
  by("documents").replaceChildren();
}
