"""What ``compare.py`` and the systems that it compares hand to each other. Standard library only: it runs anywhere.

A system is a script ``run_NAME.py`` that calls ``serve``. It is started in an environment of its own with two
arguments: a file with the ``Task``, and an empty folder. Into the folder it writes ``ready.json`` when it is loaded,
and for each recording ``NAME.json`` with what it heard and how long that took, or with why it failed.
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
    """What a system is to do."""

    recordings: tuple[str, ...]
    """Paths of 16 kHz mono WAV files, 16 bit; the stem is the recording's name."""

    threads: int
    language: str | None
    words: bool
    """False: diarization alone is wanted."""

    models: str
    """Folder of Diarist's models, for systems that run on the same."""

    started: float
    """``time.time()`` when the process was started."""

    warm_up: str | None = None
    """Path of a short recording that is heard once before the others and counts nowhere: a first call is slower."""


@dataclass(frozen=True)
class Heard:
    """What a system finds in a recording. Seconds from its start."""

    turns: tuple[tuple[float, float, str], ...]
    """Start, end, speaker; may overlap."""

    words: tuple[tuple[float, float, str, float, str | None], ...] = ()
    """Start, end, text with the white space before it, the recognizer's probability, and the speaker or None."""

    stages: dict[str, float] = field(default_factory=dict)
    """Seconds of each part of the work, where the system tells."""

    readings: dict[str, tuple[tuple[float, float, str], ...]] = field(default_factory=dict)
    """Other turns that the system gives in the same go, by the name of ``systems.System`` that they stand for."""


Hear = Callable[[Path], Heard]


def serve(load: Callable[[Task], Hear]) -> None:
    """Load a system and let it hear every recording of the task: the whole of a ``run_NAME.py``."""
    task = read_task(Path(sys.argv[1]))
    out = Path(sys.argv[2])
    hear = load(task)
    (out / "ready.json").write_text(json.dumps({"seconds": time.time() - task.started}))
    if task.warm_up is not None:
        with contextlib.suppress(Exception):  # it will be told of when it counts
            hear(Path(task.warm_up))
    for recording in map(Path, task.recordings):
        part = out / f"{recording.stem}.part"
        part.write_text(json.dumps(_measured(hear, recording), ensure_ascii=False), encoding="utf-8")
        part.replace(part.with_suffix(".json"))  # whoever is stopped while writing leaves no half of it


def _measured(hear: Hear, recording: Path) -> dict[str, object]:
    wall, cpu = time.perf_counter(), cpu_seconds()
    try:
        heard = hear(recording)
    except Exception as error:  # noqa: BLE001 - the other recordings go on
        lines = [line for line in str(error).splitlines() if line.strip()] or ["no word of why"]
        return {"failure": f"{type(error).__name__}: {lines[0].strip()}"}
    took = {"wall": time.perf_counter() - wall, "cpu": cpu_seconds() - cpu}
    return {**took, **asdict(heard)}


def cpu_seconds() -> float:
    """User and system time of this process and of its children that have ended."""
    used = (resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    return sum(each.ru_utime + each.ru_stime for each in used)


def read_task(path: Path) -> Task:
    fields = json.loads(path.read_text())
    return Task(**{**fields, "recordings": tuple(fields["recordings"])})


def write_task(task: Task, path: Path) -> None:
    path.write_text(json.dumps(asdict(task)))
