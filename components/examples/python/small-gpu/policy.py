"""Batching for a GPU with little memory.

If a batch is too large for such a GPU, the GPU does not get slower but fails. So a batch is sized by the memory that the model leaves
free. A scanned page counts double, because the model reads the whole image. Below 4 GiB, the resolution is lower. Page images are in
the host's memory, and a batch uses at most half of what is free.
"""

from math import ceil

from weir_sdk import PageFacts, QueueState, policy, settings
from weir_sdk.batching import Batch, DeviceKind, Situation

MIB = 1 << 20
# The lower resolution for GPUs below 4 GiB, which is still readable.
LOW_DPI = 110


class SmallGpu:
    def __init__(self) -> None:
        self.dpi = settings.within("dpi", 150, 36, 600)
        # MiB of GPU memory for the models, and for each page of a batch.
        self.model_mib = settings.within("model-mib", 1024, 0, 1 << 20)
        self.page_mib = settings.within("page-mib", 256, 1, 1 << 20)

    def plan(self, situation: Situation) -> Batch:
        mib = situation.device.memory_bytes // MIB
        on_gpu = situation.device.kind == DeviceKind.GPU
        dpi = min(self.dpi, LOW_DPI) if on_gpu and mib < 4096 else self.dpi
        capacity_pages = min(max((mib - self.model_mib) // self.page_mib, 1), 8) if on_gpu else 1
        # More pages do not help a stage with a full queue.
        if any(is_nearly_full(queue) for queue in situation.queues):
            capacity_pages = max(capacity_pages // 2, 1)
        pages = count_fitting_pages(situation, capacity_pages, dpi)
        return Batch(
            pages=pages,
            dpi=dpi,
            linger_millis=0 if pages >= situation.remaining_pages else 200,
            queue_capacity=4 if mib < 8192 else 8,
        )


def count_fitting_pages(situation: Situation, capacity_pages: int, dpi: int) -> int:
    """Counts the next pages that fit into the GPU's memory and into half of the free memory; at least one."""
    weight = image = count = 0
    for page in situation.next:
        weight += 2 if page.image_coverage >= 0.5 else 1
        image += image_bytes(page, dpi)
        if weight > capacity_pages or image > situation.free_image_bytes // 2:
            break
        count += 1
    return max(count, 1)


def image_bytes(page: PageFacts, dpi: int) -> int:
    """Returns the bytes of a page image, three for each pixel."""
    return ceil(page.width * dpi / 72) * ceil(page.height * dpi / 72) * 3


def is_nearly_full(queue: QueueState) -> bool:
    """Returns whether a queue is at least 80 % full."""
    return queue.capacity > 0 and queue.depth * 5 >= queue.capacity * 4


Batching = policy(SmallGpu).Batching
