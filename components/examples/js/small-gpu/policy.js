// Batching for a GPU with little memory.
//
// Such a GPU does not slow down when a batch is too large for it, it fails. So a batch is sized by what it has left beside the model,
// a scanned page counting double because the reader needs it whole, and below 4 GiB pages are drawn coarser. Page images wait in
// the host's memory, of which a batch takes no more than half of what is free.
import { policy, settings } from "weir-sdk";

const MIB = 2 ** 20;
/** Resolution that a reader still gets on with, for GPUs below 4 GiB. */
const COARSE = 110;

class SmallGpu {
  dpi = settings.within("dpi", 150, 36, 600);
  /** MiB of the GPU that the models take before any page, and that a page of a batch takes. */
  modelMib = settings.within("model-mib", 1024, 0, 2 ** 20);
  pageMib = settings.within("page-mib", 256, 1, 2 ** 20);

  plan(situation) {
    const { device, queues, remainingPages } = situation;
    const mib = Math.floor(device.memoryBytes / MIB);
    const onGpu = device.kind === "gpu";
    const dpi = onGpu && mib < 4096 ? Math.min(this.dpi, COARSE) : this.dpi;
    let room = onGpu ? Math.min(Math.max(Math.floor((mib - this.modelMib) / this.pageMib), 1), 8) : 1;
    // What is drawn for a stage that is behind would only wait.
    if (queues.some(isBehind)) room = Math.max(Math.floor(room / 2), 1);
    const pages = fitting(situation, room, dpi);
    return {
      pages,
      dpi,
      lingerMillis: pages >= remainingPages ? 0 : 200,
      queueCapacity: mib < 8192 ? 4 : 8,
    };
  }
}

/** How many of the next pages fit the GPU's room and half of the free memory; at least one. */
function fitting({ next, freeImageBytes }, room, dpi) {
  let [weight, bytes] = [0, 0];
  const beyond = next.findIndex((page) => {
    weight += page.imageCoverage >= 0.5 ? 2 : 1;
    bytes += imageBytes(page, dpi);
    return weight > room || bytes > Math.floor(freeImageBytes / 2);
  });
  return Math.max(beyond < 0 ? next.length : beyond, 1);
}

/** Bytes of a page image: three for each pixel. */
function imageBytes({ width, height }, dpi) {
  const side = (points) => Math.ceil((points * dpi) / 72);
  return side(width) * side(height) * 3;
}

/** Whether a queue is at least 80 % full. */
function isBehind({ depth, capacity }) {
  return capacity > 0 && depth * 5 >= capacity * 4;
}

export const { batching } = policy(SmallGpu);
