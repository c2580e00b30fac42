"""Define the data that ``compare.py`` and the systems that it compares exchange.

This module uses only the standard library, so that it runs in the environment of every system.

A system is a script ``run_NAME.py`` that calls ``serve``. It is started in its own environment with two arguments: a
file with the ``Task``, and an empty folder. The script writes ``ready.json`` to the folder when the system is loaded,
and ``NAME.json`` for each recording, with the result and the time that it took, or with the reason of the failure.
"""

from __future__ import annotations

import contextlib
import json
import resource
import sys
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path


@dataclass(frozen=True)
class Task:
    """The task of a system."""

    recordings: tuple[str, ...]
    """The paths of 16-bit mono WAV files at 16 kHz; the stem is the name of the recording."""

    threads: int
    language: str | None
    words: bool
    """Whether to recognize words; False for diarization alone."""

    models: str
    """The folder of Diarist's models, for systems that use the same models."""

    started: float
    """The value of ``time.time()`` when the process was started."""

    warm_up: str | None = None
    """The path of a short recording that is processed first and not measured, since the first call is slower."""


@dataclass(frozen=True)
class RecordingResult:
    """The result of a system for one recording; times are in seconds from its start."""

    turns: tuple[tuple[float, float, str], ...]
    """The start, end, and speaker of each turn; turns can overlap."""

    words: tuple[tuple[float, float, str, float, str | None], ...] = ()
    """The start, end, text with leading white space, recognizer's probability, and speaker or None of each word."""

    stages: dict[str, float] = field(default_factory=dict)
    """The time in seconds by stage, if the system reports it."""

    readings: dict[str, tuple[tuple[float, float, str], ...]] = field(default_factory=dict)
    """Other turns that the system returns in the same run, by the name of the ``System`` that represents them."""


Processor = Callable[[Path], RecordingResult]
"""A function that processes the recording at a path."""


def serve(load: Callable[[Task], Processor]) -> None:
    """Load a system and process every recording of the task; this is the main function of a ``run_NAME.py``."""
    task = read_task(Path(sys.argv[1]))
    out = Path(sys.argv[2])
    process_recording = load(task)
    (out / "ready.json").write_text(json.dumps({"seconds": time.time() - task.started}))
    if task.warm_up is not None:
        with contextlib.suppress(Exception):  # the failure is reported when the recording is measured
            process_recording(Path(task.warm_up))
    for recording in map(Path, task.recordings):
        part = out / f"{recording.stem}.part"
        part.write_text(json.dumps(_measure(process_recording, recording), ensure_ascii=False), encoding="utf-8")
        part.replace(part.with_suffix(".json"))  # a process that is stopped while writing leaves no partial file


def _measure(process_recording: Processor, recording: Path) -> dict[str, object]:
    wall, cpu = time.perf_counter(), cpu_seconds()
    try:
        result = process_recording(recording)
    except Exception as error:  # noqa: BLE001 - the other recordings are still processed
        lines = [line for line in str(error).splitlines() if line.strip()] or ["no message"]
        return {"failure": f"{type(error).__name__}: {lines[0].strip()}"}
    took = {"wall": time.perf_counter() - wall, "cpu": cpu_seconds() - cpu}
    return {**took, **asdict(result)}


def cpu_seconds() -> float:
    """Return the user and system time of this process and of its children that have ended."""
    used = (resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    return sum(each.ru_utime + each.ru_stime for each in used)


def read_task(path: Path) -> Task:
    fields = json.loads(path.read_text())
    return Task(**{**fields, "recordings": tuple(fields["recordings"])})


def write_task(task: Task, path: Path) -> None:
    path.write_text(json.dumps(asdict(task)))
