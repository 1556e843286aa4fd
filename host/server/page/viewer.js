// A dialog that shows one page with a highlighted box. An open viewer is an entry of the browser history: Back closes it, Forward and
// a reload open it again.

import { getJson, hasKey } from "./api.js";
import { byId, errorMessage, setText, setVisible } from "./dom.js";
import { imagePath, loadImageUrl } from "./images.js";

/** The displayed page, or null while the viewer is closed. */
let current = null;

/**
 * Opens a page: `{ document, name, page, pages, box, image }`. The box is in fractions of the width and height of the page. If `pages`
 * is missing, the number of pages is loaded.
 */
export function openViewer({ box, image, ...page }) {
  const highlight = box || image ? { page: page.page, box, image } : null;
  const state = { ...page, highlight };
  history.pushState({ viewer: state }, "");
  openDialog(state);
}

function openDialog(state) {
  const dialog = byId("viewer");
  if (!dialog.open) {
    dialog.showModal();
    byId("viewer-body").focus();
  }
  showPage(state);
  if (state.pages === undefined) loadPageCount(state.document);
}

async function loadPageCount(document) {
  try {
    const { pages } = await getJson(`/v1/documents/${encodeURIComponent(document)}?limit=1`);
    if (current?.document !== document) return;
    current.pages = pages;
    history.replaceState({ viewer: current }, "");
    showTitle(current);
  } catch {
    // The title shows no number of pages.
  }
}

function showTitle({ page, pages, name }) {
  const ofPages = pages ? ` of ${pages}` : "";
  setText(byId("viewer-title"), `Page ${page}${ofPages} · ${name}`);
  byId("viewer-title").title = name;
  setEnabled(byId("viewer-previous"), page > 1);
  setEnabled(byId("viewer-next"), pages === undefined || page < pages);
}

/** Enables or disables a button. Moves the focus away before disabling, since keyboard input would be lost with it. */
function setEnabled(button, enabled) {
  if (!enabled && document.activeElement === button) byId("viewer-body").focus();
  button.disabled = !enabled;
}

async function showPage(state) {
  current = state;
  showTitle(state);
  const [figure, image, box, status] = [byId("viewer-figure"), byId("viewer-image"), byId("viewer-box"), byId("viewer-status")];
  const highlight = state.highlight?.page === state.page ? state.highlight : null;
  setVisible(figure, false);
  setVisible(box, false);
  setText(status, "Loading…");
  setVisible(status, true);
  try {
    image.src = await loadImageUrl(highlight?.image || imagePath(state.document, state.page));
    await image.decode();
  } catch (error) {
    if (current === state) setText(status, error.status === 404 ? "There is no image of this page." : errorMessage(error));
    return;
  }
  // Another page may have been requested meanwhile.
  if (current !== state) return;
  setVisible(status, false);
  image.alt = `Page ${state.page} of ${state.name}`;
  setVisible(figure, true);
  if (highlight?.box) {
    const { x, y, width, height } = highlight.box;
    const percent = (fraction) => `${(fraction * 100).toFixed(3)}%`;
    Object.assign(box.style, { left: percent(x), top: percent(y), width: percent(width), height: percent(height) });
    setVisible(box, true);
    box.scrollIntoView({ block: "center", inline: "center" });
  } else {
    byId("viewer-body").scrollTop = 0;
  }
}

/** Shows another page of the document if it exists. Replaces the history entry, so that Back closes the viewer at once. */
function goToPage(page) {
  if (!current || page < 1 || page === current.page || (current.pages && page > current.pages)) return;
  const state = { ...current, page };
  history.replaceState({ viewer: state }, "");
  showPage(state);
}

const KEY_ACTIONS = {
  ArrowLeft: () => goToPage(current.page - 1),
  ArrowRight: () => goToPage(current.page + 1),
  Home: () => goToPage(1),
  End: () => current.pages && goToPage(current.pages),
};

/** Opens or closes the viewer as the history entry says. */
function applyHistoryState(historyState) {
  const dialog = byId("viewer");
  if (historyState?.viewer && hasKey()) openDialog(historyState.viewer);
  else if (dialog.open) dialog.close();
}

export function initViewer() {
  const dialog = byId("viewer");
  byId("viewer-previous").addEventListener("click", () => goToPage(current.page - 1));
  byId("viewer-next").addEventListener("click", () => goToPage(current.page + 1));
  byId("viewer-close").addEventListener("click", () => dialog.close());
  dialog.addEventListener("click", (event) => {
    if (event.target === dialog) dialog.close();
  });
  dialog.addEventListener("close", () => {
    current = null;
    byId("viewer-image").removeAttribute("src");
    // If the viewer was not closed by Back, remove its history entry.
    if (history.state?.viewer) history.back();
  });
  dialog.addEventListener("keydown", (event) => {
    const action = event.ctrlKey || event.altKey || event.metaKey || event.shiftKey ? null : KEY_ACTIONS[event.key];
    if (!action || !current) return;
    event.preventDefault();
    action();
  });
  addEventListener("popstate", (event) => applyHistoryState(event.state));
}

/** Opens the viewer again if it was open when the page was left or reloaded. */
export const restoreViewer = () => applyHistoryState(history.state);
