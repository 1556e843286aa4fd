"""Batching for a GPU with little memory.

Such a GPU does not slow down when a batch is too large for it, it fails. So a batch is sized by what it has left beside the model, a
scanned page counting double because the reader needs it whole, and below 4 GiB pages are drawn coarser. Page images wait in the
host's memory, of which a batch takes no more than half of what is free.
"""

from math import ceil

from weir_sdk import PageFacts, QueueState, policy, settings
from weir_sdk.batching import Batch, DeviceKind, Situation

MIB = 1 << 20
# Resolution that a reader still gets on with, for GPUs below 4 GiB.
COARSE = 110


class SmallGpu:
    def __init__(self) -> None:
        self.dpi = settings.within("dpi", 150, 36, 600)
        # MiB of the GPU that the models take before any page, and that a page of a batch takes.
        self.model_mib = settings.within("model-mib", 1024, 0, 1 << 20)
        self.page_mib = settings.within("page-mib", 256, 1, 1 << 20)

    def plan(self, situation: Situation) -> Batch:
        mib = situation.device.memory_bytes // MIB
        on_gpu = situation.device.kind == DeviceKind.GPU
        dpi = min(self.dpi, COARSE) if on_gpu and mib < 4096 else self.dpi
        room = min(max((mib - self.model_mib) // self.page_mib, 1), 8) if on_gpu else 1
        # What is drawn for a stage that is behind would only wait.
        if any(is_behind(queue) for queue in situation.queues):
            room = max(room // 2, 1)
        pages = fitting(situation, room, dpi)
        return Batch(
            pages=pages,
            dpi=dpi,
            linger_millis=0 if pages >= situation.remaining_pages else 200,
            queue_capacity=4 if mib < 8192 else 8,
        )


def fitting(situation: Situation, room: int, dpi: int) -> int:
    """How many of the next pages fit the GPU's room and half of the free memory; at least one."""
    weight = image = count = 0
    for page in situation.next:
        weight += 2 if page.image_coverage >= 0.5 else 1
        image += image_bytes(page, dpi)
        if weight > room or image > situation.free_image_bytes // 2:
            break
        count += 1
    return max(count, 1)


def image_bytes(page: PageFacts, dpi: int) -> int:
    """Bytes of a page image: three for each pixel."""
    return ceil(page.width * dpi / 72) * ceil(page.height * dpi / 72) * 3


def is_behind(queue: QueueState) -> bool:
    """Whether a queue is at least 80 % full."""
    return queue.capacity > 0 and queue.depth * 5 >= queue.capacity * 4


Batching = policy(SmallGpu).Batching
