"""The device that NeMo's models run on: selection, precision, locking, and batches that fit into its memory."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import cache
from typing import Literal, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray

from diarist.engines import memory_limit
from diarist.engines.memory_limit import run_in_batches
from diarist.errors import ConfigurationError
from diarist.settings import Settings

Precision = Literal["fp32", "bf16", "fp16"]

ItemT = TypeVar("ItemT")
ResultT = TypeVar("ResultT")

_LOCK = threading.RLock()
"""One lock for the whole process, whichever devices its models are on."""

_DTYPES = {"bf16": torch.bfloat16, "fp16": torch.float16}


class Runtime:
    """Represents a device and the precision in which its models compute.

    NeMo's models are not thread-safe. Even two different models cannot run at the same time, since they set
    process-wide flags. All use of a model must be within ``inference()``, which allows one thread at a time.
    """

    def __init__(self, device: torch.device, precision: Precision) -> None:
        self.device = device
        self.precision = precision

    @classmethod
    def of(cls, settings: Settings) -> Runtime:
        """Return the shared runtime of this process for these settings.

        Raises:
            ConfigurationError: If the device does not exist or does not support the precision.
        """
        setting = "NEMO_DEVICE" if settings.nemo_device else "DEVICE"
        return _runtime(settings.device_of_nemo, settings.nemo_precision, settings.threads, setting)

    @property
    def name(self) -> str:
        """``cpu``, or the GPU's index and name."""
        if self.device.type == "cpu":
            return "cpu"
        return f"{self.device} ({torch.cuda.get_device_name(self.device)})"

    @contextmanager
    def exclusive(self) -> Iterator[None]:
        """Hold the lock while models are created or changed, outside inference mode so that they stay changeable."""
        with _LOCK:
            yield

    @contextmanager
    def inference(self, *, exact: bool = False) -> Iterator[None]:
        """Hold the lock while models run, without gradients and with reduced precision unless ``exact`` is true."""
        dtype = None if exact else _DTYPES.get(self.precision)
        with _LOCK, torch.inference_mode():
            if dtype is None:
                yield
            else:
                with torch.autocast(self.device.type, dtype):
                    yield

    def tensor(self, array: NDArray[np.generic]) -> torch.Tensor:
        """Copy the array to the device; transfers to a GPU use pinned memory."""
        # from_numpy shares the memory and warns about read-only arrays, although nothing here writes to them
        shared = np.ascontiguousarray(array) if array.flags.writeable else array.copy()
        tensor = torch.from_numpy(shared)
        if self.device.type == "cpu":
            return tensor
        return tensor.pin_memory().to(self.device, non_blocking=True)

    def in_batches(
        self,
        items: Sequence[ItemT],
        run: Callable[[Sequence[ItemT]], Sequence[ResultT]],
        batch_size: int,
        report: Callable[[float], None] = lambda _share: None,
    ) -> list[ResultT]:
        """Call ``run`` with batches of ``items``; if memory runs out, halve the batch size and try again.

        Args:
            items: The items to process, in order.
            run: Returns one result per item. It is called again with fewer items if memory ran out.
            batch_size: The initial batch size; at least 1.
            report: Called after each batch with the share of the items that are done, 0..1.

        Returns:
            The results in the order of the items.

        Raises:
            EngineUnavailable: If there is too little memory for a single item.
        """
        return run_in_batches(
            items, run, batch_size, self.name, lambda _size: self.free_memory(), report, is_out_of_memory
        )

    def free_memory(self) -> None:
        """Release the memory that PyTorch's allocator caches."""
        if self.device.type == "cuda":
            torch.cuda.empty_cache()


def is_out_of_memory(error: BaseException) -> bool:
    """Return whether an error means that the memory of a device or of the machine was too small."""
    return isinstance(error, torch.OutOfMemoryError) or memory_limit.is_out_of_memory(error)


@cache
def _runtime(device: str, precision: str, threads: int, setting: str) -> Runtime:
    torch.set_num_threads(threads)
    chosen = _device(device, setting)
    return Runtime(chosen, _precision(precision, chosen))


def _device(name: str, setting: str) -> torch.device:
    available = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if name == "auto":
        return torch.device("cuda:0" if available else "cpu")
    if name == "cpu":
        return torch.device("cpu")
    index = int(name.partition(":")[2] or 0)
    if index >= available:
        gpus = f"{available} GPU{'s' * (available != 1)}"
        raise ConfigurationError(
            f"{setting}={name}: PyTorch sees {gpus} here. Set it to auto or cpu, or install a driver and a build of"
            " PyTorch for CUDA (docs/nemo.md)."
        )
    return torch.device("cuda", index)


def _precision(name: str, device: torch.device) -> Precision:
    if name == "auto":
        return "bf16" if device.type == "cuda" and torch.cuda.is_bf16_supported() else "fp32"
    if name == "fp16" and device.type == "cpu":
        raise ConfigurationError("NEMO_PRECISION=fp16 needs a GPU: set it to auto, fp32 or bf16.")
    return name  # type: ignore[return-value]
