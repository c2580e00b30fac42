"""The mel filters and the window of NeMo's preprocessor, for models that are published without them.

The filters are those of ``librosa.filters.mel`` with ``htk=False`` and ``norm="slaney"``, which NeMo uses: the mel
scale of Malcolm Slaney's Auditory Toolbox (1998), with triangles of equal area.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from diarist.models.feature_settings import FeatureSettings

Floats = NDArray[np.float32]

HZ_PER_MEL = 200.0 / 3
"""The scale is linear below ``BREAK_HZ``."""

BREAK_HZ = 1_000.0
LOG_STEP = np.log(6.4) / 27.0
"""The natural logarithm of the ratio of two frequencies that are one mel apart, above ``BREAK_HZ``."""


def slaney_filters(settings: FeatureSettings) -> Floats:
    """Return the filters from 0 Hz to half of the sampling rate, float32 (mels, n_fft // 2 + 1)."""
    nyquist = settings.sample_rate / 2
    bins = np.linspace(0.0, nyquist, settings.n_fft // 2 + 1)
    edges = _hz(np.linspace(0.0, _mels(nyquist), settings.mels + 2))
    widths = np.diff(edges)
    distances = edges[:, None] - bins  # (mels + 2, bins)
    rising, falling = -distances[:-2] / widths[:-1, None], distances[2:] / widths[1:, None]
    triangles = np.maximum(0.0, np.minimum(rising, falling))
    filters: Floats = (triangles * (2.0 / (edges[2:] - edges[:-2]))[:, None]).astype(np.float32)
    return filters


def hann_window(settings: FeatureSettings) -> Floats:
    """Return the symmetric Hann window, float32 (window_samples,)."""
    window: Floats = np.hanning(settings.window_samples).astype(np.float32)
    return window


def _mels(hz: float) -> float:
    return hz / HZ_PER_MEL if hz < BREAK_HZ else BREAK_HZ / HZ_PER_MEL + float(np.log(hz / BREAK_HZ) / LOG_STEP)


def _hz(mels: NDArray[np.float64]) -> NDArray[np.float64]:
    above = mels - BREAK_HZ / HZ_PER_MEL
    return np.where(above < 0, mels * HZ_PER_MEL, BREAK_HZ * np.exp(LOG_STEP * above))
