"""The parameters of the mel spectrograms that NeMo's models expect."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from diarist.types import Seconds

Normalization = Literal["per_feature", "none"]

ARRAYS = "features.npz"
"""The file beside the graphs of a model that contains its window and its mel filters."""


@dataclass(frozen=True, slots=True)
class FeatureSettings:
    """The parameters of a mel spectrogram. Apart from units, the names are those of NeMo's preprocessor."""

    sample_rate: int
    mels: int
    n_fft: int
    window_samples: int
    hop_samples: int
    preemphasis: float
    """The preemphasis coefficient; 0 for none."""

    power: float
    """The exponent of the magnitude: 2 for energies."""

    guard: Literal["add", "clamp"]
    """How a logarithm of 0 is avoided."""

    guard_value: float
    normalize: Normalization

    @property
    def hop(self) -> Seconds:
        return self.hop_samples / self.sample_rate
