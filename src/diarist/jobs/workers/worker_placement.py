"""The placement of worker processes: how many there are, the GPU of each, and its number of threads."""

from __future__ import annotations

import logging
import os
from collections.abc import Mapping
from dataclasses import dataclass

from diarist.child_environment import worker_environment
from diarist.engines.device import LIBRARIES, Library
from diarist.engines.device_probe import probe_machine
from diarist.engines.gpu_detection import visible_gpus
from diarist.errors import EngineUnavailable
from diarist.models import select_recognizer
from diarist.settings import Settings

logger = logging.getLogger(__name__)

NEMO_DIARIZERS = ("clustering", "sortformer", "auto")
NEMO_RECOGNIZERS = ("nemo",)
"""The diarizers and recognizers that NEMO_DEVICE applies to; DEVICE applies to all."""


@dataclass(frozen=True, slots=True)
class WorkerSlot:
    """The place of one worker process; the process that replaces it after a crash has the same one."""

    number: int
    """Counted from 0."""

    settings: Settings
    gpu: str | None = None
    """Its only GPU, as ``CUDA_VISIBLE_DEVICES`` names it; None if it can use the same GPUs as this process."""

    @property
    def environment(self) -> Mapping[str, str]:
        """The environment of the process."""
        return worker_environment() | ({} if self.gpu is None else {"CUDA_VISIBLE_DEVICES": self.gpu})


def worker_slots(settings: Settings, environment: Mapping[str, str] = os.environ) -> tuple[WorkerSlot, ...]:
    """Return at least one slot: WORKERS of them, or else one for each GPU that may be used.

    If there are several GPUs, each slot is assigned one of them, in turn. CPU cores are divided evenly, unless
    CPU_THREADS sets the number of threads of each slot.
    """
    gpus = visible_gpus(environment) if may_use_gpus(settings) else ()
    if len(gpus) > 1 and not can_use_gpus(settings, environment):
        gpus = ()
    count = settings.workers or max(len(gpus), 1)
    if count > 1:
        settings = settings.model_copy(update={"cpu_threads": settings.threads_each(count)})
    return tuple(
        WorkerSlot(number, settings, gpus[number % len(gpus)] if len(gpus) > 1 else None) for number in range(count)
    )


def may_use_gpus(settings: Settings) -> bool:
    """Return whether the engine may use any GPU of this machine: not if the settings name one GPU, or the CPU."""
    return _nemo_may(settings) or (bool(_libraries(settings)) and settings.device in ("auto", "cuda"))


def can_use_gpus(settings: Settings, environment: Mapping[str, str]) -> bool:
    """Return whether the engine uses the GPUs that it may use, as far as that is known before it is loaded.

    If DEVICE is ``auto`` and libraries are missing, the models run on the CPU, where one worker gets all cores.
    """
    if _nemo_may(settings) or settings.device == "cuda":
        return True
    try:
        machine = probe_machine(settings.device, environment)
    except EngineUnavailable as error:
        logger.warning("One worker is started for all GPUs: %s", error)
        return False
    return machine.driver_problem is None and bool(_libraries(settings) - machine.problems.keys())


def _nemo_may(settings: Settings) -> bool:
    return settings.device_of_nemo in ("auto", "cuda") and bool(_parts(settings) & {*NEMO_DIARIZERS, *NEMO_RECOGNIZERS})


def _libraries(settings: Settings) -> set[Library]:
    return {LIBRARIES[part] for part in _parts(settings) if part in LIBRARIES}


def _parts(settings: Settings) -> set[str]:
    return {settings.diarizer_name, select_recognizer(settings).name}
