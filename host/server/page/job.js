// The card of a job, updated from the events of the job.

import { deleteResource, getJson, postJson } from "./api.js";
import {
  announce, createElement, createTimeElement, errorMessage, formatBytes, formatDuration, formatNumber, pluralize, setText, setVisible,
} from "./dom.js";
import { followEvents } from "./events.js";
import { PageGrid, listEndedPages } from "./pages.js";
import { Summaries } from "./summary.js";

const ENDED_STATES = ["done", "failed", "cancelled"];
export const isEnded = (state) => ENDED_STATES.includes(state);

/** Minimum time between two progress announcements of a job to screen readers. */
const MIN_ANNOUNCE_INTERVAL_MILLIS = 8000;
/** Maximum number of listed errors of pages and components. Further errors are only counted. */
const MAX_LISTED_ERRORS = 5;
/** Maximum number of listed files that failed. */
const MAX_LISTED_FILES = 3;
const STAGES = ["rasterize", "store", "read", "embed", "upsert"];

/** A job in the list. It follows the events of the job while the card is open and the job has further events. */
export class JobCard {
  constructor(job, onChange) {
    this.id = job.id;
    this.onChange = onChange;
    this.job = job;
    this.jobDetails = null;
    this.documents = new Map();
    this.following = null;
    this.hasAllEvents = false;
    this.lastSeq = 0;
    this.announcedAt = 0;

    this.title = createElement("h2", { class: "name" }, "…");
    this.stateBadge = createElement("span", { class: "badge" });
    this.facts = createElement("span", { class: "hint" }, createTimeElement(job.created_millis));
    this.progressBar = createElement("progress", { max: 100, value: 0, "aria-label": "Progress of the job" });
    this.cancelButton = createElement("button", {
      type: "button", class: "secondary", onclick: () => this.runAction(() => deleteResource(this.path)),
    }, "Cancel");
    this.retryButton = createElement("button", {
      type: "button", class: "secondary", onclick: () => this.runAction(() => postJson(`${this.path}/retry`)),
    }, "Retry");
    this.queueDepths = createElement("dl", { class: "queue-depths", "aria-label": "Pages in the queues" });
    this.documentList = createElement("div", { class: "stack" });
    this.errorList = createElement("ul", { class: "error-list", "aria-label": "Errors" });
    this.unlistedErrors = 0;
    this.failureReasons = createElement("span", { class: "failure-reasons" });
    this.details = createElement("details", { class: "collapsible" },
      createElement("summary", {}, this.title, this.stateBadge, this.facts, this.failureReasons),
      this.errorList, this.queueDepths, this.documentList);
    this.node = createElement("article", { class: "panel card" }, this.progressBar, this.details,
      createElement("div", { class: "actions" }, this.cancelButton, this.retryButton));
    this.details.addEventListener("toggle", () => this.updateFollowing());
    this.update(job);
    this.details.open = !isEnded(job.state);
  }

  get path() {
    return `/v1/jobs/${encodeURIComponent(this.id)}`;
  }

  /** Updates the card from the job list. A job that had ended may have been started again. */
  update(job) {
    this.job = job;
    if (!isEnded(job.state)) this.hasAllEvents = false;
    this.setState(job.state);
    // While the card follows the events, it knows more than the details of the job contain.
    if (!this.jobDetails || this.jobDetails.state !== job.state || (!isEnded(job.state) && !this.following)) this.loadDetails();
  }

  /** Loads the documents of the job and their progress. */
  async loadDetails() {
    try {
      const jobDetails = await getJson(this.path);
      this.jobDetails = jobDetails;
      this.showDetails(jobDetails);
      if (!this.following || isEnded(jobDetails.state)) this.setState(jobDetails.state);
    } catch {
      // The list is refreshed soon. Until then only the name is missing.
    }
  }

  showDetails({ documents, created_millis: created, position, held }) {
    const names = documents.map((document) => document.name);
    setText(this.title, names.length < 2 ? names[0] || "A job without files" : `${names[0]} and ${pluralize(names.length - 1, "other")}`);
    this.title.title = names.join("\n");
    const sum = (valueOf) => documents.reduce((total, document) => total + (valueOf(document) || 0), 0);
    const pages = sum((document) => document.pages);
    const parts = [createTimeElement(created), ` · ${formatBytes(sum((document) => document.bytes))}`];
    if (pages > 0) parts.push(` · ${pluralize(pages, "page")}`);
    const failed = sum((document) => document.failed);
    if (failed > 0) parts.push(`, ${formatNumber(failed)} failed`);
    if (held) parts.push(` · on hold: ${held.replaceAll(/[_-]/g, " ")}`);
    else if (position) parts.push(` · position ${formatNumber(position)} in your queue`);
    this.facts.replaceChildren(...parts);
    this.showFailureReasons(documents);
    if (this.following) return;
    const percent = sum((document) => (isEnded(document.state) ? 100 : document.progress?.percent));
    if (this.job.state === "running") this.progressBar.value = percent / Math.max(1, documents.length);
  }

