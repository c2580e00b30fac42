"""A real worker process whose engine is scripted by the recording. Everything else is the code of the service.

A recording that is a JSON object is a script: ``{"fail": "CorruptAudio", "message": "..."}``, ``{"until": "/path"}``
(waits until that file exists), ``{"finalize": true}`` (the first of two utterances is final before that),
``{"words": ["Hello", " there"]}``, ``{"silence": true}``. The transcript of any
other recording is its SHA-256. The engine loads once the file named by ``SCRIPTED_ENGINE`` says ``ready``; ``error``
fails it.
"""

from __future__ import annotations

import hashlib
import json
import os
import time
from pathlib import Path

from diarist import errors
from diarist.jobs.workers import worker
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
    report_models((ModelInfo("scripted", "diarization", "Apache-2.0", "loading"),))
    state = Path(os.environ["SCRIPTED_ENGINE"])
    while state.read_text() == "loading":
        time.sleep(0.02)
    if state.read_text() == "error":
        raise errors.ModelUnavailable("The model could not be fetched: run `diarist models pull`.")
    return Engine("scripted", None, None, MODELS)  # type: ignore[arg-type]  # `transcribe` asks neither


def utterances_of(texts: list[str]) -> tuple[Utterance, ...]:
    words = tuple(
        Word(text, Span(0.12345 + i, 0.98765 + i), "SPEAKER_00", 0.91234, 0.87654) for i, text in enumerate(texts)
    )
    reply = Word("Fine.", Span(len(texts) + 0.5, len(texts) + 1.00049), "SPEAKER_01", 1.0, 1.0)
    return Utterance(words), Utterance((reply,))


def transcribe(
    path: Path,
    engine: Engine,
    options: TranscribeOptions,
    progress: StatusProgress,
    settings: Settings,
    finalized: OnFinal,
    scatter: Scatter | None,
) -> Transcript:
    content = path.read_bytes()
    try:
        script = json.loads(content)
    except ValueError:
        script = None
    if not isinstance(script, dict):
        script = {"words": [hashlib.sha256(content).hexdigest()]}
    if "options" in script:
        script["words"] = [repr(options)]
    utterances = utterances_of(script.get("words", ["Hello,", " how", " are", " you?"]))
    if "finalize" in script:
        progress("recognition", 0.5)
        finalized(utterances[:1])
    while "until" in script and not Path(script["until"]).exists():
        progress("waiting", 0.1)
        time.sleep(0.02)
    if "crash" in script:
        os._exit(1)
    if "fail" in script:
        raise getattr(errors, script["fail"], RuntimeError)(script.get("message", "What to do."))
    if "silence" in script:
        return Transcript(
            utterances=(),
            diarization=Diarization(),
            duration=3.0,
            language=None,
            language_probability=None,
            engine="scripted",
            timings=(),
        )
    finalized(utterances[1:] if "finalize" in script else utterances)
    turns = tuple(Turn(utterance.span, utterance.speaker) for utterance in utterances)
    return Transcript(
        utterances=utterances,
        diarization=Diarization(turns, diarizer="by the script"),
        duration=20.0,
        language="en",
        language_probability=0.98765,
        engine="scripted",
        timings=(Timing("decode", 0.01), Timing("recognition", 1 / 3)),
        recognizer="scripted",
        device=engine.device,
    )


if __name__ == "__main__":
    worker.main(load_engine, transcribe, load_retry_s=0.1)
