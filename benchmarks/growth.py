"""Recordings of any length, to see how time and memory grow: one recording over and over, with its reference."""

from __future__ import annotations

import wave
from pathlib import Path

import numpy as np

from diarist.formats import rttm
from diarist.types import SAMPLE_RATE, Seconds

PAUSE_S: Seconds = 0.5
ODD_SAMPLES = 37
"""Each copy is followed by so much more silence than the one before, so that no two are cut into the same windows."""


def write_wav(path: Path, pieces: list[np.ndarray]) -> None:
    """Float32 samples of shape (samples,) in -1..1, one piece after the other, as 16 kHz mono of 16 bit."""
    with wave.open(str(path), "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(SAMPLE_RATE)
        for piece in pieces:
            file.writeframes((np.clip(piece, -1, 1) * 32_767).round().astype("<i2").tobytes())


def stretch(samples: np.ndarray, reference: str, minutes: float, out: Path) -> Path:
    """Write ``growth-MINUTES.wav`` and its RTTM: the recording again and again until it is ``minutes`` long.

    Args:
        samples: float32, shape (samples,), 16 kHz.
        reference: its RTTM.
        minutes: of the whole; the last copy is cut.
        out: folder.
    """
    total = round(minutes * 60 * SAMPLE_RATE)
    name = f"growth-{minutes:g}"
    turns = rttm.parse(reference)
    pieces: list[np.ndarray] = []
    lines: list[str] = []
    at = copies = 0
    while at < total:
        for turn in turns:
            start = at / SAMPLE_RATE + turn.span.start
            end = min(at / SAMPLE_RATE + turn.span.end, total / SAMPLE_RATE)
            if end - start >= 0.001:
                lines.append(f"SPEAKER {name} 1 {start:.3f} {end - start:.3f} <NA> <NA> {turn.speaker} <NA> <NA>\n")
        silence = np.zeros(round(PAUSE_S * SAMPLE_RATE) + copies * ODD_SAMPLES % SAMPLE_RATE, dtype=np.float32)
        whole = np.concatenate([samples, silence])[: total - at]
        pieces.append(whole)
        at += len(whole)
        copies += 1
    path = out / f"{name}.wav"
    write_wav(path, pieces)
    path.with_suffix(".rttm").write_text("".join(lines))
    return path
