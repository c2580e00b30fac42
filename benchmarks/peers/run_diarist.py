"""Run Diarist as installed: the configured engine, through the pipeline that the service and the command line use."""

from __future__ import annotations

import logging
import time
from collections.abc import Mapping
from pathlib import Path

import exchange

from diarist.audio import DecodeLimits, decode
from diarist.engines.registry import load_engine
from diarist.pipeline.transcription import transcribe
from diarist.protocols import Engine
from diarist.settings import Settings, load_settings
from diarist.types import SpeakerHints, TranscribeOptions, Turn

PIPELINE_STAGES = ("decode", "recognition", "attribution")
"""The stages that the pipeline itself times; all others are parts of the diarization."""


class Stages:
    """The time in seconds by stage, measured between progress reports: each follows a completed part of its stage."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}
        self._last = time.perf_counter()

    def record(self, stage: str, _done: float) -> None:
        now = time.perf_counter()
        self.seconds[stage] = self.seconds.get(stage, 0.0) + now - self._last
        self._last = now

    def split_diarization(self, timed: Mapping[str, float]) -> dict[str, float]:
        """Return ``timed`` with the diarization split into its parts; the time of no part is that of ``turns``."""
        stages: dict[str, float] = {}
        for name, seconds in timed.items():
            if name != "diarization":
                stages[name] = seconds
                continue
            parts = {each: spent for each, spent in self.seconds.items() if each not in PIPELINE_STAGES}
            stages |= {**parts, "turns": max(0.0, seconds - sum(parts.values()))}
        return stages


def load(task: exchange.Task) -> exchange.Processor:
    logging.getLogger("faster_whisper").setLevel(logging.WARNING)
    # The limit allows a recording of four hours, with the silences between its copies.
    settings = load_settings(cpu_threads=task.threads, max_duration_s=50_000.0)
    engine = load_engine(settings)

    def process(recording: Path) -> exchange.RecordingResult:
        return (
            _transcribe(recording, engine, settings, task.language)
            if task.words
            else _diarize(recording, engine, settings)
        )

    return process


def _transcribe(recording: Path, engine: Engine, settings: Settings, language: str | None) -> exchange.RecordingResult:
    stages = Stages()
    found = transcribe(
        recording, engine, TranscribeOptions(language=language), stages.record, DecodeLimits.of(settings)
    )
    words = tuple((w.span.start, w.span.end, w.text, w.confidence, w.speaker) for w in found.words)
    timed = {each.stage: each.seconds for each in found.timings}
    return exchange.RecordingResult(_turns(found.diarization.turns), words, stages.split_diarization(timed))


def _diarize(recording: Path, engine: Engine, settings: Settings) -> exchange.RecordingResult:
    started = time.perf_counter()
    audio = decode(recording, DecodeLimits.of(settings), lambda _done: None, "mix")[0]
    decoded, stages = time.perf_counter(), Stages()
    found = engine.diarizer.diarize(audio, SpeakerHints(), stages.record)
    timed = {"decode": decoded - started, "diarization": time.perf_counter() - decoded}
    return exchange.RecordingResult(_turns(found.turns), stages=stages.split_diarization(timed))


def _turns(turns: tuple[Turn, ...]) -> tuple[tuple[float, float, str], ...]:
    return tuple((turn.span.start, turn.span.end, turn.speaker) for turn in turns)


if __name__ == "__main__":
    exchange.serve(load)
