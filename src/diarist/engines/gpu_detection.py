"""Detection of NVIDIA GPUs without any of their libraries, which a process that never runs a model does not load."""

from __future__ import annotations

import logging
import shutil
import subprocess
from collections.abc import Mapping
from itertools import takewhile
from pathlib import Path

from diarist.child_environment import program_environment

logger = logging.getLogger(__name__)

DRIVER_FOLDER = Path("/proc/driver/nvidia/gpus")
"""Where NVIDIA's driver for Linux has one folder per GPU."""

NVIDIA_SMI_TIMEOUT_S = 20.0
"""How long ``nvidia-smi`` may take. It needs several seconds if it has to load the driver."""


def visible_gpus(environment: Mapping[str, str], driver: Path = DRIVER_FOLDER) -> tuple[str, ...]:
    """Return the GPUs that a process may use, each as ``CUDA_VISIBLE_DEVICES`` names it: by number or by UUID.

    Args:
        environment: ``CUDA_VISIBLE_DEVICES`` in it takes precedence, and its ``PATH`` is searched for ``nvidia-smi``.
        driver: the folder of the driver; tests set it.
    """
    visible = environment.get("CUDA_VISIBLE_DEVICES")
    if visible is not None:
        # Like CUDA: the list ends at the first invalid entry, and a list with a duplicate is empty.
        names = tuple(takewhile(_is_gpu, (entry.strip() for entry in visible.split(","))))
        return names if len(set(names)) == len(names) else ()
    try:
        count = sum(1 for _ in driver.iterdir())
    except OSError:  # another operating system, such as WSL, or no driver
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
            env=program_environment(environment),
        )
    except (OSError, subprocess.SubprocessError) as error:
        logger.warning("nvidia-smi cannot list the GPUs (%s): set WORKERS to start one worker for each", error)
        return 0
    # The partitions of a GPU (MIG) follow it on indented lines.
    return sum(line.startswith(b"GPU ") for line in result.stdout.splitlines())
