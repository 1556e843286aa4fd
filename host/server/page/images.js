// Loads page images with the key, a few at a time, and only when they are visible.

import { request } from "./api.js";

const MAX_CONCURRENT_LOADS = 2;
const MAX_RETRIES = 5;
/** Full-size images cached for paging through the viewer. */
const MAX_CACHED_IMAGES = 6;
/** Twice the displayed width, for high-resolution screens. */
const THUMBNAIL_WIDTH = 200;

let activeLoads = 0;
const queue = [];

/** Runs `load` when a load slot is free. With `first` it runs before all queued loads. */
function enqueueLoad(load, first) {
  return new Promise((resolve, reject) => {
    const start = () => {
      activeLoads += 1;
      load().then(resolve, reject).finally(() => {
        activeLoads -= 1;
        queue.shift()?.();
      });
    };
    if (activeLoads < MAX_CONCURRENT_LOADS) start();
    else if (first) queue.unshift(start);
    else queue.push(start);
  });
}

export const imagePath = (document, page) =>
  `/v1/documents/${encodeURIComponent(document)}/pages/${encodeURIComponent(page)}/image`;

/** Fetches an image. Retries on 429 and 503, since a grid of pages sends many requests at once. */
async function fetchImage(path) {
  for (let attempt = 1; ; attempt += 1) {
    try {
      return await (await request("GET", path, { cache: "default" })).blob();
    } catch (error) {
      if ((error.status !== 429 && error.status !== 503) || attempt > MAX_RETRIES) throw error;
      await new Promise((resolve) => setTimeout(resolve, 1000 * (error.retryAfter || attempt)));
    }
  }
}

const imageCache = new Map();

/** Returns a URL of a page image for an `img` element. It is valid until several other images have been loaded. */
export async function loadImageUrl(path) {
  let url = imageCache.get(path);
  if (url === undefined) url = URL.createObjectURL(await enqueueLoad(() => fetchImage(path), true));
  imageCache.delete(path);
  imageCache.set(path, url);
  for (const [oldPath, oldUrl] of imageCache) {
    if (imageCache.size <= MAX_CACHED_IMAGES) break;
    imageCache.delete(oldPath);
    URL.revokeObjectURL(oldUrl);
  }
  return url;
}

/** Removes all cached images, because they belong to the key that was signed out. */
export function clearImageCache() {
  imageCache.forEach((url) => URL.revokeObjectURL(url));
  imageCache.clear();
}

const pendingThumbnails = new WeakMap();
const visibilityObserver = new IntersectionObserver((entries) => {
  for (const { isIntersecting, target } of entries) {
    if (!isIntersecting) continue;
    const path = pendingThumbnails.get(target);
    pendingThumbnails.delete(target);
    visibilityObserver.unobserve(target);
    if (path) drawThumbnail(target, path);
  }
}, { rootMargin: "200px" });

/** Draws a thumbnail of a page image into a canvas when the canvas becomes visible. */
export function drawThumbnailWhenVisible(canvas, path) {
  pendingThumbnails.set(canvas, path);
  visibilityObserver.observe(canvas);
}

async function drawThumbnail(canvas, path) {
  try {
    // The canvas may have been removed while the load was queued.
    const image = await enqueueLoad(async () => (canvas.isConnected ? fetchImage(path) : null), false);
    if (!image) return;
    const bitmap = await createImageBitmap(image, { resizeWidth: THUMBNAIL_WIDTH, resizeQuality: "medium" });
    [canvas.width, canvas.height] = [bitmap.width, bitmap.height];
    canvas.getContext("2d").drawImage(bitmap, 0, 0);
    bitmap.close();
    canvas.classList.add("loaded");
  } catch {
    canvas.classList.add("unavailable");
  }
}
