"""Several channels to one, and channels that say the same."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

from diarist.types import SAMPLE_RATE, Audio, Samples

_CANCELLATION_ENERGY = 0.1
"""Two channels of equal level cancel when their correlation is below -0.9: the mean then has this part of the energy
that independent channels would leave in it."""

_DUPLICATE_RESIDUAL = 1e-2
"""What one channel may hold that the other does not, of its energy (-20 dB), second by second: less than any voice."""

_DUPLICATE_NOISE_FLOOR = 1e-6
"""Mean square below which a difference is noise (-60 dB of full scale)."""


class DownMix:
    """The mean of the channels; where they cancel, as in stereo with one side inverted, the loudest instead.

    Decided block by block, so that a recording which cancels only in part keeps all of its voices.
    """

    def __init__(self) -> None:
        self._energy: NDArray[np.float64] = np.zeros(0)
        self.canceled_samples = 0
        """How many samples of the recording were taken from one channel."""

    def mix(self, block: NDArray[np.float32]) -> Samples:
        """Shape (samples, channels) in -1..1 to shape (samples,)."""
        channels = block.shape[1]
        if channels == 1:
            return block[:, 0]
        mean: Samples = block.mean(axis=1, dtype=np.float32)
        energy = np.einsum("sc,sc->c", block, block).astype(np.float64)
        self._energy = energy if len(self._energy) != channels else self._energy + energy
        if float(mean @ mean) >= _CANCELLATION_ENERGY * float(energy.sum()) / channels**2:
            return mean
        self.canceled_samples += len(block)
        # The loudest so far, not the loudest of this block: inverted twins of equal level must not take turns.
        loudest: Samples = block[:, int(self._energy.argmax())]
        return loudest


def is_duplicate(first: Audio, second: Audio) -> bool:
    """Whether two channels hold the same sound, at any level and polarity (dual mono)."""
    if len(first.samples) != len(second.samples):
        return False
    energy, second_energy = _dot(first, first), _dot(second, second)
    if not (energy and second_energy):
        return energy == second_energy
    gain = _dot(first, second) / energy
    for a, b in zip(_seconds(first), _seconds(second), strict=True):
        residual = b - np.float32(gain) * a
        # Seen at the level of the louder channel, or a quiet copy would hide what the louder one holds beside it.
        scale = max(1.0, 1.0 / (gain * gain)) if gain else np.inf
        if scale * float(residual @ residual) > _DUPLICATE_RESIDUAL * max(
            float(a @ a), float(b @ b)
        ) + _DUPLICATE_NOISE_FLOOR * len(a):
            return False
    return True


def drop_duplicate_channels(channels: Sequence[Audio]) -> tuple[Audio, ...]:
    """The channels in order, where several hold the same the loudest of them, in the place of the first."""
    kept: list[Audio] = []
    for channel in channels:
        index = next((i for i, earlier in enumerate(kept) if is_duplicate(earlier, channel)), None)
        if index is None:
            kept.append(channel)
        elif _dot(channel, channel) > _dot(kept[index], kept[index]):
            kept[index] = channel
    return tuple(kept)


def _dot(first: Audio, second: Audio) -> float:
    return sum(float(a @ b) for a, b in zip(_seconds(first), _seconds(second), strict=True))


def _seconds(audio: Audio) -> Iterator[Samples]:
    """Second by second."""
    return (audio.part(start, start + SAMPLE_RATE) for start in range(0, len(audio.samples), SAMPLE_RATE))
