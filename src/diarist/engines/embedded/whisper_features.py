"""Whisper's features as faster-whisper computes them, without using the threads of the linear algebra library.

That library divides large products among threads of its own, which then busy-wait for more work: on two cores they take
a seventh of the time of the whole recognition.
"""

from __future__ import annotations

import numpy as np
from faster_whisper.feature_extractor import FeatureExtractor
from numpy.typing import NDArray

from diarist.types import Samples

MAX_MULTIPLICATIONS = 2**18
"""OpenBLAS uses several threads for products with this number of multiplications or more."""


def log_mel(extractor: FeatureExtractor, samples: Samples) -> NDArray[np.float32]:
    """Return the logarithmic mel spectrum, (bands, samples / 160), of at least one frame."""
    window = np.hanning(extractor.n_fft + 1)[:-1].astype(np.float32)
    spectrum = extractor.stft(samples, extractor.n_fft, extractor.hop_length, window=window, return_complex=True)
    power = np.abs(spectrum[..., :-1].astype(np.complex64)) ** 2  # (frequencies, frames)
    frames = power.shape[1]
    step = frames_per_product(extractor.mel_filters)
    padded = np.pad(power.T, ((0, -frames % step), (0, 0)))
    groups = padded.reshape(-1, step, padded.shape[1]) @ extractor.mel_filters.T
    bands = groups.reshape(len(padded), -1)[:frames].T
    logarithm = np.log10(np.maximum(bands, 1e-10))
    scaled: NDArray[np.float32] = ((np.maximum(logarithm, logarithm.max() - 8.0) + 4.0) / 4.0).astype(np.float32)
    return np.ascontiguousarray(scaled)


def frames_per_product(filters: NDArray[np.float32]) -> int:
    """Return the number of frames to multiply at once with the mel filters, (bands, frequencies), in one thread."""
    return max(1, (MAX_MULTIPLICATIONS - 1) // filters.size)
