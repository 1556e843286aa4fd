// One page large, with the box of what was found on it.

import { by, describe, say, show } from "./dom.js";
import { fullImage, imagePath } from "./images.js";

let shown = null;

/** Opens a page: `{ document, name, page, pages, box, image }`. The box is in shares of the page's width and height. */
export function view(what) {
  const dialog = by("viewer");
  if (!dialog.open) dialog.showModal();
  turn(what);
}

async function turn(what) {
  shown = what;
  const [figure, image, box, note] = [by("viewer-page"), by("viewer-image"), by("viewer-box"), by("viewer-note")];
  const of = what.pages ? ` of ${what.pages}` : "";
  say(by("viewer-title"), `Page ${what.page}${of} · ${what.name}`);
  by("viewer-title").title = what.name;
  by("viewer-before").disabled = what.page <= 1;
  by("viewer-after").disabled = what.pages !== undefined && what.page >= what.pages;
  show(figure, false);
  show(box, false);
  say(note, "Loading…");
  show(note, true);
  try {
    image.src = await fullImage(what.image || imagePath(what.document, what.page));
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
  if (what.box) {
    const { x, y, width, height } = what.box;
    const share = (value) => `${(value * 100).toFixed(3)}%`;
    Object.assign(box.style, { left: share(x), top: share(y), width: share(width), height: share(height) });
    show(box, true);
    box.scrollIntoView({ block: "center", inline: "center" });
  } else {
    by("viewer-body").scrollTop = 0;
  }
}

function leaf(by) {
  if (!shown) return;
  const page = shown.page + by;
  if (page < 1 || (shown.pages && page > shown.pages)) return;
  const { document, name, pages } = shown;
  turn({ document, name, pages, page });
}

export function startViewer() {
  by("viewer-before").addEventListener("click", () => leaf(-1));
  by("viewer-after").addEventListener("click", () => leaf(1));
  by("viewer-close").addEventListener("click", () => by("viewer").close());
  by("viewer").addEventListener("click", (event) => {
    if (event.target === event.currentTarget) event.currentTarget.close();
  });
  by("viewer").addEventListener("close", () => {
    shown = null;
    by("viewer-image").removeAttribute("src");
  });
  by("viewer").addEventListener("keydown", (event) => {
    if (event.key === "ArrowLeft") leaf(-1);
    else if (event.key === "ArrowRight") leaf(1);
  });
}
