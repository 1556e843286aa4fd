// The view of jobs: the job list and the upload form.

import { getJson } from "./api.js";
import { byId, setVisible, showError } from "./dom.js";
import { JobCard, isEnded } from "./job.js";
import { startUpload } from "./upload.js";

/** A queued job has no events yet, so the list is refreshed at this interval while a job has not ended. */
const REFRESH_MILLIS = 2000;
/** Maximum number of cards of active jobs that open automatically. */
const MAX_OPEN_CARDS = 3;

const cards = new Map();
let nextCursor = null;
let refreshTimer = null;
let isShown = false;

/** Loads the newest jobs and updates the cards. */
async function refresh() {
  clearTimeout(refreshTimer);
  if (!isShown) return;
  try {
    addToList(await getJson("/v1/jobs?limit=20"), true);
    const hasActiveJobs = [...cards.values()].some((card) => !isEnded(card.job.state));
    if (hasActiveJobs && isShown) refreshTimer = setTimeout(refresh, REFRESH_MILLIS);
  } catch (error) {
    showError(error);
  }
}

/** Updates existing cards and adds cards of new jobs, at the start of the list for the `newest` jobs and otherwise at its end. */
function addToList(list, newest) {
  const container = byId("jobs");
  let openCards = [...cards.values()].filter((card) => card.details.open && !isEnded(card.state)).length;
  const newNodes = [];
  for (const job of list.jobs) {
    const existing = cards.get(job.id);
    if (existing) {
      existing.update(job);
      continue;
    }
    const card = new JobCard(job, refresh);
    if (card.details.open && openCards >= MAX_OPEN_CARDS) card.details.open = false;
    openCards += card.details.open ? 1 : 0;
    cards.set(job.id, card);
    newNodes.push(card.node);
  }
  if (newest) container.prepend(...newNodes);
  else container.append(...newNodes);
  if (!newest || nextCursor === null) nextCursor = list.next || null;
  setVisible(byId("jobs-empty"), cards.size === 0);
  setVisible(byId("jobs-load-older"), nextCursor !== null);
}

async function loadOlder() {
  try {
    const before = nextCursor;
    nextCursor = null;
    addToList(await getJson(`/v1/jobs?limit=20&before=${encodeURIComponent(before)}`), false);
  } catch (error) {
    showError(error);
  }
}

function collectOptions(form, files) {
  const options = {};
  const { ocr, vision, dpi, password, collection, labels, force, summarize } = form.elements;
  if (ocr.value) options.ocr = ocr.value;
  if (vision.value) options.vision = vision.value;
  if (dpi.value) options.dpi = Number(dpi.value);
  if (password.value) options.passwords = Object.fromEntries(files.map((file) => [file.name, password.value]));
  if (collection.value) options.collection = collection.value;
  if (labels.value.trim()) {
    const pairs = labels.value.split(",").map((label) => label.trim().split(/=(.*)/s, 2));
    options.labels = Object.fromEntries(pairs);
  }
  if (force.checked) options.force = true;
  if (summarize.checked) options.summarize = true;
  return options;
}

function submitFiles(list) {
  // A dropped folder has no size and no type.
  const files = [...list].filter((file) => file.size > 0 || file.type);
  if (files.length === 0) return;
  const form = byId("upload-form");
  if (!form.reportValidity()) return;
  startUpload(files, collectOptions(form, files), byId("uploads"), refresh);
}

export function initJobs() {
  const form = byId("upload-form");
  form.addEventListener("submit", (event) => event.preventDefault());
  byId("file-input").addEventListener("change", (event) => {
    submitFiles(event.target.files);
    event.target.value = "";
  });
  byId("jobs-load-older").addEventListener("click", loadOlder);
  // Accept files anywhere in the window. Otherwise the browser would leave the page and open the dropped file.
  let dragDepth = 0;
  const hasFiles = (event) => event.dataTransfer?.types.includes("Files");
  addEventListener("dragenter", (event) => {
    if (!hasFiles(event)) return;
    dragDepth += 1;
    form.classList.add("drag-over");
  });
  addEventListener("dragleave", (event) => {
    if (!hasFiles(event)) return;
    dragDepth = Math.max(0, dragDepth - 1);
    if (dragDepth === 0) form.classList.remove("drag-over");
  });
  addEventListener("dragover", (event) => hasFiles(event) && event.preventDefault());
  addEventListener("drop", (event) => {
    if (!hasFiles(event)) return;
    event.preventDefault();
    dragDepth = 0;
    form.classList.remove("drag-over");
    if (isShown) submitFiles(event.dataTransfer.files);
  });
}

export function showJobs() {
  isShown = true;
  refresh();
}

export function hideJobs() {
  isShown = false;
  clearTimeout(refreshTimer);
}

/** Removes all data, so that another tenant that signs in does not see it. */
export function clearJobs() {
  cards.forEach((card) => card.stopFollowing());
  cards.clear();
  nextCursor = null;
  byId("jobs").replaceChildren();
  byId("uploads").replaceChildren();
}
