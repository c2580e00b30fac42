"""Diarist as it is installed: the configured engine, through the pipeline that the service and the command line use."""

from __future__ import annotations

import logging
from pathlib import Path

import exchange
import numpy as np

from diarist.audio import DecodeLimits, decode
from diarist.engines.registry import load_engine
from diarist.pipeline import transcribe
from diarist.protocols import Engine
from diarist.settings import Settings, load_settings
from diarist.types import SAMPLE_RATE, Audio, SpeakerHints, TranscribeOptions, Turn


def load(task: exchange.Task) -> exchange.Hear:
    logging.getLogger("faster_whisper").setLevel(logging.WARNING)
    # a recording of four hours and the silence after it
    settings = load_settings(cpu_threads=task.threads, max_duration_s=50_000.0)
    engine = load_engine(settings)
    # the first call is slower than those that follow; the others warm up too
    engine.diarizer.diarize(Audio(np.zeros(SAMPLE_RATE, dtype=np.float32)), SpeakerHints(), _silent)

    def hear(recording: Path) -> exchange.Heard:
        return (
            _transcribe(recording, engine, settings, task.language)
            if task.words
            else _diarize(recording, engine, settings)
        )

    return hear


def _transcribe(recording: Path, engine: Engine, settings: Settings, language: str | None) -> exchange.Heard:
    found = transcribe(recording, engine, TranscribeOptions(language=language), _silent, DecodeLimits.of(settings))
    words = tuple((w.span.start, w.span.end, w.text, w.confidence, w.speaker) for w in found.words)
    return exchange.Heard(_turns(found.diarization.turns), words, {t.stage: t.seconds for t in found.timings})


def _diarize(recording: Path, engine: Engine, settings: Settings) -> exchange.Heard:
    audio = decode(recording, DecodeLimits.of(settings), lambda _done: None, "mix")[0]
    return exchange.Heard(_turns(engine.diarizer.diarize(audio, SpeakerHints(), _silent).turns))


def _turns(turns: tuple[Turn, ...]) -> tuple[tuple[float, float, str], ...]:
    return tuple((turn.span.start, turn.span.end, turn.speaker) for turn in turns)


def _silent(_stage: str, _done: float) -> None:
    return None


if __name__ == "__main__":
    exchange.serve(load)
