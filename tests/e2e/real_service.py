"""The service with the real engine, as tests start and watch it."""

from __future__ import annotations

import io
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import psutil
import soundfile

from api.process import ServiceProcess
from api.wire import Address, call

COMMAND = (sys.executable, str(Path(__file__).parents[2] / "app.py"))
READY = "engine embedded is ready"
READY_S = 120.0


def repeated(path: Path, times: int) -> bytes:
    """Return the recording ``path``, so many times over, as WAV."""
    samples, rate = soundfile.read(path, dtype="int16")
    file = io.BytesIO()
    soundfile.write(file, np.tile(samples, times), rate, format="WAV")
    return file.getvalue()


def running(address: Address) -> int:
    return int(call(address, "GET", "/status").json["jobs"]["running"])


def wait_until(condition: Callable[[], object], timeout: float = 30) -> None:
    deadline = time.monotonic() + timeout
    while not condition():
        assert time.monotonic() < deadline, "did not come true in time"
        time.sleep(0.02)


def worker_of(service: ServiceProcess) -> psutil.Process:
    return psutil.Process(int(re_last(service.log, "started as process ")))


def re_last(lines: list[str], before: str) -> str:
    """Return what follows ``before`` on the last line that has it."""
    return next(line.partition(before)[2] for line in reversed(lines) if before in line)
