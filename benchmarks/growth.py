"""Measure how time and memory grow with length: a recording and its reference are repeated to each length."""

from __future__ import annotations

import wave
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from diarist.evaluation.reference import Reference
from diarist.evaluation.scoring import score
from diarist.types import SAMPLE_RATE, Seconds, Span, Turn
from running import Run
from systems import System, to_hypothesis

PAUSE_S: Seconds = 0.5
EXTRA_SILENCE_SAMPLES = 37
"""The silence after each copy is this much longer than the one before, so that no two copies have the same windows."""


def grow(
    systems: Sequence[System],
    samples: np.ndarray,
    source: Reference,
    lengths: Sequence[float],
    folder: Path,
    start: Callable[[System, Sequence[Path]], Run],
) -> list[dict[str, Any]]:
    """Measure time, memory, and accuracy for each length, each in a new process.

    Args:
        systems: The systems to run; systems that are another reading of a system's output are skipped.
        samples: The samples of the recording to repeat: float32, shape (samples,), 16 kHz.
        source: The reference of the recording.
        lengths: The lengths in minutes.
        folder: The folder that holds each long recording while it is needed.
        start: A function that runs a system.
    """
    rows: list[dict[str, Any]] = []
    for minutes in lengths:
        recording, turns = write_repeated(samples, source.turns, minutes, folder)
        reference = Reference(recording.stem, turns)
        for system in systems:
            if system.reading_of is None:
                run = start(system, [recording])
                rows.append({"minutes": minutes, "source": source.name} | _row(system, run, reference, minutes * 60))
        recording.unlink()
    return rows


def _row(system: System, run: Run, reference: Reference, duration: Seconds) -> dict[str, Any]:
    row: dict[str, Any] = {"system": system.name, "failure": run.failure, "peak_mb": run.peak_mb}
    row |= {"startup_s": run.startup, "others_cores": round(run.others, 2)}
    if output := run.outputs.get(reference.name):
        row |= {"wall_s": output.wall, "cpu_s": output.cpu, "stages_s": output.stages}
        if system.speakers:
            found = score(reference, to_hypothesis(output, None, duration))
            row |= {"der": found.der, "speakers": found.speakers, "found": found.found}
    return row


def write_repeated(
    samples: np.ndarray, turns: Sequence[Turn], minutes: float, out: Path
) -> tuple[Path, tuple[Turn, ...]]:
    """Write ``growth-MINUTES.wav``, which repeats the recording, and return its path and its turns.

    Args:
        samples: The samples of the recording: float32, shape (samples,), 16 kHz.
        turns: The turns of the recording.
        minutes: The total length; the last copy is truncated.
        out: The folder to write to.
    """
    total = round(minutes * 60 * SAMPLE_RATE)
    parts: list[np.ndarray] = []
    repeated: list[Turn] = []
    at = copies = 0
    while at < total:
        for turn in turns:
            start = at / SAMPLE_RATE + turn.span.start
            end = min(at / SAMPLE_RATE + turn.span.end, total / SAMPLE_RATE)
            if end - start >= 0.001:
                repeated.append(Turn(Span(start, end), turn.speaker))
        silence = np.zeros(
            round(PAUSE_S * SAMPLE_RATE) + copies * EXTRA_SILENCE_SAMPLES % SAMPLE_RATE, dtype=np.float32
        )
        whole = np.concatenate([samples, silence])[: total - at]
        parts.append(whole)
        at += len(whole)
        copies += 1
    path = out / f"growth-{minutes:g}.wav"
    write_wav(path, parts)
    return path, tuple(repeated)


def write_wav(path: Path, parts: list[np.ndarray]) -> None:
    """Write float32 arrays of shape (samples,) in -1..1, one after the other, as a 16-bit mono WAV file at 16 kHz."""
    with wave.open(str(path), "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(SAMPLE_RATE)
        for part in parts:
            file.writeframes((np.clip(part, -1, 1) * 32_767).round().astype("<i2").tobytes())
