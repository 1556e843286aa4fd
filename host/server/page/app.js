// The web page: who is signed in, and which view is shown.

import { forgetKey, get, hasKey, onRefusedKey, setKey } from "./api.js";
import { clearDocuments, showDocuments, startDocuments } from "./documents.js";
import { by, describe, say, show } from "./dom.js";
import { forgetImages } from "./images.js";
import { clearJobs, hideJobs, showJobs, startJobs } from "./jobs.js";
import { clearSearch, showSearch, startSearch } from "./search.js";
import { clearUsage, showUsage } from "./usage.js";
import { resumeViewer, startViewer } from "./viewer.js";

const VIEWS = {
  jobs: showJobs,
  documents: showDocuments,
  search: showSearch,
  usage: showUsage,
};

function route(moved) {
  const signedIn = hasKey();
  const [, name, part] = location.hash.split("/");
  const current = signedIn ? (name in VIEWS ? name : "jobs") : null;
  show(by("enter"), !signedIn);
  show(by("nav"), signedIn);
  show(by("leave"), signedIn);
  for (const view of Object.keys(VIEWS)) {
    show(by(`view-${view}`), view === current);
    const link = by("nav").querySelector(`[href="#/${view}"]`);
    if (view === current) link.setAttribute("aria-current", "page");
    else link.removeAttribute("aria-current");
  }
  if (current !== "jobs") hideJobs();
  document.title = current ? `${by(`${current}-title`).textContent} · Weir` : "Weir";
  if (!signedIn) {
    by("key").focus();
    return;
  }
  // A screen reader is where the new view begins.
  if (moved) by("main").focus({ preventScroll: true });
  VIEWS[current](part || null);
}

function leave(why) {
  forgetKey();
  clearJobs();
  clearDocuments();
  clearSearch();
  clearUsage();
  forgetImages();
  by("viewer").close();
  say(by("enter-error"), why || "");
  show(by("enter-error"), Boolean(why));
  route(false);
}

async function enter(event) {
  event.preventDefault();
  const field = by("key");
  const error = by("enter-error");
  show(error, false);
  setKey(field.value.trim());
  try {
    await get("/v1/usage");
    field.value = "";
    route(true);
  } catch (refusal) {
    forgetKey();
    say(error, refusal.status === 401 ? "This key is not valid." : describe(refusal));
    show(error, true);
    field.focus();
  }
}

startJobs();
startDocuments();
startSearch();
startViewer();
onRefusedKey(() => leave("The key is not valid any more."));
by("enter-form").addEventListener("submit", enter);
by("leave").addEventListener("click", () => leave(""));
addEventListener("hashchange", () => route(true));
route(false);
resumeViewer();
