"""Several channels to one, and channels that say the same."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

from diarist.types import SAMPLE_RATE, Audio, Samples

_CANCELS = 0.1
"""Two channels of equal level cancel when their correlation is below -0.9: the mean then has this part of the energy
that independent channels would leave in it."""

_SAME_RESIDUAL = 1e-2
"""What one channel may hold that the other does not, of its energy (-20 dB), second by second: less than any voice."""

_SAME_FLOOR = 1e-6
"""Mean square below which a difference is noise (-60 dB of full scale)."""


class DownMix:
    """The mean of the channels; where they cancel, as in stereo with one side inverted, the loudest instead.

    Decided block by block, so that a recording which cancels only in part keeps all of its voices.
    """

    def __init__(self) -> None:
        self._energy: NDArray[np.float64] = np.zeros(0)
        self.cancelled_samples = 0
        """How many samples of the recording were taken from one channel."""

    def mix(self, block: NDArray[np.float32]) -> Samples:
        """Shape (samples, channels) in -1..1 to shape (samples,)."""
        channels = block.shape[1]
        if channels == 1:
            return block[:, 0]
        mean: Samples = block.mean(axis=1, dtype=np.float32)
        energy = np.einsum("sc,sc->c", block, block).astype(np.float64)
        self._energy = energy if len(self._energy) != channels else self._energy + energy
        if float(mean @ mean) >= _CANCELS * float(energy.sum()) / channels**2:
            return mean
        self.cancelled_samples += len(block)
        # The loudest so far, not the loudest of this block: inverted twins of equal level must not take turns.
        loudest: Samples = block[:, int(self._energy.argmax())]
        return loudest


def same_content(one: Audio, other: Audio) -> bool:
    """Whether two channels hold the same sound, at any level and polarity (dual mono)."""
    if len(one.samples) != len(other.samples):
        return False
    energy, other_energy = _dot(one, one), _dot(other, other)
    if not (energy and other_energy):
        return energy == other_energy
    gain = _dot(one, other) / energy
    for a, b in zip(_seconds(one), _seconds(other), strict=True):
        residual = b - np.float32(gain) * a
        # Seen at the level of the louder channel, or a quiet copy would hide what the louder one holds beside it.
        scale = max(1.0, 1.0 / (gain * gain)) if gain else np.inf
        if scale * float(residual @ residual) > _SAME_RESIDUAL * max(float(a @ a), float(b @ b)) + _SAME_FLOOR * len(a):
            return False
    return True


def distinct(channels: Sequence[Audio]) -> tuple[Audio, ...]:
    """The channels in order, where several hold the same the loudest of them, in the place of the first."""
    kept: list[Audio] = []
    for channel in channels:
        place = next((i for i, earlier in enumerate(kept) if same_content(earlier, channel)), None)
        if place is None:
            kept.append(channel)
        elif _dot(channel, channel) > _dot(kept[place], kept[place]):
            kept[place] = channel
    return tuple(kept)


def _dot(one: Audio, other: Audio) -> float:
    return sum(float(a @ b) for a, b in zip(_seconds(one), _seconds(other), strict=True))


def _seconds(audio: Audio) -> Iterator[Samples]:
    """Second by second."""
    return (audio.part(first, first + SAMPLE_RATE) for first in range(0, len(audio.samples), SAMPLE_RATE))
