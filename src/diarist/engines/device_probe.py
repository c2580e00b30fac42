"""A description of this machine's GPUs from another process: ``python -m diarist.engines.device_probe auto``.

The libraries of a GPU take memory and seconds to load, and may crash, so processes that run no model do not load them.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import asdict

from diarist.child_environment import program_environment
from diarist.engines.cuda_driver import Gpu
from diarist.engines.device import INSTALL, Machine, describe_machine
from diarist.errors import EngineUnavailable

PROBE_TIMEOUT_S = 60.0
"""How long the other process may take. Importing the libraries from a slow disk takes long."""


def probe_machine(setting: str, environment: Mapping[str, str] = os.environ) -> Machine:
    """Describe this machine in another process, which loads the libraries and may crash in them.

    Raises:
        EngineUnavailable: The other process fails. The message says how.
    """
    command = [sys.executable, "-m", "diarist.engines.device_probe", setting]
    try:
        process = subprocess.run(
            command, env=program_environment(environment), capture_output=True, text=True, errors="replace",
            timeout=PROBE_TIMEOUT_S, check=False,
        )  # fmt: skip
    except (OSError, subprocess.TimeoutExpired) as error:
        raise EngineUnavailable(f"The GPUs of this machine cannot be examined ({error}). Set DEVICE to cpu.") from error
    if process.returncode:
        reason = (process.stderr.strip().splitlines() or [f"status {process.returncode}"])[-1]
        raise EngineUnavailable(f"The libraries for GPUs fail ({reason}). {INSTALL}, or set DEVICE to cpu.")
    content = json.loads(process.stdout.splitlines()[-1])
    gpus = tuple(Gpu(**{**gpu, "compute_capability": tuple(gpu["compute_capability"])}) for gpu in content["gpus"])
    types = tuple(map(tuple, content["compute_types"]))
    return Machine(**{**content, "gpus": gpus, "compute_types": types})


if __name__ == "__main__":
    print(json.dumps(asdict(describe_machine(sys.argv[1]))))  # noqa: T201 - for the process that runs ``probe_machine``
