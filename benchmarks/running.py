"""Run a system on recordings in a separate process, and measure its time, its memory, and the load of the machine."""

from __future__ import annotations

import json
import os
import subprocess
import tempfile
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil

from diarist.types import RecognizedWord, Seconds, Span, Turn
from peers import exchange

PEERS = Path(__file__).parent / "peers"
SAMPLE_INTERVAL_S = 0.2
MIN_TURN_S: Seconds = 0.001


@dataclass(frozen=True, slots=True)
class SpokenWord:
    """A word that a system recognized, with its speaker if the system assigns one."""

    word: RecognizedWord
    speaker: str | None


@dataclass(frozen=True, slots=True)
class Output:
    """The output of a system for one recording."""

    turns: tuple[Turn, ...]
    words: tuple[SpokenWord, ...]
    wall: Seconds
    cpu: Seconds
    stages: dict[str, Seconds]
    readings: dict[str, tuple[Turn, ...]] = field(default_factory=dict)
    """Other turns that the system returned in the same run, by the name of the ``System`` that represents them."""


@dataclass(frozen=True, slots=True)
class Run:
    """The results of one process of a system."""

    outputs: dict[str, Output]
    """The outputs by the name of the recording; recordings that failed are missing."""

    startup: Seconds | None
    """The time from the start of the process until it was ready for a recording."""

    peak_mb: int
    """The peak memory of the process and its children, with shared pages divided among them (PSS)."""

    others: float
    """The average number of cores that other processes kept busy during the run."""

    failure: str | None
    """The reason why recordings are missing, or None."""


def run(name: str, python: Path, task: exchange.Task, limit: Seconds) -> Run:
    """Run ``peers/run_NAME.py``; ``Run.failure`` is set if the system fails or takes longer than ``limit``.

    Args:
        name: The name of the script.
        python: The Python of the environment that it runs in.
        task: The task of the system.
        limit: The maximum time in seconds for the whole run.
    """
    with tempfile.TemporaryDirectory(prefix="diarist-bench-") as folder:
        out, task_path, log = Path(folder) / "out", Path(folder) / "task.json", Path(folder) / "log"
        out.mkdir()
        exchange.write_task(task, task_path)
        command = [str(python), str(PEERS / f"run_{name}.py"), str(task_path), str(out)]
        others = OtherLoad()
        with log.open("wb") as log_file:
            process = subprocess.Popen(command, stdout=log_file, stderr=log_file, env=_environment(task.threads))
            sampler = MemorySampler(process.pid)
            try:
                code = process.wait(timeout=limit)
                failure = _failure_reason(log) if code else None
            except subprocess.TimeoutExpired:
                failure = f"was stopped after {limit:.0f} s"
            finally:
                peak_mb = sampler.stop()
                _end(process)
        ready = out / "ready.json"
        startup = json.loads(ready.read_text())["seconds"] if ready.exists() else None
        busy = others.cores()
        outputs: dict[str, Output] = {}
        for each in (Path(recording).stem for recording in task.recordings):
            if not (path := out / f"{each}.json").exists():
                continue
            found = json.loads(path.read_text(encoding="utf-8"))
            if "failure" in found:
                failure = failure or f"{each}: {found['failure']}"
            else:
                outputs[each] = _output(found)
        return Run(outputs, startup, peak_mb, busy, failure)


class OtherLoad:
    """Measures the load of processes other than this one and its children, from the creation of the object on."""

    def __init__(self) -> None:
        self._before = self._now()

    def cores(self) -> float:
        """Return the average number of cores that other processes kept busy.

        Killed processes that had children count as other processes.
        """
        wall, machine, own = (after - before for after, before in zip(self._now(), self._before, strict=True))
        return max(0.0, (machine - own) / wall) if wall > 0 else 0.0

    @staticmethod
    def _now() -> tuple[float, float, float]:
        """Return the wall time, the CPU time of the machine, and that of this process, in seconds."""
        times = psutil.cpu_times()
        # Linux includes guest time in user time.
        idle = times.idle + getattr(times, "iowait", 0.0) + getattr(times, "guest", 0.0)
        idle += getattr(times, "guest_nice", 0.0)
        return time.perf_counter(), sum(times) - idle, exchange.cpu_seconds()


class MemorySampler:
    """Samples the memory of a process and its children until ``stop`` is called."""

    def __init__(self, pid: int) -> None:
        self._root = psutil.Process(pid)
        self._peak = 0
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._sample, daemon=True)
        self._thread.start()

    def stop(self) -> int:
        """Stop sampling, and return the peak in megabytes (2^20 bytes)."""
        self._done.set()
        self._thread.join()
        return self._peak >> 20

    def _sample(self) -> None:
        while True:
            self._peak = max(self._peak, tree_bytes(self._root))
            if self._done.wait(SAMPLE_INTERVAL_S):
                return


def tree_bytes(root: psutil.Process) -> int:
    """Return the memory of a process and its children in bytes: PSS if the system has it, else the resident size."""
    total = 0
    try:
        family = [root, *root.children(recursive=True)]
    except psutil.Error:
        return 0
    for process in family:
        try:
            memory = process.memory_full_info()
        except psutil.Error:
            continue
        total += getattr(memory, "pss", memory.rss)
    return total


def _environment(threads: int) -> dict[str, str]:
    """Return this process's environment with the number of threads set for the numeric libraries that read it."""
    names = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "NUMBA_NUM_THREADS")
    return {**os.environ, **dict.fromkeys(names, str(threads)), "PYTHONDONTWRITEBYTECODE": "1"}


def _end(process: subprocess.Popen[bytes]) -> None:
    if process.poll() is None:
        for child in psutil.Process(process.pid).children(recursive=True):
            child.kill()
        process.kill()
        process.wait()


def _failure_reason(log: Path) -> str:
    lines = [line for line in log.read_text(errors="replace").splitlines() if line.strip()]
    return lines[-1].strip().replace(str(PEERS.parent.parent), "...") if lines else "ended without a message"


def _output(found: Mapping[str, Any]) -> Output:
    words = tuple(
        SpokenWord(RecognizedWord(text, Span(start, end), probability), speaker)
        for start, end, text, probability, speaker in found["words"]
    )
    readings = {name: _turns(each) for name, each in found["readings"].items()}
    return Output(_turns(found["turns"]), words, found["wall"], found["cpu"], found["stages"], readings)


def _turns(rows: Sequence[tuple[float, float, str]]) -> tuple[Turn, ...]:
    """Return the turns in order of start, without those shorter than a millisecond, the resolution of RTTM."""
    return tuple(sorted(Turn(Span(start, end), who) for start, end, who in rows if end - start >= MIN_TURN_S))
