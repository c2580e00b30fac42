"""A worker process whose recordings are scripts, started as ``python worker_entry.py FOLDER``.

A recording contains one command per line. Test and worker exchange files in ``FOLDER``: the worker adds a line with its
process ID to ``loads`` whenever it loads the engine, and to ``begun`` whenever it begins a job.
"""

from __future__ import annotations

import os
import signal
import sqlite3
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path

from diarist.errors import ModelUnavailable, NotAudio
from diarist.jobs.workers.engine import OnFinal, ReportModels
from diarist.jobs.workers.worker import main
from diarist.protocols import Engine, Scatter
from diarist.settings import Settings
from diarist.types import (
    Diarization,
    ModelInfo,
    Span,
    StatusProgress,
    Timing,
    TranscribeOptions,
    Transcript,
    Turn,
    Utterance,
    Word,
)

FOLDER = Path(sys.argv[1])
MODELS = (ModelInfo("model", "recognition", "MIT"),)


def record(name: str, text: str) -> None:
    with (FOLDER / name).open("a", encoding="ascii") as file:
        file.write(text + "\n")


def count(name: str) -> int:
    path = FOLDER / name
    return len(path.read_text(encoding="ascii").splitlines()) if path.exists() else 0


def load_engine(settings: Settings, report_models: ReportModels) -> Engine:
    record("loads", str(os.getpid()))
    print("a library's own output on stdout")  # noqa: T201
    report_models((ModelInfo("model", "recognition", "MIT", "loading"),))
    if (FOLDER / "no-network").exists():
        raise ModelUnavailable("No source of models can be reached. Connect, or run `diarist models pull`.")
    if (FOLDER / "die-while-loading").exists():
        os.kill(os.getpid(), signal.SIGKILL)
    if (FOLDER / "freeze-while-loading").exists():
        os.kill(os.getpid(), signal.SIGSTOP)
    if (FOLDER / "fault-while-loading").exists():
        raise RuntimeError("a secret path")
    if (FOLDER / "long-loading").exists():
        wait_for("loaded")
    device = "cpu"
    if (FOLDER / "cuda").exists():
        record("slots", f"{os.environ['CUDA_VISIBLE_DEVICES']} {settings.threads}")
        device = "cuda:0 (a card)"
    return Engine("scripted", None, None, MODELS, device)  # type: ignore[arg-type]  # `transcribe_file` uses neither


def wait_for(name: str, progress: Callable[[], object] = lambda: None) -> None:
    pause = threading.Event()
    while not (FOLDER / name).exists():
        progress()
        pause.wait(0.02)


def utterances_of(text: str, count: int) -> tuple[Utterance, ...]:
    return tuple(
        Utterance((Word(text, Span(number / count, (number + 1) / count), "SPEAKER_00", 1.0, 1.0),))
        for number in range(count)
    )


def transcribe_file(
    path: Path,
    engine: Engine,
    options: TranscribeOptions,
    progress: StatusProgress,
    settings: Settings,
    finalized: OnFinal,
    scatter: Scatter | None,
) -> Transcript:
    record("begun", str(os.getpid()))
    progress("decode", 0.1)
    script = path.read_text(encoding="ascii")
    for command in script.splitlines():
        match command.split():
            case ["wait", name]:
                wait_for(name, lambda: progress("wait", 0.5))
            case ["slow", name]:
                while not (FOLDER / name).exists():
                    progress("wait", 0.5)
                    threading.Event().wait(0.8)
            case ["block", name]:
                wait_for(name)
            case ["finalize", times]:
                finalized(utterances_of(script, int(times)))
            case ["child", name]:
                child = subprocess.Popen([sys.executable, "-c", "import sys; sys.stdin.read()"], stdin=subprocess.PIPE)
                record(name, str(child.pid))
            case ["die", times] if count("begun") <= int(times):
                os.kill(os.getpid(), signal.SIGKILL)
            case ["freeze", times] if count("begun") <= int(times):
                os.kill(os.getpid(), signal.SIGSTOP)
            case ["freeze-with-lock", times] if count("begun") <= int(times):
                locked = sqlite3.connect(settings.data_dir / "jobs.sqlite3", isolation_level=None)
                locked.execute("BEGIN IMMEDIATE")
                os.kill(os.getpid(), signal.SIGSTOP)
            case ["stall", times] if count("begun") <= int(times):
                wait_for("never")
            case ["not-audio"]:
                raise NotAudio("There is no audio in it. Send a recording.")
            case ["bug"]:
                raise RuntimeError("a secret path")
            case ["nan"]:
                return Transcript(
                    utterances=(),
                    diarization=Diarization(),
                    duration=float("nan"),
                    language=None,
                    language_probability=None,
                    engine="scripted",
                    timings=(),
                )
    span = Span(0.0, 1.0)
    diarization = Diarization((Turn(span, "SPEAKER_00"),), diarizer="scripted")
    counts = [command.split()[1] for command in script.splitlines() if command.startswith("finalize")]
    return Transcript(
        utterances=utterances_of(script, int(counts[0]) if counts else 1),
        diarization=diarization,
        duration=1.0,
        language="en",
        language_probability=1.0,
        engine=engine.name,
        timings=(Timing("decode", 0.1),),
        recognizer="model",
        device=engine.device,
    )


if __name__ == "__main__":
    main(load_engine, transcribe_file, load_retry_s=0.2)
