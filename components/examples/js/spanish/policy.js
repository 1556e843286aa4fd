// Progress in Spanish, with the section being read.
//
// Whoever waits for a long report wants to know where it has got to, and "capítulo 7" says more than "42 %". So the text of each page
// that is done is looked at for a numbered heading, and the last one found is named. Something is said at the beginning, at each
// new section, each few percent, at each failure and at the end.
import { policy, settings } from "weir-sdk";
import * as rasterizer from "weir-sdk/rasterizer.js";

const VERBS = { rasterize: "dibujar", store: "guardar", read: "leer", embed: "indexar", upsert: "indexar" };

class Spanish {
  /** Percent between two updates. */
  step = settings.within("step-percent", 5, 0, 100);
  /** Documents in work, by id. */
  documents = new Map();

  observe(atMillis, { tag, val }) {
    switch (tag) {
      case "document-started":
        return this.started(atMillis, val);
      case "page-done":
        return this.pageDone(atMillis, val);
      case "page-failed":
        return this.pageFailed(atMillis, val);
      case "document-done":
      case "document-failed":
        return this.ended(atMillis, val, tag === "document-done");
    }
    return [];
  }

  started(atMillis, { document, name, pages: count, alreadyDone }) {
    const known = { started: atMillis, pages: count, alreadyDone, done: alreadyDone, failed: 0, section: null, told: 0 };
    this.documents.set(document, known);
    const before = alreadyDone === 0 ? "" : `, ${alreadyDone} ya estaban hechas`;
    return [update(known, atMillis, document, `«${name}»: ${pages(count)}${before}`)];
  }

  pageDone(atMillis, { document, page }) {
    const known = this.documents.get(document);
    if (!known) return [];
    known.done += 1;
    const section = heading(textOf(document, page));
    const isNew = section !== null && section !== known.section;
    known.section = section ?? known.section;
    const ends = known.done + known.failed >= known.pages;
    if (!isNew && !ends && percent(known) - known.told < this.step) return [];
    const counted = `${known.done} de ${pages(known.pages)}`;
    const message = known.section === null ? counted : `Leyendo «${known.section}»: ${counted}`;
    return [update(known, atMillis, document, message)];
  }

  pageFailed(atMillis, { document, page, stage, message }) {
    const known = this.documents.get(document);
    if (!known) return [];
    known.failed += 1;
    return [update(known, atMillis, document, `La página ${page} no se pudo ${VERBS[stage]}: ${message}`)];
  }

  ended(atMillis, { document, done, failed }, well) {
    const known = this.documents.get(document);
    if (!known) return [];
    this.documents.delete(document);
    const tenths = Math.floor(Math.max(atMillis - known.started, 0) / 100);
    const message = well
      ? `Listo: ${pages(done)} en ${Math.floor(tenths / 10)},${tenths % 10} s`
      : `Detenido: ${done} de ${pages(known.pages)}`;
    const last = update(known, atMillis, document, failed > 0 ? `${message}, ${failed} con errores` : message);
    return [{ ...last, percent: well ? 100 : last.percent, secondsLeft: well ? 0 : null }];
  }
}

function percent({ done, failed, pages }) {
  return Math.min(((done + failed) * 100) / Math.max(pages, 1), 100);
}

function update(known, atMillis, document, message) {
  known.told = percent(known);
  return {
    document,
    percent: known.told,
    message: [...message].slice(0, 500).join(""),
    secondsLeft: secondsLeft(known, atMillis),
  };
}

/** Seconds for the pages left at the pace so far, rounded up; unknown before the first page of this job. */
function secondsLeft({ started, pages, alreadyDone, done, failed }, atMillis) {
  const fresh = Math.max(done + failed - alreadyDone, 0) * 1000;
  const left = Math.max(pages - done - failed, 0);
  const elapsed = Math.max(atMillis - started, 0);
  return fresh > 0 ? Math.min(Math.floor((elapsed * left + fresh - 1) / fresh), 2 ** 32 - 1) : null;
}

function pages(count) {
  return count === 1 ? "1 página" : `${count} páginas`;
}

function textOf(document, page) {
  try {
    return rasterizer.text(document, page);
  } catch {
    return ""; // the page is done all the same
  }
}

/** The first line of a page that is a numbered heading: `3 Las compuertas`, `2.1. Alcance`. */
function heading(text) {
  const lines = text.split("\n", 200).map((line) => line.trim());
  return lines.find(isHeading) ?? null;
}

function isHeading(line) {
  const length = [...line].length;
  return /^[0-9][0-9.]* \p{Lu}/u.test(line) && length >= 5 && length <= 70 && !line.endsWith(".");
}

export const { progress } = policy(Spanish);
