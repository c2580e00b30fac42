"""A process of a fleet with a scripted engine, started as ``python fleet_entry.py api|worker|work``.

``api`` is the real service, and ``worker`` runs the real workers of a machine, which start ``work`` as their processes.
A recording is a JSON object with a ``name``, and its transcript is its own SHA-256. The host that begins a recording
adds a line with ``FLEET_HOST`` to the file ``NAME.begun`` in the folder ``FLEET_FOLDER``. If the recording contains
``wait``, its work continues until there is a file ``NAME.go`` or ``NAME.go.HOST``.
"""

from __future__ import annotations

import hashlib
import json
import os
import sys
import threading
from pathlib import Path

from diarist.jobs.workers.engine import OnFinal, ReportModels
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

MODELS = (ModelInfo("scripted", "diarization", "Apache-2.0"),)


def load_engine(settings: Settings, report_models: ReportModels) -> Engine:
    report_models(MODELS)
    return Engine("scripted", None, None, MODELS)  # type: ignore[arg-type]  # `transcribe_file` uses neither


def transcribe_file(
    path: Path,
    engine: Engine,
    options: TranscribeOptions,
    progress: StatusProgress,
    settings: Settings,
    finalized: OnFinal,
    scatter: Scatter | None,
) -> Transcript:
    content = path.read_bytes()
    script = json.loads(content)
    host, marker = os.environ["FLEET_HOST"], Path(os.environ["FLEET_FOLDER"]) / script["name"]
    with marker.with_suffix(".begun").open("a", encoding="ascii") as file:
        file.write(f"{host}\n")
    pause = threading.Event()
    while "wait" in script and not any(marker.with_suffix(end).exists() for end in (".go", f".go.{host}")):
        progress("waiting", 0.5)
        pause.wait(0.02)
    progress("recognition", 0.9)
    span = Span(0.0, 1.0)
    utterances = (Utterance((Word(hashlib.sha256(content).hexdigest(), span, "SPEAKER_00", 1.0, 1.0),)),)
    finalized(utterances)
    return Transcript(
        utterances=utterances,
        diarization=Diarization((Turn(span, "SPEAKER_00"),), diarizer="scripted"),
        duration=10.0,
        language="en",
        language_probability=1.0,
        engine="scripted",
        timings=(Timing("recognition", 0.1),),
        recognizer="scripted",
        device=engine.device,
    )


def main(role: str) -> None:
    from diarist.observability import logs
    from diarist.settings import load_settings

    command = (sys.executable, "-P", __file__, "work")
    if role == "work":
        from diarist.jobs.workers.worker import main as run_worker_process

        run_worker_process(load_engine, transcribe_file, load_retry_s=0.1)
    elif role == "worker":
        from diarist.jobs.workers.node import run_workers

        settings = load_settings()
        logs.configure(settings, to_file=False)
        run_workers(settings, command)
    else:
        from diarist.api import serving

        serving.serve(load_settings(), command)


if __name__ == "__main__":
    main(sys.argv[1])
