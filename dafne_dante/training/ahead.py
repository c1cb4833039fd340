"""Batches prepared while the device computes.

Invariants: one thread draws, one batch after the other, so that the series of batches is that of plain calls; exactly
as many are drawn as are used, so that between two epochs the state of the source is that of a source without a thread;
batches for a GPU lie in pinned memory, from where they are copied without waiting.
"""

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor

import torch

from dafne_dante.training.sampling import Batch

__all__ = ["draw_ahead"]


def draw_ahead(draw: Callable[[], Batch], count: int, device: torch.device) -> Iterator[Batch]:
    """`count` batches on the device; the next one is drawn while the caller works on the last."""

    def prepare() -> Batch:
        batch = draw()
        if device.type != "cuda":
            return batch
        return Batch(batch.image.pin_memory(), batch.target.pin_memory(), batch.known.pin_memory())

    with ThreadPoolExecutor(max_workers=1, thread_name_prefix="batches") as thread:
        coming = thread.submit(prepare)
        for number in range(count):
            batch = coming.result()
            if number + 1 < count:
                coming = thread.submit(prepare)
            yield Batch(*(tensor.to(device, non_blocking=True) for tensor in (batch.image, batch.target, batch.known)))
