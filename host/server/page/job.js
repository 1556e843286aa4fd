// A job as its events tell it.

import { announce, bytes, count, describe, duration, el, many, say, show, when } from "./dom.js";
import { follow } from "./events.js";
import { get, post, remove } from "./api.js";
import { Sheet, pageStates } from "./pages.js";
import { Summaries } from "./summary.js";

const ENDED = ["done", "failed", "cancelled"];
export const isEnded = (state) => ENDED.includes(state);

/** Progress is spoken at most so often for a job. */
const SPOKEN_EVERY_MILLIS = 8000;
/** Errors of pages and components that are shown; those beyond are counted. */
const ERRORS_SHOWN = 5;
/** The same for files that failed. */
const FILES_SHOWN = 3;
const STAGES = ["rasterize", "store", "read", "embed", "upsert"];

/** A job's card in the list; follows the job's events while it is open and the job has more to tell. */
export class JobCard {
  constructor(job, changed) {
    this.id = job.id;
    this.changed = changed;
    this.job = job;
    this.view = null;
    this.documents = new Map();
    this.following = null;
    this.complete = false;
    this.seen = 0;
    this.spokenAt = 0;

    this.title = el("h2", { class: "name" }, "…");
    this.chip = el("span", { class: "chip" });
    this.line = el("span", { class: "hint" }, when(job.created_millis));
    this.bar = el("progress", { max: 100, value: 0, "aria-label": "Progress of the job" });
    this.cancel = el("button", { type: "button", class: "quiet", onclick: () => this.act(() => remove(this.path)) }, "Cancel");
    this.retry = el("button", { type: "button", class: "quiet", onclick: () => this.act(() => post(`${this.path}/retry`)) }, "Retry");
    this.queues = el("dl", { class: "queues", "aria-label": "Pages waiting" });
    this.body = el("div", { class: "stack" });
    this.errors = el("ul", { class: "errors", "aria-label": "Errors" });
    this.moreErrors = 0;
    this.reasons = el("span", { class: "reasons" });
    this.details = el("details", { class: "job" },
      el("summary", {}, this.title, this.chip, this.line, this.reasons),
      this.errors, this.queues, this.body);
    this.node = el("article", { class: "panel card" }, this.bar, this.details, el("div", { class: "actions" }, this.cancel, this.retry));
    this.details.addEventListener("toggle", () => this.toggled());
    this.update(job);
    this.details.open = !isEnded(job.state);
  }

  get path() {
    return `/v1/jobs/${encodeURIComponent(this.id)}`;
  }

  /** Takes what the list says of the job. One that had ended may have been begun again. */
  update(job) {
    this.job = job;
    if (!isEnded(job.state)) this.complete = false;
    this.stateIs(job.state);
    // Who follows the events knows more than the host is asked for here.
    if (!this.view || this.view.state !== job.state || (!isEnded(job.state) && !this.following)) this.load();
  }

  /** Asks for the job's documents and how far they are. */
  async load() {
    try {
      const view = await get(this.path);
      this.view = view;
      this.describe(view);
      if (!this.following || isEnded(view.state)) this.stateIs(view.state);
    } catch {
      // The list is asked again soon; what is missing until then is a name.
    }
  }

  describe({ documents, created_millis: created, position, held }) {
    const names = documents.map((document) => document.name);
    say(this.title, names.length < 2 ? names[0] || "A job without files" : `${names[0]} and ${many(names.length - 1, "other")}`);
    this.title.title = names.join("\n");
    const sum = (of) => documents.reduce((all, document) => all + (of(document) || 0), 0);
    const pages = sum((document) => document.pages);
    const parts = [when(created), ` · ${bytes(sum((document) => document.bytes))}`];
    if (pages > 0) parts.push(` · ${many(pages, "page")}`);
    const failed = sum((document) => document.failed);
    if (failed > 0) parts.push(`, ${count(failed)} failed`);
    if (held) parts.push(` · waits: ${held.replaceAll(/[_-]/g, " ")}`);
    else if (position) parts.push(` · number ${count(position)} of your jobs that wait`);
    this.line.replaceChildren(...parts);
    this.explain(documents);
    if (this.following) return;
    const ended = (state) => isEnded(state);
    const percent = sum((document) => (ended(document.state) ? 100 : document.progress?.percent));
    if (this.job.state === "running") this.bar.value = percent / Math.max(1, documents.length);
  }

