// The list of jobs, and where files are handed in.

import { get } from "./api.js";
import { by, complain, show } from "./dom.js";
import { JobCard, isEnded } from "./job.js";
import { upload } from "./upload.js";

/** A waiting job has no events yet, so the list is asked again while there is one. */
const AGAIN_MILLIS = 2000;
/** So many cards of running jobs open by themselves. */
const OPEN = 3;

const cards = new Map();
let older = null;
let timer = null;
let shown = false;

/** Shows the newest jobs, and what has become of those that are shown. */
async function refresh() {
  clearTimeout(timer);
  if (!shown) return;
  try {
    place(await get("/v1/jobs?limit=20"), true);
    const unended = [...cards.values()].some((card) => !isEnded(card.job.state));
    if (unended && shown) timer = setTimeout(refresh, AGAIN_MILLIS);
  } catch (error) {
    complain(error);
  }
}

function place(list, newest) {
  const box = by("jobs");
  let open = [...cards.values()].filter((card) => card.details.open && !isEnded(card.state)).length;
  const fresh = [];
  for (const job of list.jobs) {
    const card = cards.get(job.id);
    if (card) {
      card.update(job);
      continue;
    }
    const made = new JobCard(job, refresh);
    if (made.details.open && open >= OPEN) made.details.open = false;
    open += made.details.open ? 1 : 0;
    cards.set(job.id, made);
    fresh.push(made.node);
  }
  if (newest) box.prepend(...fresh);
  else box.append(...fresh);
  if (!newest || older === null) older = list.next || null;
  show(by("jobs-none"), cards.size === 0);
  show(by("jobs-more"), older !== null);
}

async function more() {
  try {
    const before = older;
    older = null;
    place(await get(`/v1/jobs?limit=20&before=${encodeURIComponent(before)}`), false);
  } catch (error) {
    complain(error);
  }
}

function options(form, files) {
  const chosen = {};
  const { ocr, vision, dpi, password, collection, labels, force, summarize } = form.elements;
  if (ocr.value) chosen.ocr = ocr.value;
  if (vision.value) chosen.vision = vision.value;
  if (dpi.value) chosen.dpi = Number(dpi.value);
  if (password.value) chosen.passwords = Object.fromEntries(files.map((file) => [file.name, password.value]));
  if (collection.value) chosen.collection = collection.value;
  if (labels.value.trim()) {
    const pairs = labels.value.split(",").map((label) => label.trim().split(/=(.*)/s, 2));
    chosen.labels = Object.fromEntries(pairs);
  }
  if (force.checked) chosen.force = true;
  if (summarize.checked) chosen.summarize = true;
  return chosen;
}

function handIn(list) {
  const files = [...list].filter((file) => file.size > 0 || file.type);
  if (files.length === 0) return;
  const form = by("drop");
  if (!form.reportValidity()) return;
  upload(files, options(form, files), by("uploads"), refresh);
}

export function startJobs() {
  const form = by("drop");
  form.addEventListener("submit", (event) => event.preventDefault());
  by("files").addEventListener("change", (event) => {
    handIn(event.target.files);
    event.target.value = "";
  });
  by("jobs-more").addEventListener("click", more);
  // Files may be dropped anywhere in the view; elsewhere the browser would leave the page for them.
  let over = 0;
  const files = (event) => event.dataTransfer?.types.includes("Files");
  addEventListener("dragenter", (event) => {
    if (!files(event)) return;
    over += 1;
    form.classList.add("over");
  });
  addEventListener("dragleave", (event) => {
    if (!files(event)) return;
    over = Math.max(0, over - 1);
    if (over === 0) form.classList.remove("over");
  });
  addEventListener("dragover", (event) => files(event) && event.preventDefault());
  addEventListener("drop", (event) => {
    if (!files(event)) return;
    event.preventDefault();
    over = 0;
    form.classList.remove("over");
    if (shown) handIn(event.dataTransfer.files);
  });
}

export function showJobs() {
  shown = true;
  refresh();
}

export function hideJobs() {
  shown = false;
  clearTimeout(timer);
}

/** Nothing of one tenant is left for the next. */
export function clearJobs() {
  cards.forEach((card) => card.stop());
  cards.clear();
  older = null;
  by("jobs").replaceChildren();
  by("uploads").replaceChildren();
}
