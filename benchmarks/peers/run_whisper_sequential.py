"""Run faster-whisper alone in its default mode, one 30 s window after the other, with Diarist's model and beam."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import exchange
from run_whisper import open_model, timed_processor

from diarist.engines.embedded.whisper import DecodingOptions


def load(task: exchange.Task) -> exchange.Processor:
    model, beam = open_model(task), DecodingOptions().beam_size

    def start(recording: str) -> Iterable[Any]:
        return model.transcribe(recording, language=task.language, beam_size=beam, word_timestamps=True)[0]

    return timed_processor(start)


if __name__ == "__main__":
    exchange.serve(load)
