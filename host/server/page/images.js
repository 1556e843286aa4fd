// Page images: fetched with the key, a few at a time, only where somebody looks.

import { fetched } from "./api.js";

const AT_ONCE = 2;
const TRIES = 5;
/** Full images kept in memory; a page of a viewer that is leafed through. */
const KEPT = 6;
/** A thumbnail is drawn at twice its size on the page, for sharp screens. */
const THUMBNAIL_WIDTH = 200;

let busy = 0;
const queue = [];

/** Runs `work` when fewer than so many are under way; `first` passes those that wait. */
function queued(work, first) {
  return new Promise((resolve, reject) => {
    const start = () => {
      busy += 1;
      work().then(resolve, reject).finally(() => {
        busy -= 1;
        queue.shift()?.();
      });
    };
    if (busy < AT_ONCE) start();
    else if (first) queue.unshift(start);
    else queue.push(start);
  });
}

export const imagePath = (document, page) =>
  `/v1/documents/${encodeURIComponent(document)}/pages/${encodeURIComponent(page)}/image`;

/** An image; comes again when the host asks for it, since a sheet of pages is many requests at once. */
async function blob(path) {
  for (let tries = 1; ; tries += 1) {
    try {
      return await (await fetched("GET", path, { cache: "default" })).blob();
    } catch (error) {
      if ((error.status !== 429 && error.status !== 503) || tries > TRIES) throw error;
      await new Promise((resolve) => setTimeout(resolve, 1000 * (error.retryAfter || tries)));
    }
  }
}

const kept = new Map();

/** The address of a page's image for an `img`; good until several others have been asked for. */
export async function fullImage(path) {
  let url = kept.get(path);
  if (url === undefined) url = URL.createObjectURL(await queued(() => blob(path), true));
  kept.delete(path);
  kept.set(path, url);
  for (const [old, oldUrl] of kept) {
    if (kept.size <= KEPT) break;
    kept.delete(old);
    URL.revokeObjectURL(oldUrl);
  }
  return url;
}

/** Forgets what was fetched with a key that has been put away. */
export function forgetImages() {
  kept.forEach((url) => URL.revokeObjectURL(url));
  kept.clear();
}

const wanted = new WeakMap();
const watcher = new IntersectionObserver((entries) => {
  for (const { isIntersecting, target } of entries) {
    if (!isIntersecting) continue;
    const path = wanted.get(target);
    wanted.delete(target);
    watcher.unobserve(target);
    if (path) draw(target, path);
  }
}, { rootMargin: "200px" });

/** Draws a page's image small into a canvas once it comes into sight. */
export function thumbnail(canvas, path) {
  wanted.set(canvas, path);
  watcher.observe(canvas);
}

async function draw(canvas, path) {
  try {
    // The page may have gone out of the document while this waited for its turn.
    const image = await queued(async () => (canvas.isConnected ? blob(path) : null), false);
    if (!image) return;
    const small = await createImageBitmap(image, { resizeWidth: THUMBNAIL_WIDTH, resizeQuality: "medium" });
    [canvas.width, canvas.height] = [small.width, small.height];
    canvas.getContext("2d").drawImage(small, 0, 0);
    small.close();
    canvas.classList.add("drawn");
  } catch {
    canvas.classList.add("missing");
  }
}
