"""A growing row of samples that never holds two copies of itself."""

from __future__ import annotations

import numpy as np

from diarist.types import SAMPLE_RATE, Samples

_LEAST_SAMPLES = 60 * SAMPLE_RATE


class SampleBuffer:
    """Mono float32 samples, appended block by block.

    Growing and trimming resize in place: for large rows the C library moves pages, it does not copy them, so an hour
    (230 MB) costs 230 MB. Untouched room costs address space alone.
    """

    def __init__(self, room_samples: int = 0) -> None:
        self._data: Samples = np.empty(max(room_samples, _LEAST_SAMPLES), dtype=np.float32)
        self._length = 0

    def __len__(self) -> int:
        return self._length

    def append(self, samples: Samples) -> None:
        """Add samples of shape (samples,)."""
        self._room(len(samples))
        self._data[self._length : self._length + len(samples)] = samples
        self._length += len(samples)

    def append_silence(self, samples: int) -> None:
        self._room(samples)
        self._data[self._length : self._length + samples] = 0.0
        self._length += samples

    def take(self) -> Samples:
        """All samples, shape (samples,); the buffer is empty afterwards."""
        data, length = self._data, self._length
        self._data, self._length = np.empty(0, dtype=np.float32), 0
        data.resize(length, refcheck=False)
        return data

    def _room(self, samples: int) -> None:
        if self._length + samples > len(self._data):
            grown = max(self._length + samples, len(self._data) * 5 // 4, _LEAST_SAMPLES)
            # No view of the row is ever handed out before it is complete, so none can dangle.
            self._data.resize(grown, refcheck=False)
