"""NeMo's features of any part of a recording, identical to those computed from the whole recording at once."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import torch

from diarist.engines.nemo.device import Runtime
from diarist.types import Audio, Samples

STD_FLOOR = 1e-5
"""The value that NeMo's normalization adds to every standard deviation."""

BLOCK_FRAMES = 6_000
"""The number of frames, one minute, that are computed at once for the mean over the whole recording."""


class MelReader:
    """Computes the features of a NeMo preprocessor in blocks, so that hours need no more memory than minutes.

    Each block is computed with the surrounding samples that its windows overlap. If the preprocessor normalizes over
    the recording, that normalization is switched off in the preprocessor and done here in two passes.
    """

    def __init__(self, preprocessor: Any, runtime: Runtime) -> None:
        featurizer = preprocessor.featurizer
        self._preprocessor = preprocessor
        self._runtime = runtime
        self._hop: int = featurizer.hop_length
        # half a window on either side and one sample for pre-emphasis, in frames
        self._margin = math.ceil((featurizer.n_fft // 2 + 1) / self._hop) + 1
        self._normalize = featurizer.normalize if featurizer.normalize in ("per_feature", "all_features") else None
        if self._normalize:
            featurizer.normalize = "NA"

    def frame_count(self, samples: Samples) -> int:
        """Return the number of frames of a recording."""
        length = torch.tensor([len(samples)])
        return max(0, int(self._preprocessor.featurizer.get_seq_len(length)))

    def read(self, samples: Samples, first: int, stop: int) -> torch.Tensor:
        """Return the features of frames ``first`` to ``stop`` before normalization: (1, features, stop - first)."""
        left_context = min(self._margin, first)
        excerpt = Audio(samples).part((first - left_context) * self._hop, (stop + self._margin) * self._hop)
        signal = self._runtime.tensor(np.array(excerpt))[None]
        length = torch.tensor([len(excerpt)], device=signal.device)
        features, _ = self._preprocessor(input_signal=signal, length=length)
        return features[:, :, left_context : left_context + stop - first]

    def normalizer(self, samples: Samples) -> Callable[[torch.Tensor], torch.Tensor]:
        """Return a function that normalizes features of this recording; its input and output: (1, features, frames)."""
        frame_count = self.frame_count(samples)
        if self._normalize is None or frame_count == 0:
            return _identity
        sums = squares = torch.zeros(1, dtype=torch.float64, device=self._runtime.device)
        for first in range(0, frame_count, BLOCK_FRAMES):
            block = self.read(samples, first, min(first + BLOCK_FRAMES, frame_count)).double()
            sums = sums + block.sum(dim=2, keepdim=True)
            squares = squares + block.square().sum(dim=2, keepdim=True)
        if self._normalize == "all_features":
            frame_count *= sums.shape[1]
            sums, squares = sums.sum(dim=1, keepdim=True), squares.sum(dim=1, keepdim=True)
        mean = sums / frame_count
        variance = (squares - sums * mean).clamp(min=0.0) / max(frame_count - 1, 1)
        center, deviation = mean.float(), variance.sqrt().float() + STD_FLOOR
        return lambda features: (features - center) / deviation


def _identity(features: torch.Tensor) -> torch.Tensor:
    return features
