// The view of documents.

import { deleteResource, getJson } from "./api.js";
import {
  byId, confirmAction, createElement, createLabelList, createTimeElement, errorMessage, formatBytes, pluralize, setVisible, showError,
} from "./dom.js";
import { PageGrid, listEndedPages } from "./pages.js";
import { Summaries } from "./summary.js";

let nextCursor = null;

async function loadDocuments(cursor) {
  try {
    const parameter = cursor ? `&cursor=${encodeURIComponent(cursor)}` : "";
    const list = await getJson(`/v1/documents?limit=50${parameter}`);
    const nodes = list.documents.map(createCard);
    if (cursor) byId("documents").append(...nodes);
    else byId("documents").replaceChildren(...nodes);
    nextCursor = list.next || null;
    setVisible(byId("documents-load-older"), nextCursor !== null);
    showEmptyMessage();
  } catch (error) {
    showError(error);
  }
}

function showEmptyMessage() {
  setVisible(byId("documents-empty"), byId("documents").childElementCount === 0);
}

function createCard(document) {
  const pages = createElement("div", {});
  const node = createElement("article", { class: "panel card" });
  const facts = createElement("span", { class: "hint" },
    `${pluralize(document.pages, "page")} · ${formatBytes(document.bytes)} · `, createTimeElement(document.created_millis));
  const details = createElement("details", { class: "collapsible" },
    createElement("summary", {}, createElement("span", { class: "name" }, document.name), facts, createLabelList(document.labels)),
    pages);
  details.addEventListener("toggle", () => {
    if (details.open && pages.childElementCount === 0) loadPages(document, pages);
  });
  const deleteDocument = async () => {
    if (!await confirmAction(`Delete ${document.name} with its pages, images and passages?`, "Delete")) return;
    try {
      await deleteResource(`/v1/documents/${document.document}`);
      node.remove();
      showEmptyMessage();
    } catch (error) {
      showError(error);
    }
  };
  node.append(details, createElement("div", { class: "actions" },
    createElement("a", { class: "button secondary", href: `#/search/${document.document}` }, "Search in it"),
    createElement("button", {
      type: "button", class: "secondary", onclick: deleteDocument, "aria-label": `Delete ${document.name}`,
    }, "Delete")));
  return node;
}

async function loadPages(document, container) {
  const pageGrid = new PageGrid(document.document, document.name, document.pages);
  const summaries = new Summaries(document.document, document.pages);
  container.append(summaries.node, pageGrid.node);
  summaries.loadIfAvailable();
  try {
    for await (const { page, state, error } of listEndedPages(document.document)) pageGrid.setPageState(page, state, error?.message);
    pageGrid.end();
  } catch (error) {
    container.replaceChildren(createElement("p", { class: "notice error" }, errorMessage(error)));
  }
}

export function initDocuments() {
  byId("documents-load-older").addEventListener("click", () => loadDocuments(nextCursor));
}

export const showDocuments = () => loadDocuments(null);

export function clearDocuments() {
  byId("documents").replaceChildren();
}