  /** Says at the top which files failed, and why: the card of a job that has ended is closed. */
  explain(documents) {
    const failed = documents.filter((document) => document.state === "failed");
    const lines = failed.slice(0, FILES_SHOWN)
      .map(({ name, error }) => {
        const why = error?.message || "it failed";
        return documents.length > 1 ? `${name}: ${why}` : why;
      });
    if (failed.length > FILES_SHOWN) lines.push(`and ${many(failed.length - FILES_SHOWN, "other file")}`);
    this.reasons.replaceChildren(...lines.map((line) => el("span", {}, line)));
  }

  /** A job fails with any of its files; with others of them done it is shown as what it is. */
  shown(state) {
    const done = this.view?.documents.filter((document) => document.state === "done").length;
    if (state !== "failed" || !done) return { name: state, word: state };
    return { name: "partial", word: `${count(done)} of ${many(this.view.documents.length, "file")} done` };
  }

  stateIs(state) {
    this.state = state;
    const { name, word } = this.shown(state);
    say(this.chip, word);
    this.chip.dataset.state = name;
    this.reasons.dataset.state = name;
    show(this.cancel, !isEnded(state));
    show(this.retry, state === "failed" || state === "cancelled");
    show(this.queues, state === "running" && this.queues.childElementCount > 0);
    show(this.bar, state === "running" || state === "queued");
    if (state === "queued") this.bar.removeAttribute("value");
    this.toggled();
  }

  async act(action) {
    this.cancel.disabled = this.retry.disabled = true;
    try {
      await action();
    } catch (error) {
      this.trouble(describe(error));
    } finally {
      this.cancel.disabled = this.retry.disabled = false;
      this.changed();
    }
  }

  /** Follows while somebody looks and there is something to come, or something not yet seen. */
  toggled() {
    const wanted = this.details.open && this.state !== "queued" && !this.complete;
    if (wanted && !this.following) this.follow();
    else if (!this.details.open && isEnded(this.state)) this.stop();
  }

  async follow() {
    this.following = new AbortController();
    const { signal } = this.following;
    try {
      await follow(`${this.path}/events`, {
        signal,
        after: this.seen,
        told: (event) => {
          this.told(event);
          return event.type === "job-ended";
        },
        connected: (yes) => this.node.classList.toggle("waits", !yes),
      });
      this.complete = true;
    } catch (error) {
      if (!signal.aborted) this.trouble(describe(error));
    } finally {
      if (this.following?.signal === signal) this.following = null;
    }
  }

  stop() {
    this.following?.abort();
    this.following = null;
  }

  told(event) {
    // A number that was seen is not seen twice, whatever the network does.
    if (event.seq <= this.seen) return;
    this.seen = event.seq;
    if (this.state !== "running") this.stateIs("running");
    const document = event.document && this.documents.get(event.document);
    switch (event.type) {
      case "document-started":
        this.begin(event);
        break;
      case "batch-rasterized":
        this.depths(event.queues);
        break;
      case "page-done":
        document?.done(event.page);
        break;
      case "page-retried":
        document?.sheet.set(event.page, "retried", event.error.message);
        break;
      case "page-failed":
        document?.failed(event.page, event.error.message);
        this.trouble(`Page ${event.page}: ${event.error.message}`);
        break;
      case "policy-failed":
        this.trouble(`A component did not decide, and the default did: ${event.error.message}`);
        break;
      case "job-held":
        this.trouble(`Waiting: ${event.error.message}`);
        break;
      case "model-wait-started":
        for (const { provider, error } of event.providers) {
          this.trouble(`Waiting for the language model ${provider}: ${error.message}`);
        }
        break;
      case "progress":
        document?.progress(event);
        this.overall();
        this.speak(event.message);
        break;
      case "section-summarized":
        document?.summaries.section();
        break;
      case "section-failed":
        this.trouble(`${event.title || `Section ${event.section}`}: ${event.error.message}`);
        break;
      case "document-summarized":
        document?.summaries.load();
        break;
      case "document-done":
        document?.end("done", event);
        break;
      case "document-failed":
        // Why it failed is said at the top, once the job has ended.
        document?.end("failed", event);
        break;
      case "document-cancelled":
        document?.end("cancelled", event);
        break;
      case "job-ended":
        this.stateIs(event.state);
        // The list does not know it yet.
        if (!isEnded(this.job.state)) {
          this.load().then(() => announce(`${this.title.textContent}: ${this.shown(event.state).word}`));
          this.changed();
        }
        break;
      default:
        // A newer host may say more than this page knows.
        break;
    }
  }

