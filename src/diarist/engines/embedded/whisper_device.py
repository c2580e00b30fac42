"""Whisper on a device: the numeric type, the number of parallel batches, and the batch size that its memory allows."""

from __future__ import annotations

import logging
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path

from ctranslate2 import get_supported_compute_types
from faster_whisper import WhisperModel

from diarist.engines.cuda_driver import DriverError, free_memory
from diarist.engines.device import Device
from diarist.engines.embedded.parallel import Parallelism
from diarist.engines.memory_limit import MemoryLimit, does_not_fit, is_out_of_memory
from diarist.errors import EngineUnavailable

logger = logging.getLogger(__name__)

WEIGHTS = "model.bin"

MAX_GPU_BATCH = 16
"""The maximum batch size on a GPU. Windows of a batch are padded to the longest, so larger ones do more in vain."""

WORKING_BYTES = 1 << 30
"""The memory on a GPU that does not grow with the batch: CUDA's context, cuBLAS, and the encoder of one window."""

WINDOW_SHARE = 1 / 3
"""The memory of one window relative to that of the weights in float16. The keys and values of the decoder, 1,500 of the
encoder and 448 for each of 5 beams in every layer, are a fifth (large-v3) to a third (base) of them, and much less in
models with few layers in the decoder."""

FREE_SHARE = 0.8
"""The share of the free memory that batches may take; the rest is for the diarizer and for fragmentation."""

INT8_GPU_TYPES = ("int8_float16", "int8_float32", "int8")
"""The types that halve the memory of float16, best first."""


@dataclass(frozen=True, slots=True)
class OpenedModel:
    """Whisper, loaded."""

    model: WhisperModel
    workers: int
    """The number of batches that are processed at once."""

    limit: MemoryLimit


def open_model(folder: Path, device: Device, threads: int, batch_size: int) -> OpenedModel:
    """Load Whisper on the CPU or on a GPU; Core ML is not supported by CTranslate2.

    Args:
        folder: The folder of the model.
        device: The device.
        threads: The number of threads on the CPU.
        batch_size: The batch size on the CPU.

    Raises:
        EngineUnavailable: The model does not fit into the memory of the GPU, or the GPU fails.
    """
    if device.kind != "cuda":
        parallelism = Parallelism.of(threads, max_workers=2 if threads < 8 else 4)
        model = WhisperModel(
            str(folder), device="cpu", compute_type="int8", cpu_threads=parallelism.threads,
            num_workers=parallelism.workers,
        )  # fmt: skip
        return OpenedModel(model, parallelism.workers, MemoryLimit(batch_size, "cpu"))
    weight_bytes = (folder / WEIGHTS).stat().st_size
    try:
        chosen = compute_type(
            get_supported_compute_types("cuda", device.index), weight_bytes, free_memory(device.index)
        )
        model = WhisperModel(str(folder), device="cuda", device_index=device.index, compute_type=chosen, num_workers=1)
        size = gpu_batch_size(weight_bytes, free_memory(device.index))
    except (RuntimeError, MemoryError, DriverError) as error:
        if is_out_of_memory(error):
            raise does_not_fit(folder.name, device.name) from error
        message = f"Whisper cannot be loaded on {device.name}: {error}. Set DEVICE to another device (docs/gpu.md)."
        raise EngineUnavailable(message) from error
    logger.info("Whisper computes in %s on %s, with up to %d windows per batch", chosen, device.name, size)
    return OpenedModel(model, 1, MemoryLimit(size, device.name))


def compute_type(supported: Collection[str], weight_bytes: int, free_bytes: int) -> str:
    """Return the numeric type for a GPU: float16, or one with int8 weights if it lacks that or has little memory.

    Args:
        supported: The types that CTranslate2 supports on the GPU.
        weight_bytes: The size of the weights in float16, which is that of their file.
        free_bytes: The free memory of the GPU.
    """
    small = next((name for name in INT8_GPU_TYPES if name in supported), None)
    fits = weight_bytes * (1 + WINDOW_SHARE) + WORKING_BYTES <= free_bytes
    if "float16" in supported and (fits or small is None):
        return "float16"
    return small or "float32"


def gpu_batch_size(weight_bytes: int, free_bytes: int) -> int:
    """Return the number of windows per batch, at least 1.

    Args:
        weight_bytes: The size of the weights in float16.
        free_bytes: The free memory of the GPU while the model is loaded.
    """
    room = free_bytes * FREE_SHARE - WORKING_BYTES / 2
    return max(1, min(MAX_GPU_BATCH, int(room / (weight_bytes * WINDOW_SHARE))))
