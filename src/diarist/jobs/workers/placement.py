"""Where worker processes work: how many there are, on which GPU each, and with how many threads."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass

from diarist.jobs.workers.gpus import visible_gpus
from diarist.settings import Settings

NEMO_DIARIZERS = ("clustering", "sortformer", "auto")
NEMO_RECOGNIZERS = ("nemo",)
"""Parts that may use a GPU."""


@dataclass(frozen=True, slots=True)
class WorkerSlot:
    """What one worker process has for itself, and so has each that follows when it dies."""

    number: int
    """From 0."""

    settings: Settings
    gpu: str | None = None
    """Its only GPU, as ``CUDA_VISIBLE_DEVICES`` names it; None where it has what this process has."""

    @property
    def environment(self) -> Mapping[str, str] | None:
        """Of the process; None where it is this process's."""
        return None if self.gpu is None else {**os.environ, "CUDA_VISIBLE_DEVICES": self.gpu}


def worker_slots(settings: Settings, environment: Mapping[str, str] = os.environ) -> tuple[WorkerSlot, ...]:
    """At least one: as many as WORKERS says, or else one for each GPU that may be used.

    Where there are several GPUs each place gets one, in turn. Cores are divided evenly, unless CPU_THREADS says how
    many threads each place has.
    """
    gpus = visible_gpus(environment) if may_use_gpus(settings) else ()
    count = settings.workers or max(len(gpus), 1)
    if count > 1:
        settings = settings.model_copy(update={"cpu_threads": settings.threads_each(count)})
    return tuple(
        WorkerSlot(number, settings, gpus[number % len(gpus)] if len(gpus) > 1 else None) for number in range(count)
    )


def may_use_gpus(settings: Settings) -> bool:
    """Whether the engine takes whichever GPU there is; not where NEMO_DEVICE names one, or none."""
    uses = settings.diarizer_name in NEMO_DIARIZERS or settings.recognizer_name in NEMO_RECOGNIZERS
    return uses and settings.nemo_device in ("auto", "cuda")
