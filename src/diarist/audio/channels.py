"""Down-mixing of channels, and detection of duplicate channels."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

from diarist.audio.surround import LowFrequencyChannels, mix_weights
from diarist.types import SAMPLE_RATE, Audio, Samples

_CANCELLATION_ENERGY = 0.1
"""The minimum energy of the mean, relative to that of uncorrelated channels. Two channels of equal level have less if
their correlation is below -0.9: they cancel."""

_DUPLICATE_RESIDUAL = 1e-2
"""The maximum energy per second of the difference of two duplicate channels, relative to the energy of the louder one
(-20 dB). Any voice has more."""

_DUPLICATE_NOISE_FLOOR = 1e-6
"""The mean square below which a difference is noise (-60 dB of full scale)."""


class DownMix:
    """Mixes channels to their mean, or uses the loudest if they cancel, as in stereo with one inverted side.

    Of surround sound, the mean is weighted: the center counts most, and what contains only low frequencies is left out.
    The decision is made for each block, so that a recording that cancels only in part keeps all of its voices.
    """

    def __init__(self) -> None:
        self._energy: NDArray[np.float64] = np.zeros(0)
        self._low_frequency = LowFrequencyChannels()
        self.canceled_samples = 0
        """The number of samples for which a single channel was used."""

    def mix(self, block: NDArray[np.float32], positions: Sequence[str] = ()) -> Samples:
        """Return the mix, shape (samples,), of a block of shape (samples, channels) with values in -1..1.

        ``positions`` are the positions of the channels in surround sound; without them all channels count the same.
        """
        channels = block.shape[1]
        if channels == 1:
            return block[:, 0]
        weights = mix_weights(positions, channels, self._low_frequency.find(block, positions))
        mean: Samples = block @ weights
        energy = np.einsum("sc,sc->c", block, block).astype(np.float64) * np.square(weights, dtype=np.float64)
        self._energy = energy if len(self._energy) != channels else self._energy + energy
        if float(mean @ mean) >= _CANCELLATION_ENERGY * float(energy.sum()):
            return mean
        self.canceled_samples += len(block)
        # The loudest channel so far, not of this block: the choice must not alternate between inverted channels of
        # equal level.
        loudest: Samples = block[:, int(self._energy.argmax())]
        return loudest


def is_duplicate(first: Audio, second: Audio) -> bool:
    """Return whether two channels contain the same sound, at any level and polarity (dual mono)."""
    if len(first.samples) != len(second.samples):
        return False
    energy, second_energy = _dot(first, first), _dot(second, second)
    if not (energy and second_energy):
        return energy == second_energy
    gain = _dot(first, second) / energy
    for a, b in zip(_seconds(first), _seconds(second), strict=True):
        residual = b - np.float32(gain) * a
        # The residual is scaled to the level of the louder channel. Otherwise a quiet copy would hide what only the
        # louder one contains.
        scale = max(1.0, 1.0 / (gain * gain)) if gain else np.inf
        if scale * float(residual @ residual) > _DUPLICATE_RESIDUAL * max(
            float(a @ a), float(b @ b)
        ) + _DUPLICATE_NOISE_FLOOR * len(a):
            return False
    return True


def drop_duplicate_channels(channels: Sequence[Audio]) -> tuple[Audio, ...]:
    """Return the channels in order, with the loudest of each group of duplicates in place of the first."""
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
    """Yield the samples in blocks of one second."""
    return (audio.part(start, start + SAMPLE_RATE) for start in range(0, len(audio.samples), SAMPLE_RATE))
