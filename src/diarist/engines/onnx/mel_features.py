"""Log-mel features as NeMo computes them, in numpy: the input of exported models.

The settings, the window and the mel filters are those of the model; the export stores them. The parts of NeMo's
preprocessor that are used only in training (dither, narrow-band augmentation) and the padding of the last frames are
left out.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from zipfile import BadZipFile

import numpy as np
from numpy.typing import NDArray

from diarist.errors import ModelCorrupt
from diarist.models.feature_settings import ARRAYS, FeatureSettings
from diarist.types import Audio, Samples

Floats = NDArray[np.float32]

BLOCK_FRAMES = 6_000
"""One minute: limits the memory of the spectra of a long recording."""

STD_EPSILON = 1e-5
"""A constant that is added to a feature's standard deviation, as in NeMo: that of silence is zero."""


class MelFeatures:
    """Computes log-mel features of samples.

    Args:
        settings: The parameters of the spectrogram.
        window: The window function, (window_samples,).
        filters: The mel filters, (mels, n_fft // 2 + 1).
    """

    def __init__(self, settings: FeatureSettings, window: Floats, filters: Floats) -> None:
        bins = settings.n_fft // 2 + 1
        if window.shape != (settings.window_samples,) or filters.shape != (settings.mels, bins):
            raise ValueError(f"window {window.shape} and filters {filters.shape} do not fit the settings")
        self.settings = settings
        before = (settings.n_fft - settings.window_samples) // 2  # centered, as in torch.stft
        self._window = np.zeros(settings.n_fft, dtype=np.float32)
        self._window[before : before + settings.window_samples] = window
        self._filters = np.ascontiguousarray(filters.T, dtype=np.float32)

    @classmethod
    def load(cls, folder: Path, settings: FeatureSettings) -> MelFeatures:
        """Load the window and the filters that are stored beside a model.

        Raises:
            ModelCorrupt: Their file cannot be read, or does not fit the settings.
        """
        path = folder / ARRAYS
        try:
            with np.load(path) as arrays:
                return cls(settings, arrays["window"], arrays["filters"])
        except (OSError, ValueError, KeyError, EOFError, BadZipFile) as error:
            raise ModelCorrupt(
                f"{path} cannot be used ({error}). Export the model again with `diarist models export`."
            ) from error

    def frames(self, samples: int) -> int:
        """Return the number of frames of this number of samples."""
        return samples // self.settings.hop_samples

    def raw(self, samples: Samples, first: int, stop: int) -> Floats:
        """Return frames ``first`` to before ``stop`` of the recording without normalization, float32 (frames, mels).

        A frame does not depend on which others are requested: samples outside the requested frames are used, and those
        outside the recording are zero.
        """
        s = self.settings
        if stop <= first:
            return np.zeros((0, s.mels), dtype=np.float32)
        start, end = first * s.hop_samples - s.n_fft // 2, (stop - 1) * s.hop_samples + s.n_fft // 2
        part = Audio(samples).part(start, end)
        if s.preemphasis:
            before = samples[start - 1] if start > 0 else np.float32(0.0)
            part = part - np.float32(s.preemphasis) * np.concatenate([[before], part[:-1]]).astype(np.float32)
        part = np.pad(part, (max(-start, 0), max(end - max(len(samples), start), 0)))
        blocks: list[Floats] = []
        for at in range(0, stop - first, BLOCK_FRAMES):
            rows = min(BLOCK_FRAMES, stop - first - at)
            block = part[at * s.hop_samples : (at + rows - 1) * s.hop_samples + s.n_fft]
            strided = np.lib.stride_tricks.sliding_window_view(block, s.n_fft)[:: s.hop_samples]  # (rows, n_fft)
            magnitude = np.abs(np.fft.rfft(strided * self._window, axis=1))
            energy = (magnitude**s.power).astype(np.float32) @ self._filters  # (rows, mels)
            guarded = energy + s.guard_value if s.guard == "add" else np.maximum(energy, s.guard_value)
            blocks.append(np.log(guarded, dtype=np.float32))
        return np.concatenate(blocks)

    def normalized(self, samples: Samples) -> Floats:
        """Return all frames of a few seconds, normalized as the model requires: float32 (frames, mels)."""
        features = self.raw(samples, 0, self.frames(len(samples)))
        mean, std = self._statistics([features], len(features))
        return (features - mean) / std

    def statistics(self, samples: Samples) -> tuple[Floats, Floats]:
        """Return the mean and standard deviation for normalizing a recording's frames, each float32 (mels,).

        They are 0 and 1 if the model does not normalize.
        """
        frames = self.frames(len(samples))
        edges = [(at, min(at + BLOCK_FRAMES, frames)) for at in range(0, frames, BLOCK_FRAMES)]
        return self._statistics(_Reiterable(lambda: (self.raw(samples, *edge) for edge in edges)), frames)

    def _statistics(self, blocks: Iterable[Floats], frames: int) -> tuple[Floats, Floats]:
        """Return the mean and standard deviation as NeMo computes them; ``blocks`` is iterated twice."""
        mels = self.settings.mels
        if self.settings.normalize == "none" or frames == 0:
            return np.zeros(mels, dtype=np.float32), np.ones(mels, dtype=np.float32)
        mean = sum(block.sum(axis=0, dtype=np.float64) for block in blocks) / frames
        squares = sum(((block - mean) ** 2).sum(axis=0) for block in blocks)
        std = np.sqrt(squares / max(frames - 1, 1)) + STD_EPSILON
        return np.asarray(mean, dtype=np.float32), np.asarray(std, dtype=np.float32)


class _Reiterable(Iterable[Floats]):
    """An iterable that calls a function for a new iterator each time."""

    def __init__(self, make: Callable[[], Iterator[Floats]]) -> None:
        self._make = make

    def __iter__(self) -> Iterator[Floats]:
        return self._make()
