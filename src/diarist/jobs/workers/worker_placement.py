"""The placement of worker processes: how many there are, the GPU of each, and its number of threads."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass

from diarist.jobs.workers.gpu_detection import visible_gpus
from diarist.models import select_recognizer
from diarist.settings import Settings

NEMO_DIARIZERS = ("clustering", "sortformer", "auto")
NEMO_RECOGNIZERS = ("nemo",)
"""The diarizers and recognizers that can use a GPU."""


@dataclass(frozen=True, slots=True)
class WorkerSlot:
    """The place of one worker process; the process that replaces it after a crash has the same one."""

    number: int
    """Counted from 0."""

    settings: Settings
    gpu: str | None = None
    """Its only GPU, as ``CUDA_VISIBLE_DEVICES`` names it; None if it can use the same GPUs as this process."""

    @property
    def environment(self) -> Mapping[str, str] | None:
        """The environment of the process; None for that of this process."""
        return None if self.gpu is None else {**os.environ, "CUDA_VISIBLE_DEVICES": self.gpu}


def worker_slots(settings: Settings, environment: Mapping[str, str] = os.environ) -> tuple[WorkerSlot, ...]:
    """Return at least one slot: WORKERS of them, or else one for each GPU that may be used.

    If there are several GPUs, each slot is assigned one of them, in turn. CPU cores are divided evenly, unless
    CPU_THREADS sets the number of threads of each slot.
    """
    gpus = visible_gpus(environment) if may_use_gpus(settings) else ()
    count = settings.workers or max(len(gpus), 1)
    if count > 1:
        settings = settings.model_copy(update={"cpu_threads": settings.threads_each(count)})
    return tuple(
        WorkerSlot(number, settings, gpus[number % len(gpus)] if len(gpus) > 1 else None) for number in range(count)
    )


def may_use_gpus(settings: Settings) -> bool:
    """Return whether the engine may use any GPU of this machine: not if NEMO_DEVICE names one GPU, or the CPU."""
    capable = settings.diarizer_name in NEMO_DIARIZERS or select_recognizer(settings).name in NEMO_RECOGNIZERS
    return capable and settings.nemo_device in ("auto", "cuda")
