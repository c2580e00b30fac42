"""Batches that fit into the memory of a device: the batch size is halved when memory runs out."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from typing import TypeVar

from diarist.errors import EngineUnavailable

logger = logging.getLogger(__name__)

OUT_OF_MEMORY_MESSAGES = (
    "out of memory", "not enough memory", "can't allocate memory", "ALLOC_FAILED", "Failed to allocate memory",
)  # fmt: skip
"""Parts of the messages of PyTorch, CTranslate2, ONNX Runtime, CUDA, cuBLAS and cuDNN when memory runs out."""

ADVICE = "use a smaller model, stop other programs on that device, or set DEVICE to another device"
"""What a user can do about it."""

ItemT = TypeVar("ItemT")
ResultT = TypeVar("ResultT")


def is_out_of_memory(error: BaseException) -> bool:
    """Return whether an error means that the memory of a device or of the machine was too small."""
    if isinstance(error, MemoryError):
        return True
    # The exceptions of ONNX Runtime have no base class but Exception.
    of_library = isinstance(error, RuntimeError) or type(error).__module__.startswith("onnxruntime")
    return of_library and any(message in str(error) for message in OUT_OF_MEMORY_MESSAGES)


def does_not_fit(model: str, device: str) -> EngineUnavailable:
    """Return the error for a model that is larger than the free memory of a device."""
    return EngineUnavailable(f"{model} does not fit into the memory of {device}: {ADVICE}.")


def run_in_batches(
    items: Sequence[ItemT],
    run: Callable[[Sequence[ItemT]], Sequence[ResultT]],
    batch_size: int,
    device: str,
    on_halved: Callable[[int], None] = lambda _size: None,
    report: Callable[[float], None] = lambda _share: None,
    out_of_memory: Callable[[BaseException], bool] = is_out_of_memory,
) -> list[ResultT]:
    """Call ``run`` with batches of ``items``; if memory runs out, halve the batch size and try again.

    Args:
        items: The items to process, in order.
        run: Returns one result per item. It is called again with fewer items if memory ran out.
        batch_size: The initial batch size; at least 1.
        device: The name of the device, for messages.
        on_halved: Called with the new batch size after memory ran out, when nothing of the failed call is alive.
        report: Called after each batch with the share of the items that are done, 0..1.
        out_of_memory: Whether an error means that memory ran out.

    Returns:
        The results in the order of the items.

    Raises:
        EngineUnavailable: If there is too little memory for a single item.
    """
    results: list[ResultT] = []
    while len(results) < len(items):
        batch = items[len(results) : len(results) + batch_size]
        try:
            batch_results = run(batch)
        except Exception as error:
            if not out_of_memory(error):
                raise
            if len(batch) == 1:
                raise EngineUnavailable(
                    f"The memory of {device} is too small for one window of audio: {ADVICE}."
                ) from error
            batch_size = max(1, len(batch) // 2)
            logger.warning("The memory of %s ran out; continuing with a batch size of %d", device, batch_size)
        else:
            if len(batch_results) != len(batch):
                raise ValueError(f"{len(batch_results)} results for {len(batch)} items")
            results += batch_results
            report(len(results) / len(items))
            continue
        on_halved(batch_size)  # outside the handler, whose exception keeps the memory of the failed call in use
    return results


class MemoryLimit:
    """The batch size that is known to fit, for all calls of one model: it starts at an estimate and never grows.

    Args:
        batch_size: The estimate; at least 1.
        device: The name of the device, for messages.
    """

    def __init__(self, batch_size: int, device: str) -> None:
        self.batch_size = batch_size
        self._device = device

    def run(self, items: Sequence[ItemT], run: Callable[[Sequence[ItemT]], Sequence[ResultT]]) -> list[ResultT]:
        """Do what ``run_in_batches`` does, with the batch size that fits."""
        return run_in_batches(items, run, self.batch_size, self._device, self._set)

    def _set(self, batch_size: int) -> None:
        self.batch_size = min(self.batch_size, batch_size)
