// Progress in Spanish, with the section being read.
//
// For a long report, "capítulo 7" tells the user more than "42 %". So the text of each finished page is searched for a numbered heading,
// and the update names the latest one. There is an update at the start, at each new section, at each step in percent, at each failure and
// at the end.
import { policy, settings } from "weir-sdk";
import * as rasterizer from "weir-sdk/rasterizer.js";

const VERBS = { rasterize: "dibujar", store: "guardar", read: "leer", embed: "indexar", upsert: "indexar" };

class Spanish {
  /** Increase in percent between two updates. */
  step = settings.within("step-percent", 5, 0, 100);
  /** Progress of the active documents, by id. */
  documents = new Map();

  observe(atMillis, { tag, val }) {
    switch (tag) {
      case "document-started":
        return this.documentStarted(atMillis, val);
      case "page-done":
        return this.pageDone(atMillis, val);
      case "page-failed":
        return this.pageFailed(atMillis, val);
      case "document-done":
      case "document-failed":
        return this.documentEnded(atMillis, val, tag === "document-done");
    }
    return [];
  }

  documentStarted(atMillis, { document, name, pages: count, alreadyDone }) {
    const known = { started: atMillis, pages: count, alreadyDone, done: alreadyDone, failed: 0, section: null, reportedPercent: 0 };
    this.documents.set(document, known);
    const before = alreadyDone === 0 ? "" : `, ${alreadyDone} ya estaban hechas`;
    return [buildUpdate(known, atMillis, document, `«${name}»: ${formatPages(count)}${before}`)];
  }

  pageDone(atMillis, { document, page }) {
    const known = this.documents.get(document);
    if (!known) return [];
    known.done += 1;
    const section = findHeading(pageText(document, page));
    const isNew = section !== null && section !== known.section;
    known.section = section ?? known.section;
    const ends = known.done + known.failed >= known.pages;
    if (!isNew && !ends && computePercent(known) - known.reportedPercent < this.step) return [];
    const counted = `${known.done} de ${formatPages(known.pages)}`;
    const message = known.section === null ? counted : `Leyendo «${known.section}»: ${counted}`;
    return [buildUpdate(known, atMillis, document, message)];
  }

  pageFailed(atMillis, { document, page, stage, message }) {
    const known = this.documents.get(document);
    if (!known) return [];
    known.failed += 1;
    return [buildUpdate(known, atMillis, document, `La página ${page} no se pudo ${VERBS[stage]}: ${message}`)];
  }

  documentEnded(atMillis, { document, done, failed }, well) {
    const known = this.documents.get(document);
    if (!known) return [];
    this.documents.delete(document);
    const tenths = Math.floor(Math.max(atMillis - known.started, 0) / 100);
    const message = well
      ? `Listo: ${formatPages(done)} en ${Math.floor(tenths / 10)},${tenths % 10} s`
      : `Detenido: ${done} de ${formatPages(known.pages)}`;
    const last = buildUpdate(known, atMillis, document, failed > 0 ? `${message}, ${failed} con errores` : message);
    return [{ ...last, percent: well ? 100 : last.percent, secondsLeft: well ? 0 : null }];
  }
}

function computePercent({ done, failed, pages }) {
  return Math.min(((done + failed) * 100) / Math.max(pages, 1), 100);
}

function buildUpdate(known, atMillis, document, message) {
  known.reportedPercent = computePercent(known);
  return {
    document,
    percent: known.reportedPercent,
    message: [...message].slice(0, 500).join(""),
    secondsLeft: secondsLeft(known, atMillis),
  };
}

/** Estimates the seconds for the pages left from the rate so far, rounded up; `null` before the first page of this job. */
function secondsLeft({ started, pages, alreadyDone, done, failed }, atMillis) {
  const fresh = Math.max(done + failed - alreadyDone, 0) * 1000;
  const left = Math.max(pages - done - failed, 0);
  const elapsed = Math.max(atMillis - started, 0);
  return fresh > 0 ? Math.min(Math.floor((elapsed * left + fresh - 1) / fresh), 2 ** 32 - 1) : null;
}

function formatPages(count) {
  return count === 1 ? "1 página" : `${count} páginas`;
}

function pageText(document, page) {
  try {
    return rasterizer.text(document, page);
  } catch {
    return ""; // the page is done even without its text
  }
}

/** Finds the first line of a page that is a numbered heading: `3 Las compuertas`, `2.1. Alcance`. */
function findHeading(text) {
  const lines = text.split("\n", 200).map((line) => line.trim());
  return lines.find(isHeading) ?? null;
}

function isHeading(line) {
  const length = [...line].length;
  return /^[0-9][0-9.]* \p{Lu}/u.test(line) && length >= 5 && length <= 70 && !line.endsWith(".");
}

export const { progress } = policy(Spanish);
