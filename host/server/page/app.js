// Entry point of the web page: sign-in and navigation between the views.

import { clearKey, getJson, hasKey, onKeyRejected, setKey } from "./api.js";
import { clearDocuments, initDocuments, showDocuments } from "./documents.js";
import { byId, errorMessage, setText, setVisible, showError } from "./dom.js";
import { clearImageCache } from "./images.js";
import { clearJobs, hideJobs, initJobs, showJobs } from "./jobs.js";
import { clearNodes, hideNodes, showNodes, showNodesLink } from "./nodes.js";
import { clearSearch, initSearch, showSearch } from "./search.js";
import { clearUsage, showUsage } from "./usage.js";
import { initViewer, restoreViewer } from "./viewer.js";

const VIEWS = {
  jobs: showJobs,
  documents: showDocuments,
  search: showSearch,
  usage: showUsage,
  nodes: showNodes,
};

/** Shows the view of the address, or the sign-in form without a key. */
function showCurrentView(moveFocus) {
  const signedIn = hasKey();
  const [, name, part] = location.hash.split("/");
  const current = signedIn ? (name in VIEWS ? name : "jobs") : null;
  setVisible(byId("sign-in"), !signedIn);
  setVisible(byId("nav"), signedIn);
  setVisible(byId("sign-out"), signedIn);
  for (const view of Object.keys(VIEWS)) {
    setVisible(byId(`view-${view}`), view === current);
    const link = byId("nav").querySelector(`[href="#/${view}"]`);
    if (view === current) link.setAttribute("aria-current", "page");
    else link.removeAttribute("aria-current");
  }
  if (current !== "jobs") hideJobs();
  if (current !== "nodes") hideNodes();
  document.title = current ? `${byId(`${current}-title`).textContent} · Weir` : "Weir";
  if (!signedIn) {
    byId("key").focus();
    return;
  }
  // Screen readers continue at the start of the new view.
  if (moveFocus) byId("main").focus({ preventScroll: true });
  VIEWS[current](part || null);
}

function signOut(reason) {
  clearKey();
  clearJobs();
  clearDocuments();
  clearSearch();
  clearUsage();
  clearNodes();
  showNodesLink([]);
  clearImageCache();
  byId("viewer").close();
  setText(byId("sign-in-error"), reason || "");
  setVisible(byId("sign-in-error"), Boolean(reason));
  showCurrentView(false);
}

/** Shows the links to the views that the key may use. Fails if the key is not valid. */
async function showViewsOfKey() {
  const { scopes } = await getJson("/v1/key");
  showNodesLink(scopes);
}

async function signIn(event) {
  event.preventDefault();
  const field = byId("key");
  const message = byId("sign-in-error");
  setVisible(message, false);
  setKey(field.value.trim());
  try {
    await showViewsOfKey();
    field.value = "";
    showCurrentView(true);
  } catch (error) {
    clearKey();
    setText(message, error.status === 401 ? "This key is not valid." : errorMessage(error));
    setVisible(message, true);
    field.focus();
  }
}

initJobs();
initDocuments();
initSearch();
initViewer();
onKeyRejected(() => signOut("The key is not valid any more."));
byId("sign-in-form").addEventListener("submit", signIn);
byId("sign-out").addEventListener("click", () => signOut(""));
addEventListener("hashchange", () => showCurrentView(true));
showCurrentView(false);
// A key of this tab is still there after the page is loaded again.
if (hasKey()) showViewsOfKey().catch(showError);
restoreViewer();