  /** Shows in the header which files failed and why, because the card of an ended job is closed. */
  showFailureReasons(documents) {
    const failed = documents.filter((document) => document.state === "failed");
    const lines = failed.slice(0, MAX_LISTED_FILES)
      .map(({ name, error }) => {
        const reason = error?.message || "failed";
        return documents.length > 1 ? `${name}: ${reason}` : reason;
      });
    if (failed.length > MAX_LISTED_FILES) lines.push(`and ${pluralize(failed.length - MAX_LISTED_FILES, "other file")}`);
    this.failureReasons.replaceChildren(...lines.map((line) => createElement("span", {}, line)));
  }

  /** Returns the name and label of a state. A failed job with some files done is shown as partially done. */
  describeState(state) {
    const done = this.jobDetails?.documents.filter((document) => document.state === "done").length;
    if (state !== "failed" || !done) return { name: state, label: state };
    return { name: "partial", label: `${formatNumber(done)} of ${pluralize(this.jobDetails.documents.length, "file")} done` };
  }

  setState(state) {
    this.state = state;
    const { name, label } = this.describeState(state);
    setText(this.stateBadge, label);
    this.stateBadge.dataset.state = name;
    this.failureReasons.dataset.state = name;
    setVisible(this.cancelButton, !isEnded(state));
    setVisible(this.retryButton, state === "failed" || state === "cancelled");
    setVisible(this.queueDepths, state === "running" && this.queueDepths.childElementCount > 0);
    setVisible(this.progressBar, state === "running" || state === "queued");
    if (state === "queued") this.progressBar.removeAttribute("value");
    this.updateFollowing();
  }

  async runAction(action) {
    this.cancelButton.disabled = this.retryButton.disabled = true;
    try {
      await action();
    } catch (error) {
      this.addError(errorMessage(error));
    } finally {
      this.cancelButton.disabled = this.retryButton.disabled = false;
      this.onChange();
    }
  }

  /** Follows the events while the card is open and has not received all events. Stops when the card of an ended job is closed. */
  updateFollowing() {
    const wanted = this.details.open && this.state !== "queued" && !this.hasAllEvents;
    if (wanted && !this.following) this.follow();
    else if (!this.details.open && isEnded(this.state)) this.stopFollowing();
  }

  async follow() {
    this.following = new AbortController();
    const { signal } = this.following;
    try {
      await followEvents(`${this.path}/events`, {
        signal,
        after: this.lastSeq,
        onEvent: (event) => {
          this.handleEvent(event);
          return event.type === "job-ended";
        },
        onConnectionChange: (isConnected) => this.node.classList.toggle("reconnecting", !isConnected),
      });
      this.hasAllEvents = true;
    } catch (error) {
      if (!signal.aborted) this.addError(errorMessage(error));
    } finally {
      if (this.following?.signal === signal) this.following = null;
    }
  }

  stopFollowing() {
    this.following?.abort();
    this.following = null;
  }

  handleEvent(event) {
    // Ignore events that were received before a reconnect.
    if (event.seq <= this.lastSeq) return;
    this.lastSeq = event.seq;
    if (this.state !== "running") this.setState("running");
    const document = event.document && this.documents.get(event.document);
    switch (event.type) {
      case "document-started":
        this.startDocument(event);
        break;
      case "batch-rasterized":
        this.showQueueDepths(event.queues);
        break;
      case "page-done":
        document?.pageDone(event.page);
        break;
      case "page-retried":
        document?.pageGrid.setPageState(event.page, "retried", event.error.message);
        break;
      case "page-failed":
        document?.pageFailed(event.page, event.error.message);
        this.addError(`Page ${event.page}: ${event.error.message}`);
        break;
      case "policy-failed":
        this.addError(`A component failed, and the default component replaced it: ${event.error.message}`);
        break;
      case "job-held":
        this.addError(`On hold: ${event.error.message}`);
        break;
      case "model-wait-started":
        for (const { provider, error } of event.providers) {
          this.addError(`Waiting for the language model ${provider}: ${error.message}`);
        }
        break;
      case "progress":
        document?.showProgress(event);
        this.updateJobProgress();
        this.announceProgress(event.message);
        break;
      case "section-summarized":
        document?.summaries.countSection();
        break;
      case "section-failed":
        this.addError(`${event.title || `Section ${event.section}`}: ${event.error.message}`);
        break;
      case "document-summarized":
        document?.summaries.load();
        break;
      case "document-done":
        document?.end("done", event);
        break;
      case "document-failed":
        // The header shows the reason when the job has ended.
        document?.end("failed", event);
        break;
      case "document-cancelled":
        document?.end("cancelled", event);
        break;
      case "job-ended":
        this.setState(event.state);
        // The job list does not have the new state yet.
        if (!isEnded(this.job.state)) {
          this.loadDetails().then(() => announce(`${this.title.textContent}: ${this.describeState(event.state).label}`));
          this.onChange();
        }
        break;
      default:
        // A newer host may send event types that this page does not know.
        break;
    }
  }

