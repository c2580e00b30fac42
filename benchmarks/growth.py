"""How time and memory grow: one recording over and over, with its reference, until it is as long as wanted."""

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
from systems import System, answer

PAUSE_S: Seconds = 0.5
ODD_SAMPLES = 37
"""Each copy is followed by so much more silence than the one before, so that no two are cut into the same windows."""


def grow(
    systems: Sequence[System],
    samples: np.ndarray,
    source: Reference,
    lengths: Sequence[float],
    folder: Path,
    start: Callable[[System, Sequence[Path]], Run],
) -> list[dict[str, Any]]:
    """Time, memory and accuracy by length, each in a fresh process.

    Args:
        systems: other readings of what a system finds are passed over.
        samples: of the recording to repeat: float32, shape (samples,), 16 kHz.
        source: its reference.
        lengths: in minutes.
        folder: where the long recordings lie for as long as they are needed.
        start: runs a system.
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
            found = score(reference, answer(output, None, duration))
            row |= {"der": found.der, "speakers": found.speakers, "found": found.found}
    return row


def write_repeated(
    samples: np.ndarray, turns: Sequence[Turn], minutes: float, out: Path
) -> tuple[Path, tuple[Turn, ...]]:
    """Write ``growth-MINUTES.wav``: the recording again and again until it is ``minutes`` long; it, and its turns.

    Args:
        samples: float32, shape (samples,), 16 kHz.
        turns: who speaks when in it.
        minutes: of the whole; the last copy is cut.
        out: folder.
    """
    total = round(minutes * 60 * SAMPLE_RATE)
    pieces: list[np.ndarray] = []
    repeated: list[Turn] = []
    at = copies = 0
    while at < total:
        for turn in turns:
            start = at / SAMPLE_RATE + turn.span.start
            end = min(at / SAMPLE_RATE + turn.span.end, total / SAMPLE_RATE)
            if end - start >= 0.001:
                repeated.append(Turn(Span(start, end), turn.speaker))
        silence = np.zeros(round(PAUSE_S * SAMPLE_RATE) + copies * ODD_SAMPLES % SAMPLE_RATE, dtype=np.float32)
        whole = np.concatenate([samples, silence])[: total - at]
        pieces.append(whole)
        at += len(whole)
        copies += 1
    path = out / f"growth-{minutes:g}.wav"
    write_wav(path, pieces)
    return path, tuple(repeated)


def write_wav(path: Path, pieces: list[np.ndarray]) -> None:
    """Float32 samples of shape (samples,) in -1..1, one piece after the other, as 16 kHz mono of 16 bit."""
    with wave.open(str(path), "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(SAMPLE_RATE)
        for piece in pieces:
            file.writeframes((np.clip(piece, -1, 1) * 32_767).round().astype("<i2").tobytes())
