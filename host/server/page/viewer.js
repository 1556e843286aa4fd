// One page large, with the box of what was found on it. An open viewer is an entry of the browser's history: Back closes it, Forward
// opens it again, and so does a reload.

import { get, hasKey } from "./api.js";
import { by, describe, say, show } from "./dom.js";
import { fullImage, imagePath } from "./images.js";

let shown = null;

/**
 * Opens a page: `{ document, name, page, pages, box, image }`. The box is in shares of the page's width and height. The number of
 * pages is asked for if it is not given.
 */
export function view({ box, image, ...what }) {
  const found = box || image ? { page: what.page, box, image } : null;
  const place = { ...what, found };
  history.pushState({ viewer: place }, "");
  open(place);
}

function open(place) {
  const dialog = by("viewer");
  if (!dialog.open) {
    dialog.showModal();
    by("viewer-body").focus();
  }
  turn(place);
  if (place.pages === undefined) count(place.document);
}

/** Asks how many pages the document has. */
async function count(document) {
  try {
    const { pages } = await get(`/v1/documents/${encodeURIComponent(document)}?limit=1`);
    if (shown?.document !== document) return;
    shown.pages = pages;
    history.replaceState({ viewer: shown }, "");
    title(shown);
  } catch {
    // The page is shown without the number.
  }
}

function title({ page, pages, name }) {
  const of = pages ? ` of ${pages}` : "";
  say(by("viewer-title"), `Page ${page}${of} · ${name}`);
  by("viewer-title").title = name;
  enable(by("viewer-before"), page > 1);
  enable(by("viewer-after"), pages === undefined || page < pages);
}

/** A button that is disabled loses the focus, and the keyboard would go with it. */
function enable(button, enabled) {
  if (!enabled && document.activeElement === button) by("viewer-body").focus();
  button.disabled = !enabled;
}

async function turn(what) {
  shown = what;
  title(what);
  const [figure, image, box, note] = [by("viewer-page"), by("viewer-image"), by("viewer-box"), by("viewer-note")];
  const found = what.found?.page === what.page ? what.found : null;
  show(figure, false);
  show(box, false);
  say(note, "Loading…");
  show(note, true);
  try {
    image.src = await fullImage(found?.image || imagePath(what.document, what.page));
    await image.decode();
  } catch (error) {
    if (shown === what) say(note, error.status === 404 ? "There is no image of this page." : describe(error));
    return;
  }
  // Another page may have been asked for since.
  if (shown !== what) return;
  show(note, false);
  image.alt = `Page ${what.page} of ${what.name}`;
  show(figure, true);
  if (found?.box) {
    const { x, y, width, height } = found.box;
    const share = (value) => `${(value * 100).toFixed(3)}%`;
    Object.assign(box.style, { left: share(x), top: share(y), width: share(width), height: share(height) });
    show(box, true);
    box.scrollIntoView({ block: "center", inline: "center" });
  } else {
    by("viewer-body").scrollTop = 0;
  }
}

/** Turns to a page, if the document has it. The history keeps one entry, so that Back closes the viewer at once. */
function goTo(page) {
  if (!shown || page < 1 || page === shown.page || (shown.pages && page > shown.pages)) return;
  const place = { ...shown, page };
  history.replaceState({ viewer: place }, "");
  turn(place);
}

const KEYS = {
  ArrowLeft: () => goTo(shown.page - 1),
  ArrowRight: () => goTo(shown.page + 1),
  Home: () => goTo(1),
  End: () => shown.pages && goTo(shown.pages),
};

/** Shows what the entry of the history says. */
function follow(state) {
  const dialog = by("viewer");
  if (state?.viewer && hasKey()) open(state.viewer);
  else if (dialog.open) dialog.close();
}

export function startViewer() {
  const dialog = by("viewer");
  by("viewer-before").addEventListener("click", () => goTo(shown.page - 1));
  by("viewer-after").addEventListener("click", () => goTo(shown.page + 1));
  by("viewer-close").addEventListener("click", () => dialog.close());
  dialog.addEventListener("click", (event) => {
    if (event.target === dialog) dialog.close();
  });
  dialog.addEventListener("close", () => {
    shown = null;
    by("viewer-image").removeAttribute("src");
    // Closed otherwise than by Back: its entry goes.
    if (history.state?.viewer) history.back();
  });
  dialog.addEventListener("keydown", (event) => {
    const key = event.ctrlKey || event.altKey || event.metaKey || event.shiftKey ? null : KEYS[event.key];
    if (!key || !shown) return;
    event.preventDefault();
    key();
  });
  addEventListener("popstate", (event) => follow(event.state));
}

/** Opens the viewer that was open when the page was left or reloaded. */
export const resumeViewer = () => follow(history.state);
