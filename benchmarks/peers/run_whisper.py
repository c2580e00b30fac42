"""faster-whisper alone, with Diarist's model, precision, beam and batch: the floor for the time of recognition."""

from __future__ import annotations

import logging
from pathlib import Path

import exchange
from faster_whisper import BatchedInferencePipeline, WhisperModel

from diarist.engines.embedded.recognizer import Decoding
from diarist.models import ModelStore
from diarist.settings import load_settings


def load(task: exchange.Task) -> exchange.Hear:
    logging.getLogger("faster_whisper").setLevel(logging.WARNING)
    settings = load_settings()
    folder = ModelStore.of(settings).locate(f"whisper-{settings.whisper_model}")
    model = WhisperModel(str(folder), device="cpu", compute_type="int8", cpu_threads=task.threads)
    pipeline = BatchedInferencePipeline(model)
    decoding = Decoding()

    def hear(recording: Path) -> exchange.Heard:
        segments, _ = pipeline.transcribe(
            str(recording), language=task.language, beam_size=decoding.beam, batch_size=decoding.batch,
            word_timestamps=True,
        )  # fmt: skip
        words = tuple(
            (float(word.start), max(float(word.start), float(word.end)), word.word, float(word.probability), None)
            for segment in segments
            for word in segment.words or ()
        )
        return exchange.Heard((), words)

    return hear


if __name__ == "__main__":
    exchange.serve(load)
