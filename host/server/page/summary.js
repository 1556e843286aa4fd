// What a document says in short: a sentence taken from it leads to where it stands, and a number or a name that it does not
// have is marked.

import { get } from "./api.js";
import { describe, el, many } from "./dom.js";
import { view } from "./viewer.js";

const bytes = new TextEncoder();
const text = new TextDecoder();

/** A part of the page for a document's summaries; empty while there are none. */
export class Summaries {
  constructor(document, pages) {
    this.document = document;
    this.pages = pages;
    this.told = el("p", { class: "message" });
    this.body = el("div", { class: "stack" });
    this.node = el("section", { class: "summaries", "aria-label": "Summary", hidden: true }, this.told, this.body);
    this.sections = 0;
  }

  /** A section has its summary, or has none. */
  section() {
    this.sections += 1;
    this.node.hidden = false;
    this.told.textContent = `${many(this.sections, "section")} summarized`;
  }

  /** Shows the summaries of a document that may have none. */
  async look() {
    try {
      const { summarized } = await get(`/v1/documents/${this.document}?limit=1`);
      if (summarized) await this.load();
    } catch {
      // Whoever shows its pages says what is wrong.
    }
  }

  /** Asks for what there is. */
  async load() {
    try {
      const said = await get(`/v1/documents/${this.document}/summary`);
      const whole = said.summary && said.sections.length !== 1 ? [this.part("Summary", said.summary, said.name)] : [];
      const parts = said.sections.filter((section) => section.summary).map((section) => this.titled(section, said.name));
      this.body.replaceChildren(...whole, ...sections(parts));
      this.told.textContent = "";
      this.node.hidden = this.body.childElementCount === 0;
    } catch (error) {
      this.node.hidden = false;
      this.told.textContent = describe(error);
    }
  }

  titled({ title, first_page: first, last_page: last, summary }, name) {
    const pages = first === last ? `page ${first}` : `pages ${first} to ${last}`;
    return this.part(`${title || "Untitled"}, ${pages}`, summary, name);
  }

  part(title, summary, name) {
    return el("div", {}, el("p", { class: "part" }, title), el("p", { class: "said" }, ...this.spoken(summary, name)));
  }

  /** The text, cut where a quote or something unknown begins or ends. */
  spoken({ text: whole, quotes, ungrounded }, name) {
    const all = bytes.encode(whole);
    const cuts = new Set([0, all.length]);
    for (const { start, end } of [...quotes.map((quote) => quote.at), ...ungrounded]) cuts.add(start).add(end);
    const places = [...cuts].sort((one, other) => one - other);
    const holds = ({ start, end }, at) => start <= at && at < end;
    return places.slice(1).map((end, at) => {
      const start = places[at];
      const piece = text.decode(all.slice(start, end));
      const quote = quotes.find((one) => holds(one.at, start));
      if (quote) return this.quoted(piece, quote, name);
      const unknown = ungrounded.some((one) => holds(one, start));
      return unknown ? el("mark", { title: "The document does not have this." }, piece) : piece;
    });
  }

  quoted(piece, { page, box }, name) {
    const open = () => view({ document: this.document, name, pages: this.pages, page, box });
    return el("button", { type: "button", class: "quote", title: `Page ${page}`, onclick: open }, piece);
  }
}

/** Sections are read when they are asked for: a book has hundreds. */
function sections(parts) {
  if (parts.length < 2) return parts;
  return [el("details", {}, el("summary", {}, many(parts.length, "section")), el("div", { class: "stack" }, ...parts))];
}
