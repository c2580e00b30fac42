"""Run faster-whisper alone, with Diarist's model, precision, beam, and batch size: a lower bound for recognition time.

Batched recognition also uses Diarist's threads, language, and word timestamps. All other choices are faster-whisper's
own: its voice activity detection, chunks of up to 30 s, and one temperature.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import exchange
from faster_whisper import BatchedInferencePipeline, WhisperModel

from diarist.engines.embedded.whisper import DecodingOptions
from diarist.models import ModelStore, select_recognizer
from diarist.settings import load_settings

Start = Callable[[str], Iterable[Any]]
"""A function that opens the recording at a path and returns its segments, which are recognized lazily."""


def load(task: exchange.Task) -> exchange.Processor:
    pipeline, options = BatchedInferencePipeline(open_model(task)), DecodingOptions()

    def start(recording: str) -> Iterable[Any]:
        return pipeline.transcribe(
            recording,
            language=task.language,
            beam_size=options.beam_size,
            batch_size=options.batch_size,
            word_timestamps=True,
        )[0]

    return timed_processor(start)


def open_model(task: exchange.Task) -> WhisperModel:
    logging.getLogger("faster_whisper").setLevel(logging.WARNING)
    settings = load_settings()
    folder = ModelStore.of(settings).locate(select_recognizer(settings).model)
    return WhisperModel(str(folder), device="cpu", compute_type="int8", cpu_threads=task.threads)


def timed_processor(start: Start) -> exchange.Processor:
    """Return a function that recognizes a recording by ``start`` and measures the time."""

    def process(recording: Path) -> exchange.RecordingResult:
        at = [time.perf_counter()]
        segments = start(str(recording))
        at.append(time.perf_counter())
        words = tuple(
            (float(word.start), max(float(word.start), float(word.end)), word.word, float(word.probability), None)
            for segment in segments
            for word in segment.words or ()
        )
        at.append(time.perf_counter())
        return exchange.RecordingResult((), words, {"decode and speech": at[1] - at[0], "recognition": at[2] - at[1]})

    return process


if __name__ == "__main__":
    exchange.serve(load)