  begin(event) {
    const before = this.documents.get(event.document);
    if (before) {
      before.begin(event);
      return;
    }
    const document = new DocumentPart(event);
    this.documents.set(event.document, document);
    this.body.append(document.node);
  }

  depths(queues) {
    for (const name of STAGES) {
      const queue = queues.find((one) => one.stage === name);
      if (!queue) continue;
      let meter = this.queues.querySelector(`[data-stage="${name}"]`);
      if (!meter) {
        meter = el("meter", { "data-stage": name, min: 0, "aria-label": `Pages waiting for ${name}` });
        this.queues.append(el("div", {}, el("dt", {}, name), el("dd", {}, meter, el("span"))));
      }
      meter.max = queue.capacity;
      meter.high = queue.capacity * 0.8;
      meter.value = queue.depth;
      say(meter.nextSibling, `${queue.depth} / ${queue.capacity}`);
    }
    show(this.queues, this.state === "running");
  }

  overall() {
    const parts = [...this.documents.values()];
    const all = Math.max(this.view?.documents.length || 1, parts.length);
    this.bar.value = parts.reduce((sum, part) => sum + part.percent, 0) / all;
  }

  speak(message) {
    const now = Date.now();
    if (isEnded(this.job.state) || now - this.spokenAt < SPOKEN_EVERY_MILLIS) return;
    this.spokenAt = now;
    announce(`${this.title.textContent}: ${Math.round(this.bar.value)} percent. ${message}`);
  }

  trouble(text) {
    if (this.errors.childElementCount < ERRORS_SHOWN) {
      this.errors.append(el("li", {}, text));
      return;
    }
    this.moreErrors += 1;
    const more = `and ${many(this.moreErrors, "other error")}`;
    if (this.moreErrors === 1) this.errors.append(el("li", { class: "more" }, more));
    else say(this.errors.lastElementChild, more);
  }
}

/** A document of a job. */
class DocumentPart {
  constructor({ document, name, pages, already_done: before }) {
    this.document = document;
    this.pages = pages;
    this.percent = 0;
    this.bar = el("progress", { max: 100, value: 0, "aria-label": `Progress of ${name}` });
    this.message = el("p", { class: "message" });
    this.figure = el("span", { class: "hint" });
    this.sheet = new Sheet(document, name, pages);
    this.summaries = new Summaries(document, pages);
    this.node = el("div", { class: "document", role: "group", "aria-label": name },
      el("h3", {}, name, " ", this.figure), this.bar, this.message, this.summaries.node, this.sheet.node);
    this.begin({ already_done: before });
  }

  /** Work begins, perhaps not for the first time: the host was started again, or the job was. */
  begin({ already_done: before }) {
    delete this.node.dataset.state;
    this.bar.hidden = false;
    this.ready = before;
    this.tally();
    if (before > 0) this.known();
  }

  /** Pages that an earlier job has done have no event here; the host lists them. */
  async known() {
    try {
      for await (const { page, state } of pageStates(this.document)) {
        if (state === "done" && !this.sheet.states.has(page)) this.sheet.set(page, "done");
      }
    } catch {
      // They are shown as waiting; what counts is in the figures.
    }
  }

  tally() {
    say(this.figure, `${count(this.ready)} of ${many(this.pages, "page")}`);
  }

  done(page) {
    this.ready += 1;
    this.sheet.set(page, "done");
    this.tally();
  }

  failed(page, why) {
    this.sheet.set(page, "failed", why);
  }

  progress({ percent, message, seconds_left: left }) {
    this.percent = percent;
    this.bar.value = percent;
    const soon = left === null || left === undefined ? "" : ` · ${duration(left)} left`;
    say(this.message, `${Math.round(percent)} % · ${message}${soon}`);
  }

  end(state, event) {
    this.node.dataset.state = state;
    this.percent = 100;
    this.bar.value = 100;
    this.bar.hidden = true;
    this.sheet.end();
    if (state === "done") {
      const failed = event.failed.length > 0 ? `, ${event.failed.length} failed` : "";
      say(this.message, `${many(event.searchable, "page")} searchable${failed}`);
    } else if (state === "failed") {
      say(this.message, event.error.message);
    } else {
      say(this.message, `Cancelled after ${many(event.done, "page")}`);
    }
  }
}
