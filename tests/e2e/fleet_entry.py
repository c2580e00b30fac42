"""A process of a fleet, with an engine that does what the recording says: ``python fleet_entry.py api|worker|work``.

``api`` is the real service and ``worker`` the real workers of a machine, which start ``work`` as their processes. A
recording is a JSON object with a ``name``, and is answered with its own SHA-256. Who begins it adds a line with
``FLEET_HOST`` to the file ``NAME.begun`` in the folder ``FLEET_FOLDER``. With ``wait`` it goes on until there is a file
``NAME.go`` or ``NAME.go.HOST``; where ``deaf`` is there too, without a sign of progress.
"""

from __future__ import annotations

import hashlib
import json
import os
import sys
import threading
from pathlib import Path

from diarist.jobs.workers.work import NoteModels, OnFinal
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


def load_engine(settings: Settings, note_models: NoteModels) -> Engine:
    note_models(MODELS)
    return Engine("scripted", None, None, MODELS)  # type: ignore[arg-type]  # `work` asks neither


def work(
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
    host, mark = os.environ["FLEET_HOST"], Path(os.environ["FLEET_FOLDER"]) / script["name"]
    with mark.with_suffix(".begun").open("a", encoding="ascii") as file:
        file.write(f"{host}\n")
    turn = threading.Event()
    while "wait" in script and not any(mark.with_suffix(end).exists() for end in (".go", f".go.{host}")):
        if "deaf" not in script:
            progress("waiting", 0.5)
        turn.wait(0.02)
    progress("recognition", 0.9)
    span = Span(0.0, 1.0)
    said = (Utterance((Word(hashlib.sha256(content).hexdigest(), span, "SPEAKER_00", 1.0, 1.0),)),)
    finalized(said)
    return Transcript(
        utterances=said,
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
        from diarist.jobs.workers.worker import main as work_on

        work_on(load_engine, work, load_retry_s=0.1)
    elif role == "worker":
        from diarist.jobs.workers.node import run_workers

        settings = load_settings()
        logs.configure(settings, to_file=False)
        run_workers(settings, command)
    else:
        from diarist.api import serving
        from diarist.jobs.db.job_store import open_store
        from diarist.jobs.service import JobService

        serving.serve(load_settings(), lambda settings: JobService(settings, open_store(settings), command))


if __name__ == "__main__":
    main(sys.argv[1])
