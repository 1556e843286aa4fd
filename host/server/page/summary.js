// The summaries of a document. A quoted sentence links to its position in the document. Numbers and names that the document does not
// contain are marked.

import { getJson } from "./api.js";
import { createElement, errorMessage, pluralize } from "./dom.js";
import { openViewer } from "./viewer.js";

const encoder = new TextEncoder();
const decoder = new TextDecoder();

/** A section of the page with the summaries of a document. It is hidden while there are none. */
export class Summaries {
  constructor(document, pages) {
    this.document = document;
    this.pages = pages;
    this.status = createElement("p", { class: "status-message" });
    this.content = createElement("div", { class: "stack" });
    this.node = createElement("section", { class: "summaries", "aria-label": "Summary", hidden: true }, this.status, this.content);
    this.summarizedSections = 0;
  }

  /** Counts a section that has been summarized. */
  countSection() {
    this.summarizedSections += 1;
    this.node.hidden = false;
    this.status.textContent = `${pluralize(this.summarizedSections, "section")} summarized`;
  }

  /** Loads the summaries if the document has any. */
  async loadIfAvailable() {
    try {
      const { summarized } = await getJson(`/v1/documents/${this.document}?limit=1`);
      if (summarized) await this.load();
    } catch {
      // The request for the pages of the document reports the error.
    }
  }

  async load() {
    try {
      const { summary, sections, name } = await getJson(`/v1/documents/${this.document}/summary`);
      const ofDocument = summary && sections.length !== 1 ? [this.createSummary("Summary", summary, name)] : [];
      const ofSections = sections.filter((section) => section.summary).map((section) => this.createSectionSummary(section, name));
      this.content.replaceChildren(...ofDocument, ...collapseSections(ofSections));
      this.status.textContent = "";
      this.node.hidden = this.content.childElementCount === 0;
    } catch (error) {
      this.node.hidden = false;
      this.status.textContent = errorMessage(error);
    }
  }

  createSectionSummary({ title, first_page: first, last_page: last, summary }, name) {
    const pages = first === last ? `page ${first}` : `pages ${first} to ${last}`;
    return this.createSummary(`${title || "Untitled"}, ${pages}`, summary, name);
  }

  createSummary(title, summary, name) {
    return createElement("div", {}, createElement("p", { class: "summary-heading" }, title),
      createElement("p", { class: "summary-text" }, ...this.createTextParts(summary, name)));
  }

  /** Splits the text at the boundaries of quotes and ungrounded parts, and creates an element for each of them. */
  createTextParts({ text, quotes, ungrounded }, name) {
    const bytes = encoder.encode(text);
    const cuts = new Set([0, bytes.length]);
    for (const { start, end } of [...quotes.map((quote) => quote.at), ...ungrounded]) cuts.add(start).add(end);
    const positions = [...cuts].sort((one, other) => one - other);
    const contains = ({ start, end }, position) => start <= position && position < end;
    return positions.slice(1).map((end, index) => {
      const start = positions[index];
      const part = decoder.decode(bytes.slice(start, end));
      const quote = quotes.find((one) => contains(one.at, start));
      if (quote) return this.createQuote(part, quote, name);
      const isUngrounded = ungrounded.some((one) => contains(one, start));
      return isUngrounded ? createElement("mark", { title: "The document does not contain this." }, part) : part;
    });
  }

  createQuote(text, { page, box }, name) {
    const open = () => openViewer({ document: this.document, name, pages: this.pages, page, box });
    return createElement("button", { type: "button", class: "quote", title: `Page ${page}`, onclick: open }, text);
  }
}

/** Puts several sections into a collapsed element, because a book has hundreds. */
function collapseSections(sections) {
  if (sections.length < 2) return sections;
  return [createElement("details", {}, createElement("summary", {}, pluralize(sections.length, "section")),
    createElement("div", { class: "stack" }, ...sections))];
}
