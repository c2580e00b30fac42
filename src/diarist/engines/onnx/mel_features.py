"""Log-mel features as NeMo computes them, in numpy: what exported models hear.

The settings, the window and the mel filters are those of the model, kept at export. Of NeMo's preprocessor this leaves
out what is of use in training alone (dither, narrow-band augmentation) and the padding of the last frames.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from diarist.errors import ModelCorrupt
from diarist.types import Audio, Samples, Seconds

Floats = NDArray[np.float32]
Normalization = Literal["per_feature", "none"]

ARRAYS = "features.npz"
"""The file beside an exported model that holds its window and mel filters."""

BLOCK_FRAMES = 6_000
"""A minute: bounds what the spectra of a long recording take."""

SPREAD_FLOOR = 1e-5
"""Added to a feature's standard deviation, as NeMo does: silence has none."""


@dataclass(frozen=True, slots=True)
class FeatureSettings:
    """The numbers of a mel spectrogram. The names are those of NeMo's preprocessor, units apart."""

    sample_rate: int
    mels: int
    n_fft: int
    window_samples: int
    hop_samples: int
    preemphasis: float
    """0 for none."""

    power: float
    """Of the magnitude: 2 for energies."""

    guard: Literal["add", "clamp"]
    """How the logarithm of 0 is avoided."""

    guard_value: float
    normalize: Normalization

    @property
    def hop(self) -> Seconds:
        return self.hop_samples / self.sample_rate


class MelFeatures:
    """Turns samples into log-mel features.

    Args:
        settings: what to compute.
        window: shape (window_samples,).
        filters: energy of each mel band from the spectrum, shape (mels, n_fft // 2 + 1).
    """

    def __init__(self, settings: FeatureSettings, window: Floats, filters: Floats) -> None:
        bins = settings.n_fft // 2 + 1
        if window.shape != (settings.window_samples,) or filters.shape != (settings.mels, bins):
            raise ValueError(f"window {window.shape} and filters {filters.shape} do not fit the settings")
        self.settings = settings
        before = (settings.n_fft - settings.window_samples) // 2  # centred, as torch.stft does
        self._window = np.zeros(settings.n_fft, dtype=np.float32)
        self._window[before : before + settings.window_samples] = window
        self._filters = np.ascontiguousarray(filters.T, dtype=np.float32)

    @classmethod
    def beside(cls, folder: Path, settings: FeatureSettings) -> MelFeatures:
        """Those of an exported model.

        Raises:
            ModelCorrupt: their file cannot be read, or does not fit the settings.
        """
        path = folder / ARRAYS
        try:
            with np.load(path) as arrays:
                return cls(settings, arrays["window"], arrays["filters"])
        except (OSError, ValueError, KeyError) as error:
            raise ModelCorrupt(
                f"{path} cannot be used ({error}): export the model again with `diarist models export`."
            ) from error

    def frames(self, samples: int) -> int:
        """How many frames so many samples have."""
        return samples // self.settings.hop_samples

    def raw(self, samples: Samples, first: int, stop: int) -> Floats:
        """Frames ``first`` to ``stop`` of the recording, not normalised: float32 (frames, mels).

        A frame is the same whichever others are asked for: what lies outside the recording is silence, and what lies
        outside the asked frames is heard.
        """
        s = self.settings
        if stop <= first:
            return np.zeros((0, s.mels), dtype=np.float32)
        start, end = first * s.hop_samples - s.n_fft // 2, (stop - 1) * s.hop_samples + s.n_fft // 2
        piece = Audio(samples).part(start, end)
        if s.preemphasis:
            before = samples[start - 1] if start > 0 else np.float32(0.0)
            piece = piece - np.float32(s.preemphasis) * np.concatenate([[before], piece[:-1]]).astype(np.float32)
        piece = np.pad(piece, (max(-start, 0), max(end - max(len(samples), start), 0)))
        blocks: list[Floats] = []
        for at in range(0, stop - first, BLOCK_FRAMES):
            rows = min(BLOCK_FRAMES, stop - first - at)
            part = piece[at * s.hop_samples : (at + rows - 1) * s.hop_samples + s.n_fft]
            strided = np.lib.stride_tricks.sliding_window_view(part, s.n_fft)[:: s.hop_samples]  # (rows, n_fft)
            magnitude = np.abs(np.fft.rfft(strided * self._window, axis=1))
            energy = (magnitude**s.power).astype(np.float32) @ self._filters  # (rows, mels)
            guarded = energy + s.guard_value if s.guard == "add" else np.maximum(energy, s.guard_value)
            blocks.append(np.log(guarded, dtype=np.float32))
        return np.concatenate(blocks)

    def of(self, samples: Samples) -> Floats:
        """All frames of a few seconds, normalised as the model wants them: float32 (frames, mels)."""
        features = self.raw(samples, 0, self.frames(len(samples)))
        mean, distribute = self._statistics([features], len(features))
        return (features - mean) / distribute

    def statistics(self, samples: Samples) -> tuple[Floats, Floats]:
        """The mean and spread to normalise a recording's frames by, each float32 (mels,): 0 and 1 for no change."""
        frames = self.frames(len(samples))
        edges = [(at, min(at + BLOCK_FRAMES, frames)) for at in range(0, frames, BLOCK_FRAMES)]
        return self._statistics(_Again(lambda: (self.raw(samples, *edge) for edge in edges)), frames)

    def _statistics(self, blocks: Iterable[Floats], frames: int) -> tuple[Floats, Floats]:
        """As NeMo has them; ``blocks`` is gone through twice."""
        mels = self.settings.mels
        if self.settings.normalize == "none" or frames == 0:
            return np.zeros(mels, dtype=np.float32), np.ones(mels, dtype=np.float32)
        mean = sum(block.sum(axis=0, dtype=np.float64) for block in blocks) / frames
        squares = sum(((block - mean) ** 2).sum(axis=0) for block in blocks)
        distribute = np.sqrt(squares / max(frames - 1, 1)) + SPREAD_FLOOR
        return np.asarray(mean, dtype=np.float32), np.asarray(distribute, dtype=np.float32)


class _Again(Iterable[Floats]):
    """What can be gone through again, because it is made anew each time."""

    def __init__(self, make: Callable[[], Iterator[Floats]]) -> None:
        self._make = make

    def __iter__(self) -> Iterator[Floats]:
        return self._make()
