// Batching for a GPU with little memory.
//
// If a batch is too large for such a GPU, the GPU does not get slower but fails. So a batch is sized by the memory that the model leaves
// free. A scanned page counts double, because the model reads the whole image. Below 4 GiB, the resolution is lower. Page images are in
// the host's memory, and a batch uses at most half of what is free.
import { policy, settings } from "weir-sdk";

const MIB = 2 ** 20;
/** The lower resolution for GPUs below 4 GiB, which is still readable. */
const LOW_DPI = 110;

class SmallGpu {
  dpi = settings.within("dpi", 150, 36, 600);
  /** MiB of GPU memory for the models. */
  modelMib = settings.within("model-mib", 1024, 0, 2 ** 20);
  /** MiB of GPU memory for each page of a batch. */
  pageMib = settings.within("page-mib", 256, 1, 2 ** 20);

  plan(situation) {
    const { device, queues, remainingPages } = situation;
    const mib = Math.floor(device.memoryBytes / MIB);
    const onGpu = device.kind === "gpu";
    const dpi = onGpu && mib < 4096 ? Math.min(this.dpi, LOW_DPI) : this.dpi;
    let capacityPages = onGpu ? Math.min(Math.max(Math.floor((mib - this.modelMib) / this.pageMib), 1), 8) : 1;
    // More pages do not help a stage with a full queue.
    if (queues.some(isNearlyFull)) capacityPages = Math.max(Math.floor(capacityPages / 2), 1);
    const pages = countFittingPages(situation, capacityPages, dpi);
    return {
      pages,
      dpi,
      lingerMillis: pages >= remainingPages ? 0 : 200,
      queueCapacity: mib < 8192 ? 4 : 8,
    };
  }
}

/** Counts the next pages that fit into the GPU's memory and into half of the free memory; at least one. */
function countFittingPages({ next, freeImageBytes }, capacityPages, dpi) {
  let [weight, bytes] = [0, 0];
  const beyond = next.findIndex((page) => {
    weight += page.imageCoverage >= 0.5 ? 2 : 1;
    bytes += imageBytes(page, dpi);
    return weight > capacityPages || bytes > Math.floor(freeImageBytes / 2);
  });
  return Math.max(beyond < 0 ? next.length : beyond, 1);
}

/** Returns the bytes of a page image, three for each pixel. */
function imageBytes({ width, height }, dpi) {
  const side = (points) => Math.ceil((points * dpi) / 72);
  return side(width) * side(height) * 3;
}

/** Returns whether a queue is at least 80 % full. */
function isNearlyFull({ depth, capacity }) {
  return capacity > 0 && depth * 5 >= capacity * 4;
}

export const { batching } = policy(SmallGpu);
