"""The device that NeMo's models run on, and the right to use it."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import cache
from typing import Literal, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray

from diarist.errors import ConfigurationError, EngineUnavailable
from diarist.settings import Settings

logger = logging.getLogger(__name__)

Precision = Literal["fp32", "bf16", "fp16"]

ItemT = TypeVar("ItemT")
ResultT = TypeVar("ResultT")

_LOCK = threading.RLock()
"""One for the process, whichever devices its models are on."""

_OUT_OF_MEMORY = ("out of memory", "not enough memory", "can't allocate memory", "ALLOC_FAILED")
"""What the allocators of PyTorch, CUDA, cuBLAS and cuDNN say where they do not use the class that is made for it."""

_DTYPES = {"bf16": torch.bfloat16, "fp16": torch.float16}


class Runtime:
    """A device and the precision that its models compute in.

    NeMo's models are not safe to use from two threads, not even two different ones (they set flags of the whole
    process): whoever uses one does so within ``using()``, one after the other.
    """

    def __init__(self, device: torch.device, precision: Precision) -> None:
        self.device = device
        self.precision = precision

    @classmethod
    def of(cls, settings: Settings) -> Runtime:
        """The one of this process for these settings.

        Raises:
            ConfigurationError: the device of the settings is not there.
        """
        return _runtime(settings.nemo_device, settings.nemo_precision, settings.threads)

    @property
    def name(self) -> str:
        """``cpu``, or the GPU's number and name."""
        if self.device.type == "cpu":
            return "cpu"
        return f"{self.device} ({torch.cuda.get_device_name(self.device)})"

    @contextmanager
    def alone(self) -> Iterator[None]:
        """Make or change models: nobody uses one meanwhile. What is made here can be changed later, too."""
        with _LOCK:
            yield

    @contextmanager
    def using(self, *, exact: bool = False) -> Iterator[None]:
        """Use the models: nobody else does meanwhile. No gradients; reduced precision unless ``exact``."""
        dtype = None if exact else _DTYPES.get(self.precision)
        with _LOCK, torch.inference_mode():
            if dtype is None:
                yield
            else:
                with torch.autocast(self.device.type, dtype):
                    yield

    def tensor(self, array: NDArray[np.generic]) -> torch.Tensor:
        """The array on the device; from pinned memory where it has to travel."""
        # PyTorch shares the memory and warns of what it may not write to, though nothing here writes
        shared = np.ascontiguousarray(array) if array.flags.writeable else array.copy()
        tensor = torch.from_numpy(shared)
        if self.device.type == "cpu":
            return tensor
        return tensor.pin_memory().to(self.device, non_blocking=True)

    def in_batches(
        self,
        items: Sequence[ItemT],
        run: Callable[[Sequence[ItemT]], Sequence[ResultT]],
        batch: int,
        done: Callable[[float], None] = lambda _share: None,
    ) -> list[ResultT]:
        """``run`` over ``items``, ``batch`` at a time; where memory runs out the batch is halved and tried again.

        Args:
            items: what to work on, in order.
            run: gives a result for each item that it is called with. Called again with fewer where memory ran out.
            batch: items at a time, at first; at least 1.
            done: called with the share that is done, 0..1.

        Raises:
            EngineUnavailable: there is too little memory for a single item.
        """
        results: list[ResultT] = []
        while len(results) < len(items):
            part = items[len(results) : len(results) + batch]
            try:
                found = run(part)
            except (RuntimeError, MemoryError) as error:
                if not is_out_of_memory(error):
                    raise
                if len(part) == 1:
                    message = (
                        f"The memory of {self.name} does not suffice for one window of audio: use a smaller model, let"
                        " nothing else run there, or set NEMO_DEVICE to another device."
                    )
                    raise EngineUnavailable(message) from error
                batch = max(1, len(part) // 2)
                logger.warning("The memory of %s ran out; going on with %d windows at a time", self.name, batch)
            else:
                if len(found) != len(part):
                    raise ValueError(f"{len(found)} results for {len(part)} items")
                results += found
                done(len(results) / len(items))
                continue
            self.free_memory()  # not within the handler, whose exception holds the tensors
        return results

    def free_memory(self) -> None:
        """Give back what PyTorch keeps for later."""
        if self.device.type == "cuda":
            torch.cuda.empty_cache()


def is_out_of_memory(error: BaseException) -> bool:
    """Whether the memory of a device or of the machine was too small."""
    if isinstance(error, torch.OutOfMemoryError | MemoryError):
        return True
    return isinstance(error, RuntimeError) and any(words in str(error) for words in _OUT_OF_MEMORY)


@cache
def _runtime(device: str, precision: str, threads: int) -> Runtime:
    torch.set_num_threads(threads)
    chosen = _device(device)
    return Runtime(chosen, _precision(precision, chosen))


def _device(name: str) -> torch.device:
    available = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if name == "auto":
        return torch.device("cuda:0" if available else "cpu")
    if name == "cpu":
        return torch.device("cpu")
    number = int(name.partition(":")[2] or 0)
    if number >= available:
        seen = f"{available} GPU{'s' * (available != 1)}"
        raise ConfigurationError(
            f"NEMO_DEVICE={name}: PyTorch sees {seen} here. Set it to auto or cpu, or install a driver and a PyTorch"
            " for CUDA (docs/nemo.md)."
        )
    return torch.device("cuda", number)


def _precision(name: str, device: torch.device) -> Precision:
    if name == "auto":
        return "bf16" if device.type == "cuda" and torch.cuda.is_bf16_supported() else "fp32"
    if name == "fp16" and device.type == "cpu":
        raise ConfigurationError("NEMO_PRECISION=fp16 needs a GPU: set it to auto, fp32 or bf16.")
    return name  # type: ignore[return-value]
