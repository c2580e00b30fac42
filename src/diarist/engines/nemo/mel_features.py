"""Features of any stretch of a recording, the same as if those of the whole were computed at once."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import torch

from diarist.engines.nemo.device import Runtime
from diarist.types import Audio, Samples

STD_FLOOR = 1e-5
"""Added to every standard deviation, as NeMo's normalisation does."""

BLOCK_FRAMES = 6_000
"""A minute: what is computed at once where the whole recording has to be heard for its mean."""


class MelReader:
    """Reads the features of a NeMo preprocessor in blocks, so that hours take no more memory than minutes.

    Each block is computed with the samples around it that its windows touch. A normalisation over the recording is
    taken out of the preprocessor, which from then on gives plain features, and done here in two passes.
    """

    def __init__(self, preprocessor: Any, runtime: Runtime) -> None:
        featurizer = preprocessor.featurizer
        self._preprocessor = preprocessor
        self._runtime = runtime
        self._hop: int = featurizer.hop_length
        # half a window on either side, a sample for pre-emphasis, in whole frames
        self._margin = math.ceil((featurizer.n_fft // 2 + 1) / self._hop) + 1
        self._normalize = featurizer.normalize if featurizer.normalize in ("per_feature", "all_features") else None
        if self._normalize:
            featurizer.normalize = "NA"

    def frames(self, samples: Samples) -> int:
        """How many features a recording has."""
        length = torch.tensor([len(samples)])
        return max(0, int(self._preprocessor.featurizer.get_seq_len(length)))

    def read(self, samples: Samples, first: int, stop: int) -> torch.Tensor:
        """Plain features ``first`` to ``stop``: float32 (1, features, stop - first)."""
        lead = min(self._margin, first)
        part = Audio(samples).part((first - lead) * self._hop, (stop + self._margin) * self._hop)
        signal = self._runtime.tensor(np.array(part))[None]
        length = torch.tensor([len(part)], device=signal.device)
        features, _ = self._preprocessor(input_signal=signal, length=length)
        return features[:, :, lead : lead + stop - first]

    def normaliser(self, samples: Samples) -> Callable[[torch.Tensor], torch.Tensor]:
        """What makes of plain features of this recording what the model wants: (1, features, frames) both."""
        frames = self.frames(samples)
        if self._normalize is None or frames == 0:
            return _as_they_are
        total = squares = torch.zeros(1, dtype=torch.float64, device=self._runtime.device)
        for first in range(0, frames, BLOCK_FRAMES):
            block = self.read(samples, first, min(first + BLOCK_FRAMES, frames)).double()
            total = total + block.sum(dim=2, keepdim=True)
            squares = squares + block.square().sum(dim=2, keepdim=True)
        if self._normalize == "all_features":
            frames *= total.shape[1]
            total, squares = total.sum(dim=1, keepdim=True), squares.sum(dim=1, keepdim=True)
        mean = total / frames
        variance = (squares - total * mean).clamp(min=0.0) / max(frames - 1, 1)
        center, deviation = mean.float(), variance.sqrt().float() + STD_FLOOR
        return lambda features: (features - center) / deviation


def _as_they_are(features: torch.Tensor) -> torch.Tensor:
    return features
