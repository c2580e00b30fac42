"""Which GPUs of NVIDIA's there are, found without PyTorch: the process that asks never runs a model."""

from __future__ import annotations

import logging
import shutil
import subprocess
from collections.abc import Mapping
from itertools import takewhile
from pathlib import Path

logger = logging.getLogger(__name__)

DRIVER_FOLDER = Path("/proc/driver/nvidia/gpus")
"""Where NVIDIA's driver for Linux has a folder for each GPU."""

NVIDIA_SMI_TIMEOUT_S = 20.0
"""How long ``nvidia-smi`` may take: several seconds where it has to wake the driver."""


def visible_gpus(environment: Mapping[str, str], driver: Path = DRIVER_FOLDER) -> tuple[str, ...]:
    """The GPUs that a process may use, each as ``CUDA_VISIBLE_DEVICES`` names it: a number, or an id of NVIDIA's.

    Args:
        environment: where ``CUDA_VISIBLE_DEVICES`` has the last word, and ``PATH`` leads to ``nvidia-smi``.
        driver: the driver's folder, for tests.
    """
    visible = environment.get("CUDA_VISIBLE_DEVICES")
    if visible is not None:
        # CUDA too reads up to the first entry that means no GPU, and one that is there twice means none at all.
        names = tuple(takewhile(_is_gpu, (entry.strip() for entry in visible.split(","))))
        return names if len(set(names)) == len(names) else ()
    try:
        count = sum(1 for _ in driver.iterdir())
    except OSError:  # another system, such as Windows' for Linux, or no driver
        count = _count_with_nvidia_smi(environment)
    return tuple(str(number) for number in range(count))


def _is_gpu(entry: str) -> bool:
    return entry.isdigit() or entry.startswith(("GPU-", "MIG-"))


def _count_with_nvidia_smi(environment: Mapping[str, str]) -> int:
    program = shutil.which("nvidia-smi", path=environment.get("PATH"))
    if program is None:
        return 0
    try:
        result = subprocess.run(
            (program, "-L"),
            capture_output=True,
            stdin=subprocess.DEVNULL,
            timeout=NVIDIA_SMI_TIMEOUT_S,
            check=True,
            env=environment,
        )
    except (OSError, subprocess.SubprocessError) as error:
        logger.warning("nvidia-smi cannot say which GPUs there are (%s): set WORKERS to have one for each", error)
        return 0
    # Parts of a GPU that is divided follow it on lines that are set in.
    return sum(line.startswith(b"GPU ") for line in result.stdout.splitlines())