  startDocument(event) {
    const existing = this.documents.get(event.document);
    if (existing) {
      existing.restart(event);
      return;
    }
    const document = new DocumentProgress(event);
    this.documents.set(event.document, document);
    this.documentList.append(document.node);
  }

  showQueueDepths(queues) {
    for (const name of STAGES) {
      const queue = queues.find((one) => one.stage === name);
      if (!queue) continue;
      let meter = this.queueDepths.querySelector(`[data-stage="${name}"]`);
      if (!meter) {
        meter = createElement("meter", { "data-stage": name, min: 0, "aria-label": `Pages in the queue of ${name}` });
        this.queueDepths.append(createElement("div", {},
          createElement("dt", {}, name), createElement("dd", {}, meter, createElement("span"))));
      }
      meter.max = queue.capacity;
      meter.high = queue.capacity * 0.8;
      meter.value = queue.depth;
      setText(meter.nextSibling, `${queue.depth} / ${queue.capacity}`);
    }
    setVisible(this.queueDepths, this.state === "running");
  }

  updateJobProgress() {
    const documents = [...this.documents.values()];
    const count = Math.max(this.jobDetails?.documents.length || 1, documents.length);
    this.progressBar.value = documents.reduce((sum, document) => sum + document.percent, 0) / count;
  }

  announceProgress(message) {
    const now = Date.now();
    if (isEnded(this.job.state) || now - this.announcedAt < MIN_ANNOUNCE_INTERVAL_MILLIS) return;
    this.announcedAt = now;
    announce(`${this.title.textContent}: ${Math.round(this.progressBar.value)} percent. ${message}`);
  }

  addError(text) {
    if (this.errorList.childElementCount < MAX_LISTED_ERRORS) {
      this.errorList.append(createElement("li", {}, text));
      return;
    }
    this.unlistedErrors += 1;
    const more = `and ${pluralize(this.unlistedErrors, "other error")}`;
    if (this.unlistedErrors === 1) this.errorList.append(createElement("li", { class: "more" }, more));
    else setText(this.errorList.lastElementChild, more);
  }
}

/** The progress of a document in a job. */
class DocumentProgress {
  constructor({ document, name, pages, already_done: alreadyDone }) {
    this.document = document;
    this.pages = pages;
    this.percent = 0;
    this.progressBar = createElement("progress", { max: 100, value: 0, "aria-label": `Progress of ${name}` });
    this.message = createElement("p", { class: "status-message" });
    this.pageCount = createElement("span", { class: "hint" });
    this.pageGrid = new PageGrid(document, name, pages);
    this.summaries = new Summaries(document, pages);
    this.node = createElement("div", { class: "job-document", role: "group", "aria-label": name },
      createElement("h3", {}, name, " ", this.pageCount), this.progressBar, this.message, this.summaries.node, this.pageGrid.node);
    this.restart({ already_done: alreadyDone });
  }

  /** Resets the display when processing starts or starts again, for example after a restart of the host. */
  restart({ already_done: alreadyDone }) {
    delete this.node.dataset.state;
    this.progressBar.hidden = false;
    this.donePages = alreadyDone;
    this.showPageCount();
    if (alreadyDone > 0) this.loadDonePages();
  }

  /** Loads the pages that an earlier job has done, since this job has no events for them. */
  async loadDonePages() {
    try {
      for await (const { page, state } of listEndedPages(this.document)) {
        if (state === "done" && !this.pageGrid.states.has(page)) this.pageGrid.setPageState(page, "done");
      }
    } catch {
      // The pages are shown as waiting. The page count is still correct.
    }
  }

  showPageCount() {
    setText(this.pageCount, `${formatNumber(this.donePages)} of ${pluralize(this.pages, "page")}`);
  }

  pageDone(page) {
    this.donePages += 1;
    this.pageGrid.setPageState(page, "done");
    this.showPageCount();
  }

  pageFailed(page, reason) {
    this.pageGrid.setPageState(page, "failed", reason);
  }

  showProgress({ percent, message, seconds_left: secondsLeft }) {
    this.percent = percent;
    this.progressBar.value = percent;
    const remaining = secondsLeft === null || secondsLeft === undefined ? "" : ` · ${formatDuration(secondsLeft)} left`;
    setText(this.message, `${Math.round(percent)} % · ${message}${remaining}`);
  }

  end(state, event) {
    this.node.dataset.state = state;
    this.percent = 100;
    this.progressBar.value = 100;
    this.progressBar.hidden = true;
    this.pageGrid.end();
    if (state === "done") {
      const failed = event.failed.length > 0 ? `, ${event.failed.length} failed` : "";
      setText(this.message, `${pluralize(event.searchable, "page")} searchable${failed}`);
    } else if (state === "failed") {
      setText(this.message, event.error.message);
    } else {
      setText(this.message, `Cancelled after ${pluralize(event.done, "page")}`);
    }
  }
}
